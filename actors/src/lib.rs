//! The control plane: one file per actor, and `tree.rs`, which says who exists and who restarts whom.
//! Called by the `portreeve` command. Decisions are `actors_core`'s; what is here is I/O around them.

// Who exists, and what each must be told.
pub mod settings;
pub mod tree;

// In the order in which a change passes.
pub mod lead;
pub mod observe;
pub mod push;

// Who leads.
pub mod clock;
pub mod lease_leader;
pub mod term;

// What is shown.
pub mod admin;
pub mod metrics;

// What actors are made with.
pub mod client;
pub mod retry;
mod task;
