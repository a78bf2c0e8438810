-- Remove everything of rowcast from this database: triggers, row_version columns, the schema, the rights, and the roles if no other database
-- of the cluster uses them. Run by a superuser, or by a role that owns the watched tables and is a member of rowcast_owner.
-- Takes an exclusive lock on every watched table for a moment. Run it in one transaction: psql -1 -f uninstall.sql

do $uninstall$
declare
  v_table record;
  v_role text;
  v_roles text[] := array['rowcast_owner', 'rowcast_gateway', 'rowcast_admin'];
begin
  -- the columns marked as ours, also of tables that are not watched any more; a partition loses its own with the root's
  for v_table in
    select c.oid::regclass as relid
    from pg_catalog.pg_attribute as a
    join pg_catalog.pg_class as c on c.oid = a.attrelid
    where a.attname = 'row_version' and not a.attisdropped and a.attinhcount = 0
      and pg_catalog.col_description(a.attrelid, a.attnum) like 'rowcast:%'
  loop
    -- the version trigger names the column: it goes first
    execute pg_catalog.format('drop trigger if exists zzz_rowcast_lock on %s', v_table.relid);
    execute pg_catalog.format('drop trigger if exists zzz_rowcast_version on %s', v_table.relid);
    execute pg_catalog.format('alter table %s drop column row_version', v_table.relid);
  end loop;

  -- takes the capture functions along, and they their triggers, also those on detached partitions
  set local client_min_messages = warning;
  drop schema if exists rowcast cascade;

  foreach v_role in array v_roles loop
    if exists (select from pg_catalog.pg_roles where rolname = v_role) then
      -- rights granted to it in this database
      execute pg_catalog.format('drop owned by %I', v_role);
    end if;
  end loop;
  set local client_min_messages = notice;
  foreach v_role in array v_roles loop
    if exists (select from pg_catalog.pg_roles where rolname = v_role) then
      begin
        execute pg_catalog.format('drop role %I', v_role);
      exception
        when dependent_objects_still_exist then
          raise notice 'role % is kept: another database of this cluster uses it', v_role;
        when insufficient_privilege then
          raise notice 'role % is kept: % may not drop it', v_role, current_user;
      end;
    end if;
  end loop;
end
$uninstall$;
