//! In-process caches. The only module that knows moka.
//!
//! Must not know: SQL, transports. Invariant: an answer is never older than what this gateway had told its subscribers
//! before it was asked.
//!
//! Reading order: `missed` keeps what happened between two ticks and cannot go stale. `reads` keeps answers: an
//! `entry` knows the position at which it is true, and before it is served the `history` is asked what happened since.
//! Nobody tells an entry that it is out of date, so there is no message that could be lost or come too early.

mod entry;
mod flight;
mod history;
mod judge;
mod known;
mod missed;
mod reads;
mod source;

pub use entry::{Content, Entry};
pub use history::History;
pub use missed::MissedCache;
pub use reads::{Answer, How, Reach, ReadOptions, Reads};
pub use source::{Found, Query, Reader, Window};
