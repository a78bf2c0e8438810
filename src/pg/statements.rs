//! The hot statements, prepared for one session. Planning the tick costs more than running it.
//!
//! Behind a transaction pooler there is no session to prepare for: the pool's reads send text instead.

use super::{PgError, queries};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

/// Prepared statements of the ticker's connection.
pub(super) struct Statements {
    pub(super) tick: Statement,
    pub(super) last_tick: Statement,
    pub(super) tick_by_id: Statement,
    pub(super) pending: Statement,
    pub(super) range: Statement,
    pub(super) disarm: Statement,
    pub(super) armed: Statement,
}

/// The log is never analyzed: without statistics a large range looks as if a sequential scan were right. Generic
/// plans, because the index is right for every snapshot and planning costs more than reading. No JIT: a plan that
/// avoids the switched-off scans looks so dear that compiling it took 0.5 s (measured) for a read of 0.1 ms.
pub const SESSION: &str = "set synchronous_commit = on; set statement_timeout = 0; set lock_timeout = 0; \
     set idle_in_transaction_session_timeout = 0; set enable_seqscan = off; set enable_bitmapscan = off; \
     set enable_sort = off; set jit = off; set plan_cache_mode = force_generic_plan";

impl Statements {
    /// Sets the session up and prepares. `synchronous_commit`: a tick is published only when it survives a crash,
    /// whatever the role's defaults.
    pub(super) async fn prepare(client: &Client) -> Result<Statements, PgError> {
        client.batch_execute(SESSION).await?;
        Ok(Statements {
            tick: client.prepare_typed(queries::TICK, &[Type::INT8, Type::INT8]).await?,
            last_tick: client.prepare_typed(queries::LAST_TICK, &[]).await?,
            tick_by_id: client.prepare_typed(queries::TICK_BY_ID, &[Type::INT8, Type::INT4]).await?,
            pending: client.prepare_typed(queries::PENDING, &[Type::TEXT]).await?,
            range: client
                .prepare_typed(queries::RANGE, &[Type::TEXT, Type::TEXT, Type::OID_ARRAY, Type::OID_ARRAY])
                .await?,
            disarm: client.prepare_typed(queries::DISARM, &[]).await?,
            armed: client.prepare_typed(queries::ARMED, &[Type::INT8]).await?,
        })
    }
}
