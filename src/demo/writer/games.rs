//! Games: a clock that runs, scores that fall, a whistle that moves the standings, and the next game.
//!
//! Must not know: who watches. Invariant: what belongs together is one transaction (a basket and its fantasy points; the
//! final whistle and the standings), and every number is computed by Postgres from what it holds, never from memory.

use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;

use super::{Tally, pause};
use crate::demo::DemoError;
use crate::demo::error::database;

/// Two teams that keep playing each other.
pub(super) struct Fixture {
    league: String,
    home: String,
    away: String,
    rules: Rules,
    /// How much of the first game is over at the start, so that something ends soon: 0.0 to 1.0.
    head_start: f64,
}

/// A league's row of `leagues`.
#[derive(Clone)]
struct Rules {
    length_s: i32,
    step_s: i32,
    chance: f64,
    scores: Vec<i32>,
    worth: i32,
}

/// The shortest and longest time between two moves of a game.
const MOVE_MS: std::ops::Range<u64> = 200..450;

/// How long a final score stays on the board.
const FINAL_MS: u64 = 5_000;

const HOME: &str = "update games set home_score = home_score + $2::int, clock_s = least(clock_s + $3, $4), \
    headline = home || ' +' || $2::int where id = $1 returning home";
const AWAY: &str = "update games set away_score = away_score + $2::int, clock_s = least(clock_s + $3, $4), \
    headline = away || ' +' || $2::int where id = $1 returning away";
const POINTS: &str = "update leaderboard set points = points + $2 where team = $1";
const CLOCK: &str = "update games set clock_s = least(clock_s + $2, $3) where id = $1";
const WHISTLE: &str = "update games set status = 'final', headline = case \
      when home_score > away_score then home || ' win' when home_score < away_score then away || ' win' \
      else 'a draw' end \
    where id = $1 returning league, home, away, home_score, away_score";
const STANDING: &str = "update standings set won = won + ($3::int > $4::int)::int, drawn = drawn + ($3 = $4)::int, \
    lost = lost + ($3 < $4)::int where league = $1 and team = $2";
const STATS: &str = "update team_stats set played = played + 1, scored = scored + $2, conceded = conceded + $3 \
    where team = $1";

/// Pairs up each league's teams.
pub(super) async fn fixtures(client: &mut Client) -> Result<Vec<Fixture>, DemoError> {
    let sql = "select league, team, length_s, step_s, chance, scores, worth \
        from standings join leagues on leagues.id = league order by league, team";
    let rows = client.query(sql, &[]).await.map_err(database("read the teams"))?;
    let pairs: Vec<_> =
        rows.chunks_exact(2).filter(|pair| pair[0].get::<_, &str>(0) == pair[1].get::<_, &str>(0)).collect();
    let count = pairs.len().max(1) as f64;
    let fixture = |(i, pair): (usize, &[tokio_postgres::Row])| Fixture {
        league: pair[0].get(0),
        home: pair[0].get(1),
        away: pair[1].get(1),
        rules: Rules {
            length_s: pair[0].get(2),
            step_s: pair[0].get(3),
            chance: pair[0].get(4),
            scores: pair[0].get(5),
            worth: pair[0].get(6),
        },
        head_start: (i as f64 + 0.95) / count,
    };
    Ok(pairs.into_iter().enumerate().map(fixture).collect())
}

/// Plays one game after the other until told to stop.
pub(super) async fn play(
    client: &mut Client,
    fixture: Fixture,
    stop: &CancellationToken,
    tally: &Tally,
) -> Result<(), Error> {
    let Fixture { league, mut home, mut away, rules, head_start } = fixture;
    let mut clock = (f64::from(rules.length_s) * head_start) as i32;
    loop {
        let id = kick_off(client, &league, &home, &away, clock, &rules).await?;
        tally.committed();
        while pause(stop, rand::random_range(MOVE_MS)).await {
            let over = step(client, id, &rules).await?;
            tally.committed();
            if over {
                whistle(client, id).await?;
                tally.committed();
                tally.finals.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                break;
            }
        }
        // The page asks for live and final games: an archived one leaves its filter, which it sees as a removal.
        if !pause(stop, FINAL_MS).await {
            return Ok(());
        }
        client.execute("update games set status = 'archived' where id = $1", &[&id]).await?;
        client.execute("delete from games where id = $1", &[&id]).await?;
        tally.committed();
        tally.committed();
        std::mem::swap(&mut home, &mut away);
        clock = 0;
    }
}

/// A new game; one that began before the demo did gets the points it would have by now.
async fn kick_off(
    client: &Client,
    league: &str,
    home: &str,
    away: &str,
    clock: i32,
    rules: &Rules,
) -> Result<i32, Error> {
    let usual = f64::from(clock / rules.step_s.max(1)) * rules.chance;
    let score = |share: f64| (usual * share * f64::from(rules.scores.iter().copied().max().unwrap_or(1)) * 0.6) as i32;
    let share = rand::random_range(0.4..0.6);
    let sql = "insert into games (league, home, away, clock_s, home_score, away_score) values ($1, $2, $3, $4, $5, $6) \
        returning id";
    let row = client.query_one(sql, &[&league, &home, &away, &clock, &score(share), &score(1.0 - share)]).await?;
    Ok(row.get(0))
}

/// One move: the clock runs, and perhaps somebody scores. True when the time is up.
async fn step(client: &mut Client, id: i32, rules: &Rules) -> Result<bool, Error> {
    let transaction = client.transaction().await?;
    if rand::random_bool(rules.chance.clamp(0.0, 1.0)) && !rules.scores.is_empty() {
        let score = rules.scores[rand::random_range(0..rules.scores.len())];
        let side = if rand::random() { HOME } else { AWAY };
        let team: String = transaction.query_one(side, &[&id, &score, &rules.step_s, &rules.length_s]).await?.get(0);
        transaction.execute(POINTS, &[&team, &(score * rules.worth)]).await?;
    } else {
        transaction.execute(CLOCK, &[&id, &rules.step_s, &rules.length_s]).await?;
    }
    let over = "select clock_s >= $2 from games where id = $1";
    let over: bool = transaction.query_one(over, &[&id, &rules.length_s]).await?.get(0);
    transaction.commit().await?;
    Ok(over)
}

/// The final whistle: result, standings and history in one transaction.
async fn whistle(client: &mut Client, id: i32) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    let row = transaction.query_one(WHISTLE, &[&id]).await?;
    let (league, home, away): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let (ours, theirs): (i32, i32) = (row.get(3), row.get(4));
    for (team, scored, conceded) in [(&home, ours, theirs), (&away, theirs, ours)] {
        transaction.execute(STANDING, &[&league, team, &scored, &conceded]).await?;
        transaction.execute(STATS, &[team, &scored, &conceded]).await?;
    }
    transaction.commit().await
}
