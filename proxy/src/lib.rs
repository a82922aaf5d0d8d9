//! The data plane: listeners, TLS, routing, upstreams, admin, and the tree that supervises them.
//!
//! A proxy knows nothing of Kubernetes: it is told what to serve in units of `proxy_config`, over its
//! admin port or from its last good configuration, and reports what it could not use.
//! The modules in reading order: what is served, how a connection and a request travel, what is counted.

pub mod tree;

pub mod settings;

pub mod limits;

pub mod table;

pub mod listen;

pub mod tcp;

pub mod http;

pub mod handover;

pub mod l4;

pub mod upstream;

mod delivery;

pub mod config_store;

pub mod resolver;

pub mod last_good;

pub mod admin;

pub mod enrolment;

pub mod metrics;

pub mod watchdog;
