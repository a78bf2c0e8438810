-- The installed migrations. Look first whether there is a schema: select to_regclass('rowcast.migration') is not null.
select id, name, breaking from rowcast.migration order by id
