//! Everything that needs a database or a socket, in one binary, against one private Postgres that it starts itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs
)]

mod architecture;
mod auth_command;
mod auth_expiry;
mod auth_jwks;
mod auth_tickets;
mod auth_tokens;
mod bad_http;
mod bad_input;
mod browser;
mod commands;
mod demo;
mod fan_connection;
mod fan_riders;
mod faults_drain;
mod faults_slow;
mod faults_storm;
mod faults_vanish;
mod filter_oracle;
mod flow;
mod install;
mod localpg;
mod messages;
mod openapi;
mod pgbench;
mod reads_crowd;
mod reads_gateways;
mod reads_input;
mod reads_join;
mod reads_outage;
mod reads_shared;
mod reads_stale;
mod reads_walk;
mod rules_rows;
mod rules_security;
mod rules_stream;
mod snapshots;
mod stream_body;
mod stress;
mod support;
mod traps_capture_order;
mod traps_capture_safety;
mod traps_capture_statements;
mod traps_capture_values;
mod traps_crash;
mod traps_doorbell;
mod traps_retention;
mod traps_ticks;
mod watch;
mod watch_conflict;
mod watch_refused;
mod writers_session;
mod writes_allow;
mod writes_commit;
mod writes_conflict;
mod writes_hostile;
mod writes_idempotent;
mod writes_position;
mod writes_values;
mod writes_walk;
mod ws_end;
mod ws_frames;
mod ws_handshake;
mod ws_node;
mod ws_riders;
mod ws_subscriptions;
mod ws_walk;
mod ws_writes;
