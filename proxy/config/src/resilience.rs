//! What rules and backends do besides passing requests on: retries, their budget, sticky sessions.

use serde::{Deserialize, Serialize};

/// When a request is sent again. Source: GEP-1731.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// The statuses that are worth another attempt. A failure to connect always is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    /// How many attempts may follow the first.
    pub attempts: u32,
    /// The least time between two attempts, in milliseconds; `None`: the proxy's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<u64>,
}

/// How requests of one session reach the same endpoint. Source: GEP-1619.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionPersistence {
    /// The name of the cookie or the header field.
    pub name: String,
    /// What carries the session.
    pub carrier: SessionCarrier,
    /// After so long a session starts anew, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<u64>,
    /// Unused for so long, a session starts anew, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<u64>,
}

/// What carries a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SessionCarrier {
    /// A cookie that the client forgets when it ends.
    SessionCookie,
    /// A cookie that lives as long as the absolute time-out.
    PermanentCookie,
    /// A header field.
    Header,
}

/// What holds for all traffic to a backend, whichever rule sends it. Source: `XBackendTrafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTraffic {
    /// How many requests may be retries; `None`: the proxy's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetryConstraint>,
    /// Its sessions, for rules that have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionPersistence>,
}

/// How many of the requests to a backend may be retries. Source: GEP-3388.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryConstraint {
    /// Retries for a hundred requests.
    pub percent: u32,
    /// The time over which requests count, in milliseconds.
    pub interval: u64,
    /// So many retries are always allowed ...
    pub min_count: u32,
    /// ... in so much time, in milliseconds.
    pub min_interval: u64,
}
