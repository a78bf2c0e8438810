//! Is an answer still true at the head?
//!
//! Must not know: SQL, clocks, tasks. Invariant: whoever took the head before asking gets `Proven` only for content
//! that nothing touched up to it: an image that cannot be read touches, and so does a past that is not known. Positions
//! of two histories are never compared.

use super::entry::{Content, Entry};
use super::history::History;
use super::source::{Query, Window};
use crate::change::{Net, Position, TableBatch};

/// What a reader knew when it asked. The generation is taken before the head: another history is begun before the head
/// moves to it, so a head of an old history may come with a new generation, but then it lies beyond what that was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) generation: u64,
    pub(super) head: Position,
}

/// See the module.
#[derive(Debug)]
pub(super) enum Verdict {
    /// True at the head.
    Proven,
    /// One row, and the history has its newest image: true at the head, without the database.
    Rewritten(Content),
    /// To be read again.
    Touched,
}

pub(super) fn judge(history: &History, query: &Query, entry: &Entry, asked: Asked) -> Verdict {
    let Asked { generation, head } = asked;
    let proven = entry.proven();
    if entry.generation != generation || history.generation() != generation {
        return Verdict::Touched;
    }
    if proven.tick >= head.tick {
        return Verdict::Proven;
    }
    let relid = query.spec.table.relid;
    let Some(batches) = history.between(entry.generation, relid, proven.tick, head.tick) else {
        return Verdict::Touched;
    };
    for batch in batches.iter().rev() {
        let nets = match batch.tables.get(&relid) {
            Some(TableBatch::Changes(nets)) => nets,
            Some(TableBatch::Reload(_)) => return Verdict::Touched,
            None => continue,
        };
        let mut touching = nets.iter().filter(|net| query.spec.is_touched_by(net)).peekable();
        if touching.peek().is_none() {
            continue;
        }
        if query.window != Window::Row {
            return Verdict::Touched;
        }
        let Some((content, version)) = newest(query, touching) else { return Verdict::Touched };
        let held = match &entry.content {
            Content::Row { version, .. } => Some(*version),
            Content::Absent { version } => *version,
            Content::List { .. } => return Verdict::Touched,
        };
        // read while this change waited for its tick: the content has it already
        if held.zip(version).is_some_and(|(held, version)| held >= version) {
            break;
        }
        return Verdict::Rewritten(content);
    }
    entry.prove(head);
    Verdict::Proven
}

/// What one batch left of the row, and the version of that. At most one change leaves a row of this key; the others
/// are removals, or rows that were given another key: their versions say nothing about this one.
fn newest<'a>(query: &Query, nets: impl Iterator<Item = &'a Net>) -> Option<(Content, Option<i64>)> {
    let mut gone = None;
    for net in nets {
        match &net.after {
            None => gone = gone.max(Some(net.version)),
            Some(json) => {
                if let Some(body) = query.spec.project(json).ok()? {
                    return Some((Content::Row { body, version: net.version }, Some(net.version)));
                }
            }
        }
    }
    Some((Content::Absent { version: gone }, gone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Batch, Collation, Column, Key, Mark, Reload, Table, Tick};
    use crate::filter::Filter;
    use crate::hub::Spec;
    use crate::permit::Grant;
    use crate::wire::{Order, Projection};
    use bytes::Bytes;
    use std::sync::Arc;
    use std::time::Duration;

    fn query(filter: &str, window: Window) -> Query {
        let column = |name: &str, type_oid| Column {
            name: name.to_owned(),
            type_oid,
            type_sql: "pg_catalog.int4".to_owned(),
            is_enum: false,
            collation: Collation::None,
        };
        let table = Table {
            relid: 1,
            schema: "public".into(),
            name: "t".into(),
            columns: vec![column("id", 23), column("n", 23)],
            key: vec!["id".into()],
            key_sql: String::new(),
            row_sql: String::new(),
            public: true,
            ttl: Duration::ZERO,
            stale: Duration::ZERO,
            snapshot_every: Duration::ZERO,
            broken: None,
            fingerprint: String::new(),
            rules: Vec::new(),
        };
        let (name, value) = filter.split_once('=').unwrap();
        let filter = Filter::parse([(name, value)], &table).unwrap();
        let (mark, grant) = (Mark::new(0, true), Grant::operator());
        Query::new(Spec { mark, grant, table: Arc::new(table), filter, projection: Projection::default() }, 1, window)
    }

    fn at(tick: i64) -> Position {
        Position { tick, nonce: 0 }
    }

    fn image(id: i32, n: i32) -> Option<Bytes> {
        Some(format!("{{\"id\":{id},\"n\":{n}}}").into())
    }

    fn net(key: i32, version: i64, before: Option<Bytes>, after: Option<Bytes>) -> Net {
        Net { key: Key::from_log(&key.to_string(), false), version, before, after }
    }

    /// A history from tick 0 with one batch of the table a tick.
    fn history(parts: Vec<TableBatch>) -> History {
        let history = History::default();
        history.begin(&tick(0));
        for (to, part) in (1..).zip(parts) {
            let tables = [(1, part)].into();
            history.feed(&Arc::new(Batch { from: at(to - 1), to: tick(to), tables, bad_rows: Vec::new() }));
        }
        history.feed(&Arc::new(Batch { from: at(8), to: tick(9), tables: [].into(), bad_rows: Vec::new() }));
        history
    }

    fn tick(tick: i64) -> Tick {
        Tick { position: at(tick), snap: Arc::new("3:3:".parse().unwrap()), at_micros: 0 }
    }

    fn changes(nets: impl Into<Vec<Net>>) -> TableBatch {
        TableBatch::Changes(nets.into())
    }

    fn row(version: i64) -> Content {
        Content::Row { body: image(1, 0).unwrap(), version }
    }

    fn verdict(parts: Vec<TableBatch>, query: &Query, content: Content, from: i64) -> Verdict {
        let history = history(parts);
        let entry = Entry::new(content, history.generation(), at(from), Duration::ZERO);
        let verdict = judge(&history, query, &entry, Asked { generation: history.generation(), head: at(9) });
        assert_eq!(entry.proven().tick == 9, matches!(verdict, Verdict::Proven), "{verdict:?}");
        verdict
    }

    #[test]
    fn a_list_is_touched_by_what_was_or_is_in_it() {
        let list = Window::List { order: Order::default(), limit: 10, offset: 0 };
        let query = query("n=eq.5", list);
        let content = || Content::List { body: Bytes::new(), hash: 0, more: false };
        for (net, touches) in [
            (net(1, 2, image(1, 4), image(1, 6)), false),
            (net(1, 2, image(1, 5), image(1, 6)), true),
            (net(1, 2, image(1, 4), image(1, 5)), true),
            (net(1, 2, image(1, 5), None), true),
            (net(1, 2, None, Some(Bytes::from_static(b"no image"))), true),
            (net(1, 2, None, Some(Bytes::from_static(b"{\"id\":1}"))), true),
        ] {
            let verdict = verdict(vec![changes([net.clone()])], &query, content(), 0);
            assert_eq!(matches!(verdict, Verdict::Touched), touches, "{net:?}: {verdict:?}");
        }
        let touching = || changes([net(1, 2, image(1, 5), None)]);
        assert!(matches!(verdict(vec![touching()], &query, content(), 1), Verdict::Proven), "it was read behind it");
        let reload = TableBatch::Reload(Reload::Truncated);
        assert!(matches!(verdict(vec![reload], &query, content(), 0), Verdict::Touched));
    }

    #[test]
    fn a_row_takes_its_newest_image() {
        let query = query("id=eq.1", Window::Row);
        let update = |version, n| changes([net(2, 90, image(2, 0), None), net(1, version, image(1, 0), image(1, n))]);
        let rewritten = |verdict| match verdict {
            Verdict::Rewritten(content) => content,
            other => panic!("{other:?}"),
        };
        let newest = rewritten(verdict(vec![update(4, 1), update(6, 2)], &query, row(2), 0));
        assert_eq!(newest, Content::Row { body: image(1, 2).unwrap(), version: 6 });
        let gone = rewritten(verdict(vec![changes([net(1, 7, image(1, 0), None)])], &query, row(2), 0));
        assert_eq!(gone, Content::Absent { version: Some(7) });
        let renamed = changes([net(3, 12, image(1, 0), image(3, 0))]);
        assert_eq!(rewritten(verdict(vec![renamed.clone()], &query, row(2), 0)), Content::Absent { version: None });
        // another row took the key in the same tick
        let TableBatch::Changes(mut nets) = renamed else { panic!() };
        nets.push(net(1, 14, None, image(1, 9)));
        let taken = rewritten(verdict(vec![changes(nets)], &query, row(2), 0));
        assert_eq!(taken, Content::Row { body: image(1, 9).unwrap(), version: 14 });
        let back = rewritten(verdict(vec![update(8, 3)], &query, Content::Absent { version: Some(7) }, 0));
        assert_eq!(back, Content::Row { body: image(1, 3).unwrap(), version: 8 });
        assert!(matches!(verdict(vec![update(4, 1)], &query, row(4), 0), Verdict::Proven), "it has it already");
    }

    #[test]
    fn a_reload_touches_everything_before_it() {
        let query = query("id=eq.1", Window::Row);
        let update = || changes([net(1, 4, image(1, 0), image(1, 1))]);
        let reload = || TableBatch::Reload(Reload::Requested);
        assert!(matches!(verdict(vec![update(), reload()], &query, row(2), 0), Verdict::Touched));
        assert!(matches!(verdict(vec![reload(), update()], &query, row(2), 0), Verdict::Touched));
        assert!(matches!(verdict(vec![reload(), update()], &query, row(2), 1), Verdict::Rewritten(_)));
        assert!(matches!(verdict(vec![reload()], &query, row(2), 1), Verdict::Proven));
    }

    #[test]
    fn another_history_proves_nothing() {
        let query = query("id=eq.1", Window::Row);
        let history = history(Vec::new());
        let entry = Entry::new(row(2), history.generation() + 1, at(50), Duration::ZERO);
        let asked = |generation, head| Asked { generation, head: at(head) };
        assert!(matches!(judge(&history, &query, &entry, asked(history.generation(), 9)), Verdict::Touched));
        // the database was restored, to where fewer ticks had been made
        let before = history.generation();
        history.begin(&tick(10));
        let now = history.generation();
        let entry = Entry::new(row(2), now, at(10), Duration::ZERO);
        assert!(matches!(judge(&history, &query, &entry, asked(before, 5000)), Verdict::Touched));
        assert!(matches!(judge(&history, &query, &entry, asked(now, 5000)), Verdict::Touched), "the head of before");
        assert_eq!(entry.proven(), at(10));
        assert!(matches!(judge(&history, &query, &entry, asked(now, 10)), Verdict::Proven));
        // and an answer of before, to whoever still asked in it
        let old = Entry::new(row(2), before, at(5000), Duration::ZERO);
        assert!(matches!(judge(&history, &query, &old, asked(before, 10)), Verdict::Touched));
    }
}
