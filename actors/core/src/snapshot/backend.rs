//! XBackends, as far as they are used. Values that a later version may add (types, protocols, modes) are kept
//! as text, so that the status of the object can say what is not supported.

use serde::Deserialize;

use super::gateway::SecretRef;
use super::meta::Meta;
use super::tls_policy::Validation;

/// An XBackend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its metadata.
    pub meta: Meta,
    /// What is wanted.
    pub spec: BackendSpec,
}

/// What is wanted of an XBackend. Source: GEP-4894.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendSpec {
    /// Where it is: `ExternalHostname` is the only type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The port there.
    pub port: BackendPort,
    /// With the type `ExternalHostname`.
    #[serde(default)]
    pub external_hostname: Option<ExternalHostname>,
    /// What it speaks; what the route says by default.
    #[serde(default)]
    pub protocol: Option<String>,
    /// How it is reached over TLS; in clear by default.
    #[serde(default)]
    pub tls: Option<BackendTls>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BackendPort {
    /// Its number.
    pub port: u16,
}

/// A host outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ExternalHostname {
    /// Its fully qualified name.
    pub hostname: String,
}

/// How a backend is reached over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTls {
    /// `None`, `ServerOnly` or `ClientAndServer`.
    pub mode: String,
    /// With the mode `ClientAndServer`: the Secret with the certificate that the backend is shown.
    #[serde(default)]
    pub client_certificate_ref: Option<SecretRef>,
    /// What its certificate must be; for its hostname, by an authority of the system, by default.
    #[serde(default)]
    pub validation: Option<Validation>,
}
