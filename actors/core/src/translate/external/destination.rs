//! Where an XBackend is and what it speaks: what can be said of the object alone.

use proxy_config::backend::{BackendProtocol, ExternalHost};
use proxy_config::name::ObjectName;

use crate::snapshot::backend::BackendSpec;
use crate::snapshot::meta::Kind;
use crate::translate::conditions::Fault;
use crate::translate::hostnames;

/// Names of what is inside the cluster: they would lead around ReferenceGrants. Source: GEP-4894, "Security Model".
const INSIDE: &[&str] = &["cluster.local", "svc"];

fn invalid(message: String) -> Fault {
    Fault::new("Invalid", message)
}

/// The host that is meant.
pub(super) fn host(spec: &BackendSpec) -> Result<ExternalHost, Fault> {
    let found = match (&*spec.kind, &spec.external_hostname) {
        ("ExternalHostname", Some(found)) => found,
        ("ExternalHostname", None) => {
            return Err(invalid("spec.externalHostname is missing: name the host".into()));
        }
        (kind, _) => {
            return Err(invalid(format!("spec.type `{kind}` is not supported: use ExternalHostname")));
        }
    };
    if let Some(reason) = fault_of_host(&found.hostname) {
        return Err(invalid(format!("spec.externalHostname.hostname: {reason}")));
    }
    if spec.port.port == 0 {
        return Err(invalid("spec.port.port must be 1 to 65535".into()));
    }
    Ok(ExternalHost { hostname: found.hostname.clone(), port: spec.port.port })
}

/// What is wrong with a hostname.
fn fault_of_host(hostname: &str) -> Option<String> {
    if let Some(reason) = hostnames::fault(hostname) {
        return Some(reason);
    }
    if hostname.starts_with('*') {
        return Some(format!("`{hostname}` must be one name, not a pattern"));
    }
    let lower = hostname.to_ascii_lowercase();
    let Some((_, last)) = lower.rsplit_once('.') else {
        return Some(format!("`{hostname}` is not fully qualified: write it with its domain"));
    };
    // What ends in a number is taken for an address by much that reads names: 10.1, 0x7f.1, 1.0x1.
    let hexadecimal = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(format!("`{hostname}` can be taken for an IP address: use a DNS name"));
    }
    let is_inside = |domain: &&str| {
        lower.strip_suffix(*domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    let domain = INSIDE.iter().find(|domain| is_inside(domain))?;
    Some(format!("`{hostname}` is under `{domain}`, inside the cluster: refer to the Service itself"))
}

/// What it speaks. What is sent to MCP is HTTP; of streams nothing is said.
pub(super) fn protocol(spec: &BackendSpec) -> Result<BackendProtocol, Fault> {
    let has_tls = spec.tls.as_ref().is_some_and(|tls| tls.mode != "None");
    match spec.protocol.as_deref() {
        None | Some("TCP" | "HTTP" | "HTTP11" | "MCP") => Ok(BackendProtocol::Http1),
        Some("H2C") if has_tls => {
            Err(invalid("spec.protocol H2C is HTTP/2 in clear: use HTTP2, or leave spec.tls out".into()))
        }
        Some("HTTP2" | "H2C") => Ok(BackendProtocol::H2c),
        Some(other) => Err(invalid(format!(
            "spec.protocol `{other}` is not supported: use HTTP, HTTP11, HTTP2, H2C, MCP or TCP"
        ))),
    }
}

/// Whether routes of a kind can lead there. A stream passes as it is, whatever is said of what is in it.
pub(super) fn check_route(route: Kind, name: &ObjectName, spec: &BackendSpec) -> Result<(), Fault> {
    let why = match (route, spec.protocol.as_deref()) {
        (Kind::UdpRoute, _) => "takes no datagrams",
        (Kind::HttpRoute | Kind::GrpcRoute, Some("TCP")) => "speaks TCP and not HTTP",
        (Kind::GrpcRoute, Some("HTTP11" | "MCP")) => "does not speak HTTP/2, which gRPC needs",
        _ => return Ok(()),
    };
    Err(Fault::new("UnsupportedProtocol", format!("XBackend {name} {why}: {route}s can't lead there")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::backend::BackendPort;

    #[test]
    fn what_is_spoken_is_what_the_protocol_says_and_routes_lead_to_what_can_serve_them() {
        let (http1, http2) = (Some(BackendProtocol::Http1), Some(BackendProtocol::H2c));
        for (written, spoken, routes) in [
            (None, http1, [true, true, true]),
            (Some("HTTP"), http1, [true, true, true]),
            (Some("HTTP11"), http1, [true, false, true]),
            (Some("MCP"), http1, [true, false, true]),
            (Some("TCP"), http1, [false, false, true]),
            (Some("HTTP2"), http2, [true, true, true]),
            (Some("H2C"), http2, [true, true, true]),
            (Some("h2c"), None, [true, true, true]),
        ] {
            let spec = BackendSpec {
                kind: "ExternalHostname".into(),
                port: BackendPort { port: 80 },
                external_hostname: None,
                protocol: written.map(str::to_owned),
                tls: None,
            };
            assert_eq!(protocol(&spec).ok(), spoken, "{written:?}");
            let leads = |route| check_route(route, &ObjectName::new("shop", "out"), &spec).is_ok();
            assert_eq!([Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute].map(leads), routes, "{written:?}");
            assert_eq!([Kind::TcpRoute, Kind::UdpRoute].map(leads), [true, false], "{written:?}");
        }
    }

    #[test]
    fn hosts_are_names_outside_the_cluster() {
        for good in ["api.example.com", "a.b", "SVC.example.com", "a.mysvc", "xn--4ca.example", "1.example"] {
            assert_eq!(fault_of_host(good), None);
        }
        let inside = ["web.shop.svc.cluster.local", "cluster.local", "a.Cluster.Local", "web.shop.svc"];
        let addresses = ["10.0.0.1", "10.1", "1.0x7f", "a.0x", "example.10"];
        let others = ["", "localhost", "kubernetes", "*.example.com", "example.com.", "a_b.example", "a..b"];
        for bad in inside.iter().chain(&addresses).chain(&others) {
            assert!(fault_of_host(bad).is_some(), "{bad}");
        }
    }
}
