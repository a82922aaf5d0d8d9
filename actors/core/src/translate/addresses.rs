//! Where a Gateway's addresses come from: the provider of its class, and what it makes of what is asked.
//!
//! Further providers are variants of [`Provider`]; nothing outside this room tells them apart.

pub(super) mod pool;
pub(super) mod range;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use actors_api::edge::AddressProvider;
use proxy_config::listener::Address;

use crate::snapshot::Snapshot;
use crate::snapshot::gateway::{Gateway, GatewayAddress};

use super::conditions::Fault;
use super::reader::Reader;
use super::{AddressSource, ReservedPorts, Settings};
use pool::Ask;
use range::Range;

/// How many addresses a Gateway's status holds at most. Source: the CRD, `status.addresses`.
const MAX_STATUS_ADDRESSES: usize = 16;

/// Where addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    /// The nodes' own addresses, shared by all Gateways.
    Node,
    /// Addresses of these ranges, each of one Gateway alone.
    Pool(Arc<[Range]>),
    /// Without a cluster: as the Gateway asks, or else this one.
    AsWritten(IpAddr),
}

/// What a Gateway gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assigned {
    /// Where its listeners are bound; at least one.
    pub(super) addresses: Vec<Address>,
}

/// Why a Gateway gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The Gateway is not accepted.
    Unsupported(Fault),
    /// It is accepted, and not Programmed.
    NotUsable(Fault),
}

/// What a Gateway asks for.
#[derive(Default)]
struct Asked {
    /// The addresses that it names.
    named: Vec<IpAddr>,
    /// How many it wants besides, whichever they are.
    unnamed: usize,
}

impl Provider {
    /// The provider that a class's parameters name.
    pub(super) fn choose(settings: &Settings, wanted: &AddressProvider) -> Result<Self, Fault> {
        match (settings.addresses, wanted) {
            (AddressSource::AsWritten { default }, _) => Ok(Self::AsWritten(default)),
            (AddressSource::Class, AddressProvider { pool: Some(pool), .. }) => {
                ranges(&pool.cidrs).map(Self::Pool)
            }
            (AddressSource::Class, AddressProvider { slots: Some(_), .. }) => {
                let message = "spec.addressProvider.slots is not supported by this version: use node or pool";
                Err(Fault::new("InvalidParameters", message))
            }
            (AddressSource::Class, _) => Ok(Self::Node),
        }
    }

    /// Where the addresses of a Gateway come from while the parameters of its class can't be used: from those that
    /// its status lists, so that what is served goes on being served, with what all replicas know alike. `None`
    /// where it has none: there is nothing to go on with.
    pub(super) fn held(reader: &Reader<'_>, gateway: &Gateway) -> Option<Self> {
        let held = &gateway.held;
        if held.iter().any(|address| reader.is_of_a_node(*address)) {
            // A pool holds no node's address.
            return Some(Self::Node);
        }
        (!held.is_empty()).then(|| Self::Pool(held.iter().copied().map(Range::of).collect()))
    }

    /// What a Gateway asks of the pool of its class; `None` where that has none, or where it asks for what can't be.
    pub(super) fn ask(self, gateway: &Gateway) -> Option<Ask> {
        let Self::Pool(ranges) = self else { return None };
        let Asked { named, unnamed } = read(&gateway.spec.addresses).ok()?;
        Some(Ask { ranges, created: gateway.meta.created, named, unnamed, held: gateway.held.clone() })
    }

    /// What a Gateway gets.
    pub(super) fn assign(&self, reader: &Reader<'_>, gateway: &Gateway) -> Result<Assigned, Refused> {
        let asked = read(&gateway.spec.addresses).map_err(Refused::Unsupported)?;
        let assigned = match self {
            Self::Node => node(&asked, reader),
            Self::Pool(_) => reader.allocation(&gateway.meta.name).map(|addresses| Assigned {
                addresses: addresses.iter().copied().map(Address::Ip).collect(),
            }),
            Self::AsWritten(default) => as_written(&asked, *default),
        };
        assigned.map_err(Refused::NotUsable)
    }

    /// Whether a Gateway gets the addresses that it names.
    pub(super) fn gives_what_is_named(&self) -> bool {
        matches!(self, Self::Pool(_) | Self::AsWritten(_))
    }

    /// Whose a port is, where a listener may not take it.
    pub(super) fn owner_of<'a>(&self, settings: &'a Settings, port: u16) -> Option<&'a ReservedPorts> {
        match self {
            Self::Node => {
                settings.reserved_ports.iter().find(|range| (range.first..=range.last).contains(&port))
            }
            Self::Pool(_) | Self::AsWritten(_) => None,
        }
    }
}

impl Assigned {
    /// The addresses that a Gateway's status lists; `nodes` is looked up only where it matters.
    pub(super) fn listed<'a>(&self, nodes: impl Fn() -> &'a [IpAddr]) -> Vec<IpAddr> {
        let of = |address: &Address| match address {
            Address::Node => nodes().to_vec(),
            Address::Ip(address) => vec![*address],
        };
        self.addresses.iter().flat_map(of).take(MAX_STATUS_ADDRESSES).collect()
    }
}

fn ranges(cidrs: &[String]) -> Result<Arc<[Range]>, Fault> {
    let read = cidrs.iter().enumerate().map(|(index, cidr)| {
        Range::parse(cidr).map_err(|wrong| {
            let message = format!("spec.addressProvider.pool.cidrs[{index}]: {wrong}");
            Fault::new("InvalidParameters", message)
        })
    });
    read.collect()
}

fn read(asked: &[GatewayAddress]) -> Result<Asked, Fault> {
    let unsupported = |message: String| Err(Fault::new("UnsupportedAddress", message));
    let mut read = Asked::default();
    for (index, GatewayAddress { kind, value }) in asked.iter().enumerate() {
        if kind != "IPAddress" {
            return unsupported(format!(
                "spec.addresses[{index}].type `{kind}` is not supported: use IPAddress"
            ));
        }
        match value.parse() {
            _ if value.is_empty() => read.unnamed += 1,
            Ok(address) if read.named.contains(&address) => {}
            Ok(address) => read.named.push(address),
            Err(_) => {
                return unsupported(format!("spec.addresses[{index}].value `{value}` is not an IP address"));
            }
        }
    }
    // Who asks for nothing wants one.
    read.unnamed = read.unnamed.max(usize::from(asked.is_empty()));
    Ok(read)
}

/// All nodes are to be named, also those whose proxy is not ready for a while: one that restarts takes nothing from
/// the others.
fn node(asked: &Asked, reader: &Reader<'_>) -> Result<Assigned, Fault> {
    let names_them_all = || {
        asked.named.iter().all(|address| reader.is_of_a_node(*address))
            && reader.node_addresses().iter().all(|address| asked.named.contains(address))
    };
    if asked.named.is_empty() || names_them_all() {
        return Ok(Assigned { addresses: vec![Address::Node] });
    }
    let message = "the address provider `node` serves on the addresses of all nodes that run a proxy, \
                   and on no others: leave spec.addresses empty";
    Err(Fault::new("AddressNotUsable", message))
}

fn as_written(asked: &Asked, default: IpAddr) -> Result<Assigned, Fault> {
    let address = match &*asked.named {
        [] => default,
        [address] => *address,
        _ => {
            let message = "spec.addresses may name one address, not several";
            return Err(Fault::new("AddressNotUsable", message));
        }
    };
    Ok(Assigned { addresses: vec![Address::Ip(address)] })
}

/// The addresses of nodes, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeAddresses {
    /// Of those that run a ready proxy.
    pub(super) ready: Vec<IpAddr>,
    /// Of all that are there.
    pub(super) all: Vec<IpAddr>,
}

impl NodeAddresses {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let ready = snapshot.proxies.values().filter(|proxy| proxy.ready);
        let ready = ready.flat_map(|proxy| {
            let name = proxy.node.as_deref().map(|node| proxy_config::name::ObjectName::new("", node));
            let node = name.and_then(|name| snapshot.nodes.get(&name));
            let of_node = node.map(|node| node.addresses.clone()).filter(|addresses| !addresses.is_empty());
            of_node.unwrap_or_else(|| proxy.address.into_iter().collect())
        });
        let of_proxies = snapshot.proxies.values().filter_map(|proxy| proxy.address);
        let of_nodes = snapshot.nodes.values().flat_map(|node| node.addresses.iter().copied());
        let sorted = |addresses: BTreeSet<IpAddr>| addresses.into_iter().collect();
        Self { ready: sorted(ready.collect()), all: sorted(of_nodes.chain(of_proxies).collect()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.all.is_empty()
    }
}
