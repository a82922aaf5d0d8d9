//! The cluster as one value: ordered, persistent maps of what is used of each object.
//!
//! Owns the compact types of all kinds. The actors join their stores into it, [`crate::translate`]
//! reads it. It refuses to know where objects come from and what they lead to. Cloning is cheap, and so
//! is the difference between two snapshots that share most of their objects.

pub mod backend;
pub mod cluster;
pub mod gateway;
pub mod grpc_route;
pub mod http_route;
pub mod l4_route;
pub mod meta;
pub mod rule_extras;
pub mod tls_policy;
pub mod traffic_policy;

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use proxy_config::name::ObjectName;

use crate::observe::Malformed;
use backend::Backend;
use cluster::{
    ConfigMap, CustomResourceDefinition, EndpointSlice, Namespace, Node, Proxy, ReferenceGrant, Secret,
    Service,
};
use gateway::{EdgeParameters, Gateway, GatewayClass, ListenerSet};
use grpc_route::GrpcRoute;
use http_route::HttpRoute;
use l4_route::L4Route;
use meta::{GATEWAY_GROUP, Kind, Meta, ObjectRef};
use tls_policy::BackendTlsPolicy;
use traffic_policy::BackendTrafficPolicy;

pub(crate) fn gateway_group() -> String {
    GATEWAY_GROUP.into()
}

/// Objects of one kind, by name.
pub type Store<T> = OrdMap<ObjectName, Arc<T>>;

/// One line for each kind: its variant of [`Kind`] and of [`Object`], its type, its store in [`Snapshot`].
macro_rules! kinds {
    ($($(#[$doc:meta])+ $kind:ident: $type:ty => $store:ident,)+) => {
        /// An object of a kind that is observed.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Object {
            $($(#[$doc])+ $kind(Arc<$type>),)+
        }

        impl Object {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)+ }
            }

            /// Its metadata.
            pub fn meta(&self) -> &Meta {
                match self { $(Self::$kind(object) => &object.meta,)+ }
            }
        }

        /// The cluster at one moment.
        #[derive(Clone, Debug, Default)]
        pub struct Snapshot {
            /// Counts the snapshots of this process.
            pub generation: u64,
            $($(#[$doc])+ pub $store: Store<$type>,)+
            /// Objects that could not be read, with the reason.
            pub malformed: OrdMap<ObjectRef, Arc<Malformed>>,
        }

        impl Snapshot {
            fn has(&self, ObjectRef { kind, name }: &ObjectRef) -> bool {
                match kind { $(Kind::$kind => self.$store.contains_key(name),)+ }
            }

            fn names(&self, kind: Kind) -> Vec<ObjectName> {
                match kind { $(Kind::$kind => self.$store.keys().cloned().collect(),)+ }
            }

            fn put_object(&mut self, object: Object) -> bool {
                let name = object.meta().name.clone();
                match object { $(Object::$kind(object) => put_if_changed(&mut self.$store, name, object),)+ }
            }

            fn remove_object(&mut self, ObjectRef { kind, name }: &ObjectRef) -> bool {
                match kind { $(Kind::$kind => self.$store.remove(name).is_some(),)+ }
            }

            /// The objects that differ between two snapshots: cheap where they share most.
            pub fn differences(&self, new: &Self) -> BTreeSet<ObjectRef> {
                let mut changed = BTreeSet::new();
                $(changed.extend(
                    self.$store.diff(&new.$store).map(|item| ObjectRef::new(Kind::$kind, key_of(&item).clone())),
                );)+
                changed.extend(self.malformed.diff(&new.malformed).map(|item| key_of(&item).clone()));
                changed
            }
        }
    };
}

kinds! {
    /// CustomResourceDefinitions of Gateway API.
    CustomResourceDefinition: CustomResourceDefinition => crds,
    /// GatewayClasses.
    GatewayClass: GatewayClass => classes,
    /// EdgeParameters.
    EdgeParameters: EdgeParameters => parameters,
    /// Gateways.
    Gateway: Gateway => gateways,
    /// ListenerSets.
    ListenerSet: ListenerSet => listener_sets,
    /// HTTPRoutes.
    HttpRoute: HttpRoute => http_routes,
    /// GRPCRoutes.
    GrpcRoute: GrpcRoute => grpc_routes,
    /// TLSRoutes.
    TlsRoute: L4Route => tls_routes,
    /// TCPRoutes.
    TcpRoute: L4Route => tcp_routes,
    /// UDPRoutes.
    UdpRoute: L4Route => udp_routes,
    /// ReferenceGrants.
    ReferenceGrant: ReferenceGrant => grants,
    /// BackendTLSPolicies.
    BackendTlsPolicy: BackendTlsPolicy => tls_policies,
    /// XBackendTrafficPolicies.
    BackendTrafficPolicy: BackendTrafficPolicy => traffic_policies,
    /// XBackends.
    Backend: Backend => backends,
    /// Services.
    Service: Service => services,
    /// EndpointSlices.
    EndpointSlice: EndpointSlice => endpoint_slices,
    /// Namespaces.
    Namespace: Namespace => namespaces,
    /// Nodes.
    Node: Node => nodes,
    /// Secrets of type `kubernetes.io/tls`.
    Secret: Secret => secrets,
    /// ConfigMaps.
    ConfigMap: ConfigMap => config_maps,
    /// Our proxies.
    Proxy: Proxy => proxies,
}

impl Object {
    /// Its kind and name.
    pub fn reference(&self) -> ObjectRef {
        ObjectRef::new(self.kind(), self.meta().name.clone())
    }
}

impl Snapshot {
    /// Puts what was observed; returns whether anything that is used has changed (of the echo of a
    /// status that we wrote, a Gateway's addresses alone).
    pub fn put(&mut self, observed: Result<Object, Malformed>) -> bool {
        match observed {
            Ok(object) => {
                let unread = self.malformed.remove(&object.reference()).is_some();
                self.put_object(object) || unread
            }
            Err(malformed) => {
                let reference = malformed.reference.clone();
                let was_read = self.remove_object(&reference);
                put_if_changed(&mut self.malformed, reference, Arc::new(malformed)) || was_read
            }
        }
    }

    /// Removes an object; returns whether it was there.
    pub fn remove(&mut self, reference: &ObjectRef) -> bool {
        self.malformed.remove(reference).is_some() | self.remove_object(reference)
    }

    /// Whether an object is there, malformed or not.
    pub fn contains(&self, reference: &ObjectRef) -> bool {
        self.has(reference) || self.malformed.contains_key(reference)
    }

    /// Removes all objects of a kind.
    pub fn clear(&mut self, kind: Kind) {
        let references: Vec<_> = self.references(kind).collect();
        for reference in references {
            self.remove(&reference);
        }
    }

    /// The objects of a kind, malformed ones included.
    pub fn references(&self, kind: Kind) -> impl Iterator<Item = ObjectRef> {
        let names = self.names(kind);
        let malformed: Vec<_> = self.malformed.keys().filter(|other| other.kind == kind).cloned().collect();
        names.into_iter().map(move |name| ObjectRef::new(kind, name)).chain(malformed)
    }
}

/// Keeps the old value where the new one is equal, so that both snapshots share it.
fn put_if_changed<K: Ord + Clone, V: PartialEq>(map: &mut OrdMap<K, Arc<V>>, key: K, value: Arc<V>) -> bool {
    if map.get(&key).is_some_and(|old| *old == value) {
        return false;
    }
    map.insert(key, value);
    true
}

/// What a difference is about.
pub(crate) fn key_of<'a, K, V>(item: &DiffItem<'a, 'a, K, V>) -> &'a K {
    match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { new: (key, _), .. } => key,
    }
}
