//! Processor time and memory of processes, read from `/proc`. Linux only.
//!
//! Unlike elapsed time, processor time is hardly changed by what else runs on the machine.

use super::Outcome;
use std::fs;

/// Unit of the times in `/proc/PID/stat`: USER_HZ, 100 on every Linux this is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// The fields after the command's name, which may hold spaces and brackets itself.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn ticks(fields: &[String], which: std::ops::Range<usize>) -> f64 {
    fields.get(which).unwrap_or_default().iter().filter_map(|f| f.parse::<f64>().ok()).sum()
}

/// Seconds used by a server: the postmaster, its living children and those that ended and were waited for.
pub(crate) fn server_seconds(postmaster: u32) -> Outcome<f64> {
    // utime, stime, cutime, cstime
    let own = stat(postmaster).ok_or("the server is gone")?;
    let mut sum = ticks(&own, 11..15);
    for child in children(postmaster)? {
        sum += stat(child).map_or(0.0, |fields| ticks(&fields, 11..13));
    }
    Ok(sum / TICKS_PER_SECOND)
}

/// Seconds used by one process with all its threads.
pub(crate) fn seconds(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |fields| ticks(&fields, 11..13)) / TICKS_PER_SECOND
}

/// The same in nanoseconds, of the threads that live: for what uses less than the unit of [`seconds`].
pub(crate) fn nanos(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let first = |path: std::path::PathBuf| fs::read_to_string(path).ok()?.split(' ').next()?.parse::<u64>().ok();
    threads.filter_map(|thread| first(thread.path().join("schedstat"))).sum()
}

/// The most memory a process had resident so far, in megabytes.
pub(crate) fn peak_megabytes(pid: u32) -> f64 {
    status(pid, "VmHWM:")
}

/// The memory it has resident, in megabytes.
pub(crate) fn megabytes(pid: u32) -> f64 {
    status(pid, "VmRSS:")
}

fn status(pid: u32, name: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
}

/// The processes of a server but the postmaster.
pub(crate) fn children(parent: u32) -> Outcome<Vec<u32>> {
    let all = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = parent.to_string();
    Ok(all.filter(|pid| stat(*pid).is_some_and(|fields| fields.get(1) == Some(&parent))).collect())
}
