//! Rowcast: every committed change of a Postgres table, in order, to every subscriber.
//!
//! ```text
//!  writer's transaction                              gateway (any number of them)
//!  insert/update/delete                              pg::doorbell ──wake──▶ pg::ticker (one leads) ──▶ rowcast.tick
//!    └▶ row_version, rowcast.log_N ───────────────▶  pg::log: read (previous tick, tick], fold
//!    └▶ NOTIFY, only when someone sleeps                ├▶ cache: the past that kept answers are held against
//!                                                       └▶ hub: what it means to each shape, encoded once, into rings
//!                                                            ├▶ http::rail: passes over the sockets of who is live
//!                                                            └▶ session: subscriptions merged tick by tick
//!                                                                 └▶ http: SSE · WebSocket · long-poll · polling
//! ```
//!
//! One direction; imports run the other way and a test says so. Sentences that hold everywhere:
//!
//! - NOTIFY is a doorbell; the change log is the truth.
//! - Only the ticker moves the live position.
//! - The hub never waits for a subscriber.
//! - A client is never told it is caught up when it is not.
//! - What is kept is held against the stream before it is served; nobody has to tell it to go.
//!
//! In reading order:
//!
//! - [`change`]: positions, snapshots, keys, how a batch folds. Pure.
//! - [`filter`]: the filter language, the same in SQL and in memory. Pure.
//! - [`permit`]: what somebody may see and write of a table. Pure.
//! - [`wire`]: messages as bytes. Pure.
//! - [`auth`]: who asks, and until when. The only module that knows tokens, and fetches anything.
//! - [`hub`]: shapes, rings, how a snapshot joins the stream.
//! - [`session`]: a client's subscriptions, and which positions may be resumed from.
//! - [`pg`]: the only modules that know Postgres.
//! - [`cache`]: answers to reads, held against what happened since they were read. The only module that knows moka.
//! - [`http`]: the only modules that know actix.
//! - [`demo`]: an application to look at.
//! - [`localpg`]: a private Postgres for the demo and the tests.
//! - [`gateway`], [`config`], [`cli`], [`tasks`], [`limits`]: the program around them.
//!
//! *A row changes.* The capture trigger writes versions and images to the log; the bell rings if nobody is polling.
//! The leader's [`pg::Ticker`] makes a tick (durable), reads the rows between the last tick and this one, folds them to
//! one net change per key and hands the batch to [`hub::Hub::apply`]. Each shape of the table decides by old and new
//! image, encodes what remains once, appends it to its ring and wakes its subscribers: found by the values of the row where
//! filters say `column = value`. Whoever has one subscription and is live *rides*: per worker, one pass puts what is new
//! together once and writes it to all of their sockets. Any other [`session::Session`] takes from its rings everything up to the
//! head and the transport writes it.
//!
//! *A client reads.* [`http`] makes the request a [`cache::Query`]; [`cache::Reads`] takes the head, then what is kept,
//! and goes through what [`cache::History`] (fed by the ticker before the head moves) knows of the table between the two.
//! Untouched, it is served; one row is brought up to date from the newest image; everything else is read again by
//! [`pg::Store`], once for all who ask, together with the tick at which it is true.
//!
//! *A client resumes.* Its position is a tick. [`hub::Hub::subscribe`] registers the shape first. If the ring reaches
//! back to the position, the cursor is set there and nothing is read. Otherwise the range from the position to the
//! tick at registration is read once for all who ask, and sent before the ring. A position that is unknown or too
//! old is answered with `reset` and a snapshot. A subscriber that fell off its ring is brought forward in the same way.
//!
//! *A client talks over a WebSocket.* The service of `/v1/ws` stays pending for as long as the connection lives, without the
//! request it came with: what comes passes a guard that looks at the head of each frame, then the framework's reader; what leaves
//! goes straight to the socket. Its [`session::Session`] is a lasting one: subscriptions are added and removed while it runs. With
//! one that is live the client rides like everybody else, and gets off when there is something else to say.
//!
//! *A client shows a token.* [`http`] finds it in a header, a cookie or behind a ticket; [`auth::Verifier`] makes it a [`auth::Caller`], in
//! whose name ([`session::Access`]) everything is done. Whatever lasts waits for the caller's end beside its own.
//!
//! *A client writes.* [`http`] knows the whole request before the first statement; [`pg::write`] compares the version
//! under the row's lock, writes, keeps the answer if it may be asked for again, and commits, all in one transaction
//! and a task of its own. The answer waits for [`hub::Hub::first_seeing`]: its position is a
//! state that contains the write.

pub mod auth;
pub mod cache;
pub mod change;
pub mod cli;
pub mod config;
pub mod demo;
pub mod filter;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod limits;
pub mod localpg;
pub mod permit;
pub mod pg;
pub mod session;
pub mod tasks;
pub mod wire;
