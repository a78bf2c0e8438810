-- Writing through the gateway: which rights it takes, and the answers kept for repeated requests.
--
-- Must not know: HTTP, how changes are captured, who may write (0007). Invariant: an answer is kept by the transaction of its write.

set role rowcast_owner;
insert into rowcast.migration (id, name) values (6, 'writes');

-- subject and key, not the key alone: one caller must never meet the answer of another
create table rowcast.idempotency (
  subject text not null,
  key text not null,
  request bytea not null,
  xid xid8 not null default pg_current_xact_id(),
  status int not null,
  headers json not null,
  body text,
  published text[] not null default '{}',
  at timestamptz not null default clock_timestamp(),
  primary key (subject, key)
);
create index idempotency_at on rowcast.idempotency using btree (at);
comment on table rowcast.idempotency is 'answers to writes with an Idempotency-Key, each inserted by the transaction of its write';
comment on column rowcast.idempotency.subject is 'who asked: `anon` without a token';
comment on column rowcast.idempotency.key is 'the Idempotency-Key';
comment on column rowcast.idempotency.request is 'SHA-256 of the request: another one with the same key is refused';
comment on column rowcast.idempotency.xid is 'the transaction of the write, from which the position of a repeated answer follows';
comment on column rowcast.idempotency.status is 'HTTP status of the answer';
comment on column rowcast.idempotency.headers is 'headers of the answer that follow from the write, by name';
comment on column rowcast.idempotency.body is 'body of the answer without the position; null: none';
comment on column rowcast.idempotency.published is 'columns the answer may tell of, as <relid>.<name>, and of which rows, as <relid>:<digest>: with one that the caller is not shown any more it is given without a row';
comment on column rowcast.idempotency.at is 'when; forgotten after a day';
revoke all on rowcast.idempotency from public;
grant select, insert on rowcast.idempotency to rowcast_gateway;

-- Forget kept answers. Called by the leading gateway, again while it returns `most`: small transactions.
-- `older_than`: their age; `most`: rows of one call. Returns: how many. Tables: idempotency.
create function rowcast.forget_answers(older_than interval default '24 h', most int default 1000) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $forget$
declare
  v_count int;
begin
  -- two gateways at once: each skips what the other removes
  delete from rowcast.idempotency as i
  using (select subject, key from rowcast.idempotency where at < clock_timestamp() - older_than order by at limit most for update skip locked) as o
  where i.subject = o.subject and i.key = o.key;
  get diagnostics v_count = row_count;
  return v_count;
end
$forget$;
comment on function rowcast.forget_answers(interval, int) is 'forget kept answers; returns how many';

-- The sequences from which columns of a table draw their defaults: they belong to the column (`serial`). Those of identity columns need no right.
-- `target`: the table. Tables: pg_depend, pg_class.
create function rowcast._own_sequences(target oid) returns setof oid
language sql stable
set search_path = pg_catalog, pg_temp
as $sequences$
  select c.oid
  from pg_depend as d join pg_class as c on c.oid = d.objid and c.relkind = 'S'
  where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = target and d.refobjsubid > 0 and d.deptype = 'a'
  order by c.oid
$sequences$;
comment on function rowcast._own_sequences(oid) is 'sequences that belong to columns of a table';

-- Which rights the gateway lacks to write a table, in words; null when none. `target`: the table. Tables: catalogs.
create function rowcast._write_rights(target oid) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $rights$
  select string_agg(format('%s on %s', r.what, r.relid::regclass), ', ' order by r.relid, r.what)
  from (
    select p as what, target as relid from unnest(array['insert', 'update', 'delete']) as p where not has_table_privilege('rowcast_gateway', target, p)
    union all
    select 'usage', s from rowcast._own_sequences(target) as s where not has_sequence_privilege('rowcast_gateway', s, 'usage')
  ) as r
$rights$;
comment on function rowcast._write_rights(oid) is 'rights that the gateway lacks to write a table, in words';

grant execute on function rowcast._own_sequences(oid), rowcast._write_rights(oid)
  to rowcast_gateway, rowcast_admin;
grant execute on function rowcast.forget_answers(interval, int) to rowcast_gateway;

reset role;
