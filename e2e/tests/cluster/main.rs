//! Portreeve's processes beside a real Kubernetes: from its objects to answers on its nodes, and what happens when parts
//! of it are lost or make no sense. All tests share one scene and play one after the other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod endpoints;
mod external;
mod leadership;
mod losses;
mod malformed;
mod parameters;
mod pool;
mod quiet;
mod routes;
mod traffic_policies;
