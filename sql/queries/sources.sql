-- The watched tables with everything a gateway must know of them; cheap enough to poll. See rowcast.sources().
select relid, schema, name, key, key_sql, row_sql, ttl_ms, stale_ms, snapshot_ms, bulk_limit, public, columns, broken, fingerprint, rules
from rowcast.sources()
