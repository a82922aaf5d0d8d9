//! From a raw object to the compact type that is used of it.
//!
//! The watchers call it for every object they see. An object that can't be read becomes a [`Malformed`]
//! of its own, which names the field; it never stops the others. It refuses to know how objects came.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use proxy_config::backend::{Endpoint, EndpointPort};
use proxy_config::name::ObjectName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::snapshot::Object;
use crate::snapshot::cluster::{
    CustomResourceDefinition, EndpointSlice, GrantFrom, GrantTo, Namespace, Node, Proxy, ReferenceGrant,
    Secret, SecretContent, Service, ServicePort,
};
use crate::snapshot::gateway::{EdgeParameters, Gateway, GatewayClass, GatewaySpec, ParametersRef};
use crate::snapshot::http_route::{HttpRoute, HttpRouteSpec, ParentRef};
use crate::snapshot::meta::{Kind, Meta, ObjectRef};

/// The label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An object that could not be read. It is kept, so that its own status can say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Which object.
    pub reference: ObjectRef,
    /// Its metadata, as far as it could be read.
    pub meta: Meta,
    /// The field, for example `spec.rules[0].matches[1].path.value`; empty: the object as a whole.
    pub field: String,
    /// What is wrong there.
    pub reason: String,
    /// The GatewayClass that a Gateway names, or the controller that a GatewayClass names.
    pub owner: Option<String>,
    /// The parents of a route.
    pub parents: Vec<ParentRef>,
}

impl Malformed {
    /// An object that could not be read for a reason of the caller's, such as a panic.
    pub fn new(kind: Kind, raw: &Value, field: impl Into<String>, reason: impl Into<String>) -> Self {
        let metadata: RawMetadata = raw.get("metadata").map(lenient_metadata).unwrap_or_default();
        let meta = Meta::from(metadata);
        let text = |path: &str| raw.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let owner = match kind {
            Kind::Gateway => text("/spec/gatewayClassName"),
            Kind::GatewayClass => text("/spec/controllerName"),
            _ => None,
        };
        let parents = raw.pointer("/spec/parentRefs").and_then(Value::as_array).into_iter().flatten();
        let parents = parents.filter_map(|parent| ParentRef::deserialize(parent).ok()).collect();
        let reference = ObjectRef::new(kind, meta.name.clone());
        Self { reference, meta, field: field.into(), reason: reason.into(), owner, parents }
    }

    /// Field and reason in one sentence.
    pub fn message(&self) -> String {
        if self.field.is_empty() { self.reason.clone() } else { format!("{}: {}", self.field, self.reason) }
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
        Kind::Gateway => read::<GatewaySpec>(raw)
            .map(|Raw { metadata, spec }| Object::Gateway(Arc::new(Gateway { meta: metadata.into(), spec }))),
        Kind::HttpRoute => read::<HttpRouteSpec>(raw).map(|Raw { metadata, spec }| {
            Object::HttpRoute(Arc::new(HttpRoute { meta: metadata.into(), spec }))
        }),
        Kind::ReferenceGrant => reference_grant(raw),
        Kind::Service => service(raw),
        Kind::EndpointSlice => endpoint_slice(raw),
        Kind::Namespace => namespace(raw),
        Kind::Node => node(raw),
        Kind::Secret => secret(raw),
        Kind::Proxy => proxy(raw),
    };
    object.map_err(|(field, reason)| Malformed::new(kind, raw, field, reason))
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

/// Name and identity alone, from metadata that as a whole can't be read.
fn lenient_metadata(metadata: &Value) -> RawMetadata {
    RawMetadata::deserialize(metadata).unwrap_or_else(|_| {
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        RawMetadata {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            generation: metadata.get("generation").and_then(Value::as_i64).unwrap_or_default(),
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

fn reference_grant(raw: &Value) -> Result<Object, Fault> {
    #[derive(Deserialize)]
    struct Spec {
        from: Vec<GrantFrom>,
        to: Vec<GrantTo>,
    }
    let Raw::<Spec> { metadata, spec } = read(raw)?;
    let grant = ReferenceGrant { meta: metadata.into(), from: spec.from, to: spec.to };
    Ok(Object::ReferenceGrant(Arc::new(grant)))
}

fn service(raw: &Value) -> Result<Object, Fault> {
    #[derive(Deserialize)]
    struct Spec {
        #[serde(rename = "type", default)]
        kind: String,
        #[serde(default)]
        ports: Vec<ServicePort>,
    }
    let Raw::<Spec> { metadata, spec } = read(raw)?;
    let external_name = spec.kind == "ExternalName";
    Ok(Object::Service(Arc::new(Service { meta: metadata.into(), external_name, ports: spec.ports })))
}

fn endpoint_slice(raw: &Value) -> Result<Object, Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RawSlice {
        metadata: RawMetadata,
        address_type: String,
        #[serde(default)]
        endpoints: Option<Vec<RawEndpoint>>,
        #[serde(default)]
        ports: Option<Vec<RawPort>>,
    }
    let mut slice: RawSlice = parse(raw)?;
    let ports = slice.ports.take().unwrap_or_default().into_iter().filter_map(RawPort::compact).collect();
    let mut endpoints = Vec::new();
    // The address type FQDN is deprecated and has no address to dial.
    if slice.address_type != "FQDN" {
        for (index, endpoint) in slice.endpoints.unwrap_or_default().into_iter().enumerate() {
            endpoints.push(
                endpoint.compact().map_err(|reason| (format!("endpoints[{index}].addresses[0]"), reason))?,
            );
        }
    }
    endpoints.sort_by_key(|endpoint: &Endpoint| endpoint.address);
    endpoints.dedup_by_key(|endpoint| endpoint.address);
    let service = slice.metadata.labels.as_mut().and_then(|labels| labels.remove(SERVICE_NAME));
    let meta = Meta::from(slice.metadata);
    let service = service.map(|name| ObjectName::new(meta.name.namespace.clone(), name));
    Ok(Object::EndpointSlice(Arc::new(EndpointSlice { meta, service, ports, endpoints })))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEndpoint {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Option<RawConditions>,
    #[serde(default)]
    zone: Option<String>,
}

#[derive(Default, Deserialize)]
struct RawConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl RawEndpoint {
    /// Only the first address counts: consumers must treat all of one endpoint as fungible.
    /// Source: discovery.k8s.io/v1 Endpoint; an unknown `ready` and `serving` mean true.
    fn compact(self) -> Result<Endpoint, String> {
        let conditions = self.conditions.unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let address = self.addresses.first().ok_or("an endpoint needs an address")?;
        Ok(Endpoint {
            address: address.parse().map_err(|_| format!("`{address}` is not an IP address"))?,
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            zone: self.zone,
        })
    }
}

#[derive(Deserialize)]
struct RawPort {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    protocol: Option<String>,
}

impl RawPort {
    fn compact(self) -> Option<EndpointPort> {
        if self.protocol.is_some_and(|protocol| protocol != "TCP") {
            return None;
        }
        Some(EndpointPort { name: self.name.filter(|name| !name.is_empty()), port: self.port? })
    }
}

fn namespace(raw: &Value) -> Result<Object, Fault> {
    let MetadataOnly { mut metadata } = parse(raw)?;
    let labels = metadata.labels.take().unwrap_or_default();
    Ok(Object::Namespace(Arc::new(Namespace { meta: metadata.into(), labels })))
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

fn is_ready(conditions: &[Condition]) -> bool {
    conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
}

fn node(raw: &Value) -> Result<Object, Fault> {
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        addresses: Vec<Address>,
        #[serde(default)]
        conditions: Vec<Condition>,
    }
    #[derive(Deserialize)]
    struct Address {
        #[serde(rename = "type")]
        kind: String,
        address: String,
    }
    #[derive(Deserialize)]
    struct RawNode {
        metadata: RawMetadata,
        #[serde(default)]
        status: Status,
    }
    let RawNode { metadata, status } = parse(raw)?;
    let internal = status.addresses.iter().filter(|address| address.kind == "InternalIP");
    let addresses = internal.filter_map(|address| address.address.parse().ok()).collect();
    let ready = is_ready(&status.conditions);
    Ok(Object::Node(Arc::new(Node { meta: metadata.into(), addresses, ready })))
}

fn secret(raw: &Value) -> Result<Object, Fault> {
    #[derive(Deserialize)]
    struct RawSecret {
        metadata: RawMetadata,
        #[serde(rename = "type", default)]
        kind: Option<String>,
        #[serde(default)]
        data: Option<BTreeMap<String, String>>,
        #[serde(rename = "stringData", default)]
        string_data: Option<BTreeMap<String, String>>,
    }
    let RawSecret { metadata, kind, data, string_data } = parse(raw)?;
    let content = match (kind.as_deref(), data, string_data) {
        (Some("kubernetes.io/tls") | None, None, None) => SecretContent::NotRead,
        (Some("kubernetes.io/tls"), data, text) => {
            tls_content(data.unwrap_or_default(), text.unwrap_or_default())?
        }
        (kind, _, _) => SecretContent::Other(kind.unwrap_or("Opaque").to_owned()),
    };
    Ok(Object::Secret(Arc::new(Secret { meta: metadata.into(), content })))
}

fn tls_content(
    data: BTreeMap<String, String>,
    text: BTreeMap<String, String>,
) -> Result<SecretContent, Fault> {
    let field = |name: &str| match (text.get(name), data.get(name)) {
        (Some(text), _) => Ok(text.clone().into_bytes()),
        (None, Some(encoded)) => {
            decode_base64(encoded).ok_or_else(|| (format!("data.{name}"), "is not base64".to_owned()))
        }
        (None, None) => Ok(Vec::new()),
    };
    Ok(SecretContent::Tls { chain: field("tls.crt")?, key: field("tls.key")? })
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    let compact: String = text.split_ascii_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(compact).ok()
}

fn proxy(raw: &Value) -> Result<Object, Fault> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        #[serde(default)]
        node_name: Option<String>,
    }
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(rename = "hostIP", default)]
        host_ip: Option<IpAddr>,
        #[serde(default)]
        conditions: Vec<Condition>,
    }
    #[derive(Deserialize)]
    struct Pod {
        metadata: RawMetadata,
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    let Pod { metadata, spec, status } = parse(raw)?;
    Ok(Object::Proxy(Arc::new(Proxy {
        identity: metadata.uid.clone(),
        meta: metadata.into(),
        node: spec.node_name,
        address: status.host_ip,
        ready: is_ready(&status.conditions),
    })))
}
