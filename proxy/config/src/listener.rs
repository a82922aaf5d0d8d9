//! Listeners: where a proxy accepts connections, and for which hostnames.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::name::{HostPattern, ObjectName, UnitId};

/// Where a listener is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bind {
    /// The address.
    pub address: Address,
    /// The port.
    pub port: u16,
}

/// The address of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Address {
    /// The proxy's own node address, whatever it is: all proxies get the same unit.
    Node,
    /// One address, which the proxy's host must hold.
    Ip(IpAddr),
}

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2 with prior knowledge, in clear.
    Http,
    /// The same over TLS that ends here.
    Https,
    /// TLS streams, told apart by server name; they end here or at the backend.
    Tls,
    /// TCP streams.
    Tcp,
    /// UDP datagrams.
    Udp,
}

/// How the certificates of clients are validated on a port. Source: GEP-91.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientValidation {
    /// The bundles of authorities that may have signed them.
    pub authorities: Vec<UnitId>,
    /// What becomes of a client whose certificate is missing or not valid.
    #[serde(default)]
    pub mode: ClientValidationMode,
}

/// What becomes of a client whose certificate is missing or not valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientValidationMode {
    /// Its handshake fails.
    #[default]
    AllowValidOnly,
    /// It is served: a backend is to decide. A certificate is asked for, and accepted whatever it says.
    AllowInsecureFallback,
}

/// One listener of one Gateway. Listeners on one address and port are told apart by hostname:
/// the most specific one that covers the request's host takes it alone (listener isolation).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Where it is bound.
    pub bind: Bind,
    /// Further addresses where the same port is bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<Address>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The hosts that it serves; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostPattern>,
    /// The certificate units, first one preferred; only where TLS ends here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<UnitId>,
    /// For [`Protocol::Tls`]: streams are forwarded as they are, and TLS ends at the backend.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passthrough: bool,
    /// How client certificates are validated; `None`: none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_validation: Option<ClientValidation>,
    /// The certificate unit that the Gateway shows to backends over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_certificate: Option<UnitId>,
    /// The Gateway, for logs and metrics.
    pub gateway: ObjectName,
    /// The listener's name in that Gateway.
    pub name: String,
}
