//! What the search for a server may know of the process environment.
//!
//! Must not know: the environment itself; the caller passes a lookup function, so that tests can make one up and only
//! `config` reads the real one. Invariant: a plain value, fixed once read.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The parts of the process environment that finding and running a private Postgres depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `ROWCAST_PG_BIN`: a directory with `postgres` and `initdb`, before any search.
    pub pg_bin: Option<PathBuf>,
    /// The directories of `PATH`.
    pub path: Vec<PathBuf>,
    /// Where fetched binaries and initialised clusters are kept; nothing is cached without it.
    pub cache: Option<PathBuf>,
    /// Where temporary data directories go.
    pub temp: PathBuf,
    /// Somebody sits in front of this machine: a browser can be opened.
    pub desktop: bool,
}

impl Environment {
    /// Reads what is needed with `get`, for example `|name| std::env::var_os(name)`.
    #[must_use]
    pub fn read(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| get(name).filter(|value| !value.is_empty());
        let path = set("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        Self {
            pg_bin: set("ROWCAST_PG_BIN").map(PathBuf::from),
            path: split(path),
            cache: cache_dir(set("XDG_CACHE_HOME").map(PathBuf::from), set("HOME").map(PathBuf::from)),
            desktop: set("CI").is_none()
                && (cfg!(target_os = "macos") || set("DISPLAY").is_some() || set("WAYLAND_DISPLAY").is_some()),
            temp: set("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from),
        }
    }

    /// The first directory of `PATH` that has this program.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|dir| dir.join(name)).find(|file| file.is_file())
    }

    /// `PATH` again, for a child's environment.
    pub(super) fn path_value(&self) -> OsString {
        let dirs: Vec<&[u8]> = self.path.iter().map(|dir| dir.as_os_str().as_bytes()).collect();
        OsString::from_vec(dirs.join(&b':'))
    }
}

fn split(path: OsString) -> Vec<PathBuf> {
    let parts = path.into_vec();
    // An empty entry means the current directory; running whatever lies there is a surprise nobody wants.
    parts
        .split(|byte| *byte == b':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| OsString::from_vec(dir.to_vec()).into())
        .collect()
}

fn cache_dir(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        // The server runs as another user, who cannot look into /root.
        return Some("/var/cache/rowcast".into());
    }
    let mac = home.as_ref().map(|home| home.join("Library/Caches")).filter(|_| cfg!(target_os = "macos"));
    xdg.or(mac).or_else(|| home.map(|home| home.join(".cache"))).map(|dir| dir.join("rowcast"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_what_is_set() {
        let env = Environment::read(|name| match name {
            "PATH" => Some("/a::/b".into()),
            "ROWCAST_PG_BIN" => Some(OsString::new()),
            "TMPDIR" => Some("/t".into()),
            _ => None,
        });
        assert_eq!(env.path, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(env.path_value(), "/a:/b");
        assert_eq!((env.pg_bin, env.temp), (None, PathBuf::from("/t")));
    }
}
