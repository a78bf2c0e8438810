-- The live-scores example of `rowcast demo`: ordinary tables, ordinary SQL, and one call a table to make it live.
-- Nothing here knows that anybody watches. The writers (src/demo/writer.rs) are ordinary clients too.

-- What a league plays. The numbers make a whole game last about half a minute.
create table leagues (
  id        text primary key,
  name      text not null,
  length_s  int not null,          -- game seconds from first to final whistle
  step_s    int not null,          -- game seconds that pass with every move
  chance    float8 not null,       -- of a score with every move
  scores    int[] not null,        -- what a score may count, drawn at random
  worth     int not null           -- fantasy points for each of them
);

comment on table leagues is 'example of rowcast demo';  -- how a later run knows that these tables are its own to replace

-- Changes several times a second: fresh for 3 s in the cache, live on the stream.
create table games (
  id          int generated always as identity primary key,
  league      text not null references leagues,
  home        text not null,
  away        text not null,
  home_score  int not null default 0 check (home_score >= 0),
  away_score  int not null default 0 check (away_score >= 0),
  status      text not null default 'live' check (status in ('live', 'final', 'archived')),
  clock_s     int not null default 0 check (clock_s >= 0),
  headline    text
);

-- Fantasy players, each behind one team. Nobody's points are ever negative, not for a moment.
create table leaderboard (
  player  text primary key,
  team    text not null,
  points  int not null default 0 check (points >= 0)
);

-- Survivor picks: one slot, two users, one winner. The loser's write is refused, not lost.
create table picks (
  slot      int primary key,
  taken_by  text,
  beaten    text check (beaten <> taken_by)
);

-- Moves once a game.
create table standings (
  league  text not null references leagues,
  team    text not null,
  won     int not null default 0,
  drawn   int not null default 0,
  lost    int not null default 0,
  primary key (league, team)
);

-- History: read by many, written rarely; what polling with ETags is for.
create table team_stats (
  team      text primary key,
  played    int not null default 0,
  scored    int not null default 0,
  conceded  int not null default 0
);

insert into leagues values
  ('hoops', 'Harbour Hoops', 2400, 24, 0.55, '{1,2,2,2,3}', 1),
  ('soccer', 'Valley Soccer', 5400, 60, 0.05, '{1}', 15);

insert into standings (league, team, won, drawn, lost) values
  ('hoops', 'Breakwater', 4, 0, 2), ('hoops', 'Drydock', 3, 0, 3), ('hoops', 'Lighthouse', 5, 0, 1),
  ('hoops', 'North Pier', 2, 0, 4), ('hoops', 'Old Customs', 1, 0, 5), ('hoops', 'Ropewalk', 3, 0, 3),
  ('soccer', 'Cider Press', 2, 2, 2), ('soccer', 'Ferry Lane', 3, 1, 2), ('soccer', 'Mill Race', 4, 1, 1),
  ('soccer', 'Orchard End', 1, 3, 2), ('soccer', 'Stone Bridge', 2, 1, 3), ('soccer', 'Upper Meadow', 2, 2, 2);

insert into team_stats (team, played, scored, conceded)
  select team, won + drawn + lost, 3 * won + drawn, 3 * lost + drawn from standings;

insert into leaderboard (player, team, points)
  select player, team, (20 + random() * 60)::int
  from unnest(
    array['Otter', 'Heron', 'Badger', 'Lynx', 'Marten', 'Osprey', 'Hare', 'Newt', 'Kestrel', 'Stoat', 'Plover', 'Vole'],
    array['Breakwater', 'Cider Press', 'Drydock', 'Ferry Lane', 'Lighthouse', 'Mill Race',
          'North Pier', 'Orchard End', 'Old Customs', 'Stone Bridge', 'Ropewalk', 'Upper Meadow']
  ) as p (player, team);

insert into picks (slot) select generate_series(1, 8);

-- Freshness belongs to the kind of data: 3 s for scores, 15 s for a leaderboard, 5 min for history, 1 h for standings.
-- It is how long a polled answer may be reused; a change makes it stale at once, and subscribers never wait for it.
select rowcast.watch('games', ttl => '3 s', public => true);
select rowcast.watch('leaderboard', ttl => '15 s', public => true);
select rowcast.watch('picks', ttl => '3 s', public => true);
select rowcast.watch('team_stats', ttl => '5 min', public => true);
select rowcast.watch('standings', ttl => '1 h', public => true);
