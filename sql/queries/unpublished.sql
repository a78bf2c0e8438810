-- What the log holds of the table $1 after the newest tick, at most $2 rows.
select old, new from rowcast.unpublished($1, $2)
