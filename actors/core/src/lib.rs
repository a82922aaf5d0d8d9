//! The decisions of the control plane, pure: what is observed, what proxies are told, what statuses say.
//!
//! ```text
//! raw object -> observe -> Snapshot -> Translator -> Translation { units, statuses, problems } -> proxies
//!                                                        acks -> status::finalise -> merge_status -> API server
//! ```
//! In reading order. Nothing here knows tokio, a clock, randomness or a Kubernetes client: time is an
//! argument, and the same input gives the same bytes on every replica.

pub mod election;
pub mod objects;
pub mod observe;
pub mod snapshot;
pub mod status;
pub mod translate;
