//! What tasks see: the snapshot and what earlier tasks made, with every look recorded.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use proxy_config::listener::Bind;
use proxy_config::name::ObjectName;

use crate::observe::Malformed;
use crate::snapshot::cluster::{EndpointSlice, ReferenceGrant, Secret, Service};
use crate::snapshot::gateway::{EdgeParameters, Gateway, GatewayClass};
use crate::snapshot::http_route::HttpRoute;
use crate::snapshot::meta::{GATEWAY_GROUP, Kind, ObjectRef};
use crate::snapshot::{Snapshot, Store};

use super::addresses::pool::Ask;
use super::classes::ClassView;
use super::conditions::Fault;
use super::derived::Derived;
use super::gateways::Claims;
use super::graph::Key;
use super::listeners::{Attachable, Conflict, Listeners};
use super::{Settings, addresses};

/// An object that was looked up.
pub(super) enum Lookup<'a, T> {
    /// There it is.
    Found(&'a Arc<T>),
    /// There is none.
    Missing,
    /// It is there and can't be read.
    Malformed(&'a Malformed),
}

impl<'a, T> Lookup<'a, T> {
    /// The object, where it could be read.
    pub(super) fn found(self) -> Option<&'a Arc<T>> {
        match self {
            Self::Found(object) => Some(object),
            Self::Missing | Self::Malformed(_) => None,
        }
    }
}

/// What a task may look at.
pub(super) struct Reader<'a> {
    /// The settings, which never change.
    pub(super) settings: &'a Settings,
    snapshot: &'a Snapshot,
    derived: &'a Derived,
    reads: RefCell<BTreeSet<Key>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a Settings, snapshot: &'a Snapshot, derived: &'a Derived) -> Self {
        Self { settings, snapshot, derived, reads: RefCell::default() }
    }

    /// What was looked at.
    pub(super) fn into_reads(self) -> BTreeSet<Key> {
        self.reads.into_inner()
    }

    fn note(&self, key: Key) {
        self.reads.borrow_mut().insert(key);
    }

    fn look_up<T>(&self, kind: Kind, store: &'a Store<T>, name: &ObjectName) -> Lookup<'a, T> {
        let reference = ObjectRef::new(kind, name.clone());
        let lookup = match (store.get(name), self.snapshot.malformed.get(&reference)) {
            (Some(object), _) => Lookup::Found(object),
            (None, Some(malformed)) => Lookup::Malformed(malformed),
            (None, None) => Lookup::Missing,
        };
        self.note(Key::Object(reference));
        lookup
    }

    pub(super) fn gateway_class(&self, name: &ObjectName) -> Lookup<'a, GatewayClass> {
        self.look_up(Kind::GatewayClass, &self.snapshot.classes, name)
    }

    pub(super) fn edge_parameters(&self, name: &ObjectName) -> Lookup<'a, EdgeParameters> {
        self.look_up(Kind::EdgeParameters, &self.snapshot.parameters, name)
    }

    pub(super) fn gateway(&self, name: &ObjectName) -> Lookup<'a, Gateway> {
        self.look_up(Kind::Gateway, &self.snapshot.gateways, name)
    }

    pub(super) fn http_route(&self, name: &ObjectName) -> Lookup<'a, HttpRoute> {
        self.look_up(Kind::HttpRoute, &self.snapshot.http_routes, name)
    }

    pub(super) fn service(&self, name: &ObjectName) -> Lookup<'a, Service> {
        self.look_up(Kind::Service, &self.snapshot.services, name)
    }

    pub(super) fn endpoint_slice(&self, name: &ObjectName) -> Lookup<'a, EndpointSlice> {
        self.look_up(Kind::EndpointSlice, &self.snapshot.endpoint_slices, name)
    }

    pub(super) fn secret(&self, name: &ObjectName) -> Lookup<'a, Secret> {
        self.look_up(Kind::Secret, &self.snapshot.secrets, name)
    }

    pub(super) fn malformed(&self, reference: &ObjectRef) -> Option<&'a Malformed> {
        self.note(Key::Object(reference.clone()));
        self.snapshot.malformed.get(reference).map(|malformed| &**malformed)
    }

    /// The labels of a namespace; none where it is not known.
    pub(super) fn namespace_labels(&self, namespace: &str) -> Option<&'a BTreeMap<String, String>> {
        let name = ObjectName::new("", namespace);
        self.look_up(Kind::Namespace, &self.snapshot.namespaces, &name).found().map(|found| &found.labels)
    }

    /// The ReferenceGrants of a namespace.
    pub(super) fn grants(&self, namespace: &str) -> impl Iterator<Item = &'a ReferenceGrant> + use<'a> {
        let first = ObjectName::new(namespace, "");
        self.note(Key::Grants(first.namespace.clone()));
        self.snapshot
            .grants
            .range(first.clone()..)
            .take_while(move |(name, _)| name.namespace == first.namespace)
            .map(|(_, grant)| &**grant)
    }

    /// The bundle version of each installed definition of Gateway API.
    pub(super) fn bundle_versions(&self) -> impl Iterator<Item = Option<&'a str>> + use<'a> {
        self.note(Key::Crds);
        let ours = self.snapshot.crds.values().filter(|crd| crd.meta.name.name.ends_with(GATEWAY_GROUP));
        ours.map(|crd| crd.bundle_version.as_deref())
    }

    /// The addresses of the nodes that run a ready proxy, for the task that every update runs.
    pub(super) fn ready_addresses(&self) -> Vec<IpAddr> {
        addresses::of_ready_proxies(self.snapshot)
    }

    /// The addresses of the nodes that run a ready proxy.
    pub(super) fn node_addresses(&self) -> &'a [IpAddr] {
        self.note(Key::NodeAddresses);
        &self.derived.node_addresses
    }

    /// What follows from a GatewayClass; `None` where it is not ours.
    pub(super) fn class(&self, name: &ObjectName) -> Option<&'a ClassView> {
        self.note(Key::Class(name.clone()));
        self.derived.classes.get(name).map(|view| &**view)
    }

    /// What Gateways ask of the pools. The translator runs whoever asks again when that changes.
    pub(super) fn asks(&self) -> &'a BTreeMap<ObjectName, Arc<Ask>> {
        &self.derived.asks
    }

    /// What a Gateway got from its pool.
    pub(super) fn allocation(&self, gateway: &ObjectName) -> Result<&'a [IpAddr], Fault> {
        self.note(Key::Allocation(gateway.clone()));
        match self.derived.allocations.get(gateway) {
            Some(Ok(addresses)) => Ok(addresses),
            Some(Err(fault)) => Err(fault.clone()),
            None => Err(Fault::new("AddressNotAssigned", "no address is assigned yet")),
        }
    }

    /// What a Gateway claims; `None` where it is not ours.
    pub(super) fn claims(&self, gateway: &ObjectName) -> Option<&'a Claims> {
        self.note(Key::Claims(gateway.clone()));
        self.derived.claims.get(gateway).map(|claims| &**claims)
    }

    /// The Gateways that claim a shared port, and what they claim. The translator runs whoever asks again
    /// when these change.
    pub(super) fn sharing(
        &self,
        port: &Bind,
    ) -> impl Iterator<Item = (&'a ObjectName, &'a Claims)> + use<'a> {
        let derived = self.derived;
        let names = derived.sharing.get(port).into_iter().flatten();
        names.filter_map(|name| derived.claims.get(name).map(|claims| (name, &**claims)))
    }

    /// What a Gateway's listener loses to another Gateway.
    pub(super) fn conflict(&self, gateway: &ObjectName, port: &Bind, listener: &str) -> Option<&'a Conflict> {
        self.note(Key::Conflicts(gateway.clone()));
        self.derived.ports.get(port)?.get(gateway)?.get(listener)
    }

    /// The listeners of a Gateway; `None` where it is not ours.
    pub(super) fn listeners(&self, gateway: &ObjectName) -> Option<&'a Listeners> {
        self.note(Key::Listeners(gateway.clone()));
        self.derived.listeners.get(gateway).map(|listeners| &**listeners)
    }

    /// The listeners of a Gateway as routes see them; `None` where it is not ours.
    pub(super) fn attachable(&self, gateway: &ObjectName) -> Option<&'a Attachable> {
        self.note(Key::Attachable(gateway.clone()));
        self.derived.listeners.get(gateway).map(|listeners| &listeners.attachable)
    }

    /// How many routes are attached to a Gateway's listener. The translator runs whoever asks again when
    /// that changes.
    pub(super) fn attached(&self, gateway: &ObjectName, listener: &str) -> u32 {
        self.derived.attached.get(gateway).and_then(|counts| counts.get(listener)).copied().unwrap_or(0)
    }

    /// Whether a route names this port of a Service.
    pub(super) fn is_backend(&self, service: &ObjectName, port: u16) -> bool {
        self.derived.backends.get(service).is_some_and(|ports| ports.contains_key(&port))
    }

    /// Whether a route names a Service.
    pub(super) fn has_backends(&self, service: &ObjectName) -> bool {
        self.derived.backends.contains_key(service)
    }

    /// Whether a listener names a Secret and may.
    pub(super) fn is_wanted(&self, secret: &ObjectName) -> bool {
        self.derived.wanted.contains_key(secret)
    }
}
