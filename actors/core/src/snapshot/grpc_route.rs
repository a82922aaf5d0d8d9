//! GRPCRoutes, as far as they are used. What they share with HTTPRoutes is of the same types.

use serde::Deserialize;

use super::http_route::{BackendRef, Filter, ParentRef, ValueMatch};
use super::meta::Meta;
use super::rule_extras::SessionPersistence;

/// A GRPCRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcRoute {
    /// Its metadata.
    pub meta: Meta,
    /// What is wanted.
    pub spec: GrpcRouteSpec,
}

/// What is wanted of a GRPCRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteSpec {
    /// Where it attaches.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// `All`: it attaches to default Gateways too.
    #[serde(default)]
    pub use_default_gateways: Option<String>,
    /// The hosts it serves; empty: those of its listeners.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Its rules; none of them takes nothing.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Any of these; empty: every call.
    #[serde(default)]
    pub matches: Vec<Match>,
    /// Applied to each call.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// Where calls go.
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
    /// Session persistence.
    #[serde(default)]
    pub session_persistence: Option<SessionPersistence>,
}

/// All of these must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Match {
    /// The method called; any by default.
    #[serde(default)]
    pub method: Option<MethodMatch>,
    /// Header fields.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
}

/// A method to match.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MethodMatch {
    /// `Exact` (the default) or `RegularExpression`.
    #[serde(rename = "type", default = "super::http_route::exact")]
    pub kind: String,
    /// The service, with its package; any by default.
    #[serde(default)]
    pub service: Option<String>,
    /// The method; any by default.
    #[serde(default)]
    pub method: Option<String>,
}
