-- Make the next tick, if this gateway has applied the newest one and the log holds rows after it.
-- $1 id of the newest tick this gateway has applied, $2 lease in ms: for so long writers need not ring; 0: they ring.
-- Returns the newest tick, made or found: id, nonce, prev_id, snap, at, made. No row only while history is begun again.
-- One statement, so that the test and the snapshot are of one moment. Nothing pending: writes nothing, takes no transaction id.
-- A second leader gets 23505 on prev_id. Run it alone in its transaction, READ COMMITTED, synchronous_commit = on, and publish after the commit.
with last as materialized (
  select id, nonce, prev_id, snap, at from rowcast.tick order by id desc limit 1
), made as (
  insert into rowcast.tick (prev_id, snap)
  select last.id, pg_current_snapshot()
  from last
  where last.id = $1::bigint and rowcast.pending(last.snap, pg_current_snapshot())
  returning id, nonce, prev_id, snap, at,
    setval('rowcast.quiet', case when $2::bigint > 0 then (extract(epoch from clock_timestamp()) * 1000)::bigint + $2::bigint else 0 end) as lease
)
select id, nonce, prev_id, snap::text as snap, at, true as made from made where lease is not null
union all
select id, nonce, prev_id, snap::text, at, false from last where not exists (select from made)
