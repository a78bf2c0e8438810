-- May this database be read? ok false: log and ticks came here in a dump or a copy, call rowcast.begin_again().
-- in_recovery true: a standby, whose snapshots must not be used.
select rowcast.origin_ok() as ok, pg_is_in_recovery() as in_recovery
