//! TLSRoutes, TCPRoutes and UDPRoutes, as far as they are used: they differ in their kind, and only
//! TLSRoutes have hostnames.

use serde::Deserialize;

use super::http_route::{BackendRef, ParentRef};
use super::meta::Meta;

/// A TLSRoute, TCPRoute or UDPRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L4Route {
    /// Its metadata.
    pub meta: Meta,
    /// What is wanted.
    pub spec: L4RouteSpec,
}

/// What is wanted of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct L4RouteSpec {
    /// Where it attaches.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// `All`: it attaches to default Gateways too.
    #[serde(default)]
    pub use_default_gateways: Option<String>,
    /// The server names it serves, of TLSRoutes.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Its rules, of which the schema allows one.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Where connections go.
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
}
