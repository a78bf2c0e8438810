-- One-time tickets: how a page that cannot send a header (EventSource, WebSocket) shows who it is.
--
-- Must not know: tokens, HTTP. Invariants: a ticket is taken once, whichever gateway it is shown to; nobody who reads the table has a ticket,
-- as only its hash is kept; a caller has about a hundred that were not shown; a ticket is good for 30 seconds by the database's clock, which is the same for all gateways.

set role rowcast_owner;
insert into rowcast.migration (id, name) values (10, 'tickets');

-- unlogged: no WAL and no flush for what lives 30 seconds; after a crash of the server those that were out are gone
create unlogged table rowcast.ticket (
  hash bytea primary key,
  claims json not null,
  caller json not null,
  who text not null,
  at timestamptz not null default clock_timestamp()
);
create index ticket_at on rowcast.ticket using btree (at);
create index ticket_who on rowcast.ticket using hash (who);
comment on table rowcast.ticket is 'one-time tickets that were given out and not shown yet';
comment on column rowcast.ticket.hash is 'SHA-256 of the ticket';
comment on column rowcast.ticket.claims is 'the claims of the token it was given for, as they were signed';
comment on column rowcast.ticket.caller is 'what the gateway read in them: role, subject, token id, exp';
comment on column rowcast.ticket.who is 'whom its number is limited for: issuer, role and subject; without a subject, the token';
comment on column rowcast.ticket.at is 'when it was given out';
revoke all on rowcast.ticket from public;

-- Forget tickets that were never shown. Called with every new ticket, and by the leading gateway, again while it returns `most`.
-- `most`: rows of one call. Returns: how many. Tables: ticket.
create function rowcast.forget_tickets(most int default 1000) returns int
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $forget$
declare
  v_count int;
begin
  delete from rowcast.ticket as t
  using (select o.hash from rowcast.ticket as o where o.at < clock_timestamp() - interval '30 s' order by o.at limit most for update skip locked) as o
  where t.hash = o.hash;
  get diagnostics v_count = row_count;
  return v_count;
end
$forget$;
comment on function rowcast.forget_tickets(int) is 'forget tickets that were never shown; returns how many';

-- Keep a ticket that is being given out. `hash`: its SHA-256; `claims`, `caller`: see rowcast.ticket. Returns: nothing; RC429 when the
-- caller has 100 that were not shown. Several that are given at the same moment may make it a few more. Tables: ticket.
create function rowcast.give_ticket(hash bytea, claims json, caller json) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $give$
#variable_conflict use_variable
declare
  v_who text := json_build_array(claims ->> 'iss', caller ->> 'role', caller ->> 'subject', case when caller ->> 'subject' is null then md5(claims::text) end)::text;
begin
  -- more than comes: the table never grows beyond what 30 seconds bring
  perform rowcast.forget_tickets(2);
  if (select count(*) from rowcast.ticket as t where t.who = v_who and t.at > clock_timestamp() - interval '30 s') >= 100 then
    raise exception 'this caller has 100 tickets that were not shown' using errcode = 'RC429';
  end if;
  insert into rowcast.ticket (hash, claims, caller, who) values (hash, claims, caller, v_who);
end
$give$;
comment on function rowcast.give_ticket(bytea, json, json) is 'keep a ticket that is being given out';

-- Take a ticket that is shown: the first who asks gets it, everybody after that nothing. `hash`: its SHA-256.
-- Returns: claims and caller, or no row. Tables: ticket.
create function rowcast.take_ticket(hash bytea) returns table (claims json, caller json)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $take$
#variable_conflict use_variable
begin
  return query
    delete from rowcast.ticket as t where t.hash = hash and t.at > clock_timestamp() - interval '30 s' returning t.claims, t.caller;
end
$take$;
comment on function rowcast.take_ticket(bytea) is 'take a ticket that is shown, once';

grant execute on function rowcast.forget_tickets(int), rowcast.give_ticket(bytea, json, json), rowcast.take_ticket(bytea) to rowcast_gateway;

reset role;
