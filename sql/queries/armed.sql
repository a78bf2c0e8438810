-- Has every transaction up to $1 (h of disarm.sql) ended? Then poll once more and sleep on the doorbell.
select pg_snapshot_xmin(pg_current_snapshot())::text::bigint > $1::bigint as armed
