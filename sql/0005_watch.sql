-- The interface of the DBA: watch and unwatch.
--
-- watch runs with the rights of its caller, the table's owner, who may alter the table; what must belong to rowcast is done by helpers (leading
-- underscore) that run as rowcast_owner and check the caller themselves.
-- Must not know: how changes are captured (0004). Invariant: a table is a source with all its triggers, or it is no source.

set role rowcast_owner;
insert into rowcast.migration (id, name) values (5, 'watch');

-- The role that acts. In a function with the owner's rights current_user is the owner; what the session has SET ROLE to is in the setting.
-- Tables: none.
create function rowcast._caller() returns name
language sql stable
set search_path = pg_catalog, pg_temp
return case current_setting('role') when 'none' then session_user else current_setting('role')::name end;
comment on function rowcast._caller() is 'the role that calls, also inside a security definer function';

-- Stop unless the caller owns the table. `target`: any relation. Tables: pg_class.
create function rowcast._check_owner(target oid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $check$
begin
  if not pg_has_role(rowcast._caller(), (select relowner from pg_class where oid = target), 'usage') then
    raise exception using errcode = 'insufficient_privilege',
      message = format('`%s` does not own `%s`', rowcast._caller(), target::regclass),
      hint = format('run it as `%s`', (select pg_get_userbyid(relowner) from pg_class where oid = target));
  end if;
end
$check$;
comment on function rowcast._check_owner(oid) is 'raises unless the caller owns the table';

-- Write a source and make its capture functions; until _sealed the table's owner may use them and create its stamp function in the schema.
-- Parameters as of watch, checked by it. Returns: the source's id. Tables: source; grants on the schema.
create function rowcast._register(target oid, key text[], columns text[], ttl interval, stale interval, snapshot_every interval, bulk_limit int,
  public boolean, key_deferrable boolean) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $register$
#variable_conflict use_variable
declare
  v_id int;
  v_owner name;
begin
  perform rowcast._check_owner(target);
  select pg_get_userbyid(relowner) into v_owner from pg_class where oid = target;
  insert into rowcast.source as s (relid, key, columns, ttl, stale, snapshot_every, bulk_limit, public, key_deferrable)
  values (target, key, columns, ttl, stale, snapshot_every, bulk_limit, public, key_deferrable)
  on conflict on constraint source_relid_key do update
    set key = excluded.key, columns = excluded.columns, ttl = excluded.ttl, stale = excluded.stale, snapshot_every = excluded.snapshot_every,
      bulk_limit = excluded.bulk_limit, public = excluded.public, key_deferrable = excluded.key_deferrable
  returning s.id into v_id;
  perform rowcast._define_capture(v_id);
  execute format('grant execute on function rowcast.capture_%1$s_insert(), rowcast.capture_%1$s_update(), rowcast.capture_%1$s_delete(), '
    'rowcast.capture_%1$s_truncate(), rowcast.stamp(), rowcast.lock() to %2$I', v_id, v_owner);
  execute format('drop function if exists rowcast.restamp_%s(oid, json[], boolean)', v_id);
  execute format('grant usage, create on schema rowcast to %I', v_owner);
  return v_id;
end
$register$;
comment on function rowcast._register(oid, text[], text[], interval, interval, interval, int, boolean, boolean) is 'write a source and make its capture functions';

-- Take back what _register lent, and tell the gateways. Tables: source, log; revokes on the schema.
-- `target`: the table; `reload`: its subscribers must begin anew. Otherwise a reload of no table is logged: who reads the log looks at the catalog.
create function rowcast._sealed(target oid, reload boolean) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $sealed$
declare
  v_id int;
  v_owner name;
begin
  perform rowcast._check_owner(target);
  select s.id, pg_get_userbyid(c.relowner) into strict v_id, v_owner from rowcast.source as s join pg_class as c on c.oid = s.relid where s.relid = target;
  execute format('revoke execute on function rowcast.capture_%1$s_insert(), rowcast.capture_%1$s_update(), rowcast.capture_%1$s_delete(), '
    'rowcast.capture_%1$s_truncate(), rowcast.stamp(), rowcast.lock() from %2$I', v_id, v_owner);
  execute format('revoke usage, create on schema rowcast from %I', v_owner);
  grant usage on schema rowcast to rowcast_gateway, rowcast_admin;
  perform rowcast._mark(case when reload then target else 0::oid end, 'r');
end
$sealed$;
comment on function rowcast._sealed(oid, boolean) is 'take back what _register lent, and log a reload';

-- Remove a source with its functions, and tell the gateways. `target`: the table. Tables: source, log.
-- A caller of unwatch; also of rotate, for tables that were dropped.
create function rowcast._forget(target oid) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $forget$
declare
  v_id int;
  v_op text;
begin
  if exists (select from pg_class where oid = target) then
    perform rowcast._check_owner(target);
  end if;
  delete from rowcast.source where relid = target returning id into v_id;
  if v_id is null then
    return;
  end if;
  foreach v_op in array array['insert', 'update', 'delete', 'truncate'] loop
    execute format('drop function if exists rowcast.capture_%s_%s()', v_id, v_op);
  end loop;
  execute format('drop function if exists rowcast.fits_%s()', v_id);
  execute format('drop function if exists rowcast.restamp_%s(oid, json[], boolean)', v_id);
  execute format('drop sequence if exists rowcast.deleted_%s', v_id);
  perform rowcast._mark(target, 'r');
end
$forget$;
comment on function rowcast._forget(oid) is 'remove a source with its functions, and log a reload';

-- A trigger of ours on a table, made if it is missing or differs, and set to fire always (also under session_replication_role = replica).
-- `target`: table or partition; `name`, `spec`: name and the words between it and `on`/after the table. Tables: pg_trigger; alters target.
create function rowcast._trigger(target oid, name text, function text, events text, rest text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $trigger$
#variable_conflict use_variable
declare
  v_state "char";
begin
  select t.tgenabled into v_state from pg_trigger as t
  where t.tgrelid = target and t.tgname = name and t.tgfoid = to_regprocedure(function || '()');
  if v_state is null then
    execute format('drop trigger if exists %I on %s', name, target::regclass);
    execute format('create trigger %I %s on %s %s execute function %s()', name, events, target::regclass, rest, function);
  end if;
  if v_state is distinct from 'A' then
    execute format('alter table %s enable always trigger %I', target::regclass, name);
  end if;
end
$trigger$;
comment on function rowcast._trigger(oid, text, text, text, text) is 'make a trigger if it is missing or differs, and let it fire always';

-- Watch a table, or change how it is watched. The caller owns the table and is a member of rowcast_admin.
-- Settings that are not given get their defaults, also when the table is watched already.
--   target          a table or a partitioned table (its partitions come with it)
--   ttl, stale      an answer is fresh for ttl, and may then be served for stale while it is refreshed
--   columns         publish these columns (key and row_version always are), or
--   exclude         all but these; columns added later are then not published until watch is called again
--   key             columns of a unique, not partial index on not-null columns; default: the primary key
--   snapshot_every  a full snapshot for long-lived subscriptions so often; 0: never
--   bulk_limit      a statement that touches more rows is logged as one reload
--   public          readable without a token, like rowcast.allow(target, 'anon'); a rule for anon may say less. A table that is public and then is
--                   not keeps no rule for anon
-- Returns: nothing. Tables: adds target.row_version and triggers; source; grants select on target to rowcast_gateway.
-- Adding the column and the triggers takes a short exclusive lock: set lock_timeout on a busy table and try again.
create function rowcast.watch(target regclass, ttl interval default '5 s', stale interval default '30 s', columns text[] default null,
  exclude text[] default null, key text[] default null, snapshot_every interval default '60 s', bulk_limit int default 100000,
  public boolean default false) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $watch$
#variable_conflict use_variable
declare
  v_class record;
  v_index record;
  v_bad text;
  v_key text[];
  v_columns text[];
  v_id int;
  v_owner name;
  v_match text;
  v_member record;
  v_trigger name;
  v_column record;
  v_wrote boolean;
  v_was text;
begin
  perform pg_advisory_xact_lock(rowcast.leader_lock() + 2);
  select c.oid, c.relkind, c.relpersistence, c.relispartition, c.relrowsecurity, c.relforcerowsecurity, c.relowner, c.relnamespace, n.nspname,
      c.relhassubclass, r.rolsuper or r.rolbypassrls as owner_bypasses
    into v_class
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace join pg_roles as r on r.oid = c.relowner where c.oid = target;
  if not found then
    raise exception using errcode = 'undefined_table', message = format('there is no table `%s`', target);
  end if;
  v_owner := pg_get_userbyid(v_class.relowner);

  -- what can be watched
  if v_class.relkind not in ('r', 'p') then
    raise exception using errcode = 'wrong_object_type',
      message = format('`%s` is a %s, not a table', target, case v_class.relkind when 'v' then 'view' when 'm' then 'materialized view'
        when 'f' then 'foreign table' when 'S' then 'sequence' when 'i' then 'index' when 'c' then 'composite type' else 'different kind of relation' end),
      hint = 'watch the tables it is made of: only their changes fire triggers';
  end if;
  if v_class.relpersistence = 't' then
    raise exception using errcode = 'wrong_object_type', message = format('`%s` is a temporary table', target),
      hint = 'other sessions cannot read it; use an ordinary table';
  end if;
  if v_class.nspname in ('pg_catalog', 'information_schema', 'rowcast') or v_class.nspname like 'pg\_%' then
    raise exception using errcode = 'wrong_object_type', message = format('`%s` is a system table', target),
      hint = 'watch tables of the application';
  end if;
  if v_class.relispartition then
    raise exception using errcode = 'wrong_object_type', message = format('`%s` is a partition', target),
      hint = format('watch the root: select rowcast.watch(%L)', pg_partition_root(target));
  end if;
  if v_class.relkind = 'r' and exists (select from pg_inherits where inhparent = target or inhrelid = target) then
    raise exception using errcode = 'wrong_object_type', message = format('`%s` takes part in table inheritance', target),
      hint = 'use declarative partitioning, or watch tables without children and parents';
  end if;
  if not pg_has_role(v_owner, 'usage') then
    raise exception using errcode = 'insufficient_privilege', message = format('`%s` does not own `%s`', current_user, target),
      hint = format('run it as `%s`', v_owner);
  end if;
  select string_agg(format('`%s`', p.relid), ', ') into v_bad from pg_partition_tree(target) as p join pg_class as c on c.oid = p.relid where c.relkind = 'f';
  if v_bad is not null then
    raise exception using errcode = 'wrong_object_type', message = format('%s: foreign tables among the partitions', v_bad),
      hint = 'their changes fire no trigger here; detach them';
  end if;
  select string_agg(format('`%s`', s.relid), ', ') into v_bad from rowcast.source as s, pg_partition_tree(target) as p where s.relid = p.relid and p.relid <> target;
  if v_bad is not null then
    raise exception using errcode = 'object_in_use', message = format('%s: watched by itself, and a partition of `%s`', v_bad, target),
      hint = 'unwatch the partition first';
  end if;
  -- pg_subscription_rel can be read by everybody
  select string_agg(format('`%s`', r.srrelid::regclass), ', ') into v_bad
    from pg_subscription_rel as r where r.srrelid = target or r.srrelid in (select p.relid from pg_partition_tree(target) as p);
  if v_bad is not null then
    raise exception using errcode = 'object_in_use', message = format('%s: target of a logical replication subscription', v_bad),
      hint = 'its changes are applied without statement triggers; watch the table on the publisher';
  end if;
  if v_class.relrowsecurity and public then
    raise exception using errcode = 'feature_not_supported', message = format('`%s` has row level security and cannot be public', target),
      hint = 'watch it with public => false and say with rowcast.allow(..., ignore_row_security => true) who may see what, or disable row level security';
  end if;
  if v_class.relforcerowsecurity and v_class.relrowsecurity and not v_class.owner_bypasses then
    raise exception using errcode = 'feature_not_supported', message = format('`%s` forces row level security on its owner', target),
      hint = format('alter table %s no force row level security', target);
  end if;

  -- the settings
  select string_agg(format('`%s`', n), ', ') into v_bad
    from (values ('ttl', ttl), ('stale', stale), ('snapshot_every', snapshot_every)) as s (n, v) where v is null or v < interval '0';
  if v_bad is not null then
    raise exception using errcode = 'invalid_parameter_value', message = format('%s must not be null or negative', v_bad);
  end if;
  if bulk_limit is null or bulk_limit < 1 then
    raise exception using errcode = 'invalid_parameter_value', message = '`bulk_limit` must be at least 1';
  end if;
  if public is null then
    raise exception using errcode = 'invalid_parameter_value', message = '`public` must not be null';
  end if;
  if columns is not null and exclude is not null then
    raise exception using errcode = 'invalid_parameter_value', message = '`columns` and `exclude` were both given', hint = 'give one of them';
  end if;
  select string_agg(format('`%s`', n), ', ') into v_bad from unnest(columns || exclude || key) as n
    where n is null or not exists (select from pg_attribute where attrelid = target and attname = n and attnum > 0 and not attisdropped)
      and n <> 'row_version';
  if v_bad is not null then
    raise exception using errcode = 'undefined_column', message = format('`%s` has no column %s', target, v_bad);
  end if;

  -- the key
  select i.indexrelid, i.indimmediate, array(select a.attname::text from unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) with ordinality as k (n, o)
      join pg_attribute as a on a.attrelid = target and a.attnum = k.n order by k.o) as names
    into v_index
    from pg_index as i join pg_class as c on c.oid = i.indexrelid join pg_am as m on m.oid = c.relam
    where i.indrelid = target and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null and m.amname = 'btree'
      and case when key is null then i.indisprimary else i.indnkeyatts = cardinality(key)
        and (select count(*) from pg_attribute as a where a.attrelid = target and a.attname = any (key) and a.attnotnull
               and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])) = cardinality(key) end
    order by i.indimmediate desc, i.indisprimary desc, i.indexrelid limit 1;
  if not found then
    raise exception using errcode = 'object_not_in_prerequisite_state',
      message = case when key is null then format('`%s` has no primary key', target)
        else format('`%s` has no unique index on exactly the not-null columns (%s)', target, array_to_string(key, ', ')) end,
      hint = case when key is null then 'add one, or name the columns of a unique, not partial index on not-null columns: key => array[''...'']'
        else 'create a unique index without `where` on them, and set them not null' end;
  end if;
  v_key := coalesce(key, v_index.names);
  if 'row_version' = any (v_key) then
    raise exception using errcode = 'invalid_parameter_value', message = '`row_version` cannot be part of the key', hint = 'it changes with every write';
  end if;
  select string_agg(format('`%s`', n), ', ') into v_bad from unnest(v_key) as n where n = any (exclude) or n <> all (columns);
  if v_bad is not null then
    raise exception using errcode = 'invalid_parameter_value', message = format('key column %s must be published', v_bad),
      hint = case when columns is null then 'take it out of `exclude`' else 'add it to `columns`' end;
  end if;

  -- the version column. Its comment tells our column from another one of the same name
  select a.attnum, a.atttypid, a.attnotnull, a.attgenerated, coalesce(col_description(target, a.attnum) like 'rowcast:%', false) as ours into v_column
    from pg_attribute as a where a.attrelid = target and a.attname = 'row_version' and not a.attisdropped;
  if not found then
    execute format('alter table %s add column row_version bigint not null default 0', target);
    execute format('comment on column %s.row_version is %L', target, 'rowcast: version of the row, drawn by a trigger; never write it except to say which one you read');
  elsif not v_column.ours or v_column.atttypid <> 'bigint'::regtype or not v_column.attnotnull or v_column.attgenerated <> '' then
    raise exception using errcode = 'duplicate_column', message = format('`%s` has a column `row_version` that is not rowcast''s', target),
      hint = format('rename it; or, if it is a bigint not null left by rowcast: comment on column %s.row_version is ''rowcast: version of the row''', target);
  end if;

  -- Virtual generated columns (18 and later) are not in transition tables: a table with one is published as a list without it
  if columns is not null or exclude is not null
    or exists (select from pg_attribute where attrelid = target and attnum > 0 and not attisdropped and attgenerated = 'v') then
    select array_agg(a.attname::text order by a.attnum) into v_columns
      from pg_attribute as a
      where a.attrelid = target and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
        and (a.attname = 'row_version' or (a.attname = any (coalesce(columns, array[a.attname::text])) and a.attname <> all (coalesce(exclude, '{}'))));
  end if;

  -- ttl and the like are no reason to begin anew
  v_was := (select rowcast._fingerprint(s.id) from rowcast.source as s where s.relid = target);
  -- who says so means it: what was allowed without a token goes along
  if not public and exists (select from rowcast.source as s where s.relid = target and s.public) then
    v_wrote := exists (select from rowcast.rule as r where r.relid = target and r.write);
    if rowcast._drop_rule(target, 'anon') then
      perform rowcast._settle_rights(target, v_wrote);
    end if;
  end if;
  v_id := rowcast._register(target, v_key, v_columns, ttl, stale, snapshot_every, bulk_limit, public, not v_index.indimmediate);

  -- Gives rows a new version by an UPDATE. It belongs to the table's owner: rowcast_owner has no right on the table, the writer may have none to
  -- update it, and the owner is not subject to row security. The names are looked up when it runs, so it survives renames; it runs rarely.
  -- The operators are those of the key's index, so that the index serves.
  select string_agg(format('t.%1$I operator(%2$I.%3$s) k.%1$I', n.name, s.nspname, p.oprname), ' and ' order by n.n) into v_match
    from unnest(v_key) with ordinality as n (name, n)
    join pg_attribute as a on a.attrelid = target and a.attname = n.name
    join pg_index as i on i.indexrelid = v_index.indexrelid
    join unnest(i.indkey::int2[], i.indclass::oid[]) as o (attnum, opclass) on o.attnum = a.attnum
    join pg_opclass as c on c.oid = o.opclass
    join pg_amop as m on m.amopfamily = c.opcfamily and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype and m.amopstrategy = 3
    join pg_operator as p on p.oid = m.amopopr
    join pg_namespace as s on s.oid = p.oprnamespace;
  execute format($create$
create function rowcast.restamp_%1$s(target oid, rows json[], below boolean) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $restamp$
declare
  -- the row itself, by its version: a snapshot may show an older row of the same key, and to touch that one would fail
  v_which text := format('json_populate_record(null::%%s, j.image) as k where %%s and t.row_version %%s k.row_version', target::regclass, %2$L,
    case when below then '<=' else '=' end);
  v_look text := format('select exists (select from %%s as t, unnest($1) as j (image) cross join lateral %%s)', target::regclass, v_which);
  v_found boolean;
begin
  if row_security_active(target) then
    return false;
  end if;
  execute v_look into v_found using rows;
  if not v_found then
    return true;
  end if;
  -- null and not the old value: a trigger that drops updates without effect would drop this one
  execute format('update %%s as t set row_version = null from unnest($1) as j (image) cross join lateral %%s', target::regclass, v_which) using rows;
  execute v_look into v_found using rows;
  return not v_found;
exception
  -- the application's own triggers may refuse; its write goes on, and the caller logs a reload instead
  when others then
    return false;
end
$restamp$ $create$, v_id, v_match);
  execute format('revoke all on function rowcast.restamp_%s(oid, json[], boolean) from public', v_id);
  execute format('grant execute on function rowcast.restamp_%s(oid, json[], boolean) to rowcast_owner', v_id);
  execute format('comment on function rowcast.restamp_%s(oid, json[], boolean) is %L', v_id, 'generated by rowcast.watch: gives rows of one table a new version');
  if current_user <> v_owner then
    execute format('alter function rowcast.restamp_%s(oid, json[], boolean) owner to %I', v_id, v_owner);
  end if;

  -- Triggers fire in the order of their names: first the test, then the new version. `update of` also makes the column one that cannot be
  -- dropped while the trigger is there.
  perform rowcast._trigger(target, 'zzz_rowcast_lock', 'rowcast.lock', 'before update of row_version', 'for each row');
  perform rowcast._trigger(target, 'zzz_rowcast_version', 'rowcast.stamp', 'before insert or update', 'for each row');
  for v_member in
    select p.relid from pg_partition_tree(target) as p where v_class.relkind = 'p' union all select target where v_class.relkind = 'r'
  loop
    for v_trigger in
      select tgname from pg_trigger
      where tgrelid = v_member.relid and v_member.relid <> target and tgname in ('zzz_rowcast_lock', 'zzz_rowcast_version') and tgenabled <> 'A'
    loop
      execute format('alter table %s enable always trigger %I', v_member.relid, v_trigger);
    end loop;
    perform rowcast._trigger(v_member.relid, 'zzz_rowcast_insert', format('rowcast.capture_%s_insert', v_id), 'after insert',
      'referencing new table as rowcast_new for each statement');
    perform rowcast._trigger(v_member.relid, 'zzz_rowcast_update', format('rowcast.capture_%s_update', v_id), 'after update',
      'referencing old table as rowcast_old new table as rowcast_new for each statement');
    perform rowcast._trigger(v_member.relid, 'zzz_rowcast_delete', format('rowcast.capture_%s_delete', v_id), 'after delete',
      'referencing old table as rowcast_old for each statement');
    perform rowcast._trigger(v_member.relid, 'zzz_rowcast_truncate', format('rowcast.capture_%s_truncate', v_id), 'after truncate', 'for each statement');
  end loop;

  execute format('grant select on %s to rowcast_gateway', target);
  if not has_schema_privilege('rowcast_gateway', v_class.relnamespace, 'usage') then
    begin
      execute format('grant usage on schema %I to rowcast_gateway', v_class.nspname);
    exception
      when insufficient_privilege then null;
    end;
    if not has_schema_privilege('rowcast_gateway', v_class.relnamespace, 'usage') then
      raise exception using errcode = 'insufficient_privilege', message = format('the gateway may not use schema `%s`', v_class.nspname),
        hint = format('let the schema''s owner run: grant usage on schema %I to rowcast_gateway', v_class.nspname);
    end if;
  end if;

  -- what is published has changed, or the type of a column
  select string_agg(f, '; ') into v_bad from rowcast.rule as r, rowcast._rule_fault(r.relid, r.role, r.filter, r.columns) as f where r.relid = target and f is not null;
  if v_bad is not null then
    raise exception using errcode = 'object_not_in_prerequisite_state', message = v_bad, hint = 'call rowcast.allow or rowcast.deny for that role first';
  end if;

  perform rowcast._sealed(target, v_was is distinct from (select rowcast._fingerprint(s.id) from rowcast.source as s where s.relid = target));
end
$watch$;
comment on function rowcast.watch(regclass, interval, interval, text[], text[], text[], interval, int, boolean) is 'watch a table, or change how it is watched';

-- Stop watching a table. The caller owns it. A table that is not watched is left as it is; of a dropped table, give the number.
--   drop_version  also drop row_version; kept by default, so that watching again continues with higher versions
-- Returns: nothing. Tables: drops target's triggers; source; revokes from rowcast_gateway what watch and allow granted.
create function rowcast.unwatch(target regclass, drop_version boolean default false) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $unwatch$
declare
  v_trigger record;
  v_schema name;
  v_wrote boolean;
begin
  perform pg_advisory_xact_lock(rowcast.leader_lock() + 2);
  if exists (select from pg_class where oid = target) then
    perform rowcast._check_owner(target);
    v_wrote := exists (select from rowcast.rule as r where r.relid = target and r.write);
    if rowcast._drop_rule(target, null) then
      perform rowcast._settle_rights(target, v_wrote);
    end if;
    for v_trigger in
      select t.tgname, t.tgrelid::regclass as relid from pg_trigger as t join pg_proc as f on f.oid = t.tgfoid
      where t.tgparentid = 0 and f.pronamespace = 'rowcast'::regnamespace and t.tgname like 'zzz\_rowcast\_%'
        and (t.tgrelid = target or t.tgrelid in (select p.relid from pg_partition_tree(target) as p)
          -- left on a partition that was detached
          or f.proname in (select format('capture_%s_%s', s.id, o) from rowcast.source as s, unnest(array['insert', 'update', 'delete', 'truncate']) as o
                           where s.relid = target))
    loop
      execute format('drop trigger %I on %s', v_trigger.tgname, v_trigger.relid);
    end loop;
    execute format('revoke select on %s from rowcast_gateway', target);
  end if;
  perform rowcast._forget(target);
  select n.nspname into v_schema from pg_namespace as n join pg_class as c on c.relnamespace = n.oid where c.oid = target
    and exists (select from aclexplode(n.nspacl) as a where a.grantee = 'rowcast_gateway'::regrole)
    and pg_has_role(n.nspowner, 'usage')
    and not exists (select from rowcast.source as s join pg_class as o on o.oid = s.relid where o.relnamespace = n.oid);
  if v_schema is not null then
    execute format('revoke usage on schema %I from rowcast_gateway', v_schema);
  end if;
  if drop_version and exists (select from pg_attribute as a where a.attrelid = target and a.attname = 'row_version' and not a.attisdropped
      and col_description(target, a.attnum) like 'rowcast:%') then
    execute format('alter table %s drop column row_version', target);
  end if;
end
$unwatch$;
comment on function rowcast.unwatch(regclass, boolean) is 'stop watching a table';

grant select on rowcast.source to rowcast_admin;
grant execute on function rowcast.watch(regclass, interval, interval, text[], text[], text[], interval, int, boolean), rowcast.unwatch(regclass, boolean),
  rowcast._register(oid, text[], text[], interval, interval, interval, int, boolean, boolean), rowcast._sealed(oid, boolean), rowcast._forget(oid),
  rowcast._check_owner(oid), rowcast._caller(), rowcast._trigger(oid, text, text, text, text), rowcast.leader_lock() to rowcast_admin;

reset role;
