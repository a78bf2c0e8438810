-- Takes the example out of a database that was there before the demo (`rowcast demo --database-url`).
set client_min_messages = warning;
do $$
declare
  t text;
begin
  foreach t in array array['games', 'leaderboard', 'picks', 'team_stats', 'standings'] loop
    if to_regclass('public.' || t) is not null then
      perform rowcast.unwatch(('public.' || t)::regclass);
    end if;
  end loop;
end $$;
drop table if exists public.games, public.leaderboard, public.picks, public.team_stats, public.standings, public.leagues;
