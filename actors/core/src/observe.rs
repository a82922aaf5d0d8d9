//! From a raw object to the compact type that is used of it.
//!
//! The watchers call it for every object they see. An object that can't be read becomes a [`Malformed`]
//! of its own, which names the field; it never stops the others. It refuses to know how objects came.

mod cluster;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use proxy_config::name::ObjectName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::snapshot::Object;
use crate::snapshot::backend::Backend;
use crate::snapshot::cluster::CustomResourceDefinition;
use crate::snapshot::gateway::{EdgeParameters, Gateway, GatewayClass, ListenerSet, ParametersRef};
use crate::snapshot::grpc_route::GrpcRoute;
use crate::snapshot::http_route::{HttpRoute, ParentRef};
use crate::snapshot::l4_route::L4Route;
use crate::snapshot::meta::{Kind, Meta, ObjectRef};
use crate::snapshot::tls_policy::BackendTlsPolicy;
use crate::snapshot::traffic_policy::BackendTrafficPolicy;

/// An object that could not be read. It is kept, so that its own status can say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Which object.
    pub reference: ObjectRef,
    /// Its metadata, as far as it could be read.
    pub meta: Box<Meta>,
    /// The field, for example `spec.rules[0].matches[1].path.value`; empty: the object as a whole.
    pub field: Box<str>,
    /// What is wrong there.
    pub reason: Box<str>,
    /// What it names, as far as that could be read.
    pub named: Box<Named>,
}

/// What an object that could not be read names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The GatewayClass of a Gateway, or the controller of a GatewayClass.
    pub owner: Option<Box<str>>,
    /// The parents of a route, or the one of a ListenerSet.
    pub parents: Vec<ParentRef>,
    /// The hostnames of a route; `None`: they can't be read.
    pub hostnames: Option<Vec<String>>,
}

impl Malformed {
    /// An object that could not be read for a reason of the caller's, such as a panic.
    pub fn new(kind: Kind, raw: &Value, field: impl Into<Box<str>>, reason: impl Into<Box<str>>) -> Self {
        let metadata: RawMetadata = raw.get("metadata").map(lenient_metadata).unwrap_or_default();
        let meta = Box::new(Meta::from(metadata));
        let text = |path: &str| raw.pointer(path).and_then(Value::as_str).map(Box::from);
        let owner = match kind {
            Kind::Gateway => text("/spec/gatewayClassName"),
            Kind::GatewayClass => text("/spec/controllerName"),
            _ => None,
        };
        let parents = raw.pointer("/spec/parentRefs").and_then(Value::as_array).into_iter().flatten();
        let parents = parents.chain(raw.pointer("/spec/parentRef"));
        let parents = parents.filter_map(|parent| ParentRef::deserialize(parent).ok()).collect();
        let hostnames = match raw.pointer("/spec/hostnames") {
            Some(hostnames) => Deserialize::deserialize(hostnames).ok(),
            None => Some(Vec::new()),
        };
        let reference = ObjectRef::new(kind, meta.name.clone());
        let named = Box::new(Named { owner, parents, hostnames });
        Self { reference, meta, field: field.into(), reason: reason.into(), named }
    }

    /// Field and reason in one sentence.
    pub fn message(&self) -> String {
        if self.field.is_empty() {
            self.reason.to_string()
        } else {
            format!("{}: {}", self.field, self.reason)
        }
    }
}

/// Reads an object of a kind.
///
/// # Errors
/// Where a field that is used is missing or not what it must be.
pub fn observe(kind: Kind, raw: &Value) -> Result<Object, Malformed> {
    let object = match kind {
        Kind::CustomResourceDefinition => custom_resource_definition(raw),
        Kind::GatewayClass => gateway_class(raw),
        Kind::EdgeParameters => edge_parameters(raw),
        Kind::Gateway => {
            whole(raw, |meta, spec| Object::Gateway(Arc::new(Gateway { meta, spec, held: held(raw) })))
        }
        Kind::ListenerSet => {
            whole(raw, |meta, spec| Object::ListenerSet(Arc::new(ListenerSet { meta, spec })))
        }
        Kind::HttpRoute => whole(raw, |meta, spec| Object::HttpRoute(Arc::new(HttpRoute { meta, spec }))),
        Kind::GrpcRoute => whole(raw, |meta, spec| Object::GrpcRoute(Arc::new(GrpcRoute { meta, spec }))),
        Kind::TlsRoute => whole(raw, |meta, spec| Object::TlsRoute(Arc::new(L4Route { meta, spec }))),
        Kind::TcpRoute => whole(raw, |meta, spec| Object::TcpRoute(Arc::new(L4Route { meta, spec }))),
        Kind::UdpRoute => whole(raw, |meta, spec| Object::UdpRoute(Arc::new(L4Route { meta, spec }))),
        Kind::BackendTlsPolicy => {
            whole(raw, |meta, spec| Object::BackendTlsPolicy(Arc::new(BackendTlsPolicy { meta, spec })))
        }
        Kind::BackendTrafficPolicy => whole(raw, |meta, spec| {
            Object::BackendTrafficPolicy(Arc::new(BackendTrafficPolicy { meta, spec }))
        }),
        Kind::Backend => whole(raw, |meta, spec| Object::Backend(Arc::new(Backend { meta, spec }))),
        Kind::ConfigMap => cluster::config_map(raw),
        Kind::ReferenceGrant => cluster::reference_grant(raw),
        Kind::Service => cluster::service(raw),
        Kind::EndpointSlice => cluster::endpoint_slice(raw),
        Kind::Namespace => cluster::namespace(raw),
        Kind::Node => cluster::node(raw),
        Kind::Secret => cluster::secret(raw),
        Kind::Proxy => cluster::proxy(raw),
    };
    object.map_err(|(field, reason)| Malformed::new(kind, raw, field, reason))
}

/// The addresses that a Gateway's status lists: ours alone writes it, so that what can't be read is not there.
fn held(gateway: &Value) -> Vec<IpAddr> {
    let listed = gateway.pointer("/status/addresses").and_then(Value::as_array).into_iter().flatten();
    listed.filter_map(|address| address["value"].as_str()?.parse().ok()).collect()
}

type Fault = (String, String);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMetadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    creation_timestamp: Option<Timestamp>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    owner_references: Option<Vec<RawOwner>>,
}

#[derive(Deserialize)]
struct RawOwner {
    name: String,
    uid: String,
}

impl From<RawMetadata> for Meta {
    fn from(raw: RawMetadata) -> Self {
        Self {
            name: ObjectName::new(raw.namespace, raw.name),
            uid: raw.uid.into(),
            generation: raw.generation,
            resource_version: raw.resource_version.into(),
            created: raw.creation_timestamp.map_or(0, Timestamp::as_second),
        }
    }
}

/// Name, identity and age alone, from metadata that as a whole can't be read. What has no age that can be read
/// takes nothing from what is older.
fn lenient_metadata(metadata: &Value) -> RawMetadata {
    RawMetadata::deserialize(metadata).unwrap_or_else(|_| {
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        RawMetadata {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            generation: metadata.get("generation").and_then(Value::as_i64).unwrap_or_default(),
            creation_timestamp: text("creationTimestamp").parse::<Timestamp>().ok().or(Some(Timestamp::MAX)),
            ..RawMetadata::default()
        }
    })
}

#[derive(Deserialize)]
struct Raw<S> {
    metadata: RawMetadata,
    spec: S,
}

#[derive(Deserialize)]
struct MetadataOnly {
    metadata: RawMetadata,
}

fn parse<T: DeserializeOwned>(raw: &Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(raw).map_err(|error| {
        let field = error.path().to_string();
        (if field == "." { String::new() } else { field }, error.into_inner().to_string())
    })
}

fn read<S: DeserializeOwned>(raw: &Value) -> Result<Raw<S>, Fault> {
    parse(raw)
}

/// An object whose spec is used as it is read.
fn whole<S: DeserializeOwned>(raw: &Value, make: impl FnOnce(Meta, S) -> Object) -> Result<Object, Fault> {
    read(raw).map(|Raw { metadata, spec }| make(metadata.into(), spec))
}

fn custom_resource_definition(raw: &Value) -> Result<Object, Fault> {
    let MetadataOnly { mut metadata } = parse(raw)?;
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    let bundle_version = annotations.remove("gateway.networking.k8s.io/bundle-version");
    let channel = annotations.remove("gateway.networking.k8s.io/channel");
    let meta = metadata.into();
    Ok(Object::CustomResourceDefinition(Arc::new(CustomResourceDefinition { meta, bundle_version, channel })))
}

fn gateway_class(raw: &Value) -> Result<Object, Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        controller_name: String,
        #[serde(default)]
        parameters_ref: Option<ParametersRef>,
    }
    let Raw::<Spec> { metadata, spec } = read(raw)?;
    let (controller, parameters) = (spec.controller_name, spec.parameters_ref);
    Ok(Object::GatewayClass(Arc::new(GatewayClass { meta: metadata.into(), controller, parameters })))
}

fn edge_parameters(raw: &Value) -> Result<Object, Fault> {
    let Raw::<actors_api::edge::EdgeParametersSpec> { metadata, spec } = read(raw)?;
    let address_provider = spec.address_provider;
    Ok(Object::EdgeParameters(Arc::new(EdgeParameters { meta: metadata.into(), address_provider })))
}

#[cfg(test)]
mod tests;
