//! What a rule does besides choosing a backend: retries and sticky sessions.

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
