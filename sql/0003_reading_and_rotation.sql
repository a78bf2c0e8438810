-- How the log is read between two snapshots, begun again after a restore, and emptied.
--
-- Must not know: what the rows mean. Invariants: a tick exists only while every row between it and the newest tick is still in the log;
-- no function here makes a writer wait.

set role rowcast_owner;
insert into rowcast.migration (id, name) values (3, 'reading_and_rotation');

-- The advisory lock that the one leader holds.
-- Returns: the key for pg_try_advisory_lock(bigint). Tables: none.
create function rowcast.leader_lock() returns bigint
language sql immutable parallel safe
return 8247612054291;
comment on function rowcast.leader_lock() is 'key of the advisory lock held by the gateway that makes ticks';

-- The ranges of transaction ids that are finished at `snap` and were not at `prev`.
-- `prev`, `snap`: the earlier and the later snapshot. Returns: closed ranges, few and disjoint. Tables: none.
--
-- Not `xid >= xmax(prev)` with a visibility test: the rows of a transaction that is still writing (2 million of them) would be visited at every
-- poll. Between two open transactions there are only rows of finished ones. No `set search_path`: it would keep this from being inlined, and
-- every name and operator is qualified or on built-in types that have one candidate.
create function rowcast.spans(prev pg_snapshot, snap pg_snapshot) returns table (lo xid8, hi xid8)
language sql stable parallel safe rows 2
begin atomic
  select (edge.prior + 1)::text::xid8, (edge.xid - 1)::text::xid8
  from (
    select open.xid, lag(open.xid, 1, pg_snapshot_xmax(prev)::text::bigint - 1) over (order by open.xid) as prior
    from (
      select x::text::bigint as xid from pg_snapshot_xip(snap) as x where x >= pg_snapshot_xmax(prev)
      union all
      select pg_snapshot_xmax(snap)::text::bigint
    ) as open
  ) as edge
  where edge.xid - edge.prior > 1
  union all
  select x, x from pg_snapshot_xip(prev) as x where pg_visible_in_snapshot(x, snap);
end;
comment on function rowcast.spans(pg_snapshot, pg_snapshot) is 'closed ranges of transaction ids finished at the second snapshot and not at the first';

-- Whether the log holds rows between two snapshots.
-- `prev`, `snap`: the earlier snapshot, and the one of the calling statement. Tables: log_0..2 (index probes only).
create function rowcast.pending(prev pg_snapshot, snap pg_snapshot) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $pending$
declare
  v_span record;
begin
  for v_span in select lo, hi from rowcast.spans(prev, snap) loop
    if exists (select from rowcast.log_0 where xid >= v_span.lo and xid <= v_span.hi)
      or exists (select from rowcast.log_1 where xid >= v_span.lo and xid <= v_span.hi)
      or exists (select from rowcast.log_2 where xid >= v_span.lo and xid <= v_span.hi) then
      return true;
    end if;
  end loop;
  return false;
end
$pending$;
comment on function rowcast.pending(pg_snapshot, pg_snapshot) is 'whether the log holds rows between two snapshots';

-- What the log holds of one table after the newest tick: images only, a row without any is a reload.
-- `relid`: the table; `most`: rows after which it stops. In the repeatable-read transaction that read the rows, and after them. A log table that
-- was emptied since the snapshot has nothing to say here: every row of it comes before a tick. Tables: tick, log_0..2 (index probes only).
-- A function and not a statement, because behind a pooler nothing is prepared, and to plan it took longer than everything else of a read.
create function rowcast.unpublished(relid oid, most int) returns table (old json, new json)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $unpublished$
#variable_conflict use_column
declare
  v_span record;
  v_rows bigint;
  v_left bigint := most;
begin
  for v_span in
    select s.lo, s.hi from (select snap from rowcast.tick order by id desc limit 1) as newest, rowcast.spans(newest.snap, pg_current_snapshot()) as s
  loop
    return query select l.old, l.new from rowcast.log_0 as l where l.xid >= v_span.lo and l.xid <= v_span.hi and l.relid = unpublished.relid limit v_left;
    get diagnostics v_rows = row_count;
    v_left := v_left - v_rows;
    return query select l.old, l.new from rowcast.log_1 as l where l.xid >= v_span.lo and l.xid <= v_span.hi and l.relid = unpublished.relid limit v_left;
    get diagnostics v_rows = row_count;
    v_left := v_left - v_rows;
    return query select l.old, l.new from rowcast.log_2 as l where l.xid >= v_span.lo and l.xid <= v_span.hi and l.relid = unpublished.relid limit v_left;
    get diagnostics v_rows = row_count;
    v_left := v_left - v_rows;
    exit when v_left <= 0;
  end loop;
end
$unpublished$;
comment on function rowcast.unpublished(oid, int) is 'images that the log holds of a table after the newest tick';

-- The system identifier of the cluster, or null where a provider took the right to read it away.
-- Tables: none.
create function rowcast._system() returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $system$
begin
  return (select system_identifier from pg_control_system());
exception
  when insufficient_privilege or undefined_function then return null;
end
$system$;
comment on function rowcast._system() is 'system identifier of the cluster, null when it may not be read';

-- Whether log and ticks were written here, and not in the database this one was restored or copied from.
-- Tables: origin.
create function rowcast.origin_ok() returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $origin$
  select coalesce((
    select o.database = d.oid and o.log = to_regclass('rowcast.log_0')::oid
      and coalesce(o.system = rowcast._system(), true)
    from rowcast.origin as o, pg_database as d
    where d.datname = current_database()), false)
$origin$;
comment on function rowcast.origin_ok() is 'false in a restored or copied database: call rowcast.begin_again()';

-- Start history anew: empty log, one new first tick, capture functions made again for the oids of this database.
-- Fails at once (55P03) when a writer holds the log; call it again. Tables: log_0..2, tick, origin, source.
create function rowcast.begin_again() returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $again$
declare
  v_source record;
begin
  -- nowait: a queued exclusive lock would make writers wait behind it
  lock table rowcast.log_0, rowcast.log_1, rowcast.log_2 in access exclusive mode nowait;
  truncate rowcast.log_0, rowcast.log_1, rowcast.log_2;
  delete from rowcast.tick;
  insert into rowcast.tick (prev_id, snap) values (0, pg_current_snapshot());
  delete from rowcast.origin;
  insert into rowcast.origin (database, log, system)
  select oid, 'rowcast.log_0'::regclass::oid, rowcast._system() from pg_database where datname = current_database();
  for v_source in select s.id from rowcast.source as s join pg_class as c on c.oid = s.relid loop
    perform rowcast._define_capture(v_source.id);
  end loop;
end
$again$;
comment on function rowcast.begin_again() is 'start history anew after a restore: every position given out before is refused';

-- The oldest tick that sees every row of a log table.
-- `log`: number of the table. Returns: its id; null when no tick does; 0 when the table has no rows. Tables: that log, tick.
-- Ticks that see all of them are a suffix of the chain, so a binary search finds the first: an hour has up to a million ticks.
create function rowcast._horizon(log int) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $horizon$
declare
  v_max xid8;
  v_low bigint;
  v_high bigint;
  v_mid bigint;
  v_snap pg_snapshot;
  v_sees boolean;
  v_found bigint;
begin
  execute format('select xid from rowcast.log_%s order by xid desc limit 1', log) into v_max;
  if v_max is null then
    return 0;
  end if;
  select min(id), max(id) into v_low, v_high from rowcast.tick;
  while v_low <= v_high loop
    select id, snap into v_mid, v_snap from rowcast.tick where id >= v_low + (v_high - v_low) / 2 order by id limit 1;
    v_sees := pg_snapshot_xmax(v_snap) > v_max;
    if v_sees then
      execute format('select not exists (select from pg_snapshot_xip($1) as x where exists (select from rowcast.log_%s where xid = x))', log)
        into v_sees using v_snap;
    end if;
    if v_sees then
      v_found := v_mid;
      select max(id) into v_high from rowcast.tick where id < v_low + (v_high - v_low) / 2 and id >= v_low;
    else
      v_low := v_mid + 1;
    end if;
  end loop;
  return v_found;
end
$horizon$;
comment on function rowcast._horizon(int) is 'oldest tick that sees every row of a log table';

-- At most one step of the rotation: empty the oldest log table, or (in a call of its own, hence a transaction of its own) move on to it.
-- `retention`: rows stay at least so long, and at most one and a half times. Returns: what was done (`emptied ..`, `moved to ..`, `forgot old
-- ticks`: call again soon), `nothing to do`, or `held back: ..`. Tables: log_0..2, tick, rotation, source.
create function rowcast.rotate(retention interval) returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $rotate$
declare
  v_slot int := pg_sequence_last_value('rowcast.slot');
  v_next int := (v_slot + 1) % 3;
  v_last rowcast.rotation;
  v_horizon bigint;
  v_holder text;
begin
  if retention is null or retention <= interval '0' then
    raise exception using errcode = 'invalid_parameter_value', message = 'retention must be longer than 0';
  end if;
  -- two gateways at once: the second comes again later
  if not pg_try_advisory_xact_lock(rowcast.leader_lock() + 1) then
    return 'held back: another session rotates now';
  end if;
  -- tables that were dropped without unwatch
  perform rowcast._forget(s.relid) from rowcast.source as s where not exists (select from pg_class as c where c.oid = s.relid);
  select * into v_last from rowcast.rotation;
  if v_last.slot <> v_slot then
    -- setval is not undone with its transaction: an earlier move got no time
    update rowcast.rotation set slot = v_slot, moved_at = clock_timestamp();
    return format('moved to log_%s', v_slot);
  end if;
  -- half the retention a table: the one to be emptied then has no row younger than the whole of it
  if clock_timestamp() < v_last.moved_at + retention / 2 then
    return 'nothing to do';
  end if;
  if pg_relation_size('rowcast.log_0') + pg_relation_size('rowcast.log_1') + pg_relation_size('rowcast.log_2') = 0 then
    return 'nothing to do';
  end if;

  if pg_relation_size(format('rowcast.log_%s', v_next)::regclass) = 0 then
    perform setval('rowcast.slot', v_next);
    update rowcast.rotation set slot = v_next, moved_at = clock_timestamp();
    return format('moved to log_%s', v_next);
  end if;

  -- Ticks below the horizon are refused from now on. Most of them go before the lock is taken and in steps of their own: an hour may have a
  -- million, and readers would wait for the lock as long as they take.
  v_horizon := rowcast._horizon(v_next);
  if (select count(*) from (select from rowcast.tick where id < v_horizon limit 10001) as t) > 10000 then
    delete from rowcast.tick where id in (select id from rowcast.tick where id < v_horizon order by id limit 100000);
    return 'forgot old ticks';
  end if;
  -- A writer with uncommitted rows in the table holds a lock on it until its end, so with ours every row is decided.
  begin
    execute format('lock table rowcast.log_%s in access exclusive mode nowait', v_next);
  exception
    when lock_not_available then
      select string_agg(distinct format('process %s%s', l.pid,
          coalesce(format(' (%s, since %s)', nullif(a.application_name, ''), a.xact_start), '')), ', ')
        into v_holder
        from pg_locks as l
        left join pg_stat_activity as a on a.pid = l.pid
       where l.locktype = 'relation' and l.database = (select oid from pg_database where datname = current_database())
         and l.relation = format('rowcast.log_%s', v_next)::regclass;
      return format('held back: log_%s is held by %s', v_next, coalesce(v_holder, 'a session that just ended'));
  end;
  v_horizon := rowcast._horizon(v_next);
  if v_horizon is null then
    return format('held back: no tick has passed everything in log_%s yet', v_next);
  end if;
  delete from rowcast.tick where id < v_horizon;
  execute format('truncate rowcast.log_%s', v_next);
  return format('emptied log_%s', v_next);
end
$rotate$;
comment on function rowcast.rotate(interval) is 'one step of the rotation of the log; call it again and again, each time in its own transaction';

grant execute on function rowcast.leader_lock(), rowcast.spans(pg_snapshot, pg_snapshot), rowcast.pending(pg_snapshot, pg_snapshot),
  rowcast.unpublished(oid, int), rowcast._system(), rowcast.origin_ok(), rowcast.begin_again(), rowcast.rotate(interval) to rowcast_gateway;

-- The first tick, and where it was made. Written out because rowcast._define_capture does not exist yet.
insert into rowcast.tick (prev_id, snap) values (0, pg_current_snapshot());
insert into rowcast.origin (database, log, system)
select oid, 'rowcast.log_0'::regclass::oid, rowcast._system() from pg_database where datname = current_database();

reset role;
