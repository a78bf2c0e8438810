//! The data directory: made by `initdb`, or copied from one made earlier.
//!
//! Must not know: the running server. Invariant: a directory either holds a whole cluster made here, with its password
//! beside it in `rowcast_cluster`, or is refused; somebody else's files are never written over.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::{Binaries, Environment, LocalPgError, io};

/// In the data directory: the server's full version on the first line, the superuser's password on the second.
const STAMP: &str = "rowcast_cluster";

/// What making a data directory needs to know.
pub(super) struct Cluster<'a> {
    pub(super) binaries: &'a Binaries,
    pub(super) account: Account,
    pub(super) env: &'a Environment,
    /// A private directory for the short-lived password file.
    pub(super) scratch: &'a Path,
}

impl Cluster<'_> {
    /// Makes the cluster, or takes the one that is there; returns the superuser's password.
    pub(super) fn prepare(&self, dir: &Path, template: bool) -> Result<String, LocalPgError> {
        if dir.join("PG_VERSION").is_file() {
            return self.reuse(dir);
        }
        if dir.exists() && std::fs::read_dir(dir).map_err(io(format!("read `{}`", dir.display())))?.next().is_some() {
            return Err(LocalPgError::ForeignDataDir(dir.to_owned()));
        }
        let template = self.env.cache.as_deref().filter(|_| template).map(|cache| self.template_path(cache));
        if let Some(password) = template.as_deref().and_then(|template| self.copy(template, dir)) {
            return Ok(password);
        }
        let password = self.initdb(dir)?;
        if let Some(template) = template {
            // The cache is a convenience: a full disk or a race with another process must not fail the start.
            let _ = self.save(dir, &template);
        }
        Ok(password)
    }

    fn reuse(&self, dir: &Path) -> Result<String, LocalPgError> {
        let read = |name: &str| std::fs::read_to_string(dir.join(name));
        let found = read("PG_VERSION").map_err(io(format!("read `{}`", dir.display())))?.trim().to_owned();
        if found != self.binaries.version.to_string() {
            return Err(LocalPgError::DataVersion { dir: dir.to_owned(), found, wanted: self.binaries.version });
        }
        let stamp = read(STAMP).map_err(|_| LocalPgError::ForeignDataDir(dir.to_owned()))?;
        password(&stamp).ok_or_else(|| LocalPgError::ForeignDataDir(dir.to_owned()))
    }

    fn initdb(&self, dir: &Path) -> Result<String, LocalPgError> {
        if !dir.exists() {
            self.account.private_dir(dir)?;
        }
        let password = random_hex(16);
        let file = self.scratch.join("password");
        self.secret(&file, &password)?;
        // C.UTF-8 sorts like C and knows letters beyond ASCII; not every system has it.
        let mut result = self.run_initdb(dir, &file, "C.UTF-8");
        if matches!(&result, Err(LocalPgError::Initdb { output }) if output.contains("invalid locale name")) {
            result = self.run_initdb(dir, &file, "C");
        }
        let _ = std::fs::remove_file(&file);
        result?;
        self.secret(&dir.join(STAMP), &format!("{}\n{password}\n", self.binaries.full_version))?;
        Ok(password)
    }

    fn run_initdb(&self, dir: &Path, password: &Path, locale: &str) -> Result<(), LocalPgError> {
        let mut command = Command::new(self.binaries.program("initdb"));
        command.args(["--no-sync", "--encoding=UTF8", "--username=postgres"]).arg(format!("--locale={locale}"));
        command.args(["--auth-local=trust", "--auth-host=scram-sha-256"]);
        command.arg("--pwfile").arg(password).arg("--pgdata").arg(dir);
        command.env_clear().env("PATH", self.env.path_value()).env("LC_ALL", "C");
        command.current_dir(self.scratch).stdin(Stdio::null());
        self.account.apply(&mut command);
        let output = command.output().map_err(io("run `initdb`"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(LocalPgError::Initdb { output: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
    }

    /// Writes a file only the account can read.
    fn secret(&self, path: &Path, text: &str) -> Result<(), LocalPgError> {
        let what = || io(format!("write `{}`", path.display()));
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(what())?;
        file.write_all(text.as_bytes()).map_err(what())?;
        self.account.own(path)
    }

    /// One template per `bin` directory, so that an upgraded server replaces it instead of adding another 40 MB.
    fn template_path(&self, cache: &Path) -> PathBuf {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.binaries.bin.hash(&mut hasher);
        cache.join(format!("cluster-{:016x}", hasher.finish()))
    }

    /// Copies a template of exactly this server version; whatever is wrong with it, `initdb` is the way out.
    fn copy(&self, template: &Path, dir: &Path) -> Option<String> {
        let stamp = std::fs::read_to_string(template.join(STAMP)).ok()?;
        if stamp.lines().next() != Some(&self.binaries.full_version) {
            let _ = std::fs::remove_dir_all(template);
            return None;
        }
        let done = copy_tree(template, dir).and_then(|()| self.account.own_tree(dir));
        if done.is_err() {
            let _ = std::fs::remove_dir_all(dir);
        }
        done.ok().and_then(|()| password(&stamp))
    }

    /// Keeps a copy of a fresh cluster. The rename makes it appear whole or not at all; of several racing, one wins.
    fn save(&self, dir: &Path, template: &Path) -> std::io::Result<()> {
        let parent = template.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent)?;
        let part = parent.join(format!(".cluster-{}", random_hex(8)));
        let done = copy_tree(dir, &part).and_then(|()| std::fs::rename(&part, template));
        if done.is_err() {
            let _ = std::fs::remove_dir_all(&part);
        }
        done
    }

    /// Forgets the template, because a server would not start on a copy of it.
    pub(super) fn drop_template(&self) -> bool {
        let template = self.env.cache.as_deref().map(|cache| self.template_path(cache));
        template.is_some_and(|template| std::fs::remove_dir_all(template).is_ok())
    }
}

fn password(stamp: &str) -> Option<String> {
    stamp.lines().nth(1).filter(|line| !line.is_empty()).map(String::from)
}

/// Copies directories and files. A cluster without tablespaces has no links; meeting one is an error, not a guess.
fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target)?;
        } else {
            return Err(std::io::Error::other("a cluster with links cannot be a template"));
        }
    }
    Ok(())
}

/// This many random bytes as hexadecimal digits.
pub(super) fn random_hex(bytes: usize) -> String {
    (0..bytes).fold(String::new(), |mut text, _| {
        let _ = write!(text, "{:02x}", rand::random::<u8>());
        text
    })
}
