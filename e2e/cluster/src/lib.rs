//! A real Kubernetes of N nodes as processes and namespaces, for tests and for a person who wants to look.
//!
//! Owns the whole life of such a cluster: its binaries ([`binaries`]), networks ([`namespace`]), certificates, control
//! plane, nodes, and the way down, whatever happened. Called by the suites of `e2e`, the contract tests of `sandbox`
//! and the command `cluster`. It knows nothing of Portreeve: what is tested runs beside it.
//!
//! Nothing of a cluster is in the host's own network: the control plane, every node and every machine that a test adds
//! ([`Cluster::add_machine`]) is a network namespace on one bridge, which is itself in the control plane's namespace.
//! So clusters need no ports or subnets of their own, any number can run at once, and a link can be cut with `ip link`.
//! A node is also a mount and a process namespace: what runs in it ends when its first process ends, and its mounts go
//! with it. From outside, the API server is reached through a relay on loopback ([`Cluster::kubeconfig`]).

mod apply;
pub mod audit;
pub mod binaries;
mod builder;
mod control_plane;
mod image;
mod kubeconfig;
mod machine;
pub mod namespace;
mod network;
mod node;
mod pki;
pub mod process;
mod relay;
mod state;

pub use apply::Channel;
pub use builder::{Builder, Cluster};
pub use control_plane::ApiServer;
pub use machine::Machine;
pub use node::Node;
pub use relay::serve as serve_relay;
pub use state::{State, sweep};
