//! How many files the process may open, against how many it may need.
//!
//! Must not know: what the files are. Invariant: what cannot be had is said at the start, with the remedy, and not found
//! out when the last descriptor is gone.

use rustix::process::{Resource, getrlimit, setrlimit};

/// For the database, the log, the listener, and whatever the runtime opens.
const OTHERS: u64 = 128;

/// A stream holds its connection twice: the framework's handle and its own.
const PER_CONNECTION: u64 = 2;

/// Raises the limit as far as the system lets a process do by itself, and warns when it is below what `max_connections`
/// need.
pub fn files_for(max_connections: usize) {
    let needed = u64::try_from(max_connections).unwrap_or(u64::MAX).saturating_mul(PER_CONNECTION) + OTHERS;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    limit.current = Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed)));
    let _ = setrlimit(Resource::Nofile, limit);
    if let Some(warning) = warning(getrlimit(Resource::Nofile).current, needed, max_connections) {
        tracing::warn!("{warning}");
    }
}

fn warning(current: Option<u64>, needed: u64, max_connections: usize) -> Option<String> {
    let current = current.filter(|current| *current < needed)?;
    let fits = current.saturating_sub(OTHERS) / PER_CONNECTION;
    Some(format!(
        "the process may open {current} files, and `max_connections` = {max_connections} may need {needed}: raise the hard limit \
         (`ulimit -Hn {needed}`, `LimitNOFILE={needed}` of systemd), or set `max_connections` to {fits}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_has_the_remedy() {
        assert_eq!(warning(None, 500, 100), None);
        assert_eq!(warning(Some(500), 500, 100), None);
        let text = warning(Some(1024), 40_128, 20_000).unwrap();
        assert!(text.contains("LimitNOFILE=40128") && text.contains("`max_connections` to 448"), "{text}");
    }
}
