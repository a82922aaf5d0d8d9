//! The supervisor from outside, under paused time: addresses, the crash matrix of each strategy, gates,
//! dynamic branches, and random trees with random faults against invariants.

mod addresses;
mod chaos;
mod children;
mod intensity;
mod matrix;
mod probe;
