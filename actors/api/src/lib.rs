//! Kubernetes types only: our own kinds, and the CustomResourceDefinitions that a cluster needs.
//!
//! `actors-core` reads them, `actors`, the sandbox and the tests install them. No client, no decisions.

pub mod crds;
pub mod edge;
