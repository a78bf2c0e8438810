-- The tick of a position: $1 id, $2 nonce. No row: the position is unknown or older than the log, answer with a reset.
select snap::text as snap, at from rowcast.tick where id = $1::bigint and nonce = $2::int
