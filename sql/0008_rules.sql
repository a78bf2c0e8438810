-- Who is shown and may write what: rowcast.allow and rowcast.deny.
--
-- Must not know: what a filter may say (0007), tokens. Invariants: nothing can be reached or written through the gateway until the table's owner
-- allows it; deny never shows anybody more than `anon` has; a rule is in no fingerprint, so a change of one resets nobody whom it is not about.

set role rowcast_owner;
insert into rowcast.migration (id, name) values (8, 'rules');

-- relid: a regclass, like that of rowcast.source
create table rowcast.rule (
  relid regclass not null references rowcast.source (relid) on delete cascade,
  role text not null,
  filter text,
  columns text[],
  write boolean not null,
  version_required boolean not null,
  ignore_row_security boolean not null,
  primary key (relid, role)
);
comment on table rowcast.rule is 'what a role is shown of a watched table and may write; written by rowcast.allow and rowcast.deny';
comment on column rowcast.rule.relid is 'the table';
comment on column rowcast.rule.role is 'the role in the caller''s token; `anon`: whoever has no token, or a role without a rule here';
comment on column rowcast.rule.filter is 'rows: the wire''s filter grammar, with claims of the token as {name}; null: all';
comment on column rowcast.rule.columns is 'columns, key and row_version among them, in the order of the table; null: all that are published';
comment on column rowcast.rule.write is 'may insert, update and delete these rows';
comment on column rowcast.rule.version_required is 'an update or a delete must name the version it is based on';
comment on column rowcast.rule.ignore_row_security is 'counts also while the table has row level security, whose policies are not asked';
revoke all on rowcast.rule from public;
grant select on rowcast.rule to rowcast_gateway, rowcast_admin;

-- The rules of a table that count: those declared, and what `public` says of whoever has no token.
-- `target`: a watched table. Tables: rule, source, pg_class.
-- Row level security that was enabled later ends a rule that was not declared to ignore it.
create function rowcast.rules(target oid) returns table (role text, filter text, columns text[], write boolean, version_required boolean)
language sql stable
set search_path = pg_catalog, pg_temp
as $rules$
  select r.role, r.filter, r.columns, r.write, r.version_required
  from rowcast.rule as r join pg_class as c on c.oid = r.relid
  where r.relid = target and (r.ignore_row_security or not c.relrowsecurity)
  union all
  select 'anon', null, null, false, true
  from rowcast.source as s join pg_class as c on c.oid = s.relid
  where s.relid = target and s.public and not c.relrowsecurity
    and not exists (select from rowcast.rule as r where r.relid = target and r.role = 'anon')
$rules$;
comment on function rowcast.rules(oid) is 'the rules of a table that count';

-- What is wrong with a rule since the table changed, in words; null when nothing is.
-- `target`: the table; the rest: of the rule. Tables: source, pg_attribute.
create function rowcast._rule_fault(target oid, role text, filter text, columns text[]) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $fault$
#variable_conflict use_variable
declare
  v_published text[] := (select s.columns from rowcast.source as s where s.relid = target);
  v_bad text;
begin
  select string_agg(format('`%s`', n), ', ') into v_bad from unnest(columns) as n
    where n <> all (v_published)
      or not exists (select from pg_attribute as a where a.attrelid = target and a.attname::text = n and a.attnum > 0 and not a.attisdropped);
  if v_bad is not null then
    return format('the rule of `%s` shows %s, which is not published', role, v_bad);
  end if;
  if filter is not null then
    perform rowcast._check_filter(target, v_published, filter, role <> 'anon');
  end if;
  return null;
exception
  when invalid_parameter_value or undefined_column or feature_not_supported then
    return format('%s (rule of `%s`)', sqlerrm, role);
end
$fault$;
comment on function rowcast._rule_fault(oid, text, text, text[]) is 'what is wrong with a rule since the table changed, in words';

-- Stop unless the caller may allow and deny. `target`: the table; `role`: a role of tokens. Tables: pg_class.
create function rowcast._check_role(target oid, role text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $check$
begin
  if role is null or role = '' or length(role) > 63 or role ~ '[[:cntrl:]]' then
    raise exception using errcode = 'invalid_parameter_value', message = '`role` must have 1 to 63 printable characters',
      hint = 'it is the text in the role claim of tokens, or `anon` for whoever has none; no role of the database';
  end if;
  if not exists (select from pg_class where oid = target) then
    raise exception using errcode = 'undefined_table', message = format('there is no table `%s`', target::regclass);
  end if;
  perform rowcast._check_owner(target);
end
$check$;
comment on function rowcast._check_role(oid, text) is 'raises unless the caller owns the table and the role is one';

-- Write a rule, and tell the gateways. The caller owns the table. Parameters: see allow, which has checked them. Tables: rule, log.
-- The reload is one of no table: who reads the log looks at the catalog, and nobody is reset whose rule is what it was.
create function rowcast._set_rule(target oid, role text, filter text, columns text[], write boolean, version_required boolean,
  ignore_row_security boolean) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $set$
#variable_conflict use_variable
begin
  perform rowcast._check_owner(target);
  insert into rowcast.rule as r (relid, role, filter, columns, write, version_required, ignore_row_security)
  values (target, role, filter, columns, write, version_required, ignore_row_security)
  on conflict on constraint rule_pkey do update
    set filter = excluded.filter, columns = excluded.columns, write = excluded.write, version_required = excluded.version_required,
      ignore_row_security = excluded.ignore_row_security;
  perform rowcast._mark(0::oid, 'r');
end
$set$;
comment on function rowcast._set_rule(oid, text, text, text[], boolean, boolean, boolean) is 'write a rule';

-- Remove a rule, or all of a table, and tell the gateways. The caller owns the table. `role`: null for all. Returns: whether there was one.
-- Tables: rule, source, log.
-- Without a narrow rule for `anon` a public table would be open to everybody: it is public no more.
create function rowcast._drop_rule(target oid, role text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $drop$
#variable_conflict use_variable
begin
  perform rowcast._check_owner(target);
  update rowcast.source as s set public = false
  where s.relid = target and s.public and exists (
    select from rowcast.rule as r
    where r.relid = target and r.role = 'anon' and coalesce(role, 'anon') = 'anon' and (r.filter is not null or r.columns is not null));
  delete from rowcast.rule as r where r.relid = target and (role is null or r.role = role);
  if not found then
    return false;
  end if;
  perform rowcast._mark(0::oid, 'r');
  return true;
end
$drop$;
comment on function rowcast._drop_rule(oid, text) is 'remove a rule, or all of a table';

-- Give and take the gateway's rights on a table, so that they are what its rules need. The caller owns the table. Tables: rule, pg_policy.
-- `wrote`: whether a role might write before. Grants insert, update, delete on target and usage on its columns' sequences to rowcast_gateway while a
-- role may write, and revokes them with the last such rule: what the owner granted without one stays. While a rule ignores row level security, a
-- policy lets the gateway see all rows: otherwise what it reads and what it hears would differ. Its comment says that it is ours: one of the same
-- name that the owner made is neither used nor dropped.
create function rowcast._settle_rights(target regclass, wrote boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $settle$
declare
  v_write boolean := exists (select from rowcast.rule as r where r.relid = target and r.write);
  v_ignore boolean := exists (select from rowcast.rule as r where r.relid = target and r.ignore_row_security);
  v_ours boolean := exists (select from pg_policy as p
    where p.polrelid = target and p.polname = 'rowcast_gateway' and obj_description(p.oid, 'pg_policy') like 'rowcast:%');
  v_sequence oid;
begin
  if v_write or wrote then
    execute format(case when v_write then 'grant insert, update, delete on %s to rowcast_gateway' else 'revoke insert, update, delete on %s from rowcast_gateway' end,
      target);
    for v_sequence in select s from rowcast._own_sequences(target) as s loop
      execute format(case when v_write then 'grant usage on sequence %s to rowcast_gateway' else 'revoke usage on sequence %s from rowcast_gateway' end,
        v_sequence::regclass);
    end loop;
  end if;
  if v_ours and not v_ignore then
    execute format('drop policy rowcast_gateway on %s', target);
  elsif v_ignore and not v_ours then
    if exists (select from pg_policy as p where p.polrelid = target and p.polname = 'rowcast_gateway') then
      raise exception using errcode = 'duplicate_object', message = format('`%s` has a policy `rowcast_gateway` of its own', target),
        hint = format('alter policy rowcast_gateway on %s rename to ...: the gateway gets one of that name', target);
    end if;
    execute format('create policy rowcast_gateway on %s to rowcast_gateway using (true) with check (true)', target);
    execute format('comment on policy rowcast_gateway on %s is %L', target, 'rowcast: the gateway sees all rows, its rules decide; goes with the last of them');
  end if;
end
$settle$;
comment on function rowcast._settle_rights(regclass, boolean) is 'give and take the rights that the rules of a table need';

-- Allow a role to reach a table through the gateway. The caller owns the table and is a member of rowcast_admin. Calling it again replaces what was
-- allowed before. A role without a rule has what `anon` has; with one it has that and nothing else.
--   target               a watched table
--   role                 the role in the caller's token; no role of the database. 'anon': whoever has no token
--   filter               which rows, as in an address, with claims of the token: 'league=eq.{league}&or=(owner.eq.{sub},visible.is.true)'. A token
--                        without such a claim, or with one that is no value of the column, reaches nothing. Null: all rows
--   columns              which columns, beside the key and row_version; the filter may use others. Null: all that are published
--   write                insert, update and delete rows that the filter selects before and after, and of them these columns
--   version_required     an update or a delete must name the version it is based on, otherwise it is refused
--   ignore_row_security  the table has row level security: its policies are not asked, this rule decides
-- Returns: nothing. Tables: rule, log; rights on target: see _settle_rights.
create function rowcast.allow(target regclass, role text, filter text default null, columns text[] default null, write boolean default false,
  version_required boolean default true, ignore_row_security boolean default false) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $allow$
#variable_conflict use_variable
declare
  v_source record;
  v_bad text;
  v_columns text[];
  v_wrote boolean;
begin
  perform pg_advisory_xact_lock(rowcast.leader_lock() + 2);
  perform rowcast._check_role(target, role);
  if write is null or version_required is null or ignore_row_security is null then
    raise exception using errcode = 'invalid_parameter_value', message = '`write`, `version_required` and `ignore_row_security` must not be null';
  end if;
  select s.key, s.columns, c.relrowsecurity into v_source from rowcast.source as s join pg_class as c on c.oid = s.relid where s.relid = target;
  if not found then
    raise exception using errcode = 'object_not_in_prerequisite_state', message = format('`%s` is not watched', target),
      hint = format('select rowcast.watch(%L)', target);
  end if;
  if v_source.relrowsecurity and not ignore_row_security then
    raise exception using errcode = 'feature_not_supported', message = format('`%s` has row level security, whose policies are not asked', target),
      hint = 'give the rule the filter that says the same and add ignore_row_security => true, or disable row level security';
  end if;
  select string_agg(format('`%s`', p.polname), ', ') into v_bad from pg_policy as p
    where p.polrelid = target and not p.polpermissive and (p.polroles = '{0}' or exists (
      select from unnest(p.polroles) as o where o <> 0 and pg_has_role('rowcast_gateway', o, 'usage')));
  if v_source.relrowsecurity and v_bad is not null then
    raise exception using errcode = 'feature_not_supported', message = format('restrictive policies of `%s` hold the gateway too: %s', target, v_bad),
      hint = 'what it reads and what it hears would differ: declare them for the roles they are meant for';
  end if;
  select string_agg(format('`%s`', coalesce(n, 'null')), ', ') into v_bad from unnest(columns) as n
    where n is null or n <> all (v_source.columns)
      or not exists (select from pg_attribute as a where a.attrelid = target and a.attname::text = n and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v');
  if v_bad is not null then
    raise exception using errcode = 'undefined_column', message = format('`%s` publishes no column %s', target, v_bad),
      hint = 'a rule can show what rowcast.watch publishes';
  end if;
  if columns is not null then
    select array_agg(a.attname::text order by a.attnum) into v_columns from pg_attribute as a
      where a.attrelid = target and a.attnum > 0 and not a.attisdropped
        and (a.attname::text = any (columns) or a.attname::text = any (v_source.key) or a.attname = 'row_version');
  end if;
  if filter is not null then
    perform rowcast._check_filter(target, v_source.columns, filter, role <> 'anon');
  end if;
  v_wrote := exists (select from rowcast.rule as r where r.relid = target and r.write);
  perform rowcast._set_rule(target, role, filter, v_columns, write, version_required, ignore_row_security);
  perform rowcast._settle_rights(target, v_wrote);
end
$allow$;
comment on function rowcast.allow(regclass, text, text, text[], boolean, boolean, boolean) is 'allow a role to reach a table through the gateway';

-- Take back what rowcast.allow gave. The caller owns the table. A role that has no rule is left as it is.
-- `target`: the table; `role`: as given to allow. The role then has what `anon` has: nothing, unless the table is public or allowed to `anon`.
-- Returns: nothing. Tables: rule, source, log; rights on target: see _settle_rights.
create function rowcast.deny(target regclass, role text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $deny$
declare
  v_wrote boolean;
begin
  perform pg_advisory_xact_lock(rowcast.leader_lock() + 2);
  perform rowcast._check_role(target, role);
  v_wrote := exists (select from rowcast.rule as r where r.relid = target and r.write);
  if rowcast._drop_rule(target, role) then
    perform rowcast._settle_rights(target, v_wrote);
  end if;
end
$deny$;
comment on function rowcast.deny(regclass, text) is 'take back what rowcast.allow gave';

grant execute on function rowcast.rules(oid), rowcast._rule_fault(oid, text, text, text[]) to rowcast_gateway, rowcast_admin;
grant execute on function rowcast.allow(regclass, text, text, text[], boolean, boolean, boolean), rowcast.deny(regclass, text),
  rowcast._set_rule(oid, text, text, text[], boolean, boolean, boolean), rowcast._drop_rule(oid, text), rowcast._settle_rights(regclass, boolean),
  rowcast._check_role(oid, text) to rowcast_admin;

reset role;
