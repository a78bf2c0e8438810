-- What the log holds of one table after the newest tick: $1 its oid. Images only; a row without any is a reload.
-- In the repeatable-read transaction that read the rows, and after them; with the settings that range.sql asks for. A log table that was emptied
-- since the snapshot has nothing to say here: every row of it comes before a tick.
-- The caller gives up on more than 100 rows, which no gateway that keeps pace leaves pending for longer than one tick takes.
with span as materialized (
  select s.lo, s.hi
  from (select snap from rowcast.tick order by id desc limit 1) as newest, rowcast.spans(newest.snap, pg_current_snapshot()) as s
)
select l.old, l.new
from span cross join lateral (
  select old, new from rowcast.log_0 where xid >= span.lo and xid <= span.hi and relid = $1 offset 0) as l
union all
select l.old, l.new
from span cross join lateral (
  select old, new from rowcast.log_1 where xid >= span.lo and xid <= span.hi and relid = $1 offset 0) as l
union all
select l.old, l.new
from span cross join lateral (
  select old, new from rowcast.log_2 where xid >= span.lo and xid <= span.hi and relid = $1 offset 0) as l
limit 101
