//! Where a Postgres server may be on this machine.
//!
//! Must not know: how it is run. Invariant: what is returned has both `postgres` and `initdb`, answered `--version`, and is
//! of a version Rowcast supports; an explicitly named directory is used or refused, never silently replaced by another.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Environment, LocalPgError, fetch};

/// The oldest major version Rowcast supports.
pub const MINIMUM_VERSION: u32 = 14;

/// A PostgreSQL server's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The directory of `postgres` and `initdb`.
    pub bin: PathBuf,
    /// The major version (`15`).
    pub version: u32,
    /// What `postgres --version` says, to tell builds apart.
    pub full_version: String,
}

impl Binaries {
    /// Finds a server: `explicit`, else `ROWCAST_PG_BIN`, `PATH`, `pg_config --bindir`, the usual directories (newest major
    /// first), and last a copy fetched earlier.
    ///
    /// # Errors
    /// Nothing found, or a named directory is not a server's.
    pub fn find(env: &Environment, explicit: Option<&Path>) -> Result<Self, LocalPgError> {
        if let Some(dir) = explicit.or(env.pg_bin.as_deref()) {
            return Self::at(dir).ok_or_else(|| LocalPgError::NotABinDir(dir.to_owned()));
        }
        let candidates = env.path.iter().cloned().chain(pg_config(env)).chain(usual_dirs()).chain(fetch::cached(env));
        candidates.into_iter().find_map(|dir| Self::at(&dir)).ok_or_else(|| LocalPgError::NotFound {
            searched: [
                "PATH",
                "pg_config",
                "/usr/lib/postgresql",
                "/usr/pgsql-*",
                "Homebrew",
                "Postgres.app",
                "rowcast's cache",
            ]
            .map(String::from)
            .to_vec(),
            choices: choices(env),
        })
    }

    /// The server in this directory, if there is one that runs and is new enough.
    #[must_use]
    pub fn at(dir: &Path) -> Option<Self> {
        if !dir.join("initdb").is_file() || !dir.join("postgres").is_file() {
            return None;
        }
        // `/usr/lib/postgresql/15/bin` found through a relative PATH entry would be lost after a change of directory.
        let bin = dir.canonicalize().ok()?;
        let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
        let full_version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        let version = major(&full_version).filter(|major| *major >= MINIMUM_VERSION)?;
        Some(Self { bin, version, full_version })
    }

    /// The full path of one of the programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian ..)` is 15, `18beta1` is 18.
fn major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn pg_config(env: &Environment) -> Option<PathBuf> {
    let output = Command::new(env.program("pg_config")?).arg("--bindir").output().ok()?;
    let dir = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(dir.trim())).filter(|dir| dir.is_absolute())
}

/// Where packages of common systems put servers that are not on `PATH`.
fn usual_dirs() -> Vec<PathBuf> {
    let app = "/Applications/Postgres.app/Contents/Versions";
    let families = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-"), (app, "")];
    let brew =
        ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"].map(|dir| (dir, "postgresql@"));
    families.into_iter().chain(brew).flat_map(|(parent, prefix)| newest_first(Path::new(parent), prefix)).collect()
}

/// `bin` directories of `parent/<prefix><version>`, newest version first.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.split('.').next()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// The ways out when there is no server, most convenient first.
fn choices(env: &Environment) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(offer) = fetch::offer(env) {
        lines.push(format!("  rowcast demo --fetch              ({offer})"));
    }
    lines.push("  sudo apt-get install postgresql   (Debian, Ubuntu)".into());
    lines.push("  brew install postgresql@17        (macOS)".into());
    lines.push("  --pg-bin DIR                      (a server installed elsewhere)".into());
    lines.push("  --database-url URL                (a server that is running already)".into());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("something else"), None);
    }

    #[test]
    fn newest_major_comes_first_and_other_names_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["9.6", "14", "16", "common"] {
            std::fs::create_dir_all(dir.path().join(name).join("bin")).unwrap();
        }
        let found = newest_first(dir.path(), "");
        let majors: Vec<_> = found.iter().map(|bin| bin.parent().unwrap().file_name().unwrap().to_owned()).collect();
        assert_eq!(majors, ["16", "14", "9.6"]);
    }

    #[test]
    fn a_named_directory_without_a_server_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Binaries::find(&Environment::default(), Some(dir.path())).unwrap_err();
        assert!(matches!(error, LocalPgError::NotABinDir(_)), "{error}");
        assert!(error.to_string().contains("name the server's `bin` directory"));
    }
}
