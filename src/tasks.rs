//! Named tasks, tracked until they end.
//!
//! Must not know: what the tasks do. Invariant: no task outlives shutdown unnamed: stragglers are reported.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of one gateway.
#[derive(Clone, Debug)]
pub struct Tasks {
    /// Where tasks run, whoever starts them: a snapshot encoded on an HTTP worker would hold up its connections.
    runtime: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Running tasks by name. A std mutex: held for a counter's change.
    names: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    failed: Arc<Mutex<Option<String>>>,
}

struct Running {
    name: &'static str,
    names: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Running {
    fn new(name: &'static str, names: &Arc<Mutex<BTreeMap<&'static str, usize>>>) -> Running {
        *names.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Running { name, names: names.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(count) = self.names.lock().unwrap_or_else(PoisonError::into_inner).get_mut(self.name) {
            *count -= 1;
        }
    }
}

impl Tasks {
    /// Tasks that run on the runtime this is called in.
    #[must_use]
    pub fn here() -> Tasks {
        Tasks {
            runtime: Handle::current(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            names: Arc::default(),
            failed: Arc::default(),
        }
    }

    /// Runs `task` until it ends or shutdown begins.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let running = Running::new(name, &self.names);
        let stop = self.stop.clone();
        let task = async move {
            let _running = running;
            stop.run_until_cancelled(task).await;
        };
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// Runs a task that ends by itself once it is told in its own way: shutdown waits for it and does not cut it off.
    pub fn spawn_to_end(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let running = Running::new(name, &self.names);
        let task = async move {
            let _running = running;
            task.await;
        };
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// Runs a task the process is useless without: when it ends before shutdown, everything stops.
    pub fn spawn_critical(&self, name: &'static str, task: impl Future<Output = String> + Send + 'static) {
        let (stop, failed) = (self.stop.clone(), self.failed.clone());
        self.spawn(name, async move {
            let why = task.await;
            tracing::error!(task = name, why, "a critical task ended, stopping");
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            stop.cancel();
        });
    }

    /// Cancelled when shutdown begins.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Why a critical task ended, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends all tasks; returns the names of those still running after `deadline`.
    pub async fn shutdown(&self, deadline: Duration) -> Vec<&'static str> {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().filter(|&(_, &n)| n > 0).map(|(&name, _)| name).collect()
    }
}
