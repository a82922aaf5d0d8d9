//! Backends: a port of a Service joined with the EndpointSlices of that Service.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use proxy_config::backend::{
    Backend as BackendUnit, BackendTls, Destination, Endpoint, EndpointSlice, ServicePort,
};
use proxy_config::name::{ObjectName, UnitId};

use super::authorities::AuthorityStage;
use super::{Dirty, Problems};
use crate::table::slot::{Backends, Slot, Slots};
use crate::table::traffic::Traffic;
use crate::upstream::balance::{Backend, Reached, Secured};
use crate::upstream::registry::{EndpointKey, Registry};
use crate::upstream::tls::{Peer, PeerError};

#[derive(Debug)]
pub(super) struct BackendStage {
    registry: Arc<Registry>,
    units: HashMap<UnitId, BackendUnit>,
    slices: HashMap<UnitId, EndpointSlice>,
    services: HashMap<ObjectName, Service>,
    by_authority: HashMap<UnitId, BTreeSet<UnitId>>,
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
            by_authority: HashMap::new(),
            slots: Slots::default(),
            dirty: Dirty::new(),
            freed: Vec::new(),
            without_endpoints: false,
        }
    }

    pub(super) fn put(&mut self, id: &UnitId, unit: Option<BackendUnit>) {
        self.dirty.insert(id.clone());
        if let Some(old) = self.units.remove(id) {
            if let Destination::Service(of) = &old.destination {
                self.leave(&of.service, |service| &mut service.backends, id);
            }
            for authority in authorities(&old) {
                if let Some(backends) = self.by_authority.get_mut(authority) {
                    backends.remove(id);
                    if backends.is_empty() {
                        self.by_authority.remove(authority);
                    }
                }
            }
        }
        if let Some(unit) = unit {
            for authority in authorities(&unit) {
                self.by_authority.entry(authority.clone()).or_default().insert(id.clone());
            }
            if let Destination::Service(of) = &unit.destination {
                self.services.entry(of.service.clone()).or_default().backends.insert(id.clone());
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

    /// Compiles what changed into the slots, or whose authorities did. Backends that no route names are not
    /// compiled.
    pub(super) fn rebuild(
        &mut self,
        (authorities, changed): (&AuthorityStage, &Dirty<UnitId>),
        backends: &mut Backends,
        broken: &mut Problems,
    ) {
        let renewed = changed.iter().filter_map(|id| self.by_authority.get(id)).flatten();
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
                let compiled = unit.map(|unit| {
                    let tls = self.peer(unit, authorities).unwrap_or_else(|error| {
                        broken.insert(id.clone(), error.to_string());
                        Tls::Unusable
                    });
                    let traffic = unit.traffic.as_ref().map(Traffic::compile).transpose();
                    let traffic = traffic.unwrap_or_else(|error| {
                        broken.insert(id.clone(), error.to_string());
                        None
                    });
                    Arc::new(Backend { traffic: traffic.map(Arc::new), ..self.compile(&id, unit, tls) })
                });
                backends.set(slot, compiled);
            }
        }
    }

    /// What the endpoints of a backend must prove.
    fn peer(&self, unit: &BackendUnit, authorities: &AuthorityStage) -> Result<Tls, PeerError> {
        match &unit.tls {
            None => Ok(Tls::None),
            Some(BackendTls::Invalid(_)) => Ok(Tls::Unusable),
            Some(BackendTls::Verified(policy)) => {
                let bundles = policy.authorities.iter().filter_map(|id| authorities.get(id).cloned());
                let bundles = (!policy.authorities.is_empty()).then(|| bundles.collect());
                self.registry.peer(policy, bundles).map(Tls::Peer)
            }
        }
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

    fn compile(&self, id: &UnitId, unit: &BackendUnit, tls: Tls) -> Backend {
        let (mut ready, mut fallback) = (BTreeMap::new(), BTreeMap::new());
        let peer = match &tls {
            Tls::Peer(peer) => Some(peer),
            Tls::None | Tls::Unusable => None,
        };
        // Who has to prove who it is can be no stranger that has got an old address.
        let are_known = !self.without_endpoints || peer.is_some();
        let endpoint = |address| self.registry.endpoint(EndpointKey { address, tls: peer.cloned() });
        match &unit.destination {
            Destination::Service(port) if are_known => {
                for (of, address) in self.endpoints(port) {
                    if let Some(list) = list_of(of, &mut ready, &mut fallback) {
                        list.entry(address).or_insert_with(|| endpoint(address));
                    }
                }
            }
            Destination::Service(_) | Destination::External(_) => {}
        }
        Backend {
            id: id.clone(),
            protocol: unit.protocol,
            state: self.registry.backend(id),
            ready: ready.into_values().collect(),
            fallback: fallback.into_values().collect(),
            reached: match tls {
                Tls::None => Reached::Plainly,
                Tls::Peer(peer) => Reached::Securely(Secured::new(peer, Arc::clone(&self.registry))),
                Tls::Unusable => Reached::Never,
            },
            traffic: None,
        }
    }
}

/// What a backend's TLS comes to.
enum Tls {
    None,
    Peer(Arc<Peer>),
    Unusable,
}

/// The bundles that a backend names.
fn authorities(unit: &BackendUnit) -> &[UnitId] {
    match &unit.tls {
        Some(BackendTls::Verified(policy)) => &policy.authorities,
        Some(BackendTls::Invalid(_)) | None => &[],
    }
}

fn list_of<'a, T>(endpoint: &Endpoint, ready: &'a mut T, fallback: &'a mut T) -> Option<&'a mut T> {
    match endpoint {
        Endpoint { ready: true, .. } => Some(ready),
        Endpoint { serving: true, terminating: true, .. } => Some(fallback),
        _ => None,
    }
}
