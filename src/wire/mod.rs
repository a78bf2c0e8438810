//! The wire contract, version 1: messages as bytes.
//!
//! Must not know: tokio, clocks, I/O, logging. Invariant: every message is one JSON object on one line.

mod close;
mod frame;
mod merge;
pub mod message;
mod order;
mod projection;
pub mod strict;

pub use close::{CloseReason, Then};
pub use frame::{Control, Format, control_frame, text_frame};
pub use merge::merge;
pub use message::{Kind, Message, WireOp, WireRow};
pub use order::{Order, OrderError, OrderTerm};
pub use projection::Projection;
