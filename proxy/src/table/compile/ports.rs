//! Ports: the listeners of all Gateways, joined by address and port.
//!
//! Where two listeners can't share a port the one whose id sorts first has it, and the other is broken;
//! the translator, which knows who came first, leaves no such pair.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proxy_config::listener::{Address, Listener as ListenerUnit, Protocol};
use proxy_config::name::UnitId;

use super::authorities::AuthorityStage;
use super::certificates::CertificateStage;
use super::l4::L4Stage;
use super::routes::RouteStage;
use super::{Dirty, Problems, leave};
use crate::table::clients::{Clients, ClientsError};
use crate::table::host::{Hostnames, key};
use crate::table::port::{Listener, Port};

#[derive(Debug)]
pub(super) struct PortStage {
    node_address: IpAddr,
    units: HashMap<UnitId, ListenerUnit>,
    by_address: BTreeMap<SocketAddr, BTreeSet<UnitId>>,
    /// Listeners by the certificates and authorities that they name.
    by_credential: BTreeMap<UnitId, BTreeSet<UnitId>>,
    dirty: Dirty<SocketAddr>,
    /// A listener is gone, or is another one.
    has_lost: bool,
}

/// What listeners are made of.
pub(super) struct Context<'a> {
    pub(super) authorities: &'a AuthorityStage,
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
            by_credential: BTreeMap::new(),
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
                (at, unit.protocol, unit.passthrough, unit.hostname.clone(), unit.client_validation.clone())
            };
            self.has_lost |= unit.as_ref().is_none_or(|unit| place(unit) != place(&old));
            for address in addresses(self.node_address, &old) {
                self.dirty.insert(address);
                leave(&mut self.by_address, &address, id);
            }
            for credential in credentials(&old) {
                leave(&mut self.by_credential, credential, id);
            }
        }
        if let Some(unit) = unit {
            for address in addresses(self.node_address, &unit) {
                self.dirty.insert(address);
                self.by_address.entry(address).or_default().insert(id.clone());
            }
            for credential in credentials(&unit) {
                self.by_credential.entry(credential.clone()).or_default().insert(id.clone());
            }
            self.units.insert(id.clone(), unit);
        }
    }

    pub(super) fn listeners_at(&self, address: SocketAddr) -> impl Iterator<Item = &UnitId> {
        self.by_address.get(&address).into_iter().flatten()
    }

    /// Builds the ports whose listeners changed; of those whose credentials or routes did, that one alone.
    pub(super) fn rebuild(
        &mut self,
        credentials: &Dirty<UnitId>,
        listeners: &Dirty<UnitId>,
        context: &Context<'_>,
        ports: &mut BTreeMap<SocketAddr, Arc<Port>>,
        broken: &mut Problems,
    ) {
        let mut dirty = std::mem::take(&mut self.dirty);
        let renewed = credentials.iter().filter_map(|id| self.by_credential.get(id)).flatten();
        let (renewed, contested): (BTreeSet<_>, BTreeSet<_>) = renewed.partition(|id| self.stands(id, ports));
        let contested = contested.into_iter().filter_map(|id| self.units.get(id));
        dirty.extend(contested.flat_map(|unit| addresses(self.node_address, unit)));
        self.spread(&mut dirty);
        for address in &dirty {
            let ids = self.by_address.get(address);
            ids.into_iter().flatten().for_each(|id| drop(broken.remove(id)));
        }
        for address in &dirty {
            match self.by_address.get(address) {
                Some(ids) => {
                    let port = self.port(ids, ports.get(address), context, broken);
                    ports.insert(*address, Arc::new(port));
                }
                None => {
                    ports.remove(address);
                }
            }
        }
        for id in listeners.iter().chain(renewed.iter().copied().filter(|id| !listeners.contains(*id))) {
            let Some(unit) = self.units.get(id) else { continue };
            for address in addresses(self.node_address, unit).filter(|address| !dirty.contains(address)) {
                let unusable = ports.get_mut(&address).and_then(|port| refresh(port, id, unit, context));
                if let (true, Some(unusable)) = (renewed.contains(id), unusable) {
                    note(broken, id, unusable);
                }
            }
        }
    }

    /// Whether a listener has its hostname at all of its addresses.
    fn stands(&self, id: &UnitId, ports: &BTreeMap<SocketAddr, Arc<Port>>) -> bool {
        self.units.get(id).is_some_and(|unit| {
            let mut addresses = addresses(self.node_address, unit);
            addresses.all(|address| ports.get(&address).and_then(|port| place(port, id, unit)).is_some())
        })
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

    fn port(
        &self,
        ids: &BTreeSet<UnitId>,
        before: Option<&Arc<Port>>,
        context: &Context<'_>,
        broken: &mut Problems,
    ) -> Port {
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
                let before = before.and_then(|port| port.listeners.iter().find(|known| known.id == *id));
                let (listener, unusable) = listener(id, unit, before, context);
                if let Some(reason) = unusable {
                    broken.insert(id.clone(), reason);
                }
                if unit.protocol == Protocol::Tls {
                    protocol = Some(Protocol::Tls);
                }
                hostnames.insert(name, listeners.len());
                listeners.push(Arc::new(listener));
            }
        }
        let protocol = protocol.unwrap_or(Protocol::Http);
        let validates = validates(&listeners);
        Port { protocol, hostnames: Arc::new(hostnames), listeners, validates }
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

/// The place of a listener at a port; `None` where it lost its hostname to another one.
fn place(port: &Port, id: &UnitId, unit: &ListenerUnit) -> Option<usize> {
    let place = port.hostnames.get(key(unit.hostname.as_ref()).as_bytes())?;
    (port.listeners[place].id == *id).then_some(place)
}

/// Gives a port the new routes and credentials of one of its listeners; why nobody can connect to that, where it
/// is so. `None` where it lost its hostname to another listener.
fn refresh(
    port: &mut Arc<Port>,
    id: &UnitId,
    unit: &ListenerUnit,
    context: &Context<'_>,
) -> Option<Option<String>> {
    let place = place(port, id, unit)?;
    let before = &port.listeners[place];
    let (listener, unusable) = listener(id, unit, Some(before), context);
    let same = listener.validates() == before.validates();
    let mut listeners = port.listeners.clone();
    listeners[place] = Arc::new(listener);
    let validates = if same { port.validates } else { validates(&listeners) };
    let (protocol, hostnames) = (port.protocol, Arc::clone(&port.hostnames));
    *port = Arc::new(Port { protocol, hostnames, listeners, validates });
    Some(unusable)
}

/// Says what is wrong with a unit, where something is.
fn note(broken: &mut Problems, id: &UnitId, problem: Option<String>) {
    match problem {
        Some(reason) => drop(broken.insert(id.clone(), reason)),
        None => drop(broken.remove(id)),
    }
}

fn validates(listeners: &[Arc<Listener>]) -> bool {
    listeners.iter().any(|listener| listener.validates())
}

/// A listener, and why nobody can connect to it where that is so. What is the same as it was before is kept.
fn listener(
    id: &UnitId,
    unit: &ListenerUnit,
    before: Option<&Arc<Listener>>,
    context: &Context<'_>,
) -> (Listener, Option<String>) {
    let certificates = unit.certificates.iter().filter_map(|id| context.certificates.get(id));
    let shown = unit.backend_certificate.as_ref().and_then(|id| context.certificates.get(id));
    let mut certificates: Box<[_]> = certificates.map(Arc::clone).collect();
    let ends_tls = begins_with_tls(unit.protocol) && !unit.passthrough;
    let lacks = ends_tls && certificates.is_empty();
    let mut unusable = lacks.then(|| "none of its certificates can be used".to_owned());
    let clients = clients(unit, before, context);
    let is_closed = clients.is_err();
    let clients = clients.unwrap_or_else(|error| {
        let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        unusable = Some(format!("{error}{cause}"));
        // Nobody is let in who can't be validated.
        certificates = Box::default();
        None
    });
    let listener = Listener {
        id: id.clone(),
        shown: shown.map(|certificate| Arc::clone(certificate.shown())),
        protocol: unit.protocol,
        passthrough: unit.passthrough,
        certificates,
        clients,
        is_closed,
        hosts: context.routes.hosts(id),
        names: context.streams.names(id),
    };
    (listener, unusable)
}

/// How the clients of a listener are validated, where they are.
fn clients(
    unit: &ListenerUnit,
    before: Option<&Arc<Listener>>,
    context: &Context<'_>,
) -> Result<Option<Arc<Clients>>, ClientsError> {
    let Some(rule) = &unit.client_validation else { return Ok(None) };
    let bundles = rule.authorities.iter().filter_map(|id| context.authorities.get(id));
    let bundles: Vec<_> = bundles.map(Arc::clone).collect();
    let known = before.and_then(|before| before.clients.as_ref());
    match known.filter(|known| known.is_of(rule, &bundles)) {
        Some(known) => Ok(Some(Arc::clone(known))),
        None => Ok(Some(Arc::new(Clients::compile(rule, bundles)?))),
    }
}

/// The certificates and authorities that a listener names.
fn credentials(unit: &ListenerUnit) -> impl Iterator<Item = &UnitId> {
    let authorities = unit.client_validation.iter().flat_map(|clients| &clients.authorities);
    unit.certificates.iter().chain(&unit.backend_certificate).chain(authorities)
}

/// Whether listeners of this protocol are told apart by the server name of a handshake: those share a port.
fn begins_with_tls(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Https | Protocol::Tls)
}

/// Whether listeners of both protocols can be told apart on one port.
fn share_a_port(one: Protocol, other: Protocol) -> bool {
    one == other || (begins_with_tls(one) && begins_with_tls(other))
}
