//! The cluster as one value: ordered, persistent maps of what is used of each object.
//!
//! Owns the compact types of all kinds. The actors join their stores into it, [`crate::translate`]
//! reads it. It refuses to know where objects come from and what they lead to. Cloning is cheap, and so
//! is the difference between two snapshots that share most of their objects.

pub mod cluster;
pub mod gateway;
pub mod http_route;
pub mod meta;

use std::sync::Arc;

use imbl::OrdMap;
use proxy_config::name::ObjectName;

use crate::observe::Malformed;
use cluster::{
    CustomResourceDefinition, EndpointSlice, Namespace, Node, Proxy, ReferenceGrant, Secret, Service,
};
use gateway::{EdgeParameters, Gateway, GatewayClass};
use http_route::HttpRoute;
use meta::{GATEWAY_GROUP, Kind, Meta, ObjectRef};

pub(crate) fn gateway_group() -> String {
    GATEWAY_GROUP.into()
}

/// Reads whether a field is there, whatever it holds.
pub(crate) fn is_present<'de, D: serde::Deserializer<'de>>(field: D) -> Result<bool, D::Error> {
    serde::Deserialize::deserialize(field).map(|value: Option<serde::de::IgnoredAny>| value.is_some())
}

/// Objects of one kind, by name.
pub type Store<T> = OrdMap<ObjectName, Arc<T>>;

/// An object of a kind that is observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A CustomResourceDefinition.
    CustomResourceDefinition(Arc<CustomResourceDefinition>),
    /// A GatewayClass.
    GatewayClass(Arc<GatewayClass>),
    /// EdgeParameters.
    EdgeParameters(Arc<EdgeParameters>),
    /// A Gateway.
    Gateway(Arc<Gateway>),
    /// An HTTPRoute.
    HttpRoute(Arc<HttpRoute>),
    /// A ReferenceGrant.
    ReferenceGrant(Arc<ReferenceGrant>),
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// A Namespace.
    Namespace(Arc<Namespace>),
    /// A Node.
    Node(Arc<Node>),
    /// A Secret.
    Secret(Arc<Secret>),
    /// A proxy.
    Proxy(Arc<Proxy>),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::CustomResourceDefinition(_) => Kind::CustomResourceDefinition,
            Self::GatewayClass(_) => Kind::GatewayClass,
            Self::EdgeParameters(_) => Kind::EdgeParameters,
            Self::Gateway(_) => Kind::Gateway,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::ReferenceGrant(_) => Kind::ReferenceGrant,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::Secret(_) => Kind::Secret,
            Self::Proxy(_) => Kind::Proxy,
        }
    }

    /// Its metadata.
    pub fn meta(&self) -> &Meta {
        match self {
            Self::CustomResourceDefinition(object) => &object.meta,
            Self::GatewayClass(object) => &object.meta,
            Self::EdgeParameters(object) => &object.meta,
            Self::Gateway(object) => &object.meta,
            Self::HttpRoute(object) => &object.meta,
            Self::ReferenceGrant(object) => &object.meta,
            Self::Service(object) => &object.meta,
            Self::EndpointSlice(object) => &object.meta,
            Self::Namespace(object) => &object.meta,
            Self::Node(object) => &object.meta,
            Self::Secret(object) => &object.meta,
            Self::Proxy(object) => &object.meta,
        }
    }

    /// Its kind and name.
    pub fn reference(&self) -> ObjectRef {
        ObjectRef::new(self.kind(), self.meta().name.clone())
    }
}

/// The cluster at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts the snapshots of this process.
    pub generation: u64,
    /// CustomResourceDefinitions of Gateway API.
    pub crds: Store<CustomResourceDefinition>,
    /// GatewayClasses.
    pub classes: Store<GatewayClass>,
    /// EdgeParameters.
    pub parameters: Store<EdgeParameters>,
    /// Gateways.
    pub gateways: Store<Gateway>,
    /// HTTPRoutes.
    pub http_routes: Store<HttpRoute>,
    /// ReferenceGrants.
    pub grants: Store<ReferenceGrant>,
    /// Services.
    pub services: Store<Service>,
    /// EndpointSlices.
    pub endpoint_slices: Store<EndpointSlice>,
    /// Namespaces.
    pub namespaces: Store<Namespace>,
    /// Nodes.
    pub nodes: Store<Node>,
    /// Secrets of type `kubernetes.io/tls`.
    pub secrets: Store<Secret>,
    /// Our proxies.
    pub proxies: Store<Proxy>,
    /// Objects that could not be read, with the reason.
    pub malformed: OrdMap<ObjectRef, Arc<Malformed>>,
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
        let name = &reference.name;
        let is_read = match reference.kind {
            Kind::CustomResourceDefinition => self.crds.contains_key(name),
            Kind::GatewayClass => self.classes.contains_key(name),
            Kind::EdgeParameters => self.parameters.contains_key(name),
            Kind::Gateway => self.gateways.contains_key(name),
            Kind::HttpRoute => self.http_routes.contains_key(name),
            Kind::ReferenceGrant => self.grants.contains_key(name),
            Kind::Service => self.services.contains_key(name),
            Kind::EndpointSlice => self.endpoint_slices.contains_key(name),
            Kind::Namespace => self.namespaces.contains_key(name),
            Kind::Node => self.nodes.contains_key(name),
            Kind::Secret => self.secrets.contains_key(name),
            Kind::Proxy => self.proxies.contains_key(name),
        };
        is_read || self.malformed.contains_key(reference)
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
        let names: Vec<ObjectName> = match kind {
            Kind::CustomResourceDefinition => self.crds.keys().cloned().collect(),
            Kind::GatewayClass => self.classes.keys().cloned().collect(),
            Kind::EdgeParameters => self.parameters.keys().cloned().collect(),
            Kind::Gateway => self.gateways.keys().cloned().collect(),
            Kind::HttpRoute => self.http_routes.keys().cloned().collect(),
            Kind::ReferenceGrant => self.grants.keys().cloned().collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.endpoint_slices.keys().cloned().collect(),
            Kind::Namespace => self.namespaces.keys().cloned().collect(),
            Kind::Node => self.nodes.keys().cloned().collect(),
            Kind::Secret => self.secrets.keys().cloned().collect(),
            Kind::Proxy => self.proxies.keys().cloned().collect(),
        };
        let malformed: Vec<_> = self.malformed.keys().filter(|other| other.kind == kind).cloned().collect();
        names.into_iter().map(move |name| ObjectRef::new(kind, name)).chain(malformed)
    }

    fn put_object(&mut self, object: Object) -> bool {
        let name = object.meta().name.clone();
        match object {
            Object::CustomResourceDefinition(object) => put_if_changed(&mut self.crds, name, object),
            Object::GatewayClass(object) => put_if_changed(&mut self.classes, name, object),
            Object::EdgeParameters(object) => put_if_changed(&mut self.parameters, name, object),
            Object::Gateway(object) => put_if_changed(&mut self.gateways, name, object),
            Object::HttpRoute(object) => put_if_changed(&mut self.http_routes, name, object),
            Object::ReferenceGrant(object) => put_if_changed(&mut self.grants, name, object),
            Object::Service(object) => put_if_changed(&mut self.services, name, object),
            Object::EndpointSlice(object) => put_if_changed(&mut self.endpoint_slices, name, object),
            Object::Namespace(object) => put_if_changed(&mut self.namespaces, name, object),
            Object::Node(object) => put_if_changed(&mut self.nodes, name, object),
            Object::Secret(object) => put_if_changed(&mut self.secrets, name, object),
            Object::Proxy(object) => put_if_changed(&mut self.proxies, name, object),
        }
    }

    fn remove_object(&mut self, ObjectRef { kind, name }: &ObjectRef) -> bool {
        match kind {
            Kind::CustomResourceDefinition => self.crds.remove(name).is_some(),
            Kind::GatewayClass => self.classes.remove(name).is_some(),
            Kind::EdgeParameters => self.parameters.remove(name).is_some(),
            Kind::Gateway => self.gateways.remove(name).is_some(),
            Kind::HttpRoute => self.http_routes.remove(name).is_some(),
            Kind::ReferenceGrant => self.grants.remove(name).is_some(),
            Kind::Service => self.services.remove(name).is_some(),
            Kind::EndpointSlice => self.endpoint_slices.remove(name).is_some(),
            Kind::Namespace => self.namespaces.remove(name).is_some(),
            Kind::Node => self.nodes.remove(name).is_some(),
            Kind::Secret => self.secrets.remove(name).is_some(),
            Kind::Proxy => self.proxies.remove(name).is_some(),
        }
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
