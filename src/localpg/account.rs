//! Who runs the server: we ourselves, or, when we are root, somebody Postgres accepts.
//!
//! Must not know: what is run. Invariant: as an ordinary user everything here does nothing.
//!
//! A bare uid is not enough: `initdb` and `postgres` look the user up and fail on a uid without a passwd entry.

use std::os::unix::fs::{DirBuilderExt, chown, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::{LocalPgError, io};

/// The account of the server, when it is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account(Option<(u32, u32)>);

impl Account {
    /// Our own account, or `postgres`, or `nobody` when we are root.
    pub(super) fn choose() -> Result<Self, LocalPgError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self(None));
        }
        let passwd = std::fs::read_to_string("/etc/passwd").map_err(io("read `/etc/passwd`"))?;
        let found = ["postgres", "nobody"].iter().find_map(|name| lookup(&passwd, name));
        found.map(|ids| Self(Some(ids))).ok_or(LocalPgError::NoAccount)
    }

    /// Makes the command run as this account. The standard library drops the supplementary groups with it.
    pub(super) fn apply(self, command: &mut Command) {
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
    }

    /// Makes a directory only this account may look into.
    pub(super) fn private_dir(self, dir: &Path) -> Result<(), LocalPgError> {
        std::fs::DirBuilder::new().mode(0o700).create(dir).map_err(io(format!("make `{}`", dir.display())))?;
        self.own(dir)
    }

    /// Gives one file or directory to the account.
    pub(super) fn own(self, path: &Path) -> Result<(), LocalPgError> {
        let Some((uid, gid)) = self.0 else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).map_err(io(format!("give `{}` to the server's user", path.display())))
    }

    /// Gives a whole tree to the account.
    pub(super) fn own_tree(self, root: &Path) -> std::io::Result<()> {
        let Some((uid, gid)) = self.0 else { return Ok(()) };
        lchown(root, Some(uid), Some(gid))?;
        if root.symlink_metadata()?.is_dir() {
            for entry in std::fs::read_dir(root)? {
                self.own_tree(&entry?.path())?;
            }
        }
        Ok(())
    }
}

/// The uid and gid of a user in the text of `/etc/passwd`.
fn lookup(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let fields: Vec<&str> = passwd.lines().map(|line| line.split(':').collect()).find(|f: &Vec<&str>| f[0] == name)?;
    let ids = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
    (ids.0 != 0).then_some(ids)
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn accounts_are_looked_up_by_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\nodd:x:0:0::/:\nshort:x\n\n";
        assert_eq!(lookup(passwd, "nobody"), Some((65534, 65533)));
        assert_eq!(lookup(passwd, "postgres"), None);
        assert_eq!(lookup(passwd, "short"), None);
        assert_eq!(lookup(passwd, "odd"), None, "another name for root is still root");
    }
}
