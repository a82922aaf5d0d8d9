//! Backends: a port of a Service joined with the EndpointSlices of that Service, or a host outside the cluster
//! with the addresses that are known of its name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use proxy_config::backend::{
    Backend as BackendUnit, BackendTls, Destination, Endpoint, EndpointSlice, ServicePort,
};
use proxy_config::name::{ObjectName, UnitId};

use super::authorities::AuthorityStage;
use super::certificates::CertificateStage;
use super::{Dirty, Problems, leave};
use crate::resolver::names::{Hostname, HostnameError, Known, hostname};
use crate::table::slot::{Backends, Slot, Slots};
use crate::table::traffic::Traffic;
use crate::upstream::balance::{Backend, Reached, Secured, Tokens};
use crate::upstream::registry::{self, EndpointKey, Registry};
use crate::upstream::tls::{Peer, PeerError};

#[derive(Debug)]
pub(super) struct BackendStage {
    registry: Arc<Registry>,
    units: HashMap<UnitId, BackendUnit>,
    slices: HashMap<UnitId, EndpointSlice>,
    services: HashMap<ObjectName, Service>,
    /// Backends by what their TLS needs.
    by_credential: BTreeMap<UnitId, BTreeSet<UnitId>>,
    by_hostname: BTreeMap<Hostname, BTreeSet<UnitId>>,
    known: Arc<Known>,
    slots: Slots,
    dirty: Dirty<UnitId>,
    /// Slots that no route names any more.
    freed: Vec<Slot>,
    without_endpoints: bool,
}

/// What belongs to a Service.
#[derive(Debug, Default)]
struct Service {
    backends: BTreeSet<UnitId>,
    slices: BTreeSet<UnitId>,
}

impl BackendStage {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            units: HashMap::new(),
            slices: HashMap::new(),
            services: HashMap::new(),
            by_credential: BTreeMap::new(),
            by_hostname: BTreeMap::new(),
            known: Arc::default(),
            slots: Slots::default(),
            dirty: Dirty::new(),
            freed: Vec::new(),
            without_endpoints: false,
        }
    }

    pub(super) fn put(&mut self, id: &UnitId, unit: Option<BackendUnit>) {
        self.dirty.insert(id.clone());
        if let Some(old) = self.units.remove(id) {
            match &old.destination {
                Destination::Service(of) => self.leave(&of.service, |service| &mut service.backends, id),
                Destination::External(host) => {
                    if let Ok(name) = hostname(&host.hostname) {
                        leave(&mut self.by_hostname, &name, id);
                    }
                }
            }
            for credential in credentials(&old) {
                leave(&mut self.by_credential, credential, id);
            }
        }
        if let Some(unit) = unit {
            for credential in credentials(&unit) {
                self.by_credential.entry(credential.clone()).or_default().insert(id.clone());
            }
            match &unit.destination {
                Destination::Service(of) => {
                    self.services.entry(of.service.clone()).or_default().backends.insert(id.clone());
                }
                Destination::External(host) => {
                    if let Ok(name) = hostname(&host.hostname) {
                        self.by_hostname.entry(name).or_default().insert(id.clone());
                    }
                }
            }
            self.units.insert(id.clone(), unit);
        }
    }

    pub(super) fn put_slice(&mut self, id: &UnitId, slice: Option<EndpointSlice>) {
        if let Some(old) = self.slices.remove(id) {
            self.touch(&old.service);
            self.leave(&old.service, |service| &mut service.slices, id);
        }
        if let Some(slice) = slice {
            self.services.entry(slice.service.clone()).or_default().slices.insert(id.clone());
            self.touch(&slice.service);
            self.slices.insert(id.clone(), slice);
        }
    }

    fn touch(&mut self, service: &ObjectName) {
        let backends = self.services.get(service).map(|service| &service.backends);
        self.dirty.extend(backends.into_iter().flatten().cloned());
    }

    fn leave(&mut self, name: &ObjectName, set: fn(&mut Service) -> &mut BTreeSet<UnitId>, id: &UnitId) {
        let Some(service) = self.services.get_mut(name) else { return };
        set(service).remove(id);
        if service.backends.is_empty() && service.slices.is_empty() {
            self.services.remove(name);
        }
    }

    /// The slot of a backend for a route that names it.
    pub(super) fn acquire(&mut self, id: &UnitId) -> Slot {
        let (slot, new) = self.slots.acquire(id);
        if new {
            self.dirty.insert(id.clone());
        }
        slot
    }

    #[cfg(test)]
    pub(super) fn slot(&self, id: &UnitId) -> Option<Slot> {
        self.slots.get(id)
    }

    /// Gives a slot back for a route.
    pub(super) fn release(&mut self, id: &UnitId) {
        if let Some(slot) = self.slots.release(id) {
            self.freed.push(slot);
            self.dirty.insert(id.clone());
        }
    }

    pub(super) fn without_endpoints(&mut self, without: bool) {
        if self.without_endpoints != without {
            self.without_endpoints = without;
            self.dirty.extend(self.units.keys().cloned());
        }
    }

    pub(super) fn is_without_endpoints(&self) -> bool {
        self.without_endpoints
    }

    /// Takes what is known of names; whether a backend has other addresses by it.
    pub(super) fn resolve(&mut self, known: &Arc<Known>) -> bool {
        let before = std::mem::replace(&mut self.known, Arc::clone(known));
        let moved = self.by_hostname.iter().filter(|(name, _)| before.get(*name) != known.get(*name));
        let moved: Vec<_> = moved.flat_map(|(_, backends)| backends).cloned().collect();
        let is_any = !moved.is_empty();
        self.dirty.extend(moved);
        is_any
    }

    /// The names of backends that routes name.
    pub(super) fn hostnames(&self) -> BTreeSet<Hostname> {
        let is_named = |backends: &BTreeSet<UnitId>| backends.iter().any(|id| self.slots.get(id).is_some());
        self.by_hostname
            .iter()
            .filter(|(_, backends)| is_named(backends))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Compiles what changed into the slots, or whose credentials did. Backends that no route names are not
    /// compiled.
    pub(super) fn rebuild(&mut self, held: &Credentials<'_>, backends: &mut Backends, broken: &mut Problems) {
        let renewed = held.renewed.iter().filter_map(|id| self.by_credential.get(id)).flatten();
        self.dirty.extend(renewed.cloned());
        // First: a slot that was freed may have been taken again, under another tag.
        for slot in self.freed.drain(..) {
            backends.set(slot, None);
        }
        for id in std::mem::take(&mut self.dirty) {
            let unit = self.units.get(&id);
            if unit.is_some() {
                broken.remove(&id);
            }
            if let Some(slot) = self.slots.get(&id) {
                let compiled = unit.map(|unit| Arc::new(self.compile(&id, unit, held, broken)));
                backends.set(slot, compiled);
            }
        }
    }

    /// A backend; what of it can't be used is reported.
    fn compile(
        &self,
        id: &UnitId,
        unit: &BackendUnit,
        held: &Credentials<'_>,
        broken: &mut Problems,
    ) -> Backend {
        let tls = self.tls(unit, held).unwrap_or_else(|error| {
            broken.insert(id.clone(), error.to_string());
            Tls::Unusable
        });
        let traffic = unit.traffic.as_ref().map(Traffic::compile).transpose();
        let traffic = traffic.unwrap_or_else(|error| {
            broken.insert(id.clone(), error.to_string());
            None
        });
        let (ready, fallback) = self.resolved_endpoints(unit, &tls);
        let registry = || Arc::clone(&self.registry);
        Backend {
            id: id.clone(),
            protocol: unit.protocol,
            state: self.registry.backend(id),
            ready: ready.into_values().collect(),
            fallback: fallback.into_values().collect(),
            tokens: Tokens::default(),
            reached: match tls {
                Tls::None => Reached::Plainly,
                Tls::OfGateways(peer) => Reached::Securely(Secured::new(peer, registry())),
                Tls::Own(peer) => Reached::Securely(Secured::apart_from_gateways(peer, registry())),
                Tls::Unusable => Reached::Never,
            },
            traffic: traffic.map(Arc::new),
        }
    }

    /// What the endpoints of a backend must prove, and what they are shown.
    fn tls(&self, unit: &BackendUnit, held: &Credentials<'_>) -> Result<Tls, UnusableBackend> {
        if let Destination::External(host) = &unit.destination {
            hostname(&host.hostname)?;
        }
        match &unit.tls {
            None => Ok(Tls::None),
            Some(BackendTls::Invalid(_)) => Ok(Tls::Unusable),
            Some(BackendTls::Verified(policy)) => {
                let bundles = policy.authorities.iter().filter_map(|id| held.authorities.get(id).cloned());
                let bundles = (!policy.authorities.is_empty()).then(|| bundles.collect());
                let peer = self.registry.peer(policy, bundles)?;
                let Some(id) = &policy.client_certificate else {
                    // Who a Gateway is, is no business of hosts that tenants name.
                    let is_external = matches!(unit.destination, Destination::External(_));
                    return Ok(if is_external { Tls::Own(peer) } else { Tls::OfGateways(peer) });
                };
                let certificate =
                    held.certificates.get(id).ok_or_else(|| UnusableBackend::Certificate(id.clone()))?;
                Ok(Tls::Own(Arc::new(peer.showing(certificate.shown()))))
            }
        }
    }

    /// The endpoints that are ready, and those that stand in for them, by address.
    fn resolved_endpoints(&self, unit: &BackendUnit, tls: &Tls) -> (ByAddress, ByAddress) {
        let (mut ready, mut fallback) = (ByAddress::new(), ByAddress::new());
        let peer = match tls {
            Tls::OfGateways(peer) | Tls::Own(peer) => Some(peer),
            Tls::None | Tls::Unusable => None,
        };
        let endpoint = |address| self.registry.endpoint(EndpointKey { address, tls: peer.cloned() });
        // Who has to prove who it is can be no stranger that has got an old address.
        let are_known = !self.without_endpoints || peer.is_some();
        match &unit.destination {
            Destination::Service(port) if are_known => {
                for (of, address) in self.endpoints(port) {
                    if let Some(list) = list_of(of, &mut ready, &mut fallback) {
                        list.entry(address).or_insert_with(|| endpoint(address));
                    }
                }
            }
            Destination::Service(_) => {}
            // DNS has said so itself, whatever the age of the configuration.
            Destination::External(host) => {
                let name = hostname(&host.hostname).ok();
                let addresses = name.and_then(|name| self.known.get(&name));
                for address in addresses.into_iter().flat_map(|addresses| addresses.iter()) {
                    let address = SocketAddr::new(*address, host.port);
                    ready.insert(address, endpoint(address));
                }
            }
        }
        (ready, fallback)
    }

    /// The endpoints of a port of a Service, each with its address.
    fn endpoints<'a>(&'a self, of: &'a ServicePort) -> impl Iterator<Item = (&'a Endpoint, SocketAddr)> {
        let service = self.services.get(&of.service);
        let slices = service.into_iter().flat_map(|service| &service.slices).map(|id| &self.slices[id]);
        slices.flat_map(move |slice| {
            let named = slice.ports.iter().find(|port| port.name == of.port_name);
            let addressed = move |endpoint| named.map(|port| (endpoint, port.port));
            let with_port = slice.endpoints.iter().filter_map(addressed);
            with_port
                .map(|(endpoint, port): (&Endpoint, u16)| (endpoint, SocketAddr::new(endpoint.address, port)))
        })
    }
}

/// Endpoints by where they listen.
type ByAddress = BTreeMap<SocketAddr, Arc<registry::Endpoint>>;

/// What is in force of bundles and certificates, and what of that has changed.
pub(super) struct Credentials<'a> {
    pub(super) authorities: &'a AuthorityStage,
    pub(super) certificates: &'a CertificateStage,
    pub(super) renewed: &'a Dirty<UnitId>,
}

/// Why nothing can be sent to a backend.
#[derive(Debug, thiserror::Error)]
enum UnusableBackend {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Hostname(#[from] HostnameError),
    #[error("{0}, which it is to be shown, can't be used")]
    Certificate(UnitId),
}

/// What a backend's TLS comes to.
enum Tls {
    None,
    /// It is shown what each Gateway shows.
    OfGateways(Arc<Peer>),
    /// It is shown the same, if anything, whichever Gateway a request comes by.
    Own(Arc<Peer>),
    Unusable,
}

/// The bundles and the certificate that a backend names.
fn credentials(unit: &BackendUnit) -> impl Iterator<Item = &UnitId> {
    let policy = match &unit.tls {
        Some(BackendTls::Verified(policy)) => Some(policy),
        Some(BackendTls::Invalid(_)) | None => None,
    };
    policy.into_iter().flat_map(|policy| policy.authorities.iter().chain(&policy.client_certificate))
}

fn list_of<'a, T>(endpoint: &Endpoint, ready: &'a mut T, fallback: &'a mut T) -> Option<&'a mut T> {
    match endpoint {
        Endpoint { ready: true, .. } => Some(ready),
        Endpoint { serving: true, terminating: true, .. } => Some(fallback),
        _ => None,
    }
}
