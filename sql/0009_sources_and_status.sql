-- What a gateway must know of the watched tables, and what a DBA wants to know of them.
--
-- Must not know: how changes are captured. Invariant: a source that cannot be served is a row with a reason here, never an error of the query.

set role rowcast_owner;
insert into rowcast.migration (id, name) values (9, 'sources_and_status');

-- The tables whose triggers belong to a source: itself, and of a partitioned table every descendant.
-- `target`: the source's table. Tables: pg_inherits.
create function rowcast._members(target oid) returns setof oid
language sql stable rows 1
set search_path = pg_catalog, pg_temp
as $members$
  select target
  union
  select relid from pg_partition_tree(target)
$members$;
comment on function rowcast._members(oid) is 'a table and its partitions';

-- Which of the triggers of a source are not in place, in words; null when all are.
-- `id`, `target`: the source; `leaves`: look at its partitions (true) or at the table itself (false). Tables: pg_trigger.
create function rowcast._missing(id int, target oid, leaves boolean) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $missing$
  select string_agg(format('`%s` of `%s`', w.name, m.relid::regclass), ', ' order by m.relid, w.name)
  from rowcast._members(target) as m (relid)
  cross join (values ('zzz_rowcast_lock', 'lock'), ('zzz_rowcast_version', 'stamp'), ('zzz_rowcast_insert', format('capture_%s_insert', id)),
    ('zzz_rowcast_update', format('capture_%s_update', id)), ('zzz_rowcast_delete', format('capture_%s_delete', id)),
    ('zzz_rowcast_truncate', format('capture_%s_truncate', id))) as w (name, function)
  where (m.relid <> target) = leaves
    and not exists (
      select from pg_trigger as t join pg_proc as f on f.oid = t.tgfoid
      where t.tgrelid = m.relid and t.tgname = w.name and t.tgenabled = 'A'
        and f.proname = w.function and f.pronamespace = 'rowcast'::regnamespace)
$missing$;
comment on function rowcast._missing(int, oid, boolean) is 'triggers of a source that are not in place, in words';

-- Why a source cannot be served, with the remedy; null when it can. `id`: the source. Tables: source and catalogs.
create function rowcast._broken(id int) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $broken$
  select case
    when c.relispartition then
      format('`%s` has become a partition of `%s`; unwatch it and watch the root', c.oid::regclass, pg_partition_root(c.oid))
    when not exists (select from pg_attribute as a where a.attrelid = c.oid and a.attname = 'row_version' and not a.attisdropped
        and a.atttypid = 'bigint'::regtype) then
      format('`%s` has no column `row_version` any more; select rowcast.watch(%L)', c.oid::regclass, c.oid::regclass)
    when not rowcast._key_holds(s.id) then
      format('(%s) is not a key of `%s` any more; call rowcast.watch again', array_to_string(s.key, ', '), c.oid::regclass)
    when not rowcast._columns_hold(s.id) then
      format('a published column of `%s` is gone; call rowcast.watch again', c.oid::regclass)
    when rowcast._missing(s.id, c.oid, false) is not null then
      format('missing or disabled triggers: %s; call rowcast.watch again', rowcast._missing(s.id, c.oid, false))
    when c.relrowsecurity and s.public then
      format('row level security was enabled on `%s`, which is public; watch it with public => false, or disable it', c.oid::regclass)
    when not has_schema_privilege('rowcast_gateway', c.relnamespace, 'usage') then
      format('grant usage on schema %I to rowcast_gateway', n.nspname)
    when not has_table_privilege('rowcast_gateway', c.oid, 'select') then
      format('grant select on %s to rowcast_gateway', c.oid::regclass)
    end
  from rowcast.source as s join pg_class as c on c.oid = s.relid join pg_namespace as n on n.oid = c.relnamespace
  where s.id = _broken.id
$broken$;
comment on function rowcast._broken(int) is 'why a source cannot be served, with the remedy; null when it can';

-- A digest of everything that changes what a source's rows mean or whether its changes are captured, and fires no trigger.
-- `id`: the source. Tables: source and catalogs.
-- Without the settings that only say how often and how much, and without the rules: changing them must reset nobody else.
-- Without relfilenode: VACUUM FULL and CLUSTER change it and nothing else.
create function rowcast._fingerprint(id int) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $fingerprint$
  select md5(concat_ws('|', s.id, s.key, coalesce(s.columns::text, '*'), s.key_deferrable, c.relname, n.nspname, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.relispartition, c.relowner,
    (select string_agg(concat_ws(',', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attcollation, a.attgenerated), ';' order by a.attnum)
     from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    (select string_agg(concat_ws(',', e.enumtypid, e.enumsortorder, e.enumlabel), ';' order by e.enumtypid, e.enumsortorder)
     from pg_enum as e where e.enumtypid in (select rowcast._base_type(a.atttypid) from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0)),
    (select string_agg(m::text, ',' order by m) from rowcast._members(c.oid) as m where c.relkind = 'p'),
    (select string_agg(concat_ws(',', t.tgrelid, t.tgname, t.tgenabled, t.tgfoid), ';' order by t.tgrelid, t.tgname)
     from pg_trigger as t where t.tgrelid in (select rowcast._members(c.oid)) and t.tgname like 'zzz\_rowcast\_%'),
    (select string_agg(concat_ws(',', i.indexrelid, i.indisprimary, i.indimmediate, i.indkey), ';' order by i.indexrelid)
     from pg_index as i where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null),
    has_schema_privilege('rowcast_gateway', c.relnamespace, 'usage'), has_table_privilege('rowcast_gateway', c.oid, 'select')))
  from rowcast.source as s join pg_class as c on c.oid = s.relid join pg_namespace as n on n.oid = c.relnamespace
  where s.id = _fingerprint.id
$fingerprint$;
comment on function rowcast._fingerprint(int) is 'digest of everything that changes what the rows of a source mean';

-- The watched tables, one row each; a table that was dropped is not among them.
-- Returns, beside the settings: key_sql and row_sql for the alias t; columns as [{"name","type_oid","type_sql","is_enum","collation"}], types
-- without domains; broken, fingerprint; rules as [{"role","filter","columns","write","version_required"}], by role. Tables: source, rule, catalogs.
create function rowcast.sources() returns table (relid oid, schema text, name text, key text[], key_sql text, row_sql text, ttl_ms bigint,
  stale_ms bigint, snapshot_ms bigint, bulk_limit int, public boolean, columns json, broken text, fingerprint text,
  rules json)
language sql stable
set search_path = pg_catalog, pg_temp
as $sources$
  select c.oid, n.nspname::text, c.relname::text, s.key, rowcast.key_sql(c.oid, 't'), rowcast.row_sql(c.oid, 't'),
    (extract(epoch from s.ttl) * 1000)::bigint, (extract(epoch from s.stale) * 1000)::bigint, (extract(epoch from s.snapshot_every) * 1000)::bigint,
    s.bulk_limit, s.public,
    -- typmod -1 and not null: format_type(bpchar, null) is `character`, which reads back as character(1)
    (select coalesce(json_agg(json_build_object('name', a.attname, 'type_oid', b.oid::bigint, 'type_sql', format_type(b.oid, -1),
        'is_enum', b.typtype = 'e', 'collation', rowcast._collation(a.attcollation)) order by a.attnum), '[]')
     from pg_attribute as a join pg_type as b on b.oid = rowcast._base_type(a.atttypid)
     where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v' and (s.columns is null or a.attname = any (s.columns))),
    rowcast._broken(s.id), rowcast._fingerprint(s.id),
    (select coalesce(json_agg(r order by r.role), '[]') from rowcast.rules(c.oid) as r)
  from rowcast.source as s join pg_class as c on c.oid = s.relid join pg_namespace as n on n.oid = c.relnamespace
  order by c.oid
$sources$;
comment on function rowcast.sources() is 'the watched tables with everything a gateway must know of them';

-- The state of every watched table, for people.
-- Returns: one row a table; rules says who is shown what, null: nobody anything; writes who may write it through the gateway, null: nobody; warnings
-- is empty when all is well. Tables: source, rule, tick, log_0..2 and catalogs.
create function rowcast.status() returns table (source text, triggers boolean, tick bigint, tick_age interval, log_rows bigint, log_bytes bigint,
  oldest_tick bigint, oldest_tick_age interval, rules text, writes text, warnings text[])
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $status$
  with ticks as (
    select l.id, clock_timestamp() - l.at as age, o.id as oldest, clock_timestamp() - o.at as oldest_age
    from (select id, at from rowcast.tick order by id desc limit 1) as l, (select id, at from rowcast.tick order by id limit 1) as o
  ), log as (
    select sum(pg_total_relation_size(c.oid))::bigint as bytes,
      -- the log is never analyzed; what was inserted and not yet emptied is close enough
      sum(pg_stat_get_live_tuples(c.oid))::bigint as rows
    from pg_class as c where c.oid in ('rowcast.log_0'::regclass, 'rowcast.log_1'::regclass, 'rowcast.log_2'::regclass)
  )
  select coalesce(c.oid::regclass::text, s.relid::oid::text), c.oid is not null and rowcast._missing(s.id, c.oid, false) is null
      and rowcast._missing(s.id, c.oid, true) is null,
    ticks.id, ticks.age, log.rows, log.bytes, ticks.oldest, ticks.oldest_age,
    (select string_agg(concat(r.role, ': ', coalesce(r.filter, 'all rows'), case when r.columns is not null then '; only ' || array_to_string(r.columns, ', ') end,
        case when d.ignore_row_security then '; row level security ignored' end), E'\n' order by r.role)
     from rowcast.rules(c.oid) as r left join rowcast.rule as d on d.relid = s.relid and d.role = r.role),
    (select string_agg(r.role || case when r.version_required then '' else ', also without a version' end, '; ' order by r.role)
     from rowcast.rules(c.oid) as r where r.write),
    array_remove(array[
      case when c.oid is null then format('the table was dropped; select rowcast.unwatch(%s)', s.relid::oid) end,
      rowcast._broken(s.id),
      'partitions without triggers, writes straight to them are not seen: ' || rowcast._missing(s.id, c.oid, true) || '; call rowcast.watch again',
      case when c.relrowsecurity and not s.public then 'row level security is enabled' end,
      case when c.relrowsecurity and c.relforcerowsecurity then 'row level security is forced on the owner: rows cannot be given a new version' end,
      case when c.oid is not null and (select f.proowner from pg_proc as f
          where f.oid = to_regprocedure(format('rowcast.restamp_%s(oid, json[], boolean)', s.id))) is distinct from c.relowner
        then 'the table has another owner than when it was watched; call rowcast.watch again' end,
      case when not rowcast.origin_ok() then 'this database is a copy or a restore and no gateway has started on it yet' end,
      case when exists (select from pg_trigger as t join pg_proc as f on f.oid = t.tgfoid where t.tgrelid = c.oid and t.tgname > 'zzz_rowcast_version'
          and t.tgtype & 3 = 3 and not t.tgisinternal and f.pronamespace <> 'rowcast'::regnamespace)
        then 'a BEFORE ROW trigger fires after `zzz_rowcast_version`; it must not touch row_version' end,
      (select string_agg(rowcast._rule_fault(c.oid, r.role, r.filter, r.columns), '; ' order by r.role) from rowcast.rule as r where r.relid = s.relid and c.oid is not null),
      (select format('row level security was enabled: the rules of %s do not count; call rowcast.allow again', string_agg(format('`%s`', r.role), ', ' order by r.role))
       from rowcast.rule as r where r.relid = s.relid and c.relrowsecurity and not r.ignore_row_security having count(*) > 0),
      case when exists (select from rowcast.rule as r where r.relid = s.relid and r.write) and c.oid is not null and rowcast._write_rights(c.oid) is not null
        then 'the gateway lacks rights to write: ' || rowcast._write_rights(c.oid) || '; call rowcast.allow again' end
    ], null)
  from rowcast.source as s left join pg_class as c on c.oid = s.relid left join ticks on true cross join log
  order by 1
$status$;
comment on function rowcast.status() is 'one row a watched table: triggers in place, ticks, log, rules, warnings';

grant execute on function rowcast.sources(), rowcast.status(), rowcast._members(oid),
  rowcast._missing(int, oid, boolean), rowcast._broken(int), rowcast._fingerprint(int) to rowcast_gateway, rowcast_admin;

reset role;
