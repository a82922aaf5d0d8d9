//! Portreeve's real processes beside a real cluster, and the means to judge them: what the suite `tests/cluster` is
//! written in.
//!
//! [`testbed`] brings everything up, [`stage`] lets tests share it, [`fleet`] starts, stops and kills Portreeve's
//! processes, [`traffic`] sends requests as clients would and counts what comes back, [`manifests`] holds what is
//! applied, [`pool`] is the network of an address pool. Nothing here knows how Portreeve works inside: it is used by its
//! command line, its ports and the Kubernetes API alone.

pub mod fleet;
pub mod manifests;
pub mod pool;
pub mod stage;
pub mod testbed;
pub mod traffic;
pub mod wait;
