//! Of rules: mirrors, CORS, external authorisation, retries and sessions, as far as they are used.

use serde::Deserialize;

use super::http_route::BackendRef;

/// A copy of requests to another backend.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestMirror {
    /// Where copies go.
    pub backend_ref: BackendRef,
    /// How many of a hundred requests are copied.
    #[serde(default)]
    pub percent: Option<u32>,
    /// Which part of requests is copied.
    #[serde(default)]
    pub fraction: Option<Fraction>,
}

/// A part of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Fraction {
    /// So many ...
    pub numerator: u32,
    /// ... of so many; a hundred by default.
    #[serde(default = "hundred")]
    pub denominator: u32,
}

fn hundred() -> u32 {
    100
}

/// Cross-origin resource sharing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cors {
    /// Origins.
    pub allow_origins: Vec<String>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// Methods.
    pub allow_methods: Vec<String>,
    /// Request header fields.
    pub allow_headers: Vec<String>,
    /// Response header fields.
    pub expose_headers: Vec<String>,
    /// How long a preflight's answer holds, in seconds; 5 by default.
    pub max_age: Option<u32>,
}

/// A service that is asked whether a request may pass.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalAuth {
    /// `HTTP` or `GRPC`.
    pub protocol: String,
    /// The service.
    pub backend_ref: BackendRef,
    /// With `GRPC`.
    #[serde(default)]
    pub grpc: AuthGrpc,
    /// With `HTTP`.
    #[serde(default)]
    pub http: AuthHttp,
    /// The content that is shown.
    #[serde(default)]
    pub forward_body: AuthBody,
}

/// How a service is asked by gRPC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthGrpc {
    /// The header fields that it is shown.
    pub allowed_headers: Vec<String>,
}

/// How a service is asked by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthHttp {
    /// Put before the path.
    pub path: String,
    /// The header fields that it is shown.
    pub allowed_headers: Vec<String>,
    /// The header fields of its answer that the backend is shown.
    pub allowed_response_headers: Vec<String>,
}

/// How much of the content a service is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthBody {
    /// In bytes.
    pub max_size: u32,
}

/// When a request is sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// The statuses that are worth it.
    pub codes: Vec<u16>,
    /// How often; once by default.
    pub attempts: Option<u32>,
    /// The least time between two attempts.
    pub backoff: Option<String>,
}

/// How requests of one session reach the same endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SessionPersistence {
    /// The name of the cookie or header field.
    pub session_name: Option<String>,
    /// How long a session lasts.
    pub absolute_timeout: Option<String>,
    /// `Cookie` (the default) or `Header`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Of cookies.
    pub cookie_config: CookieConfig,
}

/// How long a cookie lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CookieConfig {
    /// `Session` (the default) or `Permanent`.
    pub lifetime_type: Option<String>,
}
