//! BackendTLSPolicies, as far as they are used.

use serde::Deserialize;

use super::gateway::LocalRef;
use super::meta::Meta;

/// A BackendTLSPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTlsPolicy {
    /// Its metadata.
    pub meta: Meta,
    /// What is wanted.
    pub spec: BackendTlsPolicySpec,
}

/// What is wanted of a BackendTLSPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTlsPolicySpec {
    /// What it is for.
    #[serde(default)]
    pub target_refs: Vec<PolicyTarget>,
    /// What the backends' certificates must be.
    pub validation: Validation,
}

/// What a policy is for, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTarget {
    /// The API group.
    #[serde(default)]
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// Of a Service, the name of one port.
    #[serde(default)]
    pub section_name: Option<String>,
}

/// What backends' certificates must be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    /// Who may have signed them.
    #[serde(default, rename = "caCertificateRefs")]
    pub ca_certificate_refs: Vec<LocalRef>,
    /// A well-known set of authorities; `System` is the only one.
    #[serde(default, rename = "wellKnownCACertificates")]
    pub well_known: Option<String>,
    /// The server name.
    pub hostname: String,
    /// Alternative names, any of which must be there.
    #[serde(default)]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SubjectAltName {
    /// `Hostname` or `URI`.
    #[serde(rename = "type")]
    pub kind: String,
    /// With `Hostname`.
    #[serde(default)]
    pub hostname: Option<String>,
    /// With `URI`.
    #[serde(default)]
    pub uri: Option<String>,
}
