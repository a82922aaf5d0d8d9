//! The control plane as a whole, against a Kubernetes API in memory and proxies that follow the wire's
//! rules to the letter, under paused time.

mod observe;
mod push;
mod stage;
mod status;
