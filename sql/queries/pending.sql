-- Does the log hold rows after a snapshot? $1 the snapshot, as text.
-- Returns pending, and the snapshot of this statement: when nothing is pending, the next question may start from it.
select rowcast.pending($1::text::pg_snapshot, pg_current_snapshot()) as pending, pg_current_snapshot()::text as snap
