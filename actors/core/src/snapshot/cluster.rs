//! What stands around routes: grants, Services with their endpoints, namespaces, nodes, Secrets, proxies.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use proxy_config::backend::{Endpoint, EndpointPort};
use proxy_config::name::ObjectName;
use serde::Deserialize;

use super::meta::Meta;

/// A CustomResourceDefinition: which version and channel of Gateway API is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomResourceDefinition {
    /// Its metadata.
    pub meta: Meta,
    /// The annotation `gateway.networking.k8s.io/bundle-version`.
    pub bundle_version: Option<String>,
    /// The annotation `gateway.networking.k8s.io/channel`.
    pub channel: Option<String>,
}

/// A ReferenceGrant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Its metadata.
    pub meta: Meta,
    /// Who may refer.
    pub from: Vec<GrantFrom>,
    /// To what.
    pub to: Vec<GrantTo>,
}

/// Who may refer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct GrantFrom {
    /// The API group.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The namespace.
    pub namespace: String,
}

/// What may be referred to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct GrantTo {
    /// The API group.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// One object; `None`: every one in the grant's namespace.
    #[serde(default)]
    pub name: Option<String>,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its metadata.
    pub meta: Meta,
    /// Whether it is of type ExternalName, which has no endpoints.
    pub external_name: bool,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Set where it is one that we made for a Gateway.
    pub made: Option<Arc<GatewayService>>,
}

/// The Service that a Gateway owns: what carries the labels and annotations of its infrastructure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayService {
    /// The Gateway's name.
    pub gateway: Arc<str>,
    /// The Gateway's uid.
    pub owner: Arc<str>,
    /// Its labels, with those that tell whose it is.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The label that names a Gateway. Source: GEP-1762.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// The label that says who made an object, and what we write there.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "portreeve");

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name; `None` where it is the only one.
    #[serde(default)]
    pub name: Option<String>,
    /// The port.
    pub port: u16,
    /// `TCP` (the default), `UDP` or `SCTP`.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// What is spoken there.
    #[serde(default)]
    pub app_protocol: Option<String>,
}

fn tcp() -> String {
    "TCP".into()
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its metadata.
    pub meta: Meta,
    /// The Service that it belongs to; `None` where its label is missing.
    pub service: Option<ObjectName>,
    /// Ports of TCP and UDP.
    pub ports: Vec<EndpointPort>,
    /// Endpoints by address.
    pub endpoints: Vec<Endpoint>,
}

/// A Namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its metadata.
    pub meta: Meta,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its metadata.
    pub meta: Meta,
    /// Its internal addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether its condition Ready is True.
    pub ready: bool,
}

/// One of our proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its metadata: of its Pod, or made from the name on the command line.
    pub meta: Meta,
    /// Who it is on the wire: its pod's uid, or the name on the command line.
    pub identity: String,
    /// The node that it runs on, where known.
    pub node: Option<String>,
    /// The address that it can be reached at.
    pub address: Option<IpAddr>,
    /// Whether it is ready to serve.
    pub ready: bool,
}

/// A Secret of type `kubernetes.io/tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Its metadata.
    pub meta: Meta,
    /// What it holds.
    pub content: SecretContent,
}

/// The content of a Secret.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretContent {
    /// Known by its metadata alone: it is read once something that is accepted and granted names it.
    NotRead,
    /// It could not be read yet, for this reason: nothing is known of what it holds, and it is tried again.
    Unavailable(String),
    /// A certificate and its key, as written.
    Tls {
        /// `tls.crt`.
        chain: Vec<u8>,
        /// `tls.key`.
        key: Vec<u8>,
        /// `ca.crt`, where it is there.
        authority: Option<Vec<u8>>,
    },
    /// Something that can't be served, for this reason.
    Other(String),
}

/// Shows no key.
impl fmt::Debug for SecretContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRead => f.write_str("NotRead"),
            Self::Unavailable(why) => f.debug_tuple("Unavailable").field(why).finish(),
            Self::Tls { chain, .. } => write!(f, "Tls {{ chain: {} bytes, .. }}", chain.len()),
            Self::Other(what) => f.debug_tuple("Other").field(what).finish(),
        }
    }
}

/// A ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMap {
    /// Its metadata.
    pub meta: Meta,
    /// What it holds.
    pub content: ConfigMapContent,
}

/// The content of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigMapContent {
    /// Known by its metadata alone: it is read once something that is accepted and granted names it.
    NotRead,
    /// It could not be read yet, for this reason: nothing is known of what it holds, and it is tried again.
    Unavailable(String),
    /// Its `ca.crt`, where it is there.
    Authority(Option<Vec<u8>>),
    /// It could not be read, for this reason.
    Other(String),
}
