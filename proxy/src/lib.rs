//! The data plane: listeners, TLS, routing, upstreams, admin, and the tree that supervises them.
//!
//! A proxy knows nothing of Kubernetes: it is told what to serve in units of `proxy_config`, over its
//! admin port or from its last good configuration, and reports what it could not use.
//! The modules in reading order: who exists, what is served, how a request travels.

pub mod table;

pub mod metrics;

pub mod http;

pub mod upstream;
