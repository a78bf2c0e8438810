-- Roles, the schema, and the table of installed migrations.
--
-- Run inside one transaction, by a login that may create schemas in this database and (for the roles) has CREATEROLE. No superuser is needed.
-- Must not know: tables of the application. Invariant: running it twice, or in many databases of one cluster at once, creates each role once.

do $roles$
declare
  v_name text;
  v_can boolean;
begin
  foreach v_name in array array['rowcast_owner', 'rowcast_gateway', 'rowcast_admin'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = v_name) then
      begin
        execute format('create role %I nologin', v_name);
      exception
        -- roles belong to the cluster: another database's migration may create the same one now
        when duplicate_object or unique_violation then null;
        when insufficient_privilege then
          raise exception using errcode = 'insufficient_privilege',
            message = format('role `%s` does not exist and `%s` may not create it', v_name, current_user),
            hint = format('let a role with CREATEROLE run: create role rowcast_owner nologin; create role rowcast_gateway nologin; '
              'create role rowcast_admin nologin; grant rowcast_owner to %I', current_user);
      end;
    end if;
  end loop;

  -- the files run as rowcast_owner. From 16 on, being a member is not enough: the right to SET ROLE is separate
  if current_setting('server_version_num')::int >= 160000 then
    v_can := pg_has_role(current_user, 'rowcast_owner', 'set');
  else
    v_can := pg_has_role(current_user, 'rowcast_owner', 'member');
  end if;
  if not v_can then
    begin
      execute format('grant rowcast_owner to %I', current_user);
    exception
      when unique_violation then null;
      when insufficient_privilege then
        raise exception using errcode = 'insufficient_privilege',
          message = format('`%s` may not act as `rowcast_owner`', current_user),
          hint = format('let a role with CREATEROLE run: grant rowcast_owner to %I', current_user);
    end;
  end if;
end
$roles$;

create schema rowcast authorization rowcast_owner;

set role rowcast_owner;

-- Of every function made from here on, also those that watch generates: only who is granted it may call it.
alter default privileges revoke execute on functions from public;

create table rowcast.migration (
  id int primary key,
  name text not null,
  breaking boolean not null default false,
  applied_at timestamptz not null default clock_timestamp()
);
insert into rowcast.migration (id, name) values (1, 'roles_and_schema');

comment on schema rowcast is 'rowcast: the change log, the ticks and the functions that write them';
comment on table rowcast.migration is 'one row an installed migration; the first statement of each inserts its own, so two installs cannot run it twice';
comment on column rowcast.migration.id is 'number in the name of the file';
comment on column rowcast.migration.name is 'name of the file without number and ending';
comment on column rowcast.migration.breaking is 'a program that does not know this migration must not run against it';
comment on column rowcast.migration.applied_at is 'when it was applied, by the clock of the database';

revoke all on schema rowcast from public;
revoke all on rowcast.migration from public;
grant usage on schema rowcast to rowcast_gateway, rowcast_admin;
grant select on rowcast.migration to rowcast_gateway, rowcast_admin;

reset role;
