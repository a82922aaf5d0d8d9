//! Upstream: the endpoints, the choice between them and the connections to them.
//!
//! What lives longer than a configuration lives here: the table points to it, and a swap never makes
//! it anew.

pub mod balance;
pub mod budget;
pub mod h2;
pub mod link;
pub mod pool;
pub mod registry;
pub mod retries;
pub mod stream;
pub mod tls;
