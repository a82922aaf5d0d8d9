//! Reads what stands around routes: grants, Services and their endpoints, namespaces, nodes, Secrets, proxies.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use proxy_config::backend::{Endpoint, EndpointPort};
use proxy_config::name::ObjectName;
use serde::Deserialize;
use serde_json::Value;

use super::{Fault, MetadataOnly, Raw, RawMetadata, parse, read};
use crate::snapshot::Object;
use crate::snapshot::cluster::{
    ConfigMap, ConfigMapContent, EndpointSlice, GATEWAY_NAME, GatewayService, GrantFrom, GrantTo, MANAGED_BY,
    Namespace, Node, Proxy, ReferenceGrant, Secret, SecretContent, Service, ServicePort,
};
use crate::snapshot::meta::Meta;

/// The key under which ConfigMaps and Secrets hold authorities.
const AUTHORITY: &str = "ca.crt";

/// The label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn reference_grant(raw: &Value) -> Result<Object, Fault> {
    #[derive(Deserialize)]
    struct Spec {
        from: Vec<GrantFrom>,
        to: Vec<GrantTo>,
    }
    let Raw::<Spec> { metadata, spec } = read(raw)?;
    let grant = ReferenceGrant { meta: metadata.into(), from: spec.from, to: spec.to };
    Ok(Object::ReferenceGrant(Arc::new(grant)))
}

pub(super) fn service(raw: &Value) -> Result<Object, Fault> {
    #[derive(Deserialize)]
    struct Spec {
        #[serde(rename = "type", default)]
        kind: String,
        #[serde(default)]
        ports: Vec<ServicePort>,
    }
    let Raw::<Spec> { mut metadata, spec } = read(raw)?;
    let external_name = spec.kind == "ExternalName";
    let made = made(&mut metadata).map(Arc::new);
    Ok(Object::Service(Arc::new(Service { meta: metadata.into(), external_name, ports: spec.ports, made })))
}

/// What we made for a Gateway; of other Services labels and annotations are not kept.
fn made(metadata: &mut RawMetadata) -> Option<GatewayService> {
    let labels = metadata.labels.take()?;
    let (key, value) = MANAGED_BY;
    let ours = labels.get(key).is_some_and(|by| by == value) && labels.contains_key(GATEWAY_NAME);
    let owner = metadata.owner_references.take().unwrap_or_default().into_iter().next();
    let (gateway, owner) = owner.map(|owner| (owner.name, owner.uid)).unwrap_or_default();
    ours.then(|| GatewayService {
        gateway: gateway.into(),
        owner: owner.into(),
        labels,
        annotations: metadata.annotations.take().unwrap_or_default(),
    })
}

pub(super) fn endpoint_slice(raw: &Value) -> Result<Object, Fault> {
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
        // Ports are told apart by their names, whatever their protocol.
        if self.protocol.is_some_and(|protocol| !["TCP", "UDP"].contains(&&*protocol)) {
            return None;
        }
        Some(EndpointPort { name: self.name.filter(|name| !name.is_empty()), port: self.port? })
    }
}

pub(super) fn namespace(raw: &Value) -> Result<Object, Fault> {
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

pub(super) fn node(raw: &Value) -> Result<Object, Fault> {
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

pub(super) fn secret(raw: &Value) -> Result<Object, Fault> {
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
        (kind, _, _) => {
            let kind = kind.unwrap_or("Opaque");
            SecretContent::Other(format!("its type is `{kind}`, not kubernetes.io/tls"))
        }
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
    let authority = Some(field(AUTHORITY)?).filter(|bundle| !bundle.is_empty());
    Ok(SecretContent::Tls { chain: field("tls.crt")?, key: field("tls.key")?, authority })
}

/// Of a ConfigMap nothing is used but authorities.
pub(super) fn config_map(raw: &Value) -> Result<Object, Fault> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RawConfigMap {
        metadata: RawMetadata,
        #[serde(default)]
        data: Option<BTreeMap<String, String>>,
        #[serde(default)]
        binary_data: Option<BTreeMap<String, String>>,
    }
    let RawConfigMap { metadata, data, binary_data } = parse(raw)?;
    // What is known by its metadata alone has no kind either.
    let content = if data.is_none() && binary_data.is_none() && raw.get("kind").is_none() {
        ConfigMapContent::NotRead
    } else {
        let text = data.unwrap_or_default().remove(AUTHORITY);
        let encoded = binary_data.unwrap_or_default().remove(AUTHORITY);
        ConfigMapContent::Authority(match (text, encoded) {
            (Some(text), _) => Some(text.into_bytes()),
            (None, Some(encoded)) => decode_base64(&encoded),
            (None, None) => None,
        })
    };
    Ok(Object::ConfigMap(Arc::new(ConfigMap { meta: metadata.into(), content })))
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    let compact: String = text.split_ascii_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(compact).ok()
}

pub(super) fn proxy(raw: &Value) -> Result<Object, Fault> {
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
    if metadata.uid.is_empty() {
        return Err(("metadata.uid".to_owned(), "is missing: a proxy is known by it".to_owned()));
    }
    Ok(Object::Proxy(Arc::new(Proxy {
        identity: metadata.uid.clone(),
        meta: metadata.into(),
        node: spec.node_name,
        address: status.host_ip,
        ready: is_ready(&status.conditions),
    })))
}
