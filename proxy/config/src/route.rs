//! Route units: one per route object, with everything a proxy needs to serve it.

use serde::{Deserialize, Serialize};

use crate::name::{HostPattern, ObjectName, UnitId};
use crate::resilience::{Retry, SessionPersistence};

/// The longest regular expression, in bytes.
pub const REGEX_LENGTH: usize = 4096;

/// The memory that each form of one may take when compiled, in bytes.
pub const REGEX_SIZE: usize = 128 << 10;

/// How deep the groups of one may be nested.
pub const REGEX_DEPTH: u32 = 100;

/// A route as it is attached to listeners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteUnit {
    /// The kind of the object: `HTTPRoute`, or `GRPCRoute`, whose backends speak HTTP/2.
    pub kind: String,
    /// The object.
    pub name: ObjectName,
    /// Its creation time in seconds since 1970: of two equal matches the older route's wins, then the
    /// one whose `namespace/name` sorts first.
    pub created: i64,
    /// The listeners that took it, each with the hostnames that route and listener share.
    pub attachments: Vec<Attachment>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// One listener that took the route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The listener unit.
    pub listener: UnitId,
    /// What route and listener share; empty: every host of the listener.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<HostPattern>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Its name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any of these; never empty (a rule without matches has one that takes the prefix `/`).
    pub matches: Vec<Match>,
    /// Applied to each request, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Where requests go, by weight. With none, and no redirect, every request is answered by 500.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<WeightedBackend>,
    /// How long it may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// When a request is sent again; `None`: only where it certainly reached no backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How requests of one session reach the same endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionPersistence>,
    /// Set where the rule can't be served as written: requests that it takes are answered by 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
}

/// All of these must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// The path.
    pub path: PathMatch,
    /// The method; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Header fields; the names are lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatch>,
    /// Query parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<ValueMatch>,
}

/// How a path is matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// The path's first elements: `/a` takes `/a` and `/a/b`, not `/ab`.
    Prefix(String),
    /// The whole path, by a linear-time regular expression.
    Regex(String),
}

/// How a header or a query parameter is matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueMatch {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: ValuePattern,
}

/// A value to match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ValuePattern {
    /// Equal.
    Exact(String),
    /// The whole value, by a linear-time regular expression.
    Regex(String),
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Filter {
    /// Edits the request's header fields.
    RequestHeaders(HeaderEdits),
    /// Edits the response's header fields.
    ResponseHeaders(HeaderEdits),
    /// Answers by a redirect.
    Redirect(Redirect),
    /// Sends another host or path to the backend.
    Rewrite(Rewrite),
    /// Sends a copy to another backend, whose answer is dropped.
    Mirror(Mirror),
    /// Answers preflight requests and says which origins may read responses.
    Cors(Cors),
    /// Asks a service whether a request may pass.
    ExternalAuth(ExternalAuth),
}

/// A copy of requests to another backend. It never delays the reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Where copies go; none are made where it is invalid.
    pub target: Target,
    /// Of `denominator` requests ...
    pub numerator: u32,
    /// ... so many are copied; never 0.
    pub denominator: u32,
}

/// Cross-origin resource sharing, by the Fetch standard. Source: GEP-1767.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// Origins, each `scheme://host[:port]`, where the host may begin with `*.`; `*`: all.
    pub allow_origins: Vec<String>,
    /// Whether credentials may be sent.
    #[serde(default)]
    pub allow_credentials: bool,
    /// Methods; `*`: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// Request header fields; `*`: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    /// Response header fields that a page may read; `*`: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// How long a preflight's answer holds, in seconds.
    pub max_age: u32,
}

/// A service that is asked whether a request may pass. Source: GEP-1494.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalAuth {
    /// The service; where it is invalid all requests are refused.
    pub target: Target,
    /// How it is asked.
    pub protocol: AuthProtocol,
    /// How many bytes of a request's content it is shown; 0: none. Requests with more are refused: what nobody
    /// has looked at is not let pass.
    #[serde(default)]
    pub max_body: u32,
}

/// How an authorisation service is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuthProtocol {
    /// By `envoy.service.auth.v3.Authorization/Check`.
    Grpc {
        /// The header fields that it is shown; empty: all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        allowed_headers: Vec<String>,
    },
    /// By a request of the same method, host and path: status 200 lets the request pass.
    Http {
        /// Put before the request's path.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        path: String,
        /// The header fields that it is shown besides `Authorization`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        allowed_headers: Vec<String>,
        /// The header fields of its answer that the backend is shown; empty: all but those about the answer
        /// itself, its framing and its content.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        allowed_response_headers: Vec<String>,
    },
}

/// Edits of header fields, applied in this order: remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderEdits {
    /// Names to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Fields to replace or create.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<Field>,
    /// Fields to append to those that are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Field>,
}

/// A header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// Its name, as written.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A redirect; what is `None` stays as the request has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    /// `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// The host of Location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The port of Location. `None`: the well-known one of `scheme` where that is set, else the listener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path of Location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathEdit>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A rewrite; what is `None` stays as the request has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rewrite {
    /// The host sent to the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The path sent to the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathEdit>,
}

/// How a path is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathEdit {
    /// The whole path.
    Full(String),
    /// What the prefix match took.
    Prefix(String),
}

/// A backend with its share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightedBackend {
    /// Where to.
    pub target: Target,
    /// Its share of all weights of the rule; 0: none.
    pub weight: u32,
    /// Applied to requests that go there, after those of the rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
}

/// Where a share of requests goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// A backend unit.
    Backend(UnitId),
    /// Nowhere, for the reason given: this share is answered by 500.
    Invalid(String),
    /// The same, because a grant is missing: what is open through this route to a backend that it may
    /// not send to any more is cut.
    NotPermitted(String),
}

/// Timeouts in milliseconds; `None`: the proxy's default, 0: none at all. Source: GEP-1742.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// From the whole request received to the whole response sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// One attempt at a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<u64>,
}
