//! HTTPRoutes, as far as they are used. Values that a later version may add (types of matches and of
//! filters) are kept as text, so that one of them costs its rule and not the object.

use proxy_config::name::ObjectName;
use serde::Deserialize;

use super::meta::Meta;
use super::rule_extras::{Cors, ExternalAuth, RequestMirror, Retry, SessionPersistence};

/// An HTTPRoute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRoute {
    /// Its metadata.
    pub meta: Meta,
    /// What is wanted.
    pub spec: HttpRouteSpec,
}

/// What is wanted of an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// Where it attaches.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// `All`: it attaches to default Gateways too.
    #[serde(default)]
    pub use_default_gateways: Option<String>,
    /// The hosts it serves; empty: those of its listeners.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Its rules; one that takes everything by default.
    #[serde(default = "one_rule")]
    pub rules: Vec<Rule>,
}

fn one_rule() -> Vec<Rule> {
    vec![Rule::default()]
}

/// A parent of a route, echoed in its status as written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// The API group; Gateway API's by default.
    #[serde(default = "super::gateway_group")]
    pub group: String,
    /// The kind; Gateway by default.
    #[serde(default = "gateway")]
    pub kind: String,
    /// The namespace; the route's by default.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// One listener of it.
    #[serde(default)]
    pub section_name: Option<String>,
    /// The listeners of one port of it.
    #[serde(default)]
    pub port: Option<u16>,
}

fn gateway() -> String {
    "Gateway".into()
}

impl ParentRef {
    /// A whole Gateway.
    pub fn gateway(name: &ObjectName) -> Self {
        Self {
            group: super::gateway_group(),
            kind: gateway(),
            namespace: Some(name.namespace.to_string()),
            name: name.name.to_string(),
            section_name: None,
            port: None,
        }
    }

    /// The parent's name, seen from a route in `namespace`.
    pub fn target(&self, namespace: &str) -> ObjectName {
        ObjectName::new(self.namespace.as_deref().unwrap_or(namespace), &*self.name)
    }
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Any of these; empty: every request.
    #[serde(default)]
    pub matches: Vec<Match>,
    /// Applied to each request.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// Where requests go.
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
    /// How long it may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Retries.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// Session persistence.
    #[serde(default)]
    pub session_persistence: Option<SessionPersistence>,
}

/// All of these must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// The path; the prefix `/` by default.
    #[serde(default)]
    pub path: PathMatch,
    /// The method.
    #[serde(default)]
    pub method: Option<String>,
    /// Header fields.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
    /// Query parameters.
    #[serde(default)]
    pub query_params: Vec<ValueMatch>,
}

/// A path to match.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PathMatch {
    /// `Exact`, `PathPrefix` or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The value.
    pub value: String,
}

impl Default for PathMatch {
    fn default() -> Self {
        Self { kind: "PathPrefix".into(), value: "/".into() }
    }
}

/// A header field or query parameter to match.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ValueMatch {
    /// `Exact` (the default) or `RegularExpression`.
    #[serde(rename = "type", default = "exact")]
    pub kind: String,
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

pub(super) fn exact() -> String {
    "Exact".into()
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Which of the fields below holds it.
    #[serde(rename = "type")]
    pub kind: String,
    /// `RequestHeaderModifier`.
    #[serde(default)]
    pub request_header_modifier: Option<HeaderModifier>,
    /// `ResponseHeaderModifier`.
    #[serde(default)]
    pub response_header_modifier: Option<HeaderModifier>,
    /// `RequestRedirect`.
    #[serde(default)]
    pub request_redirect: Option<RequestRedirect>,
    /// `URLRewrite`.
    #[serde(default)]
    pub url_rewrite: Option<UrlRewrite>,
    /// `RequestMirror`.
    #[serde(default)]
    pub request_mirror: Option<RequestMirror>,
    /// `CORS`.
    #[serde(default)]
    pub cors: Option<Cors>,
    /// `ExternalAuth`.
    #[serde(default)]
    pub external_auth: Option<ExternalAuth>,
}

/// Edits of header fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct HeaderModifier {
    /// Fields to replace or create.
    #[serde(default)]
    pub set: Vec<HeaderField>,
    /// Fields to append.
    #[serde(default)]
    pub add: Vec<HeaderField>,
    /// Names to remove.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// A header field.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HeaderField {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// A redirect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRedirect {
    /// `http` or `https`.
    #[serde(default)]
    pub scheme: Option<String>,
    /// The host.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The path.
    #[serde(default)]
    pub path: Option<PathModifier>,
    /// The port.
    #[serde(default)]
    pub port: Option<u16>,
    /// The status; 302 by default.
    #[serde(default)]
    pub status_code: Option<u16>,
}

/// A rewrite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct UrlRewrite {
    /// The host.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The path.
    #[serde(default)]
    pub path: Option<PathModifier>,
}

/// How a path is changed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathModifier {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The whole new path.
    #[serde(default)]
    pub replace_full_path: Option<String>,
    /// What replaces the matched prefix.
    #[serde(default)]
    pub replace_prefix_match: Option<String>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BackendRef {
    /// The API group; the core one by default.
    #[serde(default)]
    pub group: String,
    /// The kind; Service by default.
    #[serde(default = "service")]
    pub kind: String,
    /// The name.
    pub name: String,
    /// The namespace; the route's by default.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The Service's port.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its share.
    #[serde(default = "one")]
    pub weight: u32,
    /// Applied to requests that go there.
    #[serde(default)]
    pub filters: Vec<Filter>,
}

fn service() -> String {
    "Service".into()
}

fn one() -> u32 {
    1
}

/// Timeouts as durations of GEP-2257, for example `1h30m`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// The whole request.
    #[serde(default)]
    pub request: Option<String>,
    /// One attempt at a backend.
    #[serde(default)]
    pub backend_request: Option<String>,
}
