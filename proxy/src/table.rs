//! The table: what is served, compiled so that a request finds its rule at a cost that does not depend
//! on the number of routes.
//!
//! A table is immutable and shared by all workers; `config_store` makes the next one from it and from
//! what changed, and swaps one pointer. A worker reads the pointer once per request; an
//! exchange holds its route and its backend, never the table. It knows nothing of sockets and clocks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use proxy_config::listener::Protocol;
use proxy_config::set::{RootHash, UnitSet};
use proxy_config::wire::Version;

use crate::listen::socket::Bind;
use crate::upstream::balance::Backend;

pub mod authority;
mod certificate;
pub mod clients;
pub mod compile;
mod condition;
mod host;
pub mod l4;
mod path;
pub mod port;
pub mod request;
pub mod route;
pub mod slot;
pub mod traffic;

use l4::L4Route;
use port::Port;
use slot::{Backends, Slot};

/// The table in force, for all workers: they read it through `arc_swap::Cache`, once per request.
pub type SharedTable = Arc<ArcSwap<Table>>;

/// What is served.
#[derive(Clone, Debug)]
pub struct Table {
    version: Version,
    root: RootHash,
    ports: BTreeMap<SocketAddr, Arc<Port>>,
    /// The ports of datagrams.
    datagrams: BTreeMap<SocketAddr, Arc<Port>>,
    backends: Backends,
}

impl Default for Table {
    /// A table that serves nothing.
    fn default() -> Self {
        Self {
            version: Version::default(),
            root: UnitSet::default().root(),
            ports: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            backends: Backends::default(),
        }
    }
}

impl Table {
    /// The place in time of the configuration that it was compiled from.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The hash of that configuration.
    pub fn root(&self) -> RootHash {
        self.root
    }

    /// What is served at an address and port.
    pub fn port(&self, local: SocketAddr) -> Option<&Arc<Port>> {
        self.ports.get(&local)
    }

    /// The route that takes the datagrams to an address and port.
    pub fn route_of_datagrams(&self, local: SocketAddr) -> Option<&Arc<L4Route>> {
        self.datagrams.get(&local)?.chosen_by(None)?.route
    }

    /// Where connections are to be accepted and datagrams received, and what is spoken there.
    pub fn binds(&self) -> impl Iterator<Item = (Bind, Protocol)> {
        let ports = self.ports.iter().map(|(address, port)| (Bind::tcp(*address), port.protocol()));
        ports.chain(self.datagrams.iter().map(|(address, port)| (Bind::udp(*address), port.protocol())))
    }

    /// The backend that a rule names; `None` where its unit is missing or can't be read, where its policy for
    /// TLS can't be used, or where the rule is of an older table: requests are answered by 500.
    pub fn backend(&self, slot: Slot) -> Option<&Arc<Backend>> {
        self.backends.get(slot).filter(|backend| !backend.is_unreachable())
    }

    /// As [`Self::backend`], for TLS that is passed on as it comes: a policy has no say in that.
    pub fn backend_of_passthrough(&self, slot: Slot) -> Option<&Arc<Backend>> {
        self.backends.get(slot)
    }
}
