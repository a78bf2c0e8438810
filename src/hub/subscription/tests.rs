//! What is read while a rule changes.

use super::*;
use crate::change::{Collation, Column, Key, Net, Rule, Snapshot, Table, Tick};
use crate::hub::{HubOptions, Join, Loaded, Source, Tables};
use crate::permit::Permit;
use crate::tasks::Tasks;
use crate::wire::Projection;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Answers what was missed when it is told to.
#[derive(Default)]
struct Slow {
    asked: Notify,
    go_on: Notify,
}

fn tick(n: i64) -> Tick {
    let position = Position { tick: n, nonce: 0 };
    Tick { position, snap: Arc::new("1:1:".parse::<Snapshot>().unwrap()), at_micros: 0 }
}

fn batch(from: i64, to: i64) -> Arc<Batch> {
    let row = Bytes::from_static(b"{\"id\":1,\"row_version\":2}");
    let net = Net { key: Key::from_log("1", false), version: 2, before: None, after: Some(row) };
    let tables = HashMap::from([(1, TableBatch::Changes(vec![net]))]);
    Arc::new(Batch { from: tick(from).position, to: tick(to), tables, bad_rows: Vec::new() })
}

struct Shared(Arc<Slow>);

impl Source for Shared {
    fn snapshot(&self, _: Spec, _: usize, _: CancellationToken) -> BoxFuture<'static, Result<Loaded, SourceError>> {
        Box::pin(async { Ok(Loaded { rows: Vec::new(), join: Join::At(0) }) })
    }

    fn missed(&self, from: Position, _: i64, to: Tick) -> BoxFuture<'static, Result<Missed, SourceError>> {
        let slow = self.0.clone();
        Box::pin(async move {
            slow.asked.notify_one();
            slow.go_on.notified().await;
            Ok(Missed::Batch(batch(from.tick, to.position.tick)))
        })
    }
}

struct Deaf;

impl Wake for Deaf {
    fn wake(&self) {}
}

fn table(filter: Option<&str>) -> Table {
    let rule = Rule {
        role: "m".to_owned(),
        filter: filter.map(str::to_owned),
        columns: None,
        write: false,
        version_required: true,
    };
    let column = |name: &str| Column {
        name: name.to_owned(),
        type_oid: 20,
        type_sql: "bigint".to_owned(),
        is_enum: false,
        collation: Collation::None,
    };
    Table {
        relid: 1,
        schema: "public".to_owned(),
        name: "t".to_owned(),
        columns: vec![column("id"), column("row_version")],
        key: vec!["id".to_owned()],
        key_sql: String::new(),
        row_sql: String::new(),
        public: false,
        ttl: Duration::ZERO,
        stale: Duration::ZERO,
        snapshot_every: Duration::ZERO,
        broken: None,
        fingerprint: String::new(),
        rules: vec![rule],
    }
}

/// A hub at tick 3 with a table of one rule.
fn hub() -> (Arc<Hub>, Arc<Slow>) {
    let slow = Arc::new(Slow::default());
    let options = HubOptions {
        ring_bytes: 1 << 16,
        snapshot_reads: 1,
        snapshot_queue: 1,
        snapshot_bytes: 1 << 16,
        gather_bytes: 1 << 16,
    };
    let hub = Hub::new(Arc::new(Shared(slow.clone())), options, Tasks::here());
    hub.set_tables(Tables::new([table(None)]));
    hub.begin(tick(3));
    (hub, slow)
}

/// What a subscriber that comes back to tick 2 is handed out, if `meanwhile` happens while what it missed is read.
async fn told(meanwhile: impl FnOnce(&Hub)) -> (bool, Vec<Piece>, Option<ResetReason>) {
    let (hub, slow) = hub();
    let table = hub.tables().get(1).unwrap().clone();
    let permit = Permit::of(&table, "m", "{}").unwrap();
    let projection = Projection::parse(None, false, permit.seen(&table)).unwrap();
    let spec = Spec {
        filter: permit.filter.clone(),
        projection,
        grant: permit.grant.clone(),
        mark: permit.mark(&table),
        table,
    };
    let from = Resume { position: tick(2).position, marks: spec.mark.into() };
    let subscribed = hub.subscribe(spec, Start::After(from), Arc::new(Deaf));
    let happens = async {
        slow.asked.notified().await;
        meanwhile(&hub);
        slow.go_on.notify_one();
    };
    let (subscribed, ()) = futures_util::future::join(subscribed, happens).await;
    let mut subscription = subscribed.unwrap().unwrap();
    let mut out = Vec::new();
    let whole = subscription.collect(tick(9).position, &mut out);
    (whole, out, subscription.closed())
}

#[tokio::test]
async fn what_was_missed_is_told() {
    let (whole, out, closed) = told(|_| ()).await;
    assert!(whole && closed.is_none());
    assert_eq!((out.len(), out[0].kind, out[0].messages.len()), (1, PieceKind::Data, 1));
}

#[tokio::test]
async fn and_not_by_a_rule_that_ended_while_it_was_read() {
    let (whole, out, closed) = told(|hub| hub.set_tables(Tables::new([table(Some("id=eq.2"))]))).await;
    assert!(!whole && out.is_empty(), "{out:?}");
    assert_eq!(closed, Some(ResetReason::Permission));
}
