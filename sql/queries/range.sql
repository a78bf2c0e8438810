-- The batch between two snapshots: every log row visible in $2 and not in $1, in no order; the highest version of a key wins.
-- $1 earlier snapshot, $2 later snapshot (both as text), $3 and $4 closed ranges of relids to read: {0} and {4294967295} for all. As bounds, so
-- that the index passes by a table that is left out, with however many rows.
-- Before it, in the same transaction: lock table rowcast.log_0, rowcast.log_1, rowcast.log_2 in access share mode, then look whether the earlier
-- tick still exists (tick_by_id.sql): after the lock that answer cannot change.
-- The log is never analyzed. For a streamed plan (nested loop over index scans) the session sets enable_seqscan, enable_bitmapscan and enable_sort
-- to off, and jit to off: a discouraged node is costed so high that every execution would be compiled first (237 ms against 0.1).
-- `offset 0` keeps the span outside: otherwise the planner may walk the log and test every span on every row.
with span as materialized (
  select lo, hi from rowcast.spans($1::text::pg_snapshot, $2::text::pg_snapshot)
), wanted as materialized (
  select lo, hi from unnest($3::oid[], $4::oid[]) as w (lo, hi)
)
select l.relid, l.op::text as op, l.version, l.old_version, l.key, l.old, l.new, l.at
from span cross join wanted cross join lateral (
  select relid, op, version, old_version, key, old, new, at from rowcast.log_0
  where xid >= span.lo and xid <= span.hi and relid >= wanted.lo and relid <= wanted.hi offset 0) as l
union all
select l.relid, l.op::text as op, l.version, l.old_version, l.key, l.old, l.new, l.at
from span cross join wanted cross join lateral (
  select relid, op, version, old_version, key, old, new, at from rowcast.log_1
  where xid >= span.lo and xid <= span.hi and relid >= wanted.lo and relid <= wanted.hi offset 0) as l
union all
select l.relid, l.op::text as op, l.version, l.old_version, l.key, l.old, l.new, l.at
from span cross join wanted cross join lateral (
  select relid, op, version, old_version, key, old, new, at from rowcast.log_2
  where xid >= span.lo and xid <= span.hi and relid >= wanted.lo and relid <= wanted.hi offset 0) as l
