//! What the stress writers do: hot keys, triggers that write the same rows again, keys that move, savepoints.

use crate::support::world::connect;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// `hot` has AFTER ROW triggers that update, delete and re-insert the row at hand, three levels deep; the key of
/// `seat` is deferrable.
pub const SCHEMA: &str = "
    create table hot (id int primary key, owner text not null, n int not null, note text);
    create table pair_a (id int primary key, v int not null);
    create table pair_b (id int primary key, v int not null);
    create table seat (id int primary key deferrable initially immediate, guest text not null);
    create function meddle() returns trigger language plpgsql as $$
    declare
        dice int := floor(random() * 12);
    begin
        if pg_trigger_depth() > 3 then return null; end if;
        if dice = 0 then update hot set n = n + 1 where id = new.id;
        elsif dice = 1 then delete from hot where id = new.id;
        elsif dice = 2 then
            delete from hot where id = new.id;
            insert into hot values (new.id, new.owner, new.n + 1, 'back') on conflict do nothing;
        elsif dice = 3 then update hot set owner = case owner when 'a' then 'b' else 'a' end where id = new.id;
        end if;
        return null;
    end $$;
    create function mourn() returns trigger language plpgsql as $$
    begin
        if pg_trigger_depth() <= 3 and random() < 0.2 then
            insert into hot values (old.id, old.owner, old.n + 1, null) on conflict do nothing;
        end if;
        return null;
    end $$;
    create trigger meddle after insert or update on hot for each row execute function meddle();
    create trigger mourn after delete on hot for each row execute function mourn();
    insert into pair_a select i, 0 from generate_series(1, 8) as i;
    insert into pair_b select i, 0 from generate_series(1, 8) as i;
    insert into seat select i, 'guest ' || i from generate_series(1, 9) as i;
    select rowcast.watch(t, public => true) from unnest(array['hot', 'pair_a', 'pair_b', 'seat']::regclass[]) as t;
";

/// What the writers did.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub committed: usize,
    pub rolled_back: usize,
    pub failed: usize,
    pub truncated: usize,
}

impl Done {
    pub fn add(&mut self, other: &Done) {
        self.committed += other.committed;
        self.rolled_back += other.rolled_back;
        self.failed += other.failed;
        self.truncated += other.truncated;
    }
}

/// Writes until told to stop.
pub async fn write(url: String, seed: u64, stop: Arc<AtomicBool>) -> Done {
    let mut rng = StdRng::seed_from_u64(seed);
    let client = connect(&url).await;
    client.batch_execute("set deadlock_timeout = '20ms'").await.unwrap();
    let mut done = Done::default();
    while !stop.load(Ordering::Relaxed) {
        let isolation = ["read committed", "read committed", "repeatable read", "serializable"][rng.random_range(0..4)];
        client.batch_execute(&format!("begin isolation level {isolation}")).await.unwrap();
        let truncate = rng.random_ratio(1, 200);
        let mut alive = true;
        for i in 0..rng.random_range(1..5) {
            if !alive {
                break;
            }
            let statement = if truncate && i == 0 { "truncate hot".to_owned() } else { statement(&mut rng) };
            // None: no savepoint; Some(keep): released, or rolled back
            let savepoint = rng.random_bool(0.4).then(|| rng.random_bool(0.6));
            alive = match savepoint {
                None => client.batch_execute(&statement).await.is_ok(),
                Some(keep) => {
                    client.batch_execute("savepoint s").await.unwrap();
                    let went = client.batch_execute(&statement).await;
                    let end = if went.is_ok() && keep { "release s" } else { "rollback to s; release s" };
                    // a serialization failure is the transaction's, not the savepoint's
                    client.batch_execute(end).await.is_ok()
                }
            };
            if rng.random_bool(0.1) {
                tokio::time::sleep(Duration::from_millis(rng.random_range(1..15))).await;
            }
        }
        let commit = alive && rng.random_bool(0.88);
        let ended = client.batch_execute(if commit { "commit" } else { "rollback" }).await;
        match (alive, commit && ended.is_ok()) {
            (_, true) => {
                done.committed += 1;
                done.truncated += usize::from(truncate);
            }
            (true, false) if !commit => done.rolled_back += 1,
            _ => done.failed += 1,
        }
        if ended.is_err() {
            client.batch_execute("rollback").await.unwrap();
        }
    }
    done
}

fn statement(rng: &mut StdRng) -> String {
    // few keys, and the low ones more often
    let key = rng.random_range(1..=12).min(rng.random_range(1..=12));
    let other = rng.random_range(1..=12);
    let owner = ["a", "b", "c"][rng.random_range(0..3)];
    let n = rng.random_range(0..20);
    let seat = rng.random_range(1..=9);
    match rng.random_range(0..17) {
        0 | 1 => format!(
            "insert into hot values ({key}, '{owner}', {n}, null) on conflict (id) do update set n = excluded.n, owner = excluded.owner"
        ),
        2 => format!("insert into hot values ({key}, '{owner}', {n}, 'new')"),
        3 | 4 => format!("update hot set n = n + 1, note = null where id = {key}"),
        5 => format!("update hot set owner = '{owner}' where id between {key} and {key} + 3"),
        6 | 7 => format!("delete from hot where id = {key}"),
        8 => format!("update hot set id = {other} where id = {key}"),
        9 => format!(
            "with gone as (delete from hot where id = {key} returning *) insert into hot select {other} + 12, owner, n, note from gone on conflict do nothing"
        ),
        10 => format!("delete from hot where id = {key}; insert into hot values ({key}, '{owner}', {n}, 'again')"),
        11 => format!("delete from hot where id > 12 and id % 3 = {n} % 3"),
        12 => format!("update seat set id = 10 - id where id in ({seat}, 10 - {seat})"),
        13 => "update seat set id = id % 9 + 1".to_owned(),
        14 => format!(
            "set constraints all deferred; update seat set id = {seat} where id = 1; update seat set id = 1 where id = {seat} and guest <> \
             (select guest from seat where id = {seat} order by row_version desc limit 1); \
             delete from seat where ctid <> all (select max(ctid) from seat group by id)"
        ),
        15 => format!("insert into seat values ({seat}, 'guest {n}') on conflict do nothing"),
        _ => {
            let (sign, amount) = (rng.random_range(0..2) * 2 - 1, rng.random_range(1..9));
            let (from, to) = (rng.random_range(1..=8), rng.random_range(1..=8));
            format!(
                "update pair_a set v = v - {amount} * {sign} where id = {from}; update pair_b set v = v + {amount} * {sign} where id = {to}"
            )
        }
    }
}
