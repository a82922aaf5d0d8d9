//! The control plane as a whole, against a Kubernetes API in memory and proxies that follow the wire's
//! rules to the letter, under paused time.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod admin;
mod drill;
mod election;
mod followers;
mod identity;
mod objects;
mod observe;
mod ports;
mod push;
mod secrets;
mod stage;
mod status;
mod tree;
