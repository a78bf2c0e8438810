-- The sessions holding the leader's lock: none or one.
select l.pid, a.application_name, a.client_addr::text as client_addr, a.backend_start
from pg_locks as l left join pg_stat_activity as a on a.pid = l.pid
where l.locktype = 'advisory' and l.granted and l.objsubid = 1
  and l.database = (select oid from pg_database where datname = current_database())
  and (l.classid::bigint << 32 | l.objid::bigint) = rowcast.leader_lock()
