//! Backends: a port of a Service and the EndpointSlices that stand behind it, or a host outside the cluster.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::name::{ObjectName, UnitId};
use crate::resilience::BackendTraffic;

/// What a backend speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge (appProtocol `kubernetes.io/h2c`).
    H2c,
    /// UDP datagrams.
    Udp,
}

/// How a backend is reached over TLS. Source: `BackendTLSPolicy`, GEP-1897.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendTls {
    /// Its certificate is verified as said.
    Verified(BackendVerification),
    /// The policy can't be used, for the reason given: nothing is sent, requests are answered by 500.
    Invalid(String),
}

/// What a backend's certificate must hold, and what the backend is shown in turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendVerification {
    /// The server name that is sent, and that the certificate must be for where `subjects` is empty.
    pub hostname: String,
    /// Any of these must be among the certificate's subject alternative names; then the hostname is not
    /// compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Subject>,
    /// The bundles of authorities that may have signed it; empty: those of the proxy's system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<UnitId>,
    /// The certificate that the backend is shown where it asks for one; `None`: that of the Gateway, if it has
    /// one, and none where the backend is outside the cluster. Source: GEP-4894 `tls.clientCertificateRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<UnitId>,
}

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// A DNS name.
    Hostname(String),
    /// A URI, for example a SPIFFE id; compared as text.
    Uri(String),
}

/// What routes send requests, streams or datagrams to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Where its endpoints come from.
    #[serde(flatten)]
    pub destination: Destination,
    /// What it speaks.
    #[serde(default)]
    pub protocol: BackendProtocol,
    /// How it is reached over TLS; `None`: in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// What holds for all traffic to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<BackendTraffic>,
}

/// Where the endpoints of a backend come from. Told apart by their fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Destination {
    /// From the EndpointSlices of a Service.
    Service(ServicePort),
    /// From DNS.
    External(ExternalHost),
}

/// A port of a Service. Its endpoints are those of all [`EndpointSlice`] units of that Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// The Service.
    pub service: ObjectName,
    /// The Service's port number, as routes name it.
    pub port: u16,
    /// The name of that port; slices give the endpoints' port under this name. `None`: the unnamed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
}

/// A port of a host outside the cluster. Its endpoints are the addresses that the proxy finds for the name.
/// Source: GEP-4894 `ExternalHostname`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalHost {
    /// Its fully qualified name, whatever the case, with a final dot or without: no search domain is tried.
    pub hostname: String,
    /// The port.
    pub port: u16,
}

/// An EndpointSlice (discovery.k8s.io/v1), less what a proxy has no use for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// The Service that it belongs to.
    pub service: ObjectName,
    /// The ports that every endpoint of it has.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of the endpoints of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPort {
    /// Its name; `None`: unnamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The port on the endpoint.
    pub port: u16,
}

/// An endpoint. New requests go to `ready` ones; where there is none, to those that are still
/// `serving` though `terminating`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Takes new requests.
    pub ready: bool,
    /// Answers, ready or not.
    pub serving: bool,
    /// Is being stopped.
    pub terminating: bool,
    /// Its zone, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}
