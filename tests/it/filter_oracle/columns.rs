//! The table the oracle fills: every type a filter knows, and some it must refuse.

use std::time::Duration;

use rowcast::change::{Collation, Column, Table};
use tokio_postgres::Client;

/// What values of a column look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Bool,
    Int(i64, i64),
    Numeric,
    /// `numeric(7,2)`.
    Scaled,
    Float4,
    Float8,
    /// Text of at most so many characters.
    Text(usize),
    Uuid,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Bytea,
    Enum,
    /// Some value of a type that is only tested for null.
    OneOf(&'static [&'static str]),
}

pub(super) struct Spec {
    pub(super) name: &'static str,
    /// As in `create table`, collation included.
    declared: &'static str,
    /// The type a literal is read as, or `None` where there is nothing to compare.
    literal: Option<&'static str>,
    pub(super) shape: Shape,
}

pub(super) struct World {
    pub(super) table: Table,
    pub(super) specs: &'static [Spec],
}

const fn spec(name: &'static str, declared: &'static str, literal: Option<&'static str>, shape: Shape) -> Spec {
    Spec { name, declared, literal, shape }
}

const SPECS: &[Spec] = &[
    spec("b", "bool", Some("bool"), Shape::Bool),
    spec("i2", "int2", Some("int2"), Shape::Int(i16::MIN as i64, i16::MAX as i64)),
    spec("i4", "int4", Some("int4"), Shape::Int(i32::MIN as i64, i32::MAX as i64)),
    spec("i8", "int8", Some("int8"), Shape::Int(i64::MIN, i64::MAX)),
    spec("o", "oid", Some("oid"), Shape::Int(0, u32::MAX as i64)),
    spec("n", "numeric", Some("numeric"), Shape::Numeric),
    spec("n72", "numeric(7,2)", Some("numeric"), Shape::Scaled),
    spec("f4", "float4", Some("float4"), Shape::Float4),
    spec("f8", "float8", Some("float8"), Shape::Float8),
    spec("t", "text", Some("text"), Shape::Text(8)),
    spec("tc", "text collate \"C\"", Some("text"), Shape::Text(8)),
    spec("tl", "text collate \"C\"", Some("text"), Shape::Text(90)),
    spec("ti", "text collate \"en-x-icu\"", Some("text"), Shape::Text(8)),
    spec("tn", "text collate filter_oracle.nocase", None, Shape::Text(4)),
    spec("tx", "text collate filter_oracle.split", Some("text"), Shape::Text(8)),
    spec("v", "varchar", Some("text"), Shape::Text(8)),
    spec("v3", "varchar(3) collate \"POSIX\"", Some("text"), Shape::Text(3)),
    spec("c5", "char(5) collate \"C\"", Some("bpchar"), Shape::Text(5)),
    spec("c3", "char(3)", Some("bpchar"), Shape::Text(3)),
    spec("cv", "bpchar collate \"C\"", Some("bpchar"), Shape::Text(6)),
    spec("nm", "name", Some("text"), Shape::Text(8)),
    spec("u", "uuid", Some("uuid"), Shape::Uuid),
    spec("d", "date", Some("date"), Shape::Date),
    spec("tm", "time", Some("time"), Shape::Time),
    spec("ts", "timestamp", Some("timestamp"), Shape::Timestamp),
    spec("ts2", "timestamp(2)", Some("timestamp"), Shape::Timestamp),
    spec("tz", "timestamptz", Some("timestamptz"), Shape::Timestamptz),
    spec("by", "bytea", Some("bytea"), Shape::Bytea),
    spec("e", "filter_oracle.\"Mood\"", None, Shape::Enum),
    spec("em", "filter_oracle.masked", None, Shape::OneOf(&["x", "y", "z"])),
    spec("de", "filter_oracle.some_mood", None, Shape::Enum),
    spec("di", "filter_oracle.small", Some("int4"), Shape::Int(-9, 9)),
    spec("dv", "filter_oracle.short", Some("text"), Shape::Text(3)),
    spec("or", "int4", Some("int4"), Shape::Int(-3, 3)),
    spec("odd \"name\".x,(y)", "int4", Some("int4"), Shape::Int(-3, 3)),
    spec(
        "j",
        "json",
        None,
        Shape::OneOf(&["null", " null ", "{\"a\": \"\\u0000\"}", "\"null\"", "[1,\n2]", "\"\\ud800\""]),
    ),
    spec("jb", "jsonb", None, Shape::OneOf(&["null", "{}", "\"null\"", "[null]"])),
    spec("a", "int4[]", None, Shape::OneOf(&["{}", "{NULL}", "{1,2}"])),
    spec("r", "int4range", None, Shape::OneOf(&["empty", "[1,5)", "(,)"])),
    spec("p", "filter_oracle.pair", None, Shape::OneOf(&["(,)", "(1,2)", "(1,)"])),
    spec("own", "filter_oracle.own", None, Shape::OneOf(&["(0)", "(1)", "()"])),
    spec("iv", "interval", None, Shape::OneOf(&["1 mon", "30 days", "P1Y"])),
    spec("jp", "jsonpath", None, Shape::OneOf(&["null", "$.a"])),
];

/// A hostile `search_path`: operators of these names would win if the SQL did not say `pg_catalog`.
const SETUP: &str = r#"
    drop schema if exists filter_oracle cascade;
    drop schema if exists filter_oracle_evil cascade;
    create schema filter_oracle;
    create schema filter_oracle_evil;
    create collation filter_oracle.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    -- Sorts as `C` and folds case as Unicode does, as a database can; where the locale is missing, plain `C`.
    do $$ begin
        create collation filter_oracle.split (provider = libc, lc_collate = 'C', lc_ctype = 'C.UTF-8');
    exception when others then
        create collation filter_oracle.split from pg_catalog."C";
    end $$;
    create type filter_oracle."Mood" as enum ('sad', 'ok', 'o"k', 'very, happy', 'été', 'OK', '\');
    create domain filter_oracle.some_mood as filter_oracle."Mood" check (value <> 'sad');
    create domain filter_oracle.small as int4 check (value between -9 and 9);
    create domain filter_oracle.short as varchar(3) collate "C";
    create type filter_oracle.masked as enum ('x', 'y', 'z');
    create function filter_oracle.shown(filter_oracle.masked) returns json language sql immutable
        as $$ select case $1 when 'x' then json 'null' else json '"y"' end $$;
    create cast (filter_oracle.masked as json) with function filter_oracle.shown(filter_oracle.masked);
    create type filter_oracle.pair as (a int4, b int4);
    create type filter_oracle.own as (a int4);
    create function filter_oracle.shown(filter_oracle.own) returns json language sql immutable
        as $$ select case when ($1).a = 0 then json ' null ' else json '"x"' end $$;
    create cast (filter_oracle.own as json) with function filter_oracle.shown(filter_oracle.own);
    create function filter_oracle_evil.always(int4, int4) returns bool language sql immutable as 'select true';
    create function filter_oracle_evil.always(text, text) returns bool language sql immutable as 'select true';
    create operator filter_oracle_evil.= (leftarg = int4, rightarg = int4, function = filter_oracle_evil.always);
    create operator filter_oracle_evil.< (leftarg = int4, rightarg = int4, function = filter_oracle_evil.always);
    create operator filter_oracle_evil.= (leftarg = text, rightarg = text, function = filter_oracle_evil.always);
    create operator filter_oracle_evil.~~ (leftarg = text, rightarg = text, function = filter_oracle_evil.always);
    create function filter_oracle_evil.btrim(text, text) returns text language sql immutable as $$ select 'null' $$;
    create function filter_oracle_evil.to_json(anyelement) returns json language sql immutable as $$ select json 'null' $$;
    create function filter_oracle_evil.mood_text(filter_oracle."Mood") returns text language sql immutable as $$ select 'ok' $$;
    create cast (filter_oracle."Mood" as text) with function filter_oracle_evil.mood_text(filter_oracle."Mood");
    set search_path = filter_oracle_evil, pg_catalog;
    set timezone = 'UTC'; set datestyle = 'ISO'; set bytea_output = 'hex'; set extra_float_digits = 1;
    set intervalstyle = 'iso_8601';
"#;

impl World {
    pub(super) async fn prepare(client: &Client) -> Self {
        client.batch_execute(SETUP).await.expect("setup");
        let columns: Vec<String> =
            SPECS.iter().map(|spec| format!("{} {}", quoted(spec.name), spec.declared)).collect();
        let create = format!("create table filter_oracle.everything ({})", columns.join(", "));
        client.batch_execute(&create).await.expect("create");
        Self { table: describe(client).await, specs: SPECS }
    }

    pub(super) fn insert_sql(&self) -> String {
        let list = |part: &dyn Fn(usize, &Spec) -> String| {
            self.specs.iter().enumerate().map(|(n, spec)| part(n, spec)).collect::<Vec<_>>().join(", ")
        };
        let type_of = |spec: &Spec| spec.declared.split(" collate ").next().unwrap_or_default().to_owned();
        format!(
            "insert into filter_oracle.everything select {} from unnest({}) as s({})",
            list(&|n, spec| format!("s.x{n}::{}", type_of(spec))),
            list(&|n, _| format!("${}::text[]", n + 1)),
            list(&|n, _| format!("x{n}")),
        )
    }

    pub(super) fn literal_type(&self, column: &str) -> Option<&'static str> {
        self.specs.iter().find(|spec| spec.name == column).and_then(|spec| spec.literal)
    }
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The table as the catalog has it.
async fn describe(client: &Client) -> Table {
    let sql = r#"
        with recursive base as (
            select a.attnum, a.attname::text as name, a.atttypid as oid, a.attcollation as coll
              from pg_catalog.pg_attribute a
             where a.attrelid operator(pg_catalog.=) 'filter_oracle.everything'::pg_catalog.regclass and a.attnum operator(pg_catalog.>) 0::int2
            union all
            select b.attnum, b.name, t.typbasetype, b.coll
              from base b join pg_catalog.pg_type t on t.oid operator(pg_catalog.=) b.oid
             where t.typtype operator(pg_catalog.=) 'd'::"char"
        )
        select b.name, b.oid, pg_catalog.format('%s', b.oid::pg_catalog.regtype), t.typtype operator(pg_catalog.=) 'e'::"char",
               b.coll operator(pg_catalog.<>) 0::oid, c.collisdeterministic,
               (case when c.collname operator(pg_catalog.=) 'default'::name
                     then (select d.datcollate from pg_catalog.pg_database d where d.datname operator(pg_catalog.=) pg_catalog.current_database())
                     else c.collcollate end)
          from base b join pg_catalog.pg_type t on t.oid operator(pg_catalog.=) b.oid
               left join pg_catalog.pg_collation c on c.oid operator(pg_catalog.=) b.coll
         where t.typtype operator(pg_catalog.<>) 'd'::"char"
         order by b.attnum"#;
    let rows = client.query(sql, &[]).await.expect("catalog");
    let columns = rows.iter().map(|row| {
        let locale: Option<String> = row.get(6);
        let collation = match (row.get::<_, bool>(4), row.get::<_, Option<bool>>(5), locale.as_deref()) {
            (false, ..) => Collation::None,
            (_, Some(false), _) => Collation::Nondeterministic,
            (_, _, Some("C" | "POSIX")) => Collation::C,
            _ => Collation::Deterministic,
        };
        Column { name: row.get(0), type_oid: row.get(1), type_sql: row.get(2), is_enum: row.get(3), collation }
    });
    Table {
        relid: 1,
        schema: "filter_oracle".to_owned(),
        name: "everything".to_owned(),
        columns: columns.collect(),
        key: vec!["i8".to_owned()],
        key_sql: String::new(),
        row_sql: String::new(),
        public: true,
        ttl: Duration::ZERO,
        stale: Duration::ZERO,
        snapshot_every: Duration::ZERO,
        rules: Vec::new(),
        broken: None,
        fingerprint: String::new(),
    }
}
