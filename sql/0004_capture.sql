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
    when cardinality(s.key) = 1 then format('(%I.%I)::text', alias, s.key[1])
    else (
      select string_agg(format($part$pg_catalog.replace(pg_catalog.replace((%I.%I)::text, '%%', '%%25'), ',', '%%2C')$part$, alias, k.name),
        $glue$ operator(pg_catalog.||) ',' operator(pg_catalog.||) $glue$ order by k.n)
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

-- Draw the version of a row, and refuse a write based on another version than the row's. BEFORE INSERT OR UPDATE FOR EACH ROW.
-- Tables: none (sequence version).
--
-- Runs per row, so no `set search_path` (it doubles its cost): every name is qualified, operators too, and nothing else can be looked up.
-- SECURITY DEFINER: writers have no right on the sequence.
create function rowcast.stamp() returns trigger
language plpgsql security definer
as $stamp$
begin
  -- null, or the current value, means: no version attached
  if tg_op operator(pg_catalog.=) 'UPDATE' and new.row_version operator(pg_catalog.<>) old.row_version then
    raise exception using errcode = 'RC409',
      message = 'the row was changed since it was read',
      detail = pg_catalog.format('the write is based on row_version %s, the row has %s', new.row_version, old.row_version),
      hint = 'read the row again and decide anew; do not repeat the write as it is',
      schema = tg_table_schema, table = tg_table_name, column = 'row_version';
  end if;
  new.row_version := pg_catalog.nextval('rowcast.version'::pg_catalog.regclass);
  return new;
end
$stamp$;
comment on function rowcast.stamp() is 'trigger function: draws row_version, refuses a write based on a stale one with SQLSTATE RC409';

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

-- SQL for "same key", column by column, by the text of the value.
-- `id`: the source; `a`, `b`: aliases. Tables: source.
-- By text and never by the type's own operator: operators may live outside pg_catalog, collations may take different texts for equal, and the
-- text is what travels.
create function rowcast._match_sql(id int, a text, b text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $match$
  select string_agg(format('(%1$I.%3$I)::text collate "C" = (%2$I.%3$I)::text collate "C"', a, b, k.name), ' and ' order by k.n)
  from rowcast.source as s, unnest(s.key) with ordinality as k (name, n) where s.id = _match_sql.id
$match$;
comment on function rowcast._match_sql(int, text, text) is 'SQL condition: two rows have the same key text';

-- Make the four capture functions of a source, or make them again.
-- `id`: the source. Tables: source, pg_constraint, pg_index; creates capture_<id>_insert, _update, _delete, _truncate and deleted_<id>.
--
-- One data-modifying statement a call; everything else is an expression that plpgsql evaluates without running a query. The order matters:
-- first the log row (it takes the transaction id), then the doorbell's lease, so that who read an old lease has a transaction id by then.
create function rowcast._define_capture(id int) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $define$
declare
  v_source rowcast.source;
  v_index record;
  v_foreign text;
  v_changed text;
  v_guard text;
  v_head text;
  v_pins text;
  v_bell text;
  v_slots text;
  v_key_old text;
  v_key_new text;
  v_row_old text;
  v_row_new text;
  v_json text;
  v_match text;
  v_limit text;
  v_race text;
  v_moved text := '';
  v_removed text := '';
  v_op text;
begin
  select * into strict v_source from rowcast.source as s where s.id = _define_capture.id;
  select i.indexrelid, c.oid as constraint_oid, i.indnkeyatts into v_index
  from pg_index as i
  left join pg_constraint as c on c.conindid = i.indexrelid and c.contype in ('p', 'u') and c.conrelid = i.indrelid
  where i.indrelid = v_source.relid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
    and i.indimmediate = not v_source.key_deferrable and i.indnkeyatts = cardinality(v_source.key)
    and (select count(*) from pg_attribute as a where a.attrelid = v_source.relid and a.attname = any (v_source.key)
           and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])) = cardinality(v_source.key)
  order by i.indisprimary desc, c.oid is null, i.indexrelid limit 1;

  execute format('create sequence if not exists rowcast.deleted_%s', id);
  execute format('revoke all on sequence rowcast.deleted_%s from public', id);
  execute format('comment on sequence rowcast.deleted_%s is %L', id, 'cell: called once a row of the source was deleted or its key changed');

  -- A leaf that was detached still has its triggers. A copy of this function's oid in a restored database means nothing.
  v_foreign := format('tg_relid <> %s', v_source.relid::oid);
  if (select relkind = 'p' from pg_class where oid = v_source.relid) then
    v_foreign := v_foreign || format(' and pg_partition_root(tg_relid) is distinct from %s', v_source.relid::oid);
  end if;
  -- 1.9 us; the same question asked of pg_attribute costs a query, 4.2 us
  if v_index.constraint_oid is not null then
    v_changed := format('pg_get_constraintdef(%s) is distinct from %L', v_index.constraint_oid, pg_get_constraintdef(v_index.constraint_oid));
  elsif v_index.indexrelid is not null then
    select string_agg(format('pg_get_indexdef(%s, %s, false) is distinct from %L', v_index.indexrelid, n,
        pg_get_indexdef(v_index.indexrelid, n, false)), ' or ' order by n)
      into v_changed from generate_series(1, v_index.indnkeyatts) as n;
  else
    v_changed := 'true';
  end if;
  v_changed := format('(%s) and not rowcast._key_holds(%s)', v_changed, id);
  if v_source.columns is not null then
    v_changed := v_changed || format(' or (select count(*) from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped
      and attname = any (%L::text[])) <> %s', v_source.relid::oid, v_source.columns, cardinality(v_source.columns));
  end if;
  v_guard := format($sql$
  if %1$s then
    return null;
  end if;
  if %2$s then
    perform rowcast._mark(%3$s, 'r');
    return null;
  end if;$sql$, v_foreign, v_changed, v_source.relid::oid);

  -- The writer's settings shape text: one cheap test, and only a writer who changed them pays. The function has a `set` clause, so what is set
  -- locally here ends with it. Seven `set` clauses instead: see the numbers in rowcast.watch.
  v_pins := $sql$
  if current_setting('TimeZone') <> 'UTC' or current_setting('DateStyle') <> 'ISO, MDY' or current_setting('IntervalStyle') <> 'iso_8601'
    or current_setting('bytea_output') <> 'hex' or current_setting('extra_float_digits') <> '1' or current_setting('lc_monetary') <> 'C' then
    v_set := set_config('TimeZone', 'UTC', true);
    v_set := set_config('DateStyle', 'ISO, MDY', true);
    v_set := set_config('IntervalStyle', 'iso_8601', true);
    v_set := set_config('bytea_output', 'hex', true);
    v_set := set_config('extra_float_digits', '1', true);
    v_set := set_config('lc_monetary', 'C', true);
  end if;$sql$;

  -- A lease more than a minute ahead is no lease. A queue half full is left alone: when it is full other applications' commits fail.
  v_bell := $sql$
  v_lease := pg_sequence_last_value('rowcast.quiet') - date_part('epoch', clock_timestamp()) * 1000;
  if (v_lease <= 0 or v_lease > 60000) and current_setting('rowcast.doorbell', true) is distinct from 'off'
    and pg_notification_queue_usage() < 0.5 then
    perform pg_notify('rowcast', '');
  end if;
  return null;$sql$;

  v_head := $sql$
create or replace function rowcast.capture_%1$s_%2$s() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $capture$
#variable_conflict use_column
declare
  v_slot int := pg_sequence_last_value('rowcast.slot');
  v_rows bigint;
  v_new bigint;
  v_gone bigint;
  v_low bigint;
  v_lease float8;
  v_again json[];
  v_set text;
begin%3$s
end
$capture$
$sql$;

  v_key_old := rowcast.key_sql(v_source.relid, 'rowcast_old');
  v_key_new := rowcast.key_sql(v_source.relid, 'rowcast_new');
  v_row_old := rowcast.row_sql(v_source.relid, 'rowcast_old');
  v_row_new := rowcast.row_sql(v_source.relid, 'rowcast_new');
  v_match := rowcast._match_sql(id, 'rowcast_old', 'rowcast_new');
  -- names go through format() again: a percent sign in one is doubled
  select string_agg('%1$s.' || replace(quote_ident(k.name), '%', '%%'), ', ' order by k.n) into v_json from unnest(v_source.key) with ordinality as k (name, n);
  v_json := '(select row_to_json(rowcast_key.*) from (select ' || v_json || ', %1$s.row_version) as rowcast_key)';
  v_limit := '(select count(*) from (select from %s limit ' || v_source.bulk_limit + 1::bigint || ') as rowcast_some) <= ' || v_source.bulk_limit;

  -- The insert/delete race. An INSERT draws its version before it waits for a concurrent deleter of the same key, and can end up below the
  -- tombstone. Such a tombstone's version was drawn after ours: no gap in the sequence, no race. Then a look for tombstones (and for reloads,
  -- which stand for many), and the row gets a new version by an UPDATE. A REPEATABLE READ transaction cannot see the tombstone (and reading the log would add predicate locks): it
  -- stamps anew whenever there is a gap, unless nothing of this table was ever deleted.
  v_race := $sql$
    if current_setting('transaction_isolation') in ('read committed', 'read uncommitted') then
      select array_agg(%1$s) into v_again
      from rowcast_new cross join lateral (
        select 1 from rowcast.log_0 as d where d.op = 'd' and d.relid = %2$s and hashtextextended(d.key collate "C", 0)
            = hashtextextended((%3$s) collate "C", 0) and d.key collate "C" = (%3$s) and d.version > rowcast_new.row_version
        union all
        select 1 from rowcast.log_0 as r where r.op = 'r' and r.relid = %2$s and hashtextextended(r.key collate "C", 0) is null
          and r.version > rowcast_new.row_version
        union all
        select 1 from rowcast.log_1 as d where d.op = 'd' and d.relid = %2$s and hashtextextended(d.key collate "C", 0)
            = hashtextextended((%3$s) collate "C", 0) and d.key collate "C" = (%3$s) and d.version > rowcast_new.row_version
        union all
        select 1 from rowcast.log_1 as r where r.op = 'r' and r.relid = %2$s and hashtextextended(r.key collate "C", 0) is null
          and r.version > rowcast_new.row_version
        union all
        select 1 from rowcast.log_2 as d where d.op = 'd' and d.relid = %2$s and hashtextextended(d.key collate "C", 0)
            = hashtextextended((%3$s) collate "C", 0) and d.key collate "C" = (%3$s) and d.version > rowcast_new.row_version
        union all
        select 1 from rowcast.log_2 as r where r.op = 'r' and r.relid = %2$s and hashtextextended(r.key collate "C", 0) is null
          and r.version > rowcast_new.row_version
        limit 1) as removal;
    else
      select array_agg(%1$s) into v_again from %4$s;
    end if;
    if v_again is not null and not rowcast.restamp_%5$s(v_again) then
      perform rowcast._mark(%2$s, 'r');
    end if;$sql$;

  foreach v_op in array array['insert', 'update', 'delete', 'truncate'] loop
    if v_op = 'insert' then
      v_slots := format($sql$
    with logged as (
      insert into rowcast.log_%%s (version, relid, op, key, new)
      select rowcast_new.row_version, %1$s, 'i', %2$s, %3$s
      from rowcast_new where %4$s
      returning version)
    select count(*), min(version) into v_rows, v_low from logged;$sql$,
        v_source.relid::oid, replace(v_key_new, '%', '%%'), replace(v_row_new, '%', '%%'), format(v_limit, 'rowcast_new'));
    elsif v_op = 'update' then
      -- A full join is never a nested loop, so the plan made for one row is good for 100,000. The versions: where a cascade updates a row again
      -- within one statement the same key stands twice on both sides, and a row must not be paired with itself.
      v_slots := format($sql$
    with logged as (
      insert into rowcast.log_%%s (version, relid, op, key, old_version, old, new)
      select coalesce(rowcast_new.row_version, rowcast_old.row_version + 1), %1$s,
        case when rowcast_old.row_version is null then 'i' when rowcast_new.row_version is null then 'd' else 'u' end,
        case when rowcast_new.row_version is null then %2$s else %3$s end,
        rowcast_old.row_version,
        case when rowcast_old.row_version is not null then %4$s end,
        case when rowcast_new.row_version is not null then %5$s end
      from rowcast_old full join rowcast_new on %6$s and rowcast_old.row_version < rowcast_new.row_version
      where %7$s
      returning op, version)
    select count(*), count(*) filter (where op = 'i'), min(version) filter (where op = 'i'), count(*) filter (where op = 'd')
      into v_rows, v_new, v_low, v_gone from logged;$sql$,
        v_source.relid::oid, replace(v_key_old, '%', '%%'), replace(v_key_new, '%', '%%'), replace(v_row_old, '%', '%%'),
        replace(v_row_new, '%', '%%'), replace(v_match, '%', '%%'), format(v_limit, 'rowcast_new'));
    elsif v_op = 'delete' then
      v_slots := format($sql$
    with logged as (
      insert into rowcast.log_%%s (version, relid, op, key, old_version, old)
      select rowcast_old.row_version + 1, %1$s, 'd', %2$s, rowcast_old.row_version, %3$s
      from rowcast_old where %4$s
      returning version)
    select count(*) into v_rows from logged;$sql$,
        v_source.relid::oid, replace(v_key_old, '%', '%%'), replace(v_row_old, '%', '%%'), format(v_limit, 'rowcast_old'));
    end if;
    if v_op <> 'truncate' then
      v_slots := format($sql$
  if v_slot = 0 then%s
  elsif v_slot = 1 then%s
  else%s
  end if;
  if v_rows = 0 then
    if exists (select from %s) then%s
      perform rowcast._mark(%s, 'r');
    end if;
    return null;
  end if;$sql$, format(v_slots, 0), format(v_slots, 1), format(v_slots, 2),
        case v_op when 'delete' then 'rowcast_old' else 'rowcast_new' end,
        case when v_op <> 'insert' then format($sql$
      v_rows := setval('rowcast.deleted_%s', 1);$sql$, id) end,
        v_source.relid::oid);
    end if;

    -- Two rows may share a deferrable key within a transaction: the one that stays must not lie below the tombstone of the one that went.
    if v_source.key_deferrable then
      v_moved := format($sql$
    select array_agg(%1$s) into v_again from rowcast_old full join rowcast_new on %2$s
      and rowcast_old.row_version < rowcast_new.row_version where rowcast_new.row_version is null;
    if not rowcast.restamp_%3$s(v_again) then
      perform rowcast._mark(%4$s, 'r');
    end if;$sql$, format(v_json, 'rowcast_old'), v_match, id, v_source.relid::oid);
      v_removed := format($sql$
  select array_agg(%1$s) into v_again from rowcast_old;
  if not rowcast.restamp_%2$s(v_again) then
    perform rowcast._mark(%3$s, 'r');
  end if;$sql$, format(v_json, 'rowcast_old'), id, v_source.relid::oid);
    end if;

    execute format(v_head, id, v_op, case v_op
      when 'insert' then v_guard || v_pins || v_slots || format($sql$
  if pg_sequence_last_value('rowcast.version') > v_low + 2 * (v_rows - 1) and pg_sequence_last_value('rowcast.deleted_%s') is not null then%s
  end if;$sql$, id, format(v_race, format(v_json, 'rowcast_new'), v_source.relid::oid, v_key_new, 'rowcast_new', id)) || v_bell
      when 'update' then v_guard || v_pins || v_slots || format($sql$
  if v_gone > 0 then
    if pg_sequence_last_value('rowcast.deleted_%1$s') is null then
      v_gone := setval('rowcast.deleted_%1$s', 1);
    end if;%2$s
  end if;
  if v_new > 0 and pg_sequence_last_value('rowcast.version') > v_low + 2 * (v_new - 1)
    and pg_sequence_last_value('rowcast.deleted_%1$s') is not null then%3$s
  end if;$sql$, id, v_moved, format(v_race, format(v_json, 'rowcast_new'), v_source.relid::oid, v_key_new,
          format('rowcast_old full join rowcast_new on %s and rowcast_old.row_version < rowcast_new.row_version
        where rowcast_old.row_version is null', v_match), id)) || v_bell
      when 'delete' then v_guard || v_pins || v_slots || format($sql$
  if pg_sequence_last_value('rowcast.deleted_%1$s') is null then
    v_rows := setval('rowcast.deleted_%1$s', 1);
  end if;%2$s$sql$, id, v_removed) || v_bell
      else format($sql$
  if %1$s then
    return null;
  end if;
  -- of a single partition: the others still have their rows
  perform rowcast._mark(%2$s, case when tg_relid = %2$s then 't' else 'r' end::"char");
  return null;$sql$, v_foreign, v_source.relid::oid)
    end);
    execute format('revoke all on function rowcast.capture_%s_%s() from public', id, v_op);
    execute format('comment on function rowcast.capture_%s_%s() is %L', id, v_op, 'generated by rowcast.watch: records changes of one table');
  end loop;
end
$define$;
comment on function rowcast._define_capture(int) is 'make the capture functions of a source';

do $rights$
declare
  v_function regprocedure;
begin
  for v_function in select oid from pg_proc where pronamespace = 'rowcast'::regnamespace loop
    execute format('revoke all on function %s from public', v_function);
  end loop;
end
$rights$;
grant execute on function rowcast.key_sql(oid, text), rowcast.row_sql(oid, text) to rowcast_gateway, rowcast_admin;

reset role;
