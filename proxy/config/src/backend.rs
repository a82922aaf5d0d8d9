//! Backends: a port of a Service, and the EndpointSlices that stand behind it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::name::ObjectName;

/// What a backend speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge (appProtocol `kubernetes.io/h2c`).
    H2c,
}

/// A port of a Service. Its endpoints are those of all [`EndpointSlice`] units of that Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The Service.
    pub service: ObjectName,
    /// The Service's port number, as routes name it.
    pub port: u16,
    /// The name of that port; slices give the endpoints' port under this name. `None`: the unnamed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
    /// What it speaks.
    #[serde(default)]
    pub protocol: BackendProtocol,
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
