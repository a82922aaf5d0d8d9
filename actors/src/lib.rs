//! The control plane: one file per actor, and `tree.rs`, which says who exists and who restarts whom.
//! Called by the `portreeve` command. Decisions are `actors_core`'s; what is here is I/O around them.

pub mod tree;

pub mod settings;

pub mod observe;

pub mod push;

pub mod lead;

mod client;
pub mod clock;
pub mod lease_leader;
pub mod metrics;
pub mod retry;
mod task;
pub mod term;
