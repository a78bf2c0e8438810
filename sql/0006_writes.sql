-- Writing through the gateway: which tables allow it, and the answers kept for repeated requests.
--
-- Must not know: HTTP, how changes are captured. Invariants: nothing can be written through the gateway until the table's owner allows it;
-- allowing and denying change no fingerprint, so no stream is reset.

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
comment on column rowcast.idempotency.published is 'columns the answer may tell of, as <relid>.<name>: with one that is not published any more it is given without a row';
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

-- Note whether a table is written through the gateway, and tell the gateways. The caller owns it.
-- `target`: a watched table; the rest: see rowcast.source. Tables: source, log.
-- The reload is one of no table: who reads the log looks at the catalog, and nobody is reset.
create function rowcast._set_writing(target oid, writable boolean, version_required boolean) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $set$
#variable_conflict use_variable
begin
  perform rowcast._check_owner(target);
  update rowcast.source as s set writable = writable, version_required = version_required where s.relid = target;
  perform rowcast._mark(0::oid, 'r');
end
$set$;
comment on function rowcast._set_writing(oid, boolean, boolean) is 'note whether a table is written through the gateway';

-- Only what this version can keep is accepted. `target`: the table; `role`: who. Tables: none.
create function rowcast._check_role(target oid, role text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $check$
begin
  if role is distinct from 'anon' then
    raise exception using errcode = 'feature_not_supported',
      message = format('role `%s`: only `anon` (no token) can be allowed in this version', role),
      hint = 'roles, filters and columns come with the Permissions release';
  end if;
  if not exists (select from pg_class where oid = target) then
    raise exception using errcode = 'undefined_table', message = format('there is no table `%s`', target::regclass);
  end if;
  perform rowcast._check_owner(target);
end
$check$;
comment on function rowcast._check_role(oid, text) is 'raises unless the role can be allowed in this version and the caller owns the table';

-- Allow a role to use a table through the gateway. The caller owns the table and is a member of rowcast_admin. Calling it again replaces what was
-- allowed before.
--   target            a table watched with public => true
--   role              'anon': whoever has no token. Others come with the Permissions release, as do
--   filter, columns   which must be null
--   write             insert, update and delete rows
--   version_required  an update or a delete must name the version it is based on, otherwise it is refused
-- Returns: nothing. Tables: source, log; grants insert, update, delete on target and usage on its columns' sequences to rowcast_gateway.
create function rowcast.allow(target regclass, role text, filter text default null, columns text[] default null, write boolean default false,
  version_required boolean default true) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $allow$
#variable_conflict use_variable
declare
  v_public boolean;
  v_sequence oid;
begin
  perform pg_advisory_xact_lock(rowcast.leader_lock() + 2);
  perform rowcast._check_role(target, role);
  if filter is not null or columns is not null then
    raise exception using errcode = 'feature_not_supported', message = '`filter` and `columns` cannot be given in this version',
      hint = 'roles, filters and columns come with the Permissions release';
  end if;
  if write is null or version_required is null then
    raise exception using errcode = 'invalid_parameter_value', message = '`write` and `version_required` must not be null';
  end if;
  select s.public into v_public from rowcast.source as s where s.relid = target;
  if v_public is null then
    raise exception using errcode = 'object_not_in_prerequisite_state', message = format('`%s` is not watched', target),
      hint = format('select rowcast.watch(%L, public => true)', target);
  end if;
  if not v_public then
    raise exception using errcode = 'object_not_in_prerequisite_state', message = format('`%s` is not public', target),
      hint = format('without a token only public tables can be reached: select rowcast.watch(%L, public => true)', target);
  end if;
  if not write then
    perform rowcast.deny(target, role);
    return;
  end if;
  execute format('grant insert, update, delete on %s to rowcast_gateway', target);
  for v_sequence in select s from rowcast._own_sequences(target) as s loop
    execute format('grant usage on sequence %s to rowcast_gateway', v_sequence::regclass);
  end loop;
  perform rowcast._set_writing(target, true, version_required);
end
$allow$;
comment on function rowcast.allow(regclass, text, text, text[], boolean, boolean) is 'allow a role to use a table through the gateway';

-- Take back what rowcast.allow gave. The caller owns the table. A table that was not allowed is left as it is.
-- `target`: the table; `role`: 'anon'. Tables: source, log; revokes insert, update, delete on target and usage on its columns' sequences.
create function rowcast.deny(target regclass, role text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $deny$
#variable_conflict use_variable
declare
  v_sequence oid;
begin
  perform pg_advisory_xact_lock(rowcast.leader_lock() + 2);
  perform rowcast._check_role(target, role);
  if not exists (select from rowcast.source as s where s.relid = target and s.writable) then
    return;
  end if;
  execute format('revoke insert, update, delete on %s from rowcast_gateway', target);
  for v_sequence in select s from rowcast._own_sequences(target) as s loop
    execute format('revoke usage on sequence %s from rowcast_gateway', v_sequence::regclass);
  end loop;
  perform rowcast._set_writing(target, false, true);
end
$deny$;
comment on function rowcast.deny(regclass, text) is 'take back what rowcast.allow gave';

grant execute on function rowcast._own_sequences(oid), rowcast._write_rights(oid)
  to rowcast_gateway, rowcast_admin;
grant execute on function rowcast.forget_answers(interval, int) to rowcast_gateway;
grant execute on function rowcast.allow(regclass, text, text, text[], boolean, boolean), rowcast.deny(regclass, text),
  rowcast._set_writing(oid, boolean, boolean), rowcast._check_role(oid, text) to rowcast_admin;

reset role;
