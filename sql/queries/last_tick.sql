-- The newest tick. No row only while history is begun again.
select id, nonce, prev_id, snap::text as snap, at from rowcast.tick order by id desc limit 1
