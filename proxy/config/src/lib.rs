//! What a proxy can be told: the contract between the control plane and the proxies.
//!
//! A configuration is a set of [`Unit`]s (listener, certificate, private key, route unit, backend,
//! EndpointSlice). Each is encoded once, named by a [`UnitId`] and versioned by the hash of its bytes,
//! so that only what differs travels and a unit that can't be used fails alone.
//! Plain types: no I/O, no clock, no Kubernetes. `actors-core` writes them, `proxy` reads them.

pub mod backend;
pub mod certificate;
pub mod l4;
pub mod listener;
pub mod name;
pub mod path;
pub mod resilience;
pub mod route;
pub mod set;
pub mod unit;
pub mod wire;
