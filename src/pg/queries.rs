//! The statements of `sql/queries/`, one a file, each with its parameters and columns in its head.

/// Makes a tick if something is pending.
pub const TICK: &str = include_str!("../../sql/queries/tick.sql");
/// The newest tick.
pub const LAST_TICK: &str = include_str!("../../sql/queries/last_tick.sql");
/// A tick by id and nonce.
pub const TICK_BY_ID: &str = include_str!("../../sql/queries/tick_by_id.sql");
/// Is anything pending after a snapshot?
pub const PENDING: &str = include_str!("../../sql/queries/pending.sql");
/// The log rows between two snapshots.
pub const RANGE: &str = include_str!("../../sql/queries/range.sql");
/// Un-mutes the writers.
pub const DISARM: &str = include_str!("../../sql/queries/disarm.sql");
/// Is every writer that may have read "quiet" gone?
pub const ARMED: &str = include_str!("../../sql/queries/armed.sql");
/// The session that leads.
pub const LEADER: &str = include_str!("../../sql/queries/leader.sql");
/// The watched tables.
pub const SOURCES: &str = include_str!("../../sql/queries/sources.sql");
/// Brings the capture functions up to date after DDL.
pub const REFRESH: &str = include_str!("../../sql/queries/refresh.sql");
/// The installed migrations.
pub const SCHEMA: &str = include_str!("../../sql/queries/schema.sql");
/// Is this the database the log was written in?
pub const ORIGIN: &str = include_str!("../../sql/queries/origin.sql");
/// What the log holds of a table after the newest tick.
pub const UNPUBLISHED: &str = include_str!("../../sql/queries/unpublished.sql");
