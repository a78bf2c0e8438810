//! Connections: the direct one for LISTEN and ticks, and the pool for everything else.
//!
//! Invariant: whatever the role or the database sets as defaults, our sessions read values in one notation, or
//! snapshot and stream would differ in bytes.

use super::PgError;
use crate::tasks::Tasks;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use std::str::FromStr;
use std::time::Duration;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

/// The notation of values, the same that the capture functions pin. `set local`, because behind a transaction pooler
/// the session is not ours. No JIT: it would compile for longer than most snapshots are read.
pub const NOTATION: &str = "set local timezone = 'UTC'; set local datestyle = 'ISO'; set local intervalstyle = 'iso_8601'; \
     set local bytea_output = 'hex'; set local extra_float_digits = 1; set local lc_monetary = 'C'; \
     set local jit = off";

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Dead peers are noticed within 10 + 3 * 5 s even when nothing is sent.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Sent data that nobody acknowledges for so long ends the connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Reads a `postgres://` url or a `key=value` string.
///
/// # Errors
/// It is malformed, or asks for TLS.
pub fn parse(url: &str) -> Result<Config, PgError> {
    let mut config = Config::from_str(url).map_err(|e| {
        let cause = std::error::Error::source(&e).map(|c| format!(": {c}")).unwrap_or_default();
        PgError::Url(format!("{e}{cause}; expected `postgres://user:password@host:5432/database`"))
    })?;
    if config.get_ssl_mode() == SslMode::Require {
        return Err(PgError::Url("`sslmode=require`: TLS to the database is not in this release; use a local socket, a private network or a TLS proxy".to_owned()));
    }
    config.connect_timeout(CONNECT_TIMEOUT);
    config.keepalives(true).keepalives_idle(KEEPALIVE_IDLE);
    config.keepalives_interval(KEEPALIVE_INTERVAL).keepalives_retries(KEEPALIVE_RETRIES);
    config.tcp_user_timeout(TCP_USER_TIMEOUT);
    if config.get_application_name().is_none() {
        config.application_name("rowcast");
    }
    Ok(config)
}

/// Opens one connection and drives it by a task of its own.
///
/// # Errors
/// The server cannot be reached or refuses.
pub async fn connect(config: &Config, tasks: &Tasks, name: &'static str) -> Result<Client, PgError> {
    let connecting = config.connect(NoTls);
    let (client, connection) = tokio::time::timeout(CONNECT_TIMEOUT * 2, connecting)
        .await
        .map_err(|_| PgError::Unreachable("no answer to the connection attempt".to_owned()))??;
    tasks.spawn(name, async move {
        // the client sees the same error at its next call and handles it there
        let _ = connection.await;
    });
    Ok(client)
}

/// The pool for reads.
///
/// # Errors
/// The configuration is not usable.
pub fn pool(config: &Config, size: usize) -> Result<Pool, PgError> {
    let manager =
        Manager::from_config(config.clone(), NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let wait = Some(Duration::from_secs(10));
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(wait)
        .create_timeout(wait)
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|e| PgError::Url(e.to_string()))
}
