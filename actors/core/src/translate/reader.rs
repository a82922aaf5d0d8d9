//! What tasks see: the snapshot and what earlier tasks made, with every look recorded.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use proxy_config::listener::Bind;
use proxy_config::name::{HostPattern, ObjectName};

use crate::observe::Malformed;
use crate::snapshot::backend::Backend;
use crate::snapshot::cluster::{ConfigMap, EndpointSlice, ReferenceGrant, Secret, Service};
use crate::snapshot::gateway::{EdgeParameters, Gateway, GatewayClass, ListenerSet};
use crate::snapshot::grpc_route::GrpcRoute;
use crate::snapshot::http_route::HttpRoute;
use crate::snapshot::l4_route::L4Route;
use crate::snapshot::meta::{GATEWAY_GROUP, Kind, ObjectRef};
use crate::snapshot::tls_policy::BackendTlsPolicy;
use crate::snapshot::traffic_policy::BackendTrafficPolicy;
use crate::snapshot::{Snapshot, Store};

use super::Settings;
use super::addresses::NodeAddresses;
use super::addresses::pool::Ask;
use super::claims::Claims;
use super::classes::ClassView;
use super::conditions::Fault;
use super::derived::Derived;
use super::graph::{BackendPort, Key, Role};
use super::listeners::{Attachable, Conflict, Listeners};
use super::policies::PolicyView;
use super::rivals::rival_of;
use super::traffic::TrafficView;

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

    fn into_route(
        self,
        wrap: impl FnOnce(&'a T) -> Written<'a>,
    ) -> Option<Result<Written<'a>, &'a Malformed>> {
        match self {
            Self::Found(route) => Some(Ok(wrap(route))),
            Self::Malformed(malformed) => Some(Err(malformed)),
            Self::Missing => None,
        }
    }
}

/// A route of any kind, as it is written.
#[derive(Clone, Copy)]
pub(super) enum Written<'a> {
    Http(&'a HttpRoute),
    Grpc(&'a GrpcRoute),
    L4(Kind, &'a L4Route),
}

/// An installed definition of Gateway API.
pub(super) struct Definition<'a> {
    /// The kind, as paths name it.
    pub(super) plural: &'a str,
    /// The version of Gateway API that it is from.
    pub(super) version: Option<&'a str>,
    /// `standard` or `experimental`.
    pub(super) channel: Option<&'a str>,
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

    pub(super) fn listener_set(&self, name: &ObjectName) -> Lookup<'a, ListenerSet> {
        self.look_up(Kind::ListenerSet, &self.snapshot.listener_sets, name)
    }

    /// A route; `None` where there is none.
    pub(super) fn route(
        &self,
        ObjectRef { kind, name }: &ObjectRef,
    ) -> Option<Result<Written<'a>, &'a Malformed>> {
        let snapshot = self.snapshot;
        let l4 = |store| self.look_up(*kind, store, name).into_route(|route| Written::L4(*kind, route));
        match kind {
            Kind::HttpRoute => self.look_up(*kind, &snapshot.http_routes, name).into_route(Written::Http),
            Kind::GrpcRoute => self.look_up(*kind, &snapshot.grpc_routes, name).into_route(Written::Grpc),
            Kind::TlsRoute => l4(&snapshot.tls_routes),
            Kind::TcpRoute => l4(&snapshot.tcp_routes),
            Kind::UdpRoute => l4(&snapshot.udp_routes),
            _ => None,
        }
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

    pub(super) fn config_map(&self, name: &ObjectName) -> Lookup<'a, ConfigMap> {
        self.look_up(Kind::ConfigMap, &self.snapshot.config_maps, name)
    }

    pub(super) fn policy(&self, name: &ObjectName) -> Lookup<'a, BackendTlsPolicy> {
        self.look_up(Kind::BackendTlsPolicy, &self.snapshot.tls_policies, name)
    }

    /// What follows from the BackendTLSPolicies for a Service.
    pub(super) fn policies(&self, service: &ObjectName) -> impl Iterator<Item = &'a PolicyView> + use<'a> {
        self.note(Key::Policies(service.clone()));
        let derived = self.derived;
        let names = derived.targeting.get(service).into_iter().flatten();
        names.filter_map(|name| derived.policies.get(name).map(|view| &**view))
    }

    /// What follows from a BackendTLSPolicy. The translator runs whoever asks again when that changes.
    pub(super) fn policy_view(&self, name: &ObjectName) -> Option<&'a PolicyView> {
        self.derived.policies.get(name).map(|view| &**view)
    }

    /// The Gateways from which routes lead to a Service or XBackend. The translator runs whoever asks again
    /// when that changes.
    pub(super) fn ancestors(&self, backend: &ObjectRef) -> impl Iterator<Item = &'a ObjectName> + use<'a> {
        self.derived.ancestors.get(backend).into_iter().flat_map(|gateways| gateways.keys())
    }

    /// Whether a route leads to an XBackend, and does not only name it. The translator runs whoever asks again
    /// when that changes.
    pub(super) fn is_destination(&self, backend: &ObjectName) -> bool {
        self.derived.destinations.contains_key(backend)
    }

    pub(super) fn traffic_policy(&self, name: &ObjectName) -> Lookup<'a, BackendTrafficPolicy> {
        self.look_up(Kind::BackendTrafficPolicy, &self.snapshot.traffic_policies, name)
    }

    pub(super) fn backend(&self, name: &ObjectName) -> Lookup<'a, Backend> {
        self.look_up(Kind::Backend, &self.snapshot.backends, name)
    }

    /// What follows from the XBackendTrafficPolicies for a Service or XBackend.
    pub(super) fn traffic_policies(
        &self,
        backend: &ObjectRef,
    ) -> impl Iterator<Item = &'a TrafficView> + use<'a> {
        self.note(Key::Traffic(backend.clone()));
        let derived = self.derived;
        let names = derived.shaping.get(backend).into_iter().flatten();
        names.filter_map(|name| derived.traffic.get(name).map(|view| &**view))
    }

    /// What follows from an XBackendTrafficPolicy. The translator runs whoever asks again when that changes.
    pub(super) fn traffic_view(&self, name: &ObjectName) -> Option<&'a TrafficView> {
        self.derived.traffic.get(name).map(|view| &**view)
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

    /// The installed definitions of Gateway API.
    pub(super) fn definitions(&self) -> impl Iterator<Item = Definition<'a>> + use<'a> {
        self.note(Key::Crds);
        self.snapshot.crds.values().filter_map(|crd| {
            let (plural, group) = crd.meta.name.name.split_once('.')?;
            let (version, channel) = (crd.bundle_version.as_deref(), crd.channel.as_deref());
            (group == GATEWAY_GROUP).then_some(Definition { plural, version, channel })
        })
    }

    /// Whether a kind of route is installed. Where not even HTTPRoute is known to be, as without a
    /// cluster, every kind is.
    pub(super) fn is_installed(&self, kind: &str) -> bool {
        let plural = format!("{}s", kind.to_ascii_lowercase());
        let installed = |plural: &str| self.definitions().any(|definition| definition.plural == plural);
        installed(&plural) || !installed("httproutes")
    }

    /// The addresses of nodes, for the task that every update runs.
    pub(super) fn find_node_addresses(&self) -> NodeAddresses {
        NodeAddresses::of(self.snapshot)
    }

    /// The addresses of the nodes that run a ready proxy.
    pub(super) fn node_addresses(&self) -> &'a [IpAddr] {
        self.note(Key::NodeAddresses);
        &self.derived.node_addresses.ready
    }

    /// Whether an address is one of a node, whether or not a proxy is ready there.
    pub(super) fn is_of_a_node(&self, address: IpAddr) -> bool {
        self.note(Key::NodeAddresses);
        self.derived.node_addresses.all.binary_search(&address).is_ok()
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

    /// What a Gateway or ListenerSet claims; `None` where it is not ours.
    pub(super) fn claims(&self, holder: &ObjectRef) -> Option<&'a Claims> {
        self.note(Key::Claims(holder.clone()));
        self.derived.claims.get(holder).map(|claims| &**claims)
    }

    /// The Gateways that take routes which ask for default Gateways.
    pub(super) fn default_gateways(&self) -> impl Iterator<Item = &'a ObjectName> + use<'a> {
        self.note(Key::DefaultGateways);
        self.derived.defaults.iter()
    }

    /// What those claim that share a port. The translator runs whoever asks again when these change.
    pub(super) fn sharing(&self, port: &Bind) -> impl Iterator<Item = &'a Claims> + use<'a> {
        let derived = self.derived;
        let holders = derived.sharing.get(port).into_iter().flatten();
        holders.filter_map(|holder| derived.claims.get(holder).map(|claims| &**claims))
    }

    /// What a listener loses to another holder.
    pub(super) fn conflict(&self, holder: &ObjectRef, port: &Bind, listener: &str) -> Option<&'a Conflict> {
        self.note(Key::Conflicts(holder.clone()));
        self.derived.ports.get(port)?.get(holder)?.get(listener)
    }

    /// The listeners of a Gateway or ListenerSet; `None` where it is not ours.
    pub(super) fn listeners(&self, holder: &ObjectRef) -> Option<&'a Listeners> {
        self.note(Key::Listeners(holder.clone()));
        self.derived.listeners.get(holder).map(|listeners| &**listeners)
    }

    /// The listeners of a Gateway or ListenerSet as routes see them; `None` where it is not ours.
    pub(super) fn attachable(&self, holder: &ObjectRef) -> Option<&'a Attachable> {
        self.note(Key::Attachable(holder.clone()));
        self.derived.listeners.get(holder).map(|listeners| &listeners.attachable)
    }

    /// An older route of the other kind that has a hostname which a route wants of a listener.
    pub(super) fn rival(
        &self,
        listener: (ObjectRef, String),
        route: (i64, &ObjectRef),
        wanted: &[HostPattern],
    ) -> Option<&'a ObjectRef> {
        let other = rival_of(route.1.kind)?;
        let found = self.derived.rivals.older(&listener, other, route, wanted);
        self.note(Key::Rivals(listener, other));
        found
    }

    /// How many routes are attached to a listener. The translator runs whoever asks again when that
    /// changes.
    pub(super) fn attached(&self, holder: &ObjectRef, listener: &str) -> u32 {
        self.derived.attached.get(holder).and_then(|counts| counts.get(listener)).copied().unwrap_or(0)
    }

    /// How many ListenerSets are attached to a Gateway. The translator runs whoever asks again when that
    /// changes.
    pub(super) fn attached_sets(&self, gateway: &ObjectName) -> u32 {
        self.derived.sets.get(gateway).copied().unwrap_or(0)
    }

    /// Whether a route names this port of a Service.
    pub(super) fn is_backend(&self, port: &BackendPort) -> bool {
        self.derived.backends.get(&port.service).is_some_and(|ports| ports.contains_key(port))
    }

    /// Whether a route names a Service.
    pub(super) fn has_backends(&self, service: &ObjectName) -> bool {
        self.derived.backends.contains_key(service)
    }

    /// Whether something names a Secret or ConfigMap, and may, for this.
    pub(super) fn is_wanted_as(&self, object: &ObjectRef, role: Role) -> bool {
        self.derived.wanted.get(object).is_some_and(|roles| roles.contains_key(&role))
    }

    /// Whether something names a Secret or ConfigMap and may.
    pub(super) fn is_wanted(&self, object: &ObjectRef) -> bool {
        self.derived.wanted.contains_key(object)
    }
}
