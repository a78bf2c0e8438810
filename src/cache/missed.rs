//! Batches read for clients that come back.
//!
//! Must not know: SQL, transports. Invariant: what is cached is immutable (what happened between two ticks), so it is
//! never stale, only no longer asked for.

use super::history;
use crate::change::{Batch, Position};
use moka::future::Cache;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Batches read for clients that come back, so that many who stood at one position cost one read.
#[derive(Clone)]
pub struct MissedCache(Cache<Position, Option<Arc<Batch>>>);

/// How long after the first read the rest of a reconnecting crowd is served from it. What happened since is in the
/// shapes' rings.
const KEPT: Duration = Duration::from_secs(2);

/// Bytes of images kept at most. A larger batch is read by each who asks.
const BYTES: u64 = 128 << 20;

impl Default for MissedCache {
    fn default() -> MissedCache {
        MissedCache(Cache::builder().max_capacity(BYTES).weigher(|_, batch| weight(batch)).time_to_live(KEPT).build())
    }
}

impl MissedCache {
    /// The batch from `from` to a tick not before `floor`; none when the position is unknown. However many ask at
    /// once, `read` runs once for them.
    ///
    /// # Errors
    /// The error of `read`, to all who waited for it.
    pub async fn get<E, F>(&self, from: Position, floor: i64, read: impl Fn() -> F) -> Result<Option<Arc<Batch>>, E>
    where
        E: Clone + Send + Sync + 'static,
        F: Future<Output = Result<Option<Arc<Batch>>, E>> + Send,
    {
        let reaches = |batch: &Option<Arc<Batch>>| batch.as_ref().is_some_and(|b| b.to.position.tick >= floor);
        if let Some(batch) = self.0.get(&from).await {
            if reaches(&batch) {
                return Ok(batch);
            }
            self.0.invalidate(&from).await;
        }
        let batch = self.0.try_get_with(from, read()).await.map_err(|e| E::clone(&e))?;
        if reaches(&batch) {
            return Ok(batch);
        }
        // unknown: it may become known a moment later, another gateway's tick on its way to us
        self.0.invalidate(&from).await;
        if batch.is_none() {
            return Ok(None);
        }
        // the read that was shared began before this one's shape was registered
        read().await
    }

    /// Drops what is past its time: moka does so only when it is used.
    pub async fn tidy(&self) {
        self.0.run_pending_tasks().await;
    }
}

fn weight(batch: &Option<Arc<Batch>>) -> u32 {
    let bytes = batch.as_ref().map_or(0, |batch| history::weight(batch).bytes);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
