//! GatewayClasses, their parameters, and Gateways, as far as they are used.

use std::net::IpAddr;

use serde::Deserialize;

use super::http_route::ParentRef;
use super::meta::Meta;

/// A GatewayClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayClass {
    /// Its metadata.
    pub meta: Meta,
    /// Who implements it.
    pub controller: String,
    /// The EdgeParameters that it names.
    pub parameters: Option<ParametersRef>,
}

/// A reference to parameters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ParametersRef {
    /// The API group.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The namespace, where the kind has one.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// Parameters of a class (cluster-scoped, `portreeve.dev/v1alpha1`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeParameters {
    /// Their metadata.
    pub meta: Meta,
    /// Where addresses come from.
    pub address_provider: actors_api::edge::AddressProvider,
}

/// A Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its metadata.
    pub meta: Meta,
    /// What is wanted.
    pub spec: GatewaySpec,
    /// The addresses that its status lists.
    pub held: Vec<IpAddr>,
}

/// What is wanted of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// The class.
    pub gateway_class_name: String,
    /// The listeners.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// The addresses asked for.
    #[serde(default)]
    pub addresses: Vec<GatewayAddress>,
    /// What is to be made for it.
    #[serde(default)]
    pub infrastructure: Option<Infrastructure>,
    /// Which ListenerSets may attach.
    #[serde(default)]
    pub allowed_listeners: AllowedListeners,
    /// `All`: it takes routes that ask for default Gateways. Source: GEP-3793.
    #[serde(default)]
    pub default_scope: Option<String>,
    /// TLS of the whole Gateway.
    #[serde(default)]
    pub tls: GatewayTls,
}

/// A ListenerSet: further listeners of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSet {
    /// Its metadata.
    pub meta: Meta,
    /// What is wanted.
    pub spec: ListenerSetSpec,
}

/// What is wanted of a ListenerSet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerSetSpec {
    /// Its Gateway.
    pub parent_ref: ParentRef,
    /// The listeners.
    #[serde(default)]
    pub listeners: Vec<Listener>,
}

/// Which ListenerSets may attach to a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AllowedListeners {
    /// From which namespaces; from none by default.
    #[serde(default = "nowhere")]
    pub namespaces: AllowedNamespaces,
}

impl Default for AllowedListeners {
    fn default() -> Self {
        Self { namespaces: nowhere() }
    }
}

fn nowhere() -> AllowedNamespaces {
    AllowedNamespaces { from: From::None, selector: None }
}

/// What is to be made for a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Infrastructure {
    /// Labels of what is made.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Annotations of what is made.
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
    /// Its own parameters; no kind of ours exists for them.
    #[serde(default)]
    pub parameters_ref: Option<LocalRef>,
}

/// A reference within the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LocalRef {
    /// The API group.
    #[serde(default)]
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// TLS of a whole Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GatewayTls {
    /// Validation of clients.
    pub frontend: FrontendTls,
    /// Towards backends.
    pub backend: GatewayBackendTls,
}

/// How a Gateway presents itself to backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayBackendTls {
    /// The certificate that it shows.
    pub client_certificate_ref: Option<SecretRef>,
}

/// How clients are validated. Source: GEP-91.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FrontendTls {
    /// On all ports.
    pub default: FrontendConfig,
    /// On these ports instead.
    pub per_port: Vec<FrontendPort>,
}

/// How clients are validated on a port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FrontendPort {
    /// The port.
    pub port: u16,
    /// How.
    pub tls: FrontendConfig,
}

/// How clients are validated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FrontendConfig {
    /// How; `None`: not at all.
    pub validation: Option<FrontendValidation>,
}

/// How the certificates of clients are validated.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendValidation {
    /// Who may have signed them.
    #[serde(default, rename = "caCertificateRefs")]
    pub ca_certificate_refs: Vec<AuthorityRef>,
    /// `AllowValidOnly` (the default) or `AllowInsecureFallback`.
    #[serde(default)]
    pub mode: Option<String>,
}

/// A reference to a ConfigMap or Secret with authorities.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AuthorityRef {
    /// The API group.
    #[serde(default)]
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The namespace; the Gateway's by default.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// An address asked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct GatewayAddress {
    /// Its type.
    #[serde(rename = "type", default = "ip_address")]
    pub kind: String,
    /// Its value; empty: any of that type.
    #[serde(default)]
    pub value: String,
}

fn ip_address() -> String {
    "IPAddress".into()
}

/// A listener of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name, unique in the Gateway.
    pub name: String,
    /// The hosts it serves; `None`: all.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The port.
    pub port: u16,
    /// The protocol, as written.
    pub protocol: String,
    /// TLS.
    #[serde(default)]
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    #[serde(default)]
    pub allowed_routes: AllowedRoutes,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// `Terminate` or `Passthrough`.
    #[serde(default)]
    pub mode: Option<String>,
    /// The certificates, first one preferred.
    #[serde(default)]
    pub certificate_refs: Vec<SecretRef>,
}

/// A reference to a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SecretRef {
    /// The API group; the core one by default.
    #[serde(default)]
    pub group: String,
    /// The kind; Secret by default.
    #[serde(default = "secret")]
    pub kind: String,
    /// The name.
    pub name: String,
    /// The namespace; that of who refers by default.
    #[serde(default)]
    pub namespace: Option<String>,
}

fn secret() -> String {
    "Secret".into()
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AllowedRoutes {
    /// From which namespaces.
    #[serde(default)]
    pub namespaces: AllowedNamespaces,
    /// Of which kinds; empty: those that the protocol takes.
    #[serde(default)]
    pub kinds: Vec<RouteKind>,
}

/// From which namespaces routes may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AllowedNamespaces {
    /// `Same` (the default), `All` or `Selector`.
    #[serde(default)]
    pub from: From,
    /// With `Selector`: which.
    #[serde(default)]
    pub selector: Option<LabelSelector>,
}

/// Where routes may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum From {
    /// Any namespace.
    All,
    /// The Gateway's.
    #[default]
    Same,
    /// Those that a selector names.
    Selector,
    /// None.
    None,
}

/// A label selector (meta/v1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must be equal.
    #[serde(default)]
    pub match_labels: std::collections::BTreeMap<String, String>,
    /// Requirements that must hold.
    #[serde(default)]
    pub match_expressions: Vec<LabelRequirement>,
}

/// A requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LabelRequirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// The values of `In` and `NotIn`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// A kind of route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct RouteKind {
    /// The API group; Gateway API's by default.
    #[serde(default = "super::gateway_group")]
    pub group: String,
    /// The kind.
    pub kind: String,
}
