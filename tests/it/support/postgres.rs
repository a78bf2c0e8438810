//! One Postgres for the whole run. It ends with the process, however the process ends.

use rowcast::localpg::{Environment, LocalPg, LocalPgOptions};
use tokio::sync::OnceCell;

static SHARED: OnceCell<LocalPg> = OnceCell::const_new();

/// Options for a server of a test's own (one that is killed or restarted).
pub fn options(settings: &[(&str, &str)], fsync: bool) -> LocalPgOptions {
    let settings = settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    LocalPgOptions {
        environment: Environment::read(|name| std::env::var_os(name)),
        settings,
        fsync,
        ..LocalPgOptions::default()
    }
}

/// The shared server.
pub async fn shared() -> &'static LocalPg {
    SHARED
        .get_or_init(|| async {
            let settings = [
                ("max_connections", "300"),
                ("max_prepared_transactions", "20"),
                ("shared_buffers", "128MB"),
                ("wal_level", "logical"),
            ];
            LocalPg::start(options(&settings, false)).await.unwrap_or_else(|e| panic!("{e}"))
        })
        .await
}
