-- Stop muting writers. Returns h: once every transaction up to h has ended (armed.sql) nobody is left who read the old lease.
-- The filter on setval makes it run before h is taken. Run it alone in its transaction. Nothing in it is worth a flush: after a crash the lease
-- has lapsed and every transaction has ended.
select pg_current_xact_id()::text::bigint as h
from (select setval('rowcast.quiet', 0) as lease, set_config('synchronous_commit', 'off', true) as flush offset 0) as cell
where cell.lease = 0 and cell.flush = 'off'
