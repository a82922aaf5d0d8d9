//! Backends: a port of a Service joined with the EndpointSlices of that Service.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use proxy_config::backend::{Backend as BackendUnit, Endpoint, EndpointSlice};
use proxy_config::name::{ObjectName, UnitId};

use super::Dirty;
use crate::table::slot::{Backends, Slot, Slots};
use crate::upstream::balance::Backend;
use crate::upstream::registry::{EndpointKey, Registry};

#[derive(Debug)]
pub(super) struct BackendStage {
    registry: Arc<Registry>,
    units: HashMap<UnitId, BackendUnit>,
    slices: HashMap<UnitId, EndpointSlice>,
    services: HashMap<ObjectName, Service>,
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
            slots: Slots::default(),
            dirty: Dirty::new(),
            freed: Vec::new(),
            without_endpoints: false,
        }
    }

    pub(super) fn put(&mut self, id: &UnitId, unit: Option<BackendUnit>) {
        self.dirty.insert(id.clone());
        if let Some(old) = self.units.remove(id) {
            self.leave(&old.service, |service| &mut service.backends, id);
        }
        if let Some(unit) = unit {
            self.services.entry(unit.service.clone()).or_default().backends.insert(id.clone());
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
        self.freed.extend(self.slots.release(id));
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

    /// Compiles what changed into the slots. Backends that no route names are not compiled.
    pub(super) fn rebuild(&mut self, backends: &mut Backends) {
        // First: a slot that was freed may have been taken again, under another tag.
        for slot in self.freed.drain(..) {
            backends.set(slot, None);
        }
        for id in std::mem::take(&mut self.dirty) {
            if let Some(slot) = self.slots.get(&id) {
                backends.set(slot, self.units.get(&id).map(|unit| Arc::new(self.compile(&id, unit))));
            }
        }
    }

    fn compile(&self, id: &UnitId, unit: &BackendUnit) -> Backend {
        let (mut ready, mut fallback) = (BTreeMap::new(), BTreeMap::new());
        let service = self.services.get(&unit.service).filter(|_| !self.without_endpoints);
        for slice in service.into_iter().flat_map(|service| &service.slices) {
            let slice = &self.slices[slice];
            let named = slice.ports.iter().find(|port| port.name == unit.port_name);
            for endpoint in named.into_iter().flat_map(|_| &slice.endpoints) {
                let Some(port) = named else { continue };
                let address = SocketAddr::new(endpoint.address, port.port);
                if let Some(list) = list_of(endpoint, &mut ready, &mut fallback) {
                    list.entry(address)
                        .or_insert_with(|| self.registry.endpoint(EndpointKey { address, tls: None }));
                }
            }
        }
        Backend {
            id: id.clone(),
            protocol: unit.protocol,
            state: self.registry.backend(id),
            ready: ready.into_values().collect(),
            fallback: fallback.into_values().collect(),
        }
    }
}

fn list_of<'a, T>(endpoint: &Endpoint, ready: &'a mut T, fallback: &'a mut T) -> Option<&'a mut T> {
    match endpoint {
        Endpoint { ready: true, .. } => Some(ready),
        Endpoint { serving: true, terminating: true, .. } => Some(fallback),
        _ => None,
    }
}
