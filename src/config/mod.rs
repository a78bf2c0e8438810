//! Settings: flags, environment, a TOML file, defaults, in this order.
//!
//! The only module, with `main`, that reads the environment. Invariant: an unknown key is an error that names the
//! file and the line; a setting is read in one place.

mod auth;

pub use auth::AuthArgs;

use crate::auth::{AuthOptions, Secret};
use crate::localpg::Environment;
use clap::Args;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// What a gateway runs with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connection for the pool.
    pub database_url: String,
    /// Direct connection for LISTEN and ticks; none means `database_url`.
    pub notify_url: Option<String>,
    /// Address to serve on.
    pub listen: String,
    /// Connections for snapshots, missed changes and writes.
    pub pool_size: usize,
    /// HTTP worker threads.
    pub workers: usize,
    /// Between two ticks under load.
    pub tick_interval: Duration,
    /// A look at the log although nothing rang.
    pub safety_poll: Duration,
    /// How long the log is kept.
    pub retention: Duration,
    /// Bytes of changes kept per shape.
    pub ring_bytes: usize,
    /// Bytes of changes held for one batch.
    pub batch_bytes: usize,
    /// Bytes of rows one snapshot may have.
    pub snapshot_max_bytes: usize,
    /// Snapshots read at a time.
    pub snapshot_reads: usize,
    /// Snapshots that may wait for their turn.
    pub snapshot_queue: usize,
    /// Bytes of answers to reads that are kept.
    pub cache_bytes: u64,
    /// Rows one answer to a read may have.
    pub read_max_rows: usize,
    /// How long shutdown waits for answers to end.
    pub drain: Duration,
    /// Connections at a time.
    pub max_connections: usize,
    /// Streams of one client address; 0 is no limit.
    pub max_streams_per_address: usize,
    /// Age at which a stream is told to come back; zero is never.
    pub max_stream_age: Duration,
    /// How long a stream's client may take nothing before its connection is closed.
    pub write_timeout: Duration,
    /// Origins whose pages may open a WebSocket, beside the gateway's own.
    pub allowed_origins: Vec<String>,
    /// Between two pings of a WebSocket; two without an answer end it.
    pub ping: Duration,
    /// Which tokens are taken.
    pub auth: AuthOptions,
    /// How long a WebSocket may take to its first message. The contract's number: no flag.
    pub init_wait: Duration,
}

impl Settings {
    /// The defaults, for a database.
    #[must_use]
    pub fn new(database_url: impl Into<String>) -> Settings {
        Settings {
            database_url: database_url.into(),
            notify_url: None,
            listen: "127.0.0.1:8080".to_owned(),
            pool_size: 10,
            workers: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            tick_interval: Duration::from_millis(5),
            safety_poll: Duration::from_secs(1),
            retention: Duration::from_secs(3600),
            ring_bytes: 4 << 20,
            batch_bytes: 64 << 20,
            snapshot_max_bytes: 256 << 20,
            snapshot_reads: 4,
            snapshot_queue: 1000,
            cache_bytes: 64 << 20,
            read_max_rows: 1000,
            drain: Duration::from_secs(10),
            max_connections: 20_000,
            // behind a proxy all streams come from one address
            max_streams_per_address: 0,
            // A gateway that is added later gets its share of the streams within the hour, with nobody moving them, and
            // what comes back does so all the time instead of at the first deploy. It costs one resume an hour.
            max_stream_age: Duration::from_secs(3600),
            // longer than a tunnel or a change of network takes; a client that sleeps longer resumes when it wakes
            write_timeout: Duration::from_secs(20),
            allowed_origins: Vec::new(),
            auth: AuthOptions::default(),
            // twice a minute: proxies cut what is silent for 60 s
            ping: Duration::from_secs(25),
            init_wait: Duration::from_secs(10),
        }
    }
}

/// What running a private Postgres needs to know of the process environment.
#[must_use]
pub fn environment() -> Environment {
    #[expect(clippy::disallowed_methods, reason = "config is where the environment is read")]
    Environment::read(|name| std::env::var_os(name))
}

/// Which database.
#[derive(Args, Clone, Debug, Default)]
pub struct DatabaseArgs {
    /// Where Postgres is: `postgres://user:password@host:5432/database`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// Settings file (TOML); see `rowcast.example.toml`
    #[arg(long, env = "ROWCAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Flags of `serve`, each also an environment variable and a key of the file.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Which database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Direct connection for LISTEN and ticks, when `--database-url` goes through a transaction pooler [default: the same]
    #[arg(long, env = "ROWCAST_NOTIFY_URL", hide_env_values = true, value_name = "URL")]
    pub notify_url: Option<String>,
    /// Address to serve on [default: 127.0.0.1:8080]
    #[arg(long, env = "ROWCAST_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Connections for snapshots, missed changes and writes [default: 10]
    #[arg(long, env = "ROWCAST_POOL_SIZE", value_name = "N")]
    pub pool_size: Option<usize>,
    /// HTTP worker threads [default: one per core]
    #[arg(long, env = "ROWCAST_WORKERS", value_name = "N")]
    pub workers: Option<usize>,
    /// Milliseconds between two ticks while changes keep coming [default: 5]
    #[arg(long, env = "ROWCAST_TICK_INTERVAL_MS", value_name = "MS")]
    pub tick_interval_ms: Option<u64>,
    /// Milliseconds after which the log is looked at although nothing rang: the staleness when every NOTIFY is lost [default: 1000]
    #[arg(long, env = "ROWCAST_SAFETY_POLL_MS", value_name = "MS")]
    pub safety_poll_ms: Option<u64>,
    /// Seconds the change log is kept, and with it positions to resume from [default: 3600]
    #[arg(long, env = "ROWCAST_RETENTION_SECONDS", value_name = "S")]
    pub retention_seconds: Option<u64>,
    /// Bytes of changes kept per shape for subscribers that fall behind or come back [default: 4194304]
    #[arg(long, env = "ROWCAST_RING_BYTES", value_name = "BYTES")]
    pub ring_bytes: Option<usize>,
    /// Bytes of changes held for one tick; a table with more is read anew instead [default: 67108864]
    #[arg(long, env = "ROWCAST_BATCH_BYTES", value_name = "BYTES")]
    pub batch_bytes: Option<usize>,
    /// Bytes of rows one snapshot may have [default: 268435456]
    #[arg(long, env = "ROWCAST_SNAPSHOT_MAX_BYTES", value_name = "BYTES")]
    pub snapshot_max_bytes: Option<usize>,
    /// Snapshots read from the database at a time [default: 4]
    #[arg(long, env = "ROWCAST_SNAPSHOT_READS", value_name = "N")]
    pub snapshot_reads: Option<usize>,
    /// Snapshots that may wait for their turn; who needs one more is told to come back [default: 1000]
    #[arg(long, env = "ROWCAST_SNAPSHOT_QUEUE", value_name = "N")]
    pub snapshot_queue: Option<usize>,
    /// Bytes of answers to reads that are kept; 0 keeps none [default: 67108864]
    #[arg(long, env = "ROWCAST_CACHE_BYTES", value_name = "BYTES")]
    pub cache_bytes: Option<u64>,
    /// Rows one answer to a read may have, and has when it does not say `limit` [default: 1000]
    #[arg(long, env = "ROWCAST_READ_MAX_ROWS", value_name = "N")]
    pub read_max_rows: Option<usize>,
    /// Seconds that shutdown waits for answers to end [default: 10]
    #[arg(long, env = "ROWCAST_DRAIN_SECONDS", value_name = "S")]
    pub drain_seconds: Option<u64>,
    /// Connections at a time; more are answered 503 and closed [default: 20000]
    #[arg(long, env = "ROWCAST_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Streams of one client address; 0 is no limit, as behind a proxy all have its address [default: 0]
    #[arg(long, env = "ROWCAST_MAX_STREAMS_PER_ADDRESS", value_name = "N")]
    pub max_streams_per_address: Option<usize>,
    /// Seconds, give or take a tenth, after which a stream is told to come back; 0 is never [default: 3600]
    #[arg(long, env = "ROWCAST_MAX_STREAM_AGE_SECONDS", value_name = "S")]
    pub max_stream_age_seconds: Option<u64>,
    /// Seconds that the client of a stream may take nothing before its connection is closed [default: 20]
    #[arg(long, env = "ROWCAST_WRITE_TIMEOUT_SECONDS", value_name = "S")]
    pub write_timeout_seconds: Option<u64>,
    /// Origins whose pages may open a WebSocket, such as `https://app.example.com`, joined with `,` [default: the gateway's own]
    #[arg(long, env = "ROWCAST_ALLOWED_ORIGINS", value_name = "ORIGIN", value_delimiter = ',')]
    pub allowed_origins: Option<Vec<String>>,
    /// Seconds between two pings of a WebSocket; two without an answer end it [default: 25]
    #[arg(long, env = "ROWCAST_PING_SECONDS", value_name = "S")]
    pub ping_seconds: Option<u64>,
    /// Tokens.
    #[command(flatten)]
    pub auth: AuthArgs,
}

/// The file. Every key is optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    database_url: Option<String>,
    notify_url: Option<String>,
    listen: Option<String>,
    pool_size: Option<usize>,
    workers: Option<usize>,
    tick_interval_ms: Option<u64>,
    safety_poll_ms: Option<u64>,
    retention_seconds: Option<u64>,
    ring_bytes: Option<usize>,
    batch_bytes: Option<usize>,
    snapshot_max_bytes: Option<usize>,
    snapshot_reads: Option<usize>,
    snapshot_queue: Option<usize>,
    cache_bytes: Option<u64>,
    read_max_rows: Option<usize>,
    drain_seconds: Option<u64>,
    max_connections: Option<usize>,
    max_streams_per_address: Option<usize>,
    max_stream_age_seconds: Option<u64>,
    write_timeout_seconds: Option<u64>,
    allowed_origins: Option<Vec<String>>,
    ping_seconds: Option<u64>,
    jwt_secret: Option<Secret>,
    jwt_secret_file: Option<PathBuf>,
    jwt_public_key_file: Option<PathBuf>,
    jwks_url: Option<String>,
    jwt_issuer: Option<String>,
    jwt_audience: Option<String>,
    jwt_role_claim: Option<String>,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No database was named.
    #[error(
        "no database: pass `--database-url`, set `DATABASE_URL`, or put `database_url` into the file of `--config`"
    )]
    NoDatabase,
    /// The file cannot be read.
    #[error("cannot read `{0}`: {1}")]
    Read(PathBuf, std::io::Error),
    /// The file has an error; the text names line and key.
    #[error("`{0}`: {1}")]
    Parse(PathBuf, String),
    /// The secret is said twice.
    #[error("`jwt_secret` and `jwt_secret_file` exclude each other")]
    TwoSecrets,
    /// A value is out of its range.
    #[error("`{0}` is out of range: {1}")]
    Range(&'static str, &'static str),
}

fn file(path: Option<&PathBuf>) -> Result<File, ConfigError> {
    let Some(path) = path else { return Ok(File::default()) };
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Read(path.clone(), e))?;
    toml::from_str(&text).map_err(|e| ConfigError::Parse(path.clone(), auth::hushed(&e, &text).trim_end().to_owned()))
}

impl DatabaseArgs {
    /// The database alone, for commands that need nothing else.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn url(&self) -> Result<String, ConfigError> {
        let file = file(self.config.as_ref())?;
        self.database_url.clone().or(file.database_url).ok_or(ConfigError::NoDatabase)
    }
}

impl ServeArgs {
    /// Flags and environment over the file over the defaults.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let mut file = file(self.database.config.as_ref())?;
        let auth = self.auth.options(&mut file)?;
        let url = self.database.database_url.clone().or(file.database_url).ok_or(ConfigError::NoDatabase)?;
        let default = Settings::new(url);
        let pick = |flag: Option<usize>, file: Option<usize>, default: usize| flag.or(file).unwrap_or(default);
        let millis =
            |flag: Option<u64>, file: Option<u64>, default| flag.or(file).map_or(default, Duration::from_millis);
        let seconds =
            |flag: Option<u64>, file: Option<u64>, default| flag.or(file).map_or(default, Duration::from_secs);
        Settings {
            notify_url: self.notify_url.clone().or(file.notify_url),
            listen: self.listen.clone().or(file.listen).unwrap_or(default.listen),
            pool_size: pick(self.pool_size, file.pool_size, default.pool_size),
            workers: pick(self.workers, file.workers, default.workers),
            tick_interval: millis(self.tick_interval_ms, file.tick_interval_ms, default.tick_interval),
            safety_poll: millis(self.safety_poll_ms, file.safety_poll_ms, default.safety_poll),
            retention: seconds(self.retention_seconds, file.retention_seconds, default.retention),
            ring_bytes: pick(self.ring_bytes, file.ring_bytes, default.ring_bytes),
            batch_bytes: pick(self.batch_bytes, file.batch_bytes, default.batch_bytes),
            snapshot_max_bytes: pick(self.snapshot_max_bytes, file.snapshot_max_bytes, default.snapshot_max_bytes),
            snapshot_reads: pick(self.snapshot_reads, file.snapshot_reads, default.snapshot_reads),
            snapshot_queue: pick(self.snapshot_queue, file.snapshot_queue, default.snapshot_queue),
            cache_bytes: self.cache_bytes.or(file.cache_bytes).unwrap_or(default.cache_bytes),
            read_max_rows: pick(self.read_max_rows, file.read_max_rows, default.read_max_rows),
            drain: seconds(self.drain_seconds, file.drain_seconds, default.drain),
            max_connections: pick(self.max_connections, file.max_connections, default.max_connections),
            max_streams_per_address: pick(
                self.max_streams_per_address,
                file.max_streams_per_address,
                default.max_streams_per_address,
            ),
            max_stream_age: seconds(self.max_stream_age_seconds, file.max_stream_age_seconds, default.max_stream_age),
            write_timeout: seconds(self.write_timeout_seconds, file.write_timeout_seconds, default.write_timeout),
            allowed_origins: self
                .allowed_origins
                .clone()
                .or(file.allowed_origins)
                .unwrap_or_default()
                .iter()
                .map(|origin| origin.trim().to_owned())
                .filter(|origin| !origin.is_empty())
                .collect(),
            ping: seconds(self.ping_seconds, file.ping_seconds, default.ping),
            auth,
            init_wait: default.init_wait,
            database_url: default.database_url,
        }
        .checked()
    }
}

impl Settings {
    fn checked(self) -> Result<Settings, ConfigError> {
        let ms = Duration::from_millis;
        let rules: [(&'static str, bool, &'static str); 14] = [
            ("pool_size", self.pool_size >= 2, "at least 2: one for a snapshot, one for everything else"),
            ("workers", self.workers >= 1, "at least 1"),
            ("tick_interval_ms", (ms(1)..=ms(1000)).contains(&self.tick_interval), "1 to 1000"),
            ("safety_poll_ms", (ms(50)..=ms(60_000)).contains(&self.safety_poll), "50 to 60000"),
            ("retention_seconds", self.retention >= Duration::from_secs(60), "at least 60"),
            (
                "snapshot_reads",
                self.snapshot_reads >= 1 && self.snapshot_reads < self.pool_size,
                "at least 1 and below `pool_size`",
            ),
            ("read_max_rows", (1..=100_000).contains(&self.read_max_rows), "1 to 100000"),
            ("max_connections", (10..=10_000_000).contains(&self.max_connections), "10 to 10000000"),
            (
                "max_stream_age_seconds",
                self.max_stream_age.is_zero() || (10..=31_536_000).contains(&self.max_stream_age.as_secs()),
                "0, or 10 to 31536000",
            ),
            ("snapshot_queue", self.snapshot_queue >= 1, "at least 1"),
            ("write_timeout_seconds", (1..=3600).contains(&self.write_timeout.as_secs()), "1 to 3600"),
            ("ping_seconds", (1..=3600).contains(&self.ping.as_secs()), "1 to 3600"),
            (
                "allowed_origins",
                self.allowed_origins.iter().all(|origin| is_origin(origin)),
                "each as browsers send it: `https://app.example.com`, with the port if it is not the usual one, without a path, in lower case",
            ),
            ("batch_bytes", self.batch_bytes >= 1 << 20, "at least 1048576"),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((name, _, wanted)) => Err(ConfigError::Range(name, wanted)),
            None => Ok(self),
        }
    }
}

/// Can this be what a browser sends as `Origin`? What cannot would allow nobody and look as if it did.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let usual = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return false,
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-:[]".contains(c);
    !host.is_empty() && host.chars().all(plain) && !host.ends_with(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, args: ServeArgs) -> Result<Settings, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rowcast.toml");
        std::fs::write(&path, text).unwrap();
        ServeArgs { database: DatabaseArgs { config: Some(path), ..args.database }, ..args }.settings()
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_the_default() {
        let args = ServeArgs { pool_size: Some(5), ..ServeArgs::default() };
        let s = with_file("database_url = \"postgres://x\"\npool_size = 3\nworkers = 7\n", args).unwrap();
        assert_eq!((s.pool_size, s.workers, s.tick_interval), (5, 7, Duration::from_millis(5)));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = with_file("database_url = \"x\"\n\npoolsize = 3\n", ServeArgs::default()).unwrap_err().to_string();
        assert!(error.contains("rowcast.toml") && error.contains("line 3") && error.contains("poolsize"), "{error}");
    }

    #[test]
    fn the_example_file_is_right_and_names_every_key() {
        let text = include_str!("../../rowcast.example.toml");
        let all: String = text
            .lines()
            .map(|l| l.strip_prefix("# ").filter(|l| l.contains(" = ")).unwrap_or(l))
            .collect::<Vec<_>>()
            .join("\n");
        let file: File = toml::from_str(&all).unwrap();
        assert!(format!("{file:?}").matches("None").count() == 0, "{file:?}");
        // one of the two, and that file is nobody's here
        let all = all.lines().filter(|l| !l.starts_with("jwt_secret_file")).collect::<Vec<_>>().join("\n");
        let settings = with_file(&all, ServeArgs::default()).unwrap();
        let default = Settings::new("");
        assert_eq!(
            (settings.pool_size, settings.ring_bytes, settings.retention),
            (default.pool_size, default.ring_bytes, default.retention)
        );
    }

    #[test]
    fn a_secret_stands_in_one_place_and_is_never_shown() {
        let with = |text: &str| with_file(&format!("database_url = \"x\"\n{text}"), ServeArgs::default());
        let settings = with("jwt_secret = \"hunter2hunter2hunter2hunter2hunter2\"\njwt_role_claim = \"\"").unwrap();
        assert!(settings.auth.secret.is_some() && settings.auth.role_claim.is_none());
        let printed = format!("{settings:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
        for text in [
            "jwt_secret = \"hunter2",
            "jwt_secret = hunter2",
            "jwt_secret = [\"hunter2\"]",
            "jwt_secret = \"a\"\njwt_secret = \"hunter2\"",
            "jwt_secrets = \"hunter2\"",
        ] {
            let error = with(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2") && error.contains("line "), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "hunter2\r\n").unwrap();
        let file = format!("jwt_secret_file = {path:?}");
        assert_eq!(with(&file).unwrap().auth.secret.unwrap().expose(), "hunter2");
        assert!(with(&format!("{file}\njwt_secret = \"x\"")).unwrap_err().to_string().contains("exclude each other"));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(with(&file), Err(ConfigError::Read(..))));
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        for origin in ["https://app.example.com", "http://localhost:5173", "https://[::1]:8443", "http://x:443"] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in ["*", "null", "app.example.com", "https://", "https://*.example.com", "https://App.example.com"] {
            assert!(!is_origin(origin), "{origin}");
        }
        for origin in ["https://app.example.com/", "https://app.example.com:443", "ftp://x", "http://x:80"] {
            assert!(!is_origin(origin), "{origin}");
        }
        let args =
            ServeArgs { allowed_origins: Some(vec!["https://a ".into(), "http://b".into()]), ..Default::default() };
        let settings = with_file("database_url = \"x\"\nallowed_origins = [\"https://c\"]\n", args).unwrap();
        assert_eq!(settings.allowed_origins, ["https://a", "http://b"]);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let error = with_file("database_url = \"x\"\nretention_seconds = 5\n", ServeArgs::default()).unwrap_err();
        assert!(error.to_string().contains("retention_seconds"), "{error}");
    }
}
