//! Ports: the listeners of all Gateways, joined by address and port.
//!
//! Where two listeners can't share a port the one whose id sorts first has it, and the other is broken;
//! the translator, which knows who came first, leaves no such pair.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proxy_config::listener::{Address, Listener as ListenerUnit, Protocol};
use proxy_config::name::UnitId;

use super::certificates::CertificateStage;
use super::l4::L4Stage;
use super::routes::RouteStage;
use super::{Dirty, Problems};
use crate::table::host::{Hostnames, key};
use crate::table::port::{Listener, Port};

#[derive(Debug)]
pub(super) struct PortStage {
    node_address: IpAddr,
    units: HashMap<UnitId, ListenerUnit>,
    by_address: BTreeMap<SocketAddr, BTreeSet<UnitId>>,
    by_certificate: HashMap<UnitId, BTreeSet<UnitId>>,
    dirty: Dirty<SocketAddr>,
    /// A listener is gone, or is another one.
    has_lost: bool,
}

/// What listeners are made of.
pub(super) struct Context<'a> {
    pub(super) certificates: &'a CertificateStage,
    pub(super) routes: &'a RouteStage,
    pub(super) streams: &'a L4Stage,
}

impl PortStage {
    pub(super) fn new(node_address: IpAddr) -> Self {
        Self {
            node_address,
            units: HashMap::new(),
            by_address: BTreeMap::new(),
            by_certificate: HashMap::new(),
            dirty: Dirty::new(),
            has_lost: false,
        }
    }

    /// Whether a listener has gone since this was last asked.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    pub(super) fn put(&mut self, id: &UnitId, unit: Option<ListenerUnit>) {
        if let Some(old) = self.units.remove(id) {
            let place = |unit: &ListenerUnit| {
                let at = (unit.bind, unit.further.clone());
                (at, unit.protocol, unit.passthrough, unit.hostname.clone())
            };
            self.has_lost |= unit.as_ref().is_none_or(|unit| place(unit) != place(&old));
            for address in addresses(self.node_address, &old) {
                self.dirty.insert(address);
                leave(&mut self.by_address, &address, id);
            }
            for certificate in old.certificates.iter().chain(&old.backend_certificate) {
                if let Some(listeners) = self.by_certificate.get_mut(certificate) {
                    listeners.remove(id);
                    if listeners.is_empty() {
                        self.by_certificate.remove(certificate);
                    }
                }
            }
        }
        if let Some(unit) = unit {
            for address in addresses(self.node_address, &unit) {
                self.dirty.insert(address);
                self.by_address.entry(address).or_default().insert(id.clone());
            }
            for certificate in unit.certificates.iter().chain(&unit.backend_certificate) {
                self.by_certificate.entry(certificate.clone()).or_default().insert(id.clone());
            }
            self.units.insert(id.clone(), unit);
        }
    }

    pub(super) fn listeners_at(&self, address: SocketAddr) -> impl Iterator<Item = &UnitId> {
        self.by_address.get(&address).into_iter().flatten()
    }

    /// Builds the ports that changed, or whose certificates or routes did.
    pub(super) fn rebuild(
        &mut self,
        certificates: &Dirty<UnitId>,
        listeners: &Dirty<UnitId>,
        context: &Context<'_>,
        ports: &mut BTreeMap<SocketAddr, Arc<Port>>,
        broken: &mut Problems,
    ) {
        let mut dirty = std::mem::take(&mut self.dirty);
        let renewed = certificates.iter().filter_map(|id| self.by_certificate.get(id)).flatten();
        let renewed = renewed.filter_map(|id| self.units.get(id));
        dirty.extend(renewed.flat_map(|unit| addresses(self.node_address, unit)));
        self.spread(&mut dirty);
        for address in &dirty {
            let ids = self.by_address.get(address);
            ids.into_iter().flatten().for_each(|id| drop(broken.remove(id)));
        }
        for address in &dirty {
            match self.by_address.get(address) {
                Some(ids) => {
                    ports.insert(*address, Arc::new(self.port(ids, context, broken)));
                }
                None => {
                    ports.remove(address);
                }
            }
        }
        for id in listeners {
            let Some(unit) = self.units.get(id) else { continue };
            for address in addresses(self.node_address, unit) {
                if let (false, Some(port)) = (dirty.contains(&address), ports.get_mut(&address)) {
                    refresh(port, id, unit, context);
                }
            }
        }
    }

    /// Adds the other addresses of the listeners at these: what is wrong with one may be so at any of its own.
    fn spread(&self, dirty: &mut Dirty<SocketAddr>) {
        let mut open: Vec<_> = dirty.iter().copied().collect();
        while let Some(address) = open.pop() {
            let units = self.listeners_at(address).map(|id| &self.units[id]);
            for other in units.flat_map(|unit| addresses(self.node_address, unit)) {
                if dirty.insert(other) {
                    open.push(other);
                }
            }
        }
    }

    fn port(&self, ids: &BTreeSet<UnitId>, context: &Context<'_>, broken: &mut Problems) -> Port {
        let mut hostnames = Hostnames::default();
        let mut listeners: Vec<Arc<Listener>> = Vec::with_capacity(ids.len());
        let mut protocol = None;
        for id in ids {
            let unit = &self.units[id];
            let served = *protocol.get_or_insert(unit.protocol);
            let name = key(unit.hostname.as_ref()).as_bytes();
            if !share_a_port(served, unit.protocol) {
                let first = &listeners[0].id;
                broken.insert(id.clone(), format!("its port is served with another protocol by {first}"));
            } else if let Some(place) = hostnames.get(name) {
                let first = &listeners[place].id;
                broken.insert(id.clone(), format!("its hostname is served on its port by {first}"));
            } else {
                let listener = listener(id, unit, context);
                if unit.protocol == Protocol::Tls {
                    protocol = Some(Protocol::Tls);
                }
                let ends_tls = begins_with_tls(unit.protocol) && !unit.passthrough;
                if ends_tls && listener.certificates.is_empty() {
                    broken.insert(id.clone(), "none of its certificates can be used".to_owned());
                }
                hostnames.insert(name, listeners.len());
                listeners.push(Arc::new(listener));
            }
        }
        let protocol = protocol.unwrap_or(Protocol::Http);
        Port { protocol, hostnames: Arc::new(hostnames), listeners }
    }
}

/// Where a listener is bound.
fn addresses(node: IpAddr, unit: &ListenerUnit) -> impl Iterator<Item = SocketAddr> {
    let port = unit.bind.port;
    [&unit.bind.address].into_iter().chain(&unit.further).map(move |address| match address {
        Address::Node => SocketAddr::new(node, port),
        Address::Ip(address) => SocketAddr::new(*address, port),
    })
}

/// Gives a port the new routes of one of its listeners.
fn refresh(port: &mut Arc<Port>, id: &UnitId, unit: &ListenerUnit, context: &Context<'_>) {
    let Some(place) = port.hostnames.get(key(unit.hostname.as_ref()).as_bytes()) else { return };
    // Not so for one that lost its hostname to another listener.
    if port.listeners[place].id == *id {
        let mut listeners = port.listeners.clone();
        listeners[place] = Arc::new(listener(id, unit, context));
        *port = Arc::new(Port { protocol: port.protocol, hostnames: Arc::clone(&port.hostnames), listeners });
    }
}

fn listener(id: &UnitId, unit: &ListenerUnit, context: &Context<'_>) -> Listener {
    let certificates = unit.certificates.iter().filter_map(|id| context.certificates.get(id));
    let shown = unit.backend_certificate.as_ref().and_then(|id| context.certificates.get(id));
    Listener {
        id: id.clone(),
        shown: shown.map(|certificate| Arc::clone(certificate.shown())),
        protocol: unit.protocol,
        passthrough: unit.passthrough,
        certificates: certificates.map(Arc::clone).collect(),
        hosts: context.routes.hosts(id),
        names: context.streams.names(id),
    }
}

/// Whether listeners of this protocol are told apart by the server name of a handshake: those share a port.
fn begins_with_tls(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Https | Protocol::Tls)
}

/// Whether listeners of both protocols can be told apart on one port.
fn share_a_port(one: Protocol, other: Protocol) -> bool {
    one == other || (begins_with_tls(one) && begins_with_tls(other))
}

fn leave(index: &mut BTreeMap<SocketAddr, BTreeSet<UnitId>>, address: &SocketAddr, id: &UnitId) {
    if let Some(ids) = index.get_mut(address) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(address);
        }
    }
}
