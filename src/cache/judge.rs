//! Is an answer still true at the head?
//!
//! Must not know: SQL, clocks, tasks. Invariant: whoever took the head before asking gets `Proven` only for content
//! that nothing touched up to it: an image that cannot be read touches, and so does a past that is not known.

use super::entry::{Content, Entry};
use super::history::History;
use super::source::{Query, Window};
use crate::change::{Net, Position, TableBatch};

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

pub(super) fn judge(history: &History, query: &Query, entry: &Entry, head: Position) -> Verdict {
    let proven = entry.proven();
    if entry.generation == history.generation() && proven.tick >= head.tick {
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
        if held.is_some_and(|held| held >= version) {
            break;
        }
        return Verdict::Rewritten(content);
    }
    entry.prove(head);
    Verdict::Proven
}

/// What one batch left of the row, and the version of that. At most one change leaves a row of this key; the others
/// are removals, or rows that were given another key.
fn newest<'a>(query: &Query, nets: impl Iterator<Item = &'a Net>) -> Option<(Content, i64)> {
    let mut gone = i64::MIN;
    for net in nets {
        if let Some(json) = &net.after
            && let Some(body) = query.spec.project(json).ok()?
        {
            return Some((Content::Row { body, version: net.version }, net.version));
        }
        gone = gone.max(net.version);
    }
    Some((Content::Absent { version: Some(gone) }, gone))
}
