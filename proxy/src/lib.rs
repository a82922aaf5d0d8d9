//! The data plane: listeners, TLS, routing, upstreams, admin, and the tree that supervises them.

pub mod http;
pub mod listen;
pub mod upstream;
