//! XBackendTrafficPolicies, as far as they are used.

use serde::Deserialize;

use super::meta::Meta;
use super::rule_extras::SessionPersistence;
use super::tls_policy::PolicyTarget;

/// An XBackendTrafficPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTrafficPolicy {
    /// Its metadata.
    pub meta: Meta,
    /// What is wanted.
    pub spec: BackendTrafficPolicySpec,
}

/// What is wanted of an XBackendTrafficPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTrafficPolicySpec {
    /// What it is for.
    #[serde(default)]
    pub target_refs: Vec<PolicyTarget>,
    /// How many requests may be retries.
    #[serde(default)]
    pub retry_constraint: Option<RetryConstraint>,
    /// How requests of one session reach the same endpoint.
    #[serde(default)]
    pub session_persistence: Option<SessionPersistence>,
}

/// How many requests may be retries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RetryConstraint {
    /// Of all requests.
    pub budget: RetryBudget,
    /// Whatever their number is.
    pub min_retry_rate: RetryRate,
}

/// A part of the requests of some time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RetryBudget {
    /// 20 by default.
    pub percent: Option<u32>,
    /// 10 s by default.
    pub interval: Option<String>,
}

/// A number of retries in some time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RetryRate {
    /// 10 by default.
    pub count: Option<u32>,
    /// 1 s by default.
    pub interval: Option<String>,
}
