-- How a change gets into the log: the version trigger, and the generated capture functions.
--
-- Must not know: who calls watch, and what the gateway does with the log.
-- Invariant: a write of the application never fails and never waits because of what is here; what cannot be captured is logged as a reload.

set role rowcast_owner;
insert into rowcast.migration (id, name) values (4, 'capture');

-- The key of a row as text, as an SQL expression.
-- `relid`: a watched table; `alias`: the table's alias in the query. Returns: one column's text as it is; of several each with % and , escaped
-- (%25, %2C), joined with a comma. Null when the table is not watched. Tables: source.
create function rowcast.key_sql(relid oid, alias text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $key$
  select case
    when cardinality(s.key) = 1 then format('(%I.%I)::pg_catalog.text', alias, s.key[1])
    else (
      select '(' || string_agg(format($part$pg_catalog.replace(pg_catalog.replace((%I.%I)::pg_catalog.text, '%%', '%%25'), ',', '%%2C')$part$, alias, k.name),
        $glue$ operator(pg_catalog.||) ',' operator(pg_catalog.||) $glue$ order by k.n) || ')'
      from unnest(s.key) with ordinality as k (name, n))
    end
  from rowcast.source as s where s.relid = key_sql.relid
$key$;
comment on function rowcast.key_sql(oid, text) is 'SQL expression for the key text of a watched table';

-- The image of a row as JSON, as an SQL expression. Used for the log and for snapshots, so that both give the same bytes (under the settings
-- that the capture functions pin: see rowcast._define_capture).
-- `relid`: a watched table; `alias`: the table's alias in the query. Null when the table is not watched. Tables: source.
-- `alias.*` and not `alias`: a column named like the alias would be taken for it. Not to_jsonb: it refuses \u0000 that a json column may hold.
create function rowcast.row_sql(relid oid, alias text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $row$
  select case
    when s.columns is null then format('pg_catalog.row_to_json(%I.*)', alias)
    else format('(select pg_catalog.row_to_json(rowcast_image.*) from (select %s) as rowcast_image)',
      (select string_agg(format('%I.%I', alias, c.name), ', ' order by c.n) from unnest(s.columns) with ordinality as c (name, n)))
    end
  from rowcast.source as s where s.relid = row_sql.relid
$row$;
comment on function rowcast.row_sql(oid, text) is 'SQL expression for the JSON image of a row of a watched table';

-- Draw the version of a row. BEFORE INSERT OR UPDATE FOR EACH ROW.
-- Tables: none (sequence version).
--
-- Runs per row, so no `set search_path` (2 us): every name is qualified, and nothing else can be looked up.
-- SECURITY DEFINER: writers have no right on the sequence; it costs nothing that could be measured.
create function rowcast.stamp() returns trigger
language plpgsql security definer
as $stamp$
begin
  new.row_version := pg_catalog.nextval('rowcast.version'::pg_catalog.regclass);
  return new;
end
$stamp$;
comment on function rowcast.stamp() is 'trigger function: draws row_version';

-- Refuse a write based on another version than the row's. BEFORE UPDATE OF row_version FOR EACH ROW, before stamp: a write that attaches no
-- version does not pay for the test. Tables: none.
create function rowcast.lock() returns trigger
language plpgsql
as $lock$
begin
  -- null, or the current value, means: no version attached
  if new.row_version operator(pg_catalog.<>) old.row_version then
    raise exception using errcode = 'RC409',
      message = 'the row was changed since it was read',
      detail = pg_catalog.format('the write is based on row_version %s, the row has %s', new.row_version, old.row_version),
      hint = 'read the row again and decide anew; do not repeat the write as it is',
      schema = tg_table_schema, table = tg_table_name, column = 'row_version';
  end if;
  return new;
end
$lock$;
comment on function rowcast.lock() is 'trigger function: refuses a write based on a stale row_version with SQLSTATE RC409';

-- Log a row that has no image, and ring.
-- `relid`: the watched table; `op`: r (reload) or t (truncate). Tables: log_0..2.
create function rowcast._mark(relid oid, op "char") returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $mark$
declare
  v_slot int := pg_sequence_last_value('rowcast.slot');
  v_lease float8;
begin
  if v_slot = 0 then
    insert into rowcast.log_0 (version, relid, op) values (nextval('rowcast.version'), relid, op);
  elsif v_slot = 1 then
    insert into rowcast.log_1 (version, relid, op) values (nextval('rowcast.version'), relid, op);
  else
    insert into rowcast.log_2 (version, relid, op) values (nextval('rowcast.version'), relid, op);
  end if;
  v_lease := pg_sequence_last_value('rowcast.quiet') - date_part('epoch', clock_timestamp()) * 1000;
  if (v_lease <= 0 or v_lease > 60000) and current_setting('rowcast.doorbell', true) is distinct from 'off'
    and pg_notification_queue_usage() < 0.5 then
    perform pg_notify('rowcast', '');
  end if;
end
$mark$;
comment on function rowcast._mark(oid, "char") is 'log a reload or a truncate of a table, and ring';

-- Whether the key columns of a source still are a key.
-- `id`: the source. Tables: source, pg_index, pg_attribute. The slow half of the capture functions' test: it runs when the constraint's text has
-- changed, for example after REINDEX CONCURRENTLY of a plain unique index.
create function rowcast._key_holds(id int) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $holds$
  select exists (
    select from rowcast.source as s
    join pg_index as i on i.indrelid = s.relid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
      and i.indimmediate = not s.key_deferrable and i.indnkeyatts = cardinality(s.key)
    where s.id = _key_holds.id
      and (select count(*) from pg_attribute as a
           where a.attrelid = s.relid and a.attnum > 0 and not a.attisdropped and a.attnotnull and a.attname = any (s.key)
             and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])) = cardinality(s.key))
$holds$;
comment on function rowcast._key_holds(int) is 'whether the key columns of a source still are a key';

-- Whether the published columns of a source all exist. `id`: the source. Tables: source, pg_attribute.
create function rowcast._columns_hold(id int) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $holds$
  select s.columns is null or cardinality(s.columns) = (
    select count(*) from pg_attribute as a where a.attrelid = s.relid and a.attnum > 0 and not a.attisdropped and a.attname = any (s.columns))
  from rowcast.source as s where s.id = _columns_hold.id
$holds$;
comment on function rowcast._columns_hold(int) is 'whether the published columns of a source all exist';

-- SQL for "same key", column by column.
-- `id`: the source; `a`, `b`: aliases. Tables: source.
-- By the text of the value: it is what travels, operators of a type may live outside pg_catalog, and collations may take different texts for
-- equal. Also where the type's own operator would say the same and cost half: the function is made for the type of now, and after ALTER TYPE
-- to one without such an operator the application's writes would fail until it is made again.
create function rowcast._match_sql(id int, a text, b text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $match$
  select string_agg(format('(%1$I.%3$I)::pg_catalog.text collate pg_catalog."C" operator(pg_catalog.=) (%2$I.%3$I)::pg_catalog.text collate pg_catalog."C"', a, b, k.name), ' and ' order by k.n)
  from rowcast.source as s, unnest(s.key) with ordinality as k (name, n) where s.id = _match_sql.id
$match$;
comment on function rowcast._match_sql(int, text, text) is 'SQL condition: two rows have the same key text';

-- Settings of the writer that shape the text of a source's columns: only those that matter for their types are looked at.
-- `id`: the source. Returns: setting, value to pin, and the test (on its current value, %1$s) that it must be pinned; none for most tables.
-- Tables: source, pg_attribute, pg_type.
-- JSON writes dates in ISO whatever DateStyle says, keys do not. Any extra_float_digits above 0 gives the same shortest digits.
create function rowcast._pins(id int) returns table (setting text, value text, test text)
language sql stable
set search_path = pg_catalog, pg_temp
as $pins$
  with recursive typed (oid, typbasetype, typelem, typcategory, typtype, is_key) as (
    select t.oid, t.typbasetype, t.typelem, t.typcategory, t.typtype, a.attname = any (s.key)
    from rowcast.source as s
    join pg_attribute as a on a.attrelid = s.relid and a.attnum > 0 and not a.attisdropped and (s.columns is null or a.attname = any (s.columns))
    join pg_type as t on t.oid = a.atttypid
    where s.id = _pins.id
    union
    select t.oid, t.typbasetype, t.typelem, t.typcategory, t.typtype, typed.is_key
    from typed join pg_type as t on t.oid = case when typed.typbasetype <> 0 then typed.typbasetype when typed.typcategory = 'A' then typed.typelem end
  ), base as (
    select distinct case when typtype = 'e' then 'enum' when oid < 16384 then oid::regtype::text else 'other' end as name, is_key
    from typed where typbasetype = 0 and typcategory <> 'A'
  ), shaped (setting, value, test, names) as (values
    ('TimeZone', 'UTC', $q$not %1$s operator(pg_catalog.=) any ('{UTC,Etc/UTC,GMT}')$q$,
      '{timestamp with time zone}'::text[]),
    ('DateStyle', 'ISO, MDY', $q$not pg_catalog.starts_with(%1$s, 'ISO')$q$, '{date,timestamp without time zone,timestamp with time zone}'),
    ('IntervalStyle', 'iso_8601', $q$%1$s operator(pg_catalog.<>) 'iso_8601'$q$, '{interval}'),
    ('bytea_output', 'hex', $q$%1$s operator(pg_catalog.<>) 'hex'$q$, '{bytea}'),
    ('extra_float_digits', '1', $q$%1$s operator(pg_catalog.=) '0' or pg_catalog.starts_with(%1$s, '-')$q$, '{real,double precision}'),
    ('lc_monetary', 'C', $q$%1$s operator(pg_catalog.<>) 'C'$q$, '{money}'),
    ('search_path', 'pg_catalog, pg_temp', $q$%1$s operator(pg_catalog.<>) 'pg_catalog, pg_temp'$q$, '{}')
  )
  select sh.setting, sh.value, sh.test
  from shaped as sh
  where exists (
    select from base as b
    where b.name = any (sh.names) and (b.is_key or sh.setting <> 'DateStyle')
      -- anything whose output we do not know may depend on every setting
      or b.name <> all ('{boolean,smallint,integer,bigint,numeric,text,character varying,character,name,uuid,json,jsonb,enum,date,interval,bytea,
        real,double precision,money,timestamp without time zone,timestamp with time zone,time without time zone,time with time zone,inet,cidr,macaddr,
        bit,bit varying,oid,point,tsvector,xml}'::text[]))
$pins$;
comment on function rowcast._pins(int) is 'settings that shape the text of a source''s columns';

-- The same statement for each of the three log tables. `head`, `tail`: what stands before and after the table's name. Tables: none.
create function rowcast._by_slot(head text, tail text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $by$
  select format('
  if v_slot operator(pg_catalog.=) 0 then
    %1$srowcast.log_0%2$s;
  elsif v_slot operator(pg_catalog.=) 1 then
    %1$srowcast.log_1%2$s;
  else
    %1$srowcast.log_2%2$s;
  end if;', head, tail)
$by$;
comment on function rowcast._by_slot(text, text) is 'one statement for each log table, chosen by v_slot';

-- Make the four capture functions of a source, or make those again that would come out differently.
-- `id`: the source. Returns: whether one was made. Tables: source and catalogs; creates capture_<id>_insert, _update, _delete, _truncate and
-- the sequence deleted_<id>.
--
-- Their shape is owed to measurement: thousands of instructions (valgrind, PostgreSQL 15) of a one-row UPDATE of five columns as its own
-- transaction. Unwatched 143; drawing the version 28; both transition tables and the call 20; `security definer` and `set` 7; one INSERT through
-- SPI 45 and each of its indexes 15; the two images 38; the test for one row 16; finding the pair 8; which log table, key and columns unchanged
-- 13; the lease 19. Together 221; the plainest trigger that writes both images into a log, as jsonb, 107.
-- So a statement of one row, the common one, runs one plain INSERT, and everything else in it is an expression that plpgsql evaluates without
-- a query. Roads not taken: a full join for one row 25 more; counting through a CTE with RETURNING 30; a WHEN clause on the version trigger 12 (it
-- is parsed again in every statement); testing the attached version in it 7; `set search_path` 8 to 20, and as much again for every other `set`
-- clause (so every name and operator is qualified instead, and the writer's settings are touched only when they matter and differ); looking up
-- the key columns 20. AFTER ROW is 41 cheaper for one row and several times dearer for 100,000.
-- `set jit = off` costs next to nothing and is needed: a session whose first write touches 100,000 rows plans the one-row statement for as many,
-- and Postgres would compile that plan at every later one-row write (500 ms each), besides 2 s for the first.
-- What is rarely asked stands in an `if` of its own: an expression sets up every function it names anew in each transaction, called or not.
-- operator(..) binds equally for every operator, from left to right: hence the parentheses.
-- The order matters: first the log row (it takes the transaction id), then the doorbell's lease, so that who read an old lease has a
-- transaction id by then.
create function rowcast._define_capture(id int) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $define$
declare
  v_source rowcast.source;
  v_rel oid;
  v_index record;
  v_foreign text;
  v_fits text;
  v_guard text;
  v_declare text := '';
  v_pin text := '';
  v_unpin text := '';
  v_pins record;
  v_key_old text;
  v_key_new text;
  v_row_old text;
  v_row_new text;
  v_json_old text;
  v_json_new text;
  v_match text;
  v_join text;
  v_again text;
  v_removals text := '';
  v_race text;
  v_body text;
  v_op text;
  v_made boolean := false;
begin
  select * into strict v_source from rowcast.source as s where s.id = _define_capture.id;
  v_rel := v_source.relid;
  select i.indexrelid, i.indnkeyatts into v_index
  from pg_index as i
  where i.indrelid = v_rel and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
    and i.indimmediate = not v_source.key_deferrable and i.indnkeyatts = cardinality(v_source.key)
    and (select count(*) from pg_attribute as a where a.attrelid = v_rel and a.attname = any (v_source.key)
           and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])) = cardinality(v_source.key)
  order by i.indisprimary desc, i.indexrelid limit 1;

  execute format('create sequence if not exists rowcast.deleted_%s', id);
  execute format('revoke all on sequence rowcast.deleted_%s from public', id);
  execute format('comment on sequence rowcast.deleted_%s is %L', id, 'cell: not null once a row of the source was deleted or its key changed');

  -- The columns stand in the functions by name, and when one was renamed or the key was changed the write must not fail. Asking the catalogs at
  -- every write costs 20,000 instructions, so fits_<id> is declared immutable, which it is not: the planner then asks once a session, and again
  -- when the plan is thrown away, as it is after any DDL on a table that it names as an oid constant: v_rel in the test. Only functions that
  -- read through the catalog caches may stand there: others would see the snapshot of an older transaction, and the answer is kept.
  select string_agg(format('coalesce(pg_catalog.pg_get_indexdef(%s, %s, false) operator(pg_catalog.=) %L, false)', v_index.indexrelid, n,
      pg_get_indexdef(v_index.indexrelid, n, false)), ' and ' order by n)
    into v_fits from generate_series(1, v_index.indnkeyatts) as n;
  if v_source.columns is not null then
    v_fits := v_fits || (
      select coalesce(string_agg(format(
          ' and coalesce((pg_catalog.pg_identify_object_as_address(1259, %s, %s)).object_names[3] operator(pg_catalog.=) %L, false)', v_rel, a.attnum, a.attname),
        '' order by a.attnum), '')
      from pg_attribute as a where a.attrelid = v_rel and a.attnum > 0 and not a.attisdropped and a.attname = any (v_source.columns));
  end if;
  v_fits := coalesce(v_fits, 'false');
  if not exists (select from pg_proc as f where f.oid = to_regprocedure(format('rowcast.fits_%s()', id)) and f.prosrc = 'select ' || v_fits) then
    execute format('create or replace function rowcast.fits_%s() returns boolean language sql immutable as %L', id, 'select ' || v_fits);
    execute format('revoke all on function rowcast.fits_%s() from public', id);
    execute format('comment on function rowcast.fits_%s() is %L', id, 'generated by rowcast.watch: the key and the columns are what they were');
    v_made := true;
  end if;
  -- A partition that was detached still has its triggers, and must not log into the root's name.
  v_foreign := format('tg_relid operator(pg_catalog.<>) %s::pg_catalog.oid', v_rel);
  if (select relkind = 'p' from pg_class where oid = v_rel) then
    v_foreign := v_foreign || format(' and not coalesce(pg_catalog.pg_partition_root(tg_relid)::pg_catalog.oid operator(pg_catalog.=) %s::pg_catalog.oid, false)', v_rel);
  end if;
  v_guard := format($sql$
  if %1$s or not rowcast.fits_%3$s() then
    if %1$s then
      return null;
    end if;
    -- these two look through the transaction's snapshot, which may be older than the change
    if pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.<>) 'read committed'
      or not rowcast._key_holds(%3$s) or not rowcast._columns_hold(%3$s) then
      perform rowcast._mark(%2$s, 'r');
      return null;
    end if;
  end if;$sql$, v_foreign, v_rel, id);

  for v_pins in
    select row_number() over (order by p.setting) as n, p.setting, p.value,
      format(p.test, format('pg_catalog.current_setting(%L)', p.setting)) as test
    from rowcast._pins(id) as p
  loop
    -- Set locally and set back: the function has no `set` clause whose end would undo it; an error undoes it with the transaction.
    v_declare := v_declare || format(E'\n  v_was_%s pg_catalog.text;', v_pins.n);
    v_pin := v_pin || format($sql$
  if %1$s then
    v_was_%2$s := pg_catalog.current_setting(%3$L);
    v_set := pg_catalog.set_config(%3$L, %4$L, true);
  end if;$sql$, v_pins.test, v_pins.n, v_pins.setting, v_pins.value);
    v_unpin := v_unpin || format($sql$
  if v_was_%1$s is not null then
    v_set := pg_catalog.set_config(%2$L, v_was_%1$s, true);
  end if;$sql$, v_pins.n, v_pins.setting);
  end loop;

  v_key_old := rowcast.key_sql(v_rel, 'rowcast_old');
  v_key_new := rowcast.key_sql(v_rel, 'rowcast_new');
  v_row_old := rowcast.row_sql(v_rel, 'rowcast_old');
  v_row_new := rowcast.row_sql(v_rel, 'rowcast_new');
  v_match := rowcast._match_sql(id, 'rowcast_old', 'rowcast_new');
  -- A full join is never a nested loop, so the plan made for two rows is good for 100,000. The versions: where a cascade updates a row again
  -- within one statement the same key stands twice on both sides, and a row must not be paired with itself.
  v_join := format('rowcast_old full join rowcast_new on %s and rowcast_old.row_version operator(pg_catalog.<) rowcast_new.row_version', v_match);
  select string_agg(format('rowcast_old.%I', k.name), ', ' order by k.n), string_agg(format('rowcast_new.%I', k.name), ', ' order by k.n)
    into v_json_old, v_json_new from unnest(v_source.key) with ordinality as k (name, n);
  v_json_old := format('(select pg_catalog.row_to_json(rowcast_key.*) from (select %s, rowcast_old.row_version) as rowcast_key)', v_json_old);
  v_json_new := format('(select pg_catalog.row_to_json(rowcast_key.*) from (select %s, rowcast_new.row_version) as rowcast_key)', v_json_new);
  v_again := $sql$
    if v_again is not null and not rowcast.restamp_%1$s(%2$s, v_again, %3$s) then
      perform rowcast._mark(%2$s, 'r');
    end if;$sql$;

  -- The insert/delete race. An INSERT draws its version before it waits for a concurrent deleter of the same key, and can end up below the
  -- tombstone. Such a tombstone's version was drawn after ours: no gap in the sequence, no race. Then a look for tombstones (and for reloads,
  -- which stand for many), and the row gets a new version by an UPDATE. A REPEATABLE READ transaction cannot see the tombstone (and reading
  -- the log would add predicate locks): it stamps anew whenever there is a gap. Nothing of this while nothing was ever deleted.
  for v_slot in 0..2 loop
    v_removals := v_removals || format($sql$%1$s
        select 1 from rowcast.log_%2$s as d
        where d.op operator(pg_catalog.=) 'd' and d.relid operator(pg_catalog.=) %3$s::pg_catalog.oid
          and pg_catalog.hashtextextended(d.key collate pg_catalog."C", 0) operator(pg_catalog.=) pg_catalog.hashtextextended((%4$s) collate pg_catalog."C", 0)
          and d.key collate pg_catalog."C" operator(pg_catalog.=) (%4$s) and d.version operator(pg_catalog.>) rowcast_new.row_version
        union all
        select 1 from rowcast.log_%2$s as r
        where r.op operator(pg_catalog.=) 'r' and r.relid operator(pg_catalog.=) %3$s::pg_catalog.oid
          and pg_catalog.hashtextextended(r.key collate pg_catalog."C", 0) is null and r.version operator(pg_catalog.>) rowcast_new.row_version$sql$,
      case when v_slot > 0 then E'\n        union all' end, v_slot, v_rel, v_key_new);
  end loop;
  v_race := format($sql$
  if v_new operator(pg_catalog.>) 0
    and pg_catalog.pg_sequence_last_value('rowcast.version') operator(pg_catalog.>)
      (v_low operator(pg_catalog.+) (2 operator(pg_catalog.*) (v_new operator(pg_catalog.-) 1)))
    and pg_catalog.pg_sequence_last_value('rowcast.deleted_%1$s') is not null then
    if pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.=) 'read committed' then
      select pg_catalog.array_agg(%2$s) into v_again
      from rowcast_new cross join lateral (%3$s
        limit 1) as removal;
    else
      select pg_catalog.array_agg(%2$s) into v_again from %%s;
    end if;%4$s
  end if;$sql$, id, replace(v_json_new, '%', '%%'), replace(v_removals, '%', '%%'), format(v_again, id, v_rel, 'false'));

  foreach v_op in array array['insert', 'update', 'delete', 'truncate'] loop
    v_body := case v_op
      when 'insert' then
        rowcast._by_slot('insert into ', format($sql$ (version, relid, op, key, new)
      select rowcast_new.row_version, %1$s, 'i', %2$s, %3$s
      from rowcast_new where not exists (select from rowcast_new offset 1)
      returning version into v_low$sql$, v_rel, v_key_new, v_row_new))
        || $sql$
  v_new := 1;
  if v_low is null then
    select pg_catalog.count(*), pg_catalog.min(rowcast_new.row_version) into v_new, v_low from rowcast_new;
    if v_new operator(pg_catalog.=) 0 then$sql$
        || v_unpin || format($sql$
      return null;
    elsif v_new operator(pg_catalog.>) %1$s then
      perform rowcast._mark(%2$s, 'r');
      v_new := 0;
    else$sql$, v_source.bulk_limit, v_rel)
        || rowcast._by_slot('insert into ', format($sql$ (version, relid, op, key, new)
      select rowcast_new.row_version, %1$s, 'i', %2$s, %3$s
      from rowcast_new$sql$, v_rel, v_key_new, v_row_new))
        || $sql$
    end if;
  end if;$sql$
        || format(v_race, 'rowcast_new')
      when 'update' then
        rowcast._by_slot('insert into ', format($sql$ (version, relid, op, key, old_version, old, new)
      select rowcast_new.row_version, %1$s, 'u', %2$s, rowcast_old.row_version, %3$s, %4$s
      from rowcast_old, rowcast_new where %5$s and not exists (select from rowcast_old offset 1)$sql$, v_rel, v_key_new, v_row_old, v_row_new, v_match))
        || $sql$
  -- no row, more than one, or another key
  if not found then
    select pg_catalog.count(*) into v_old from rowcast_old;
    select pg_catalog.count(*) into v_new from rowcast_new;
    if v_old operator(pg_catalog.=) 0 and v_new operator(pg_catalog.=) 0 then$sql$
        || v_unpin || format($sql$
      return null;
    elsif v_new operator(pg_catalog.>) %3$s or v_old operator(pg_catalog.>) %3$s then
      v_set := pg_catalog.setval('rowcast.deleted_%1$s', 1);
      perform rowcast._mark(%2$s, 'r');
    else
      -- the hash of 100,000 rows spills otherwise
      v_memory := pg_catalog.current_setting('work_mem');
      if pg_catalog.pg_size_bytes(v_memory) operator(pg_catalog.<) 67108864 then
        v_set := pg_catalog.set_config('work_mem', '64MB', true);
      end if;$sql$, id, v_rel, v_source.bulk_limit)
        || rowcast._by_slot('insert into ', format($sql$ (version, relid, op, key, old_version, old, new)
      select coalesce(rowcast_new.row_version, rowcast_old.row_version operator(pg_catalog.+) 1), %1$s,
        case when rowcast_old.row_version is null then 'i' when rowcast_new.row_version is null then 'd' else 'u' end,
        case when rowcast_new.row_version is null then %2$s else %3$s end,
        rowcast_old.row_version,
        case when rowcast_old.row_version is not null then %4$s end,
        case when rowcast_new.row_version is not null then %5$s end
      from %6$s$sql$, v_rel, v_key_old, v_key_new, v_row_old, v_row_new, v_join))
        || format($sql$
      get diagnostics v_rows = row_count;
      -- every pair found, the common case: as many rows as there are on either side
      if v_rows operator(pg_catalog.<>) v_old or v_rows operator(pg_catalog.<>) v_new then
        v_set := pg_catalog.setval('rowcast.deleted_%1$s', 1);
        select pg_catalog.count(*), pg_catalog.min(rowcast_new.row_version) into v_new, v_low from %2$s where rowcast_old.row_version is null;%3$s%4$s
      end if;
      v_set := pg_catalog.set_config('work_mem', v_memory, true);
    end if;
  end if;$sql$, id, v_join,
          -- Two rows may share a deferrable key within a transaction: the one that stays must not lie below the tombstone of the one that went.
          case when v_source.key_deferrable then format($sql$
        select pg_catalog.array_agg(%s) into v_again from %s where rowcast_new.row_version is null;$sql$, v_json_old, v_join) || format(v_again, id, v_rel, 'true') end,
          format(v_race, v_join || ' where rowcast_old.row_version is null'))
      when 'delete' then
        rowcast._by_slot('insert into ', format($sql$ (version, relid, op, key, old_version, old)
      select rowcast_old.row_version operator(pg_catalog.+) 1, %1$s, 'd', %2$s, rowcast_old.row_version, %3$s
      from rowcast_old where (select pg_catalog.count(*) from (select from rowcast_old limit %4$s) as rowcast_some) operator(pg_catalog.<=) %5$s$sql$,
          v_rel, v_key_old, v_row_old, v_source.bulk_limit + 1::bigint, v_source.bulk_limit))
        || format($sql$
  if not found then
    if not exists (select from rowcast_old) then%4$s
      return null;
    end if;
    perform rowcast._mark(%2$s, 'r');
  end if;
  if pg_catalog.pg_sequence_last_value('rowcast.deleted_%1$s') is null then
    v_set := pg_catalog.setval('rowcast.deleted_%1$s', 1);
  end if;%3$s$sql$, id, v_rel,
          case when v_source.key_deferrable then format($sql$
  select pg_catalog.array_agg(%s) into v_again from rowcast_old;$sql$, v_json_old) || format(v_again, id, v_rel, 'true') end, v_unpin)
      else format($sql$
  if %1$s then
    return null;
  end if;
  -- r: of a single partition, the others still have their rows
  perform rowcast._mark(%2$s, case when tg_relid operator(pg_catalog.=) %2$s::pg_catalog.oid then 't' else 'r' end::pg_catalog."char");
  return null;$sql$, v_foreign, v_rel)
    end;
    if v_op <> 'truncate' then
      -- A lease more than a minute ahead is no lease. A queue half full is left alone: when it is full other applications' commits fail.
      v_body := v_guard || v_pin || v_body || v_unpin || $sql$
  if pg_catalog.abs((pg_catalog.pg_sequence_last_value('rowcast.quiet') operator(pg_catalog.-) 30000)
    operator(pg_catalog.-) (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) operator(pg_catalog.*) 1000)) operator(pg_catalog.>) 30000 then
    if not coalesce(pg_catalog.current_setting('rowcast.doorbell', true) operator(pg_catalog.=) 'off', false)
      and pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.5 then
      perform pg_catalog.pg_notify('rowcast', '');
    end if;
  end if;
  return null;$sql$;
    end if;
    v_body := format($sql$
#variable_conflict use_column
declare
  v_slot pg_catalog.int8 := pg_catalog.pg_sequence_last_value('rowcast.slot');
  v_rows pg_catalog.int8;
  v_old pg_catalog.int8;
  v_new pg_catalog.int8;
  v_low pg_catalog.int8;
  v_memory pg_catalog.text;
  v_again pg_catalog.json[];
  v_set pg_catalog.text;%s
begin%s
end
$sql$, v_declare, v_body);
    if not exists (select from pg_proc as f where f.oid = to_regprocedure(format('rowcast.capture_%s_%s()', id, v_op)) and f.prosrc = v_body) then
      execute format('create or replace function rowcast.capture_%s_%s() returns trigger language plpgsql security definer set jit = off as %L', id, v_op, v_body);
      execute format('revoke all on function rowcast.capture_%s_%s() from public', id, v_op);
      execute format('comment on function rowcast.capture_%s_%s() is %L', id, v_op, 'generated by rowcast.watch: records changes of one table');
      v_made := true;
    end if;
  end loop;
  return v_made;
end
$define$;
comment on function rowcast._define_capture(int) is 'make the capture functions of a source, where they would come out differently';

-- Bring the capture functions up to date after DDL: a column of another type was added, the key's index was rebuilt. Takes no lock on the tables.
-- Returns: the number of sources whose functions were made again. Tables: source and catalogs.
create function rowcast.refresh() returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $refresh$
declare
  v_source record;
  v_made int := 0;
begin
  perform pg_advisory_xact_lock(rowcast.leader_lock() + 2);
  for v_source in select s.id from rowcast.source as s join pg_class as c on c.oid = s.relid where rowcast._key_holds(s.id) and rowcast._columns_hold(s.id) loop
    v_made := v_made + rowcast._define_capture(v_source.id)::int;
  end loop;
  return v_made;
end
$refresh$;
comment on function rowcast.refresh() is 'bring the capture functions up to date after DDL';

grant execute on function rowcast.key_sql(oid, text), rowcast.row_sql(oid, text), rowcast.refresh() to rowcast_gateway, rowcast_admin;

reset role;
