//! Defaults and validation of the built-in kinds, as far as Portreeve relies on them.
//!
//! Owns the rules that Kubernetes keeps in Go. Called for kinds without a schema. What is not here is not checked.

use std::net::IpAddr;

use base64::Engine as _;
use serde_json::{Value, json};

use super::Leniency;
use crate::refusal::Cause;

/// Sets a field that is absent or null.
fn default(object: &mut Value, field: &str, value: Value) {
    if object[field].is_null() {
        object[field] = value;
    }
}

fn items_mut(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_array_mut().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

pub(super) fn fill_defaults(kind: &str, object: &mut Value) {
    match kind {
        "Service" => fill_service(object),
        "EndpointSlice" => {
            for port in items_mut(&mut object["ports"]) {
                default(port, "name", "".into());
                default(port, "protocol", "TCP".into());
            }
            drop_null(object, "ports");
        }
        "Secret" => fill_secret(object),
        "Namespace" => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            default(object, "spec", json!({"finalizers": ["kubernetes"]}));
            default(object, "status", json!({"phase": "Active"}));
        }
        "Pod" => default(object, "status", json!({"phase": "Pending", "qosClass": "BestEffort"})),
        _ => {}
    }
}

/// Reading a field of a `Value` by index mutably leaves a null behind.
fn drop_null(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut().filter(|map| map.get(field).is_some_and(Value::is_null)) {
        map.remove(field);
    }
}

fn fill_service(object: &mut Value) {
    let spec = &mut object["spec"];
    default(spec, "type", "ClusterIP".into());
    default(spec, "sessionAffinity", "None".into());
    if spec["type"] != "ExternalName" {
        default(spec, "internalTrafficPolicy", "Cluster".into());
    }
    for port in items_mut(&mut spec["ports"]) {
        default(port, "protocol", "TCP".into());
        let same = port["port"].clone();
        default(port, "targetPort", same);
    }
    drop_null(spec, "ports");
    default(object, "status", json!({"loadBalancer": {}}));
}

fn fill_secret(object: &mut Value) {
    default(object, "type", "Opaque".into());
    let plain = object.as_object_mut().and_then(|map| map.remove("stringData"));
    for (name, text) in plain.iter().filter_map(Value::as_object).flatten() {
        let text = text.as_str().unwrap_or_default();
        object["data"][name] = base64::engine::general_purpose::STANDARD.encode(text).into();
    }
}

pub(super) fn check(kind: &str, leniency: Leniency, object: &Value) -> Vec<Cause> {
    match kind {
        "EndpointSlice.discovery.k8s.io" => check_endpoint_slice(leniency, object),
        "Service" => check_service(object),
        "Secret" => check_secret(object),
        "Lease.coordination.k8s.io" => check_lease(object),
        "Event.events.k8s.io" => check_event(object),
        _ => Vec::new(),
    }
}

fn check_endpoint_slice(leniency: Leniency, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let family = object["addressType"].as_str().unwrap_or_default();
    let families: Vec<Value> = ["FQDN", "IPv4", "IPv6"].map(Value::from).to_vec();
    if family.is_empty() {
        causes.push(Cause::required("addressType", ""));
    } else if !families.contains(&family.into()) {
        let given = &object["addressType"];
        causes.push(Cause::not_supported("addressType", given, &families));
    }
    for (index, endpoint) in items(&object["endpoints"]) {
        let path = format!("endpoints[{index}].addresses");
        let addresses: Vec<_> = items(&endpoint["addresses"]).collect();
        if addresses.is_empty() {
            causes.push(Cause::required(&path, "must contain at least 1 address"));
        }
        for (at, address) in addresses {
            match refused_address(leniency, family, address) {
                Some(Fault::Family(words)) => causes.push(Cause::invalid(&path, address, words)),
                Some(Fault::Address(words)) => {
                    causes.push(Cause::invalid(format!("{path}[{at}]"), address, words));
                }
                None => {}
            }
        }
    }
    let mut names = Vec::new();
    for (index, port) in items(&object["ports"]) {
        if names.contains(&&port["name"]) {
            causes.push(Cause::duplicate(format!("ports[{index}].name"), &port["name"]));
        }
        names.push(&port["name"]);
    }
    causes
}

/// What is wrong with an endpoint's address.
enum Fault {
    Family(&'static str),
    Address(&'static str),
}

/// Why an address may not be an endpoint (`ValidateEndpointIP` of Kubernetes).
fn refused_address(leniency: Leniency, family: &str, address: &Value) -> Option<Fault> {
    if !matches!(family, "IPv4" | "IPv6") {
        return None;
    }
    let Ok(ip) = address.as_str().unwrap_or_default().parse::<IpAddr>() else {
        return Some(Fault::Address("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
    };
    match (family, ip) {
        ("IPv4", IpAddr::V6(_)) => return Some(Fault::Family("must be an IPv4 address")),
        ("IPv6", IpAddr::V4(_)) => return Some(Fault::Family("must be an IPv6 address")),
        _ => {}
    }
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] == 0xff02),
    };
    let words = if ip.is_unspecified() {
        "may not be unspecified (0.0.0.0 or ::)"
    } else if ip.is_loopback() && !leniency.loopback_endpoints {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    } else if link_local_multicast {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
    } else {
        return None;
    };
    Some(Fault::Address(words))
}

fn check_service(object: &Value) -> Vec<Cause> {
    let (mut causes, spec) = (Vec::new(), &object["spec"]);
    let ports: Vec<_> = items(&spec["ports"]).collect();
    let headless = spec["clusterIP"] == "None";
    if ports.is_empty() && spec["type"] != "ExternalName" && !headless {
        causes.push(Cause::required("spec.ports", ""));
    }
    let several = ports.len() > 1;
    for (index, port) in ports {
        let path = format!("spec.ports[{index}]");
        if !is_port(&port["port"]) {
            let words = "must be between 1 and 65535, inclusive";
            causes.push(Cause::invalid(format!("{path}.port"), &port["port"], words));
        }
        let target = &port["targetPort"];
        if target.is_number() && !is_port(target) {
            let words = "must be between 1 and 65535, inclusive";
            causes.push(Cause::invalid(format!("{path}.targetPort"), target, words));
        }
        if several && port["name"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        }
    }
    causes
}

fn check_secret(object: &Value) -> Vec<Cause> {
    let needed: &[&str] = match object["type"].as_str() {
        Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
        _ => &[],
    };
    needed
        .iter()
        .filter(|&&name| object["data"][name].is_null())
        .map(|name| Cause::required(format!("data[{name}]"), ""))
        .collect()
}

/// Go reads a MicroTime only with all six digits.
pub(super) fn check_times(kind: &str, object: &Value) -> Result<(), String> {
    let fields: &[&str] = if kind == "Lease" { &["acquireTime", "renewTime"] } else { &[] };
    for field in fields {
        let text = object["spec"][field].as_str().unwrap_or("0.000000Z");
        let digits = text.split_once('.').map_or("", |(_, fraction)| fraction);
        if digits.bytes().take_while(u8::is_ascii_digit).count() != 6 {
            return Err(format!(
                "spec.{field}: cannot parse \"{text}\" as \"2006-01-02T15:04:05.000000Z07:00\""
            ));
        }
    }
    Ok(())
}

fn check_lease(object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = Vec::new();
    let seconds = &spec["leaseDurationSeconds"];
    if seconds.as_i64().is_some_and(|seconds| seconds <= 0) {
        let words = "must be greater than 0";
        causes.push(Cause::invalid("spec.leaseDurationSeconds", seconds, words));
    }
    let transitions = &spec["leaseTransitions"];
    if transitions.as_i64().is_some_and(|count| count < 0) {
        let words = "must be greater than or equal to 0";
        causes.push(Cause::invalid("spec.leaseTransitions", transitions, words));
    }
    causes
}

fn check_event(object: &Value) -> Vec<Cause> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let needed = ["eventTime", "reason", "action", "reportingController", "reportingInstance"];
    let missing = needed.into_iter().filter(|field| text(field).is_empty());
    let mut causes: Vec<Cause> = missing.map(|field| Cause::required(field, "")).collect();
    if text("reportingController").is_empty() {
        causes.push(Cause::invalid("reportingController", &"".into(), "name part must be non-empty"));
    }
    if !matches!(text("type"), "Normal" | "Warning") {
        causes.push(Cause::invalid("type", &object["type"], "has invalid value"));
    }
    let about = object["regarding"]["namespace"].as_str().unwrap_or_default();
    if about.is_empty() && object["metadata"]["namespace"] != "default" {
        let words = "does not match event.namespace: one about the cluster is in default";
        causes.push(Cause::invalid("involvedObject.namespace", &about.into(), words));
    }
    causes
}

fn is_port(value: &Value) -> bool {
    value.as_i64().is_some_and(|port| (1..=65_535).contains(&port))
}
