//! Where a Gateway's addresses come from: the provider of its class, and what it makes of what is asked.
//!
//! Further providers are variants of [`Provider`]; nothing outside this file tells them apart.

use std::collections::BTreeSet;
use std::net::IpAddr;

use actors_api::edge::AddressProvider;
use proxy_config::listener::Address;

use crate::snapshot::Snapshot;
use crate::snapshot::gateway::GatewayAddress;

use super::conditions::Fault;
use super::{AddressSource, ReservedPorts, Settings};

/// How many addresses a Gateway's status holds at most. Source: the CRD, `status.addresses`.
const MAX_STATUS_ADDRESSES: usize = 16;

/// Where addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    /// The nodes' own addresses, shared by all Gateways.
    Node,
    /// Without a cluster: as the Gateway asks, or else this one.
    AsWritten(IpAddr),
}

/// What a Gateway gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Assigned {
    /// Where its listeners are bound.
    pub(super) bind: Address,
}

/// Why a Gateway gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The Gateway is not accepted: UnsupportedAddress.
    Unsupported(String),
    /// It is accepted, and not Programmed: AddressNotUsable.
    NotUsable(String),
}

impl Provider {
    /// The provider that a class's parameters name.
    pub(super) fn choose(settings: &Settings, wanted: &AddressProvider) -> Result<Self, Fault> {
        let later = |name: &str| {
            let message = format!("spec.addressProvider.{name} is not supported by this version: use node");
            Err(Fault::new("InvalidParameters", message))
        };
        match (settings.addresses, wanted) {
            (AddressSource::AsWritten { default }, _) => Ok(Self::AsWritten(default)),
            (AddressSource::Class, AddressProvider { pool: Some(_), .. }) => later("pool"),
            (AddressSource::Class, AddressProvider { slots: Some(_), .. }) => later("slots"),
            (AddressSource::Class, _) => Ok(Self::Node),
        }
    }

    /// What a Gateway that asks for addresses gets; `nodes` is looked up only where it matters.
    pub(super) fn assign<'a>(
        self,
        asked: &[GatewayAddress],
        nodes: impl FnOnce() -> &'a [IpAddr],
    ) -> Result<Assigned, Refused> {
        let mut values = BTreeSet::new();
        for (index, address) in asked.iter().enumerate() {
            if address.kind != "IPAddress" {
                let kind = &address.kind;
                let message =
                    format!("spec.addresses[{index}].type `{kind}` is not supported: use IPAddress");
                return Err(Refused::Unsupported(message));
            }
            if !address.value.is_empty() {
                let value = &address.value;
                values.insert(value.parse::<IpAddr>().map_err(|_| {
                    Refused::Unsupported(format!(
                        "spec.addresses[{index}].value `{value}` is not an IP address"
                    ))
                })?);
            }
        }
        match self {
            Self::Node => node(&values, nodes),
            Self::AsWritten(default) => as_written(&values, default),
        }
    }

    /// The addresses that a Gateway's status lists.
    pub(super) fn listed<'a>(assigned: Assigned, nodes: impl FnOnce() -> &'a [IpAddr]) -> Vec<IpAddr> {
        match assigned.bind {
            Address::Node => nodes().iter().copied().take(MAX_STATUS_ADDRESSES).collect(),
            Address::Ip(address) => vec![address],
        }
    }

    /// Whose a port is, where a listener may not take it.
    pub(super) fn owner_of(self, settings: &Settings, port: u16) -> Option<&ReservedPorts> {
        match self {
            Self::Node => {
                settings.reserved_ports.iter().find(|range| (range.first..=range.last).contains(&port))
            }
            Self::AsWritten(_) => None,
        }
    }
}

fn node<'a>(asked: &BTreeSet<IpAddr>, nodes: impl FnOnce() -> &'a [IpAddr]) -> Result<Assigned, Refused> {
    if !asked.is_empty() {
        let nodes = nodes();
        if !asked.iter().eq(nodes) {
            let message = "the address provider `node` serves on the addresses of all nodes that run a proxy, \
                           and on no others: leave spec.addresses empty";
            return Err(Refused::NotUsable(message.into()));
        }
    }
    Ok(Assigned { bind: Address::Node })
}

fn as_written(asked: &BTreeSet<IpAddr>, default: IpAddr) -> Result<Assigned, Refused> {
    let mut asked = asked.iter();
    match (asked.next(), asked.next()) {
        (None, _) => Ok(Assigned { bind: Address::Ip(default) }),
        (Some(address), None) => Ok(Assigned { bind: Address::Ip(*address) }),
        (Some(_), Some(_)) => {
            Err(Refused::NotUsable("spec.addresses may name one address, not several".into()))
        }
    }
}

/// The addresses of the nodes that run a ready proxy, sorted.
pub(super) fn of_ready_proxies(snapshot: &Snapshot) -> Vec<IpAddr> {
    let ready = snapshot.proxies.values().filter(|proxy| proxy.ready);
    let addresses = ready.flat_map(|proxy| {
        let name = proxy.node.as_deref().map(|node| proxy_config::name::ObjectName::new("", node));
        let node = name.and_then(|name| snapshot.nodes.get(&name));
        let of_node = node.map(|node| node.addresses.clone()).filter(|addresses| !addresses.is_empty());
        of_node.unwrap_or_else(|| proxy.address.into_iter().collect())
    });
    addresses.collect::<BTreeSet<_>>().into_iter().collect()
}
