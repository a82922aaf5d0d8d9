//! Listening: from a wanted address and port to a connection on a worker.
//!
//! The `listen` thread accepts on one socket per address and port and hands each connection to a worker,
//! by the power of two choices.

pub mod accept;
pub mod context;
pub mod drain;
pub mod handoff;
pub mod socket;
pub mod tls;
