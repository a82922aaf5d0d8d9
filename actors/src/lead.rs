//! What only the leader does besides pushing: it writes.

pub mod event_writer;
pub mod fleet;
pub mod gateway_objects;
pub mod pace;
pub mod status_patch;
pub mod status_writer;
pub mod trust_bundle;
