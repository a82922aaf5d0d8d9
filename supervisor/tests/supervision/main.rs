//! The supervisor from outside, under paused time: addresses, the crash matrix of each strategy, gates,
//! dynamic branches, and random trees with random faults against invariants.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod addresses;
mod chaos;
mod children;
mod drill;
mod intensity;
mod matrix;
mod probe;
