//! The objects of a run as JSON.
//! Called by `objects.rs` and by what makes the world.

use std::net::SocketAddr;

use anyhow::Result;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::{HTTP, HTTPS, ROUTE_HEADER};

/// The namespace of everything that is measured.
pub(super) const NAMESPACE: &str = "bench";

/// A certificate that signed itself.
pub(super) struct Certificate {
    pem: String,
    key: String,
    /// As a server shows it.
    pub(super) der: Vec<u8>,
}

impl Certificate {
    /// One of its own each time.
    pub(super) fn new(host: &str, key: &KeyPair) -> Result<Self> {
        let signed = CertificateParams::new(vec![host.to_owned()])?.self_signed(key)?;
        Ok(Self { pem: signed.pem(), key: key.serialize_pem(), der: signed.der().to_vec() })
    }
}

pub(super) fn gateway(number: usize, hostname: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": format!("g{number}"), "namespace": NAMESPACE},
        "spec": {"gatewayClassName": "bench", "listeners": [
            {"name": "http", "port": HTTP, "protocol": "HTTP", "hostname": hostname},
            {"name": "https", "port": HTTPS, "protocol": "HTTPS", "hostname": hostname,
             "tls": {"certificateRefs": [{"name": format!("g{number}")}]}},
        ]},
    })
}

pub(super) fn secret(number: usize, certificate: &Certificate) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": format!("g{number}"), "namespace": NAMESPACE},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": certificate.pem, "tls.key": certificate.key},
    })
}

pub(super) fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("s{number}"), "namespace": NAMESPACE},
        "spec": {"ports": [{"port": 80, "protocol": "TCP"}]},
    })
}

pub(super) fn slice(number: usize, backend: SocketAddr) -> Value {
    let service = "kubernetes.io/service-name";
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("s{number}-1"), "namespace": NAMESPACE, "labels": {service: format!("s{number}")},
        },
        "addressType": "IPv4",
        "ports": [{"port": backend.port(), "protocol": "TCP"}],
        "endpoints": [{"addresses": [backend.ip().to_string()], "conditions": {"ready": true}}],
    })
}

pub(super) fn route(number: usize, gateway: usize, service: usize, host: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": format!("r{number}"), "namespace": NAMESPACE},
        "spec": {
            "parentRefs": [{"name": format!("g{gateway}")}],
            "hostnames": [host],
            "rules": rules(service, "0"),
        },
    })
}

pub(super) fn rules(service: usize, value: &str) -> Value {
    json!([{
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "filters": [{
            "type": "ResponseHeaderModifier",
            "responseHeaderModifier": {"set": [{"name": ROUTE_HEADER, "value": value}]},
        }],
        "backendRefs": [{"name": format!("s{service}"), "port": 80}],
    }])
}

/// What is there before all else; the class is the one of the controller with this name.
pub(crate) fn base(controller: &str) -> Vec<Value> {
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    vec![
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": "bench"},
            "spec": {"controllerName": controller},
        }),
        namespace("portreeve-system"),
        namespace(NAMESPACE),
    ]
}

/// A node of the cluster at an address.
pub(crate) fn node(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}
