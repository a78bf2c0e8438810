//! `rowcast serve`.

use super::CliError;
use crate::config::ServeArgs;
use crate::gateway::Gateway;
use crate::pg::{Backoff, PgError, migrate};

pub(super) async fn serve(args: ServeArgs, migrate_first: bool) -> Result<(), CliError> {
    let settings = args.settings()?;
    if migrate_first {
        tokio::select! {
            applied = apply(&settings.database_url) => applied?,
            () = stop_signal() => return Ok(()),
        }
    }
    let gateway = Gateway::start(&settings, Vec::new())?;
    tracing::info!(address = %gateway.local_addr(), "listening");
    tokio::select! {
        why = gateway.failed() => {
            gateway.shutdown().await;
            return Err(CliError::Ended(why));
        }
        () = stop_signal() => tracing::info!("stopping: streams are told to come back"),
    }
    gateway.shutdown().await;
    Ok(())
}

/// Applies migrations, waiting for a database that is not there yet: both may be starting.
async fn apply(url: &str) -> Result<(), CliError> {
    let mut backoff = Backoff::default();
    loop {
        match migrate::apply(url).await {
            Ok(applied) if applied.is_empty() => return Ok(()),
            Ok(applied) => {
                tracing::info!(migrations = applied.join(", "), "migrated");
                return Ok(());
            }
            // not there yet, starting up, or all connections taken
            Err(error)
                if matches!(error, PgError::Unreachable(_))
                    || error.sqlstate().is_some_and(|s| s.starts_with("57") || s.starts_with("53")) =>
            {
                tracing::warn!(%error, "cannot migrate yet, trying again");
                backoff.wait().await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ctrl-C or SIGTERM.
pub(crate) async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}
