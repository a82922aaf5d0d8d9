//! What is read of raw objects, and what is said of those that cannot be read.

use proxy_config::backend::Endpoint;
use serde_json::json;

use super::*;
use crate::snapshot::Snapshot;
use crate::snapshot::cluster::SecretContent;

/// What an object of a kind with this body is read as.
#[track_caller]
fn read(kind: Kind, mut body: Value) -> Object {
    if body["metadata"].is_null() {
        body["metadata"] = json!({ "name": "n", "namespace": "ns" });
    }
    observe(kind, &body).expect("it can be read")
}

#[track_caller]
fn fault(kind: Kind, mut body: Value) -> String {
    body["metadata"] = json!({ "name": "n", "namespace": "ns" });
    observe(kind, &body).expect_err("it can't be read").message()
}

#[test]
fn metadata_is_identity_and_place_in_time() {
    let metadata = json!({
        "name": "n", "namespace": "ns", "uid": "u", "generation": 4, "resourceVersion": "17",
        "creationTimestamp": "1970-01-01T00:01:00Z", "labels": null, "managedFields": [{}],
    });
    let object = read(Kind::Namespace, json!({ "metadata": metadata }));
    let meta = object.meta();
    assert_eq!((meta.generation, meta.created, &*meta.resource_version, &*meta.uid), (4, 60, "17", "u"));
    assert_eq!(object.reference().to_string(), "Namespace ns/n");
}

#[test]
fn endpoints_are_ready_unless_they_say_otherwise() {
    let endpoints = |conditions: Value| {
        let object = read(
            Kind::EndpointSlice,
            json!({
                "addressType": "IPv4",
                "endpoints": [{ "addresses": ["10.0.0.1", "10.0.0.2"], "conditions": conditions }],
            }),
        );
        let Object::EndpointSlice(slice) = object else { panic!("{object:?}") };
        let [Endpoint { ready, serving, terminating, .. }] = slice.endpoints[..] else { panic!("{slice:?}") };
        (ready, serving, terminating)
    };
    assert_eq!(endpoints(Value::Null), (true, true, false));
    assert_eq!(endpoints(json!({})), (true, true, false));
    assert_eq!(endpoints(json!({ "ready": false })), (false, false, false));
    let leaving = json!({ "ready": false, "serving": true, "terminating": true });
    assert_eq!(endpoints(leaving), (false, true, true));
}

#[test]
fn a_slice_keeps_its_ports_and_sorted_addresses() {
    let object = read(
        Kind::EndpointSlice,
        json!({
            "metadata": { "name": "n", "namespace": "ns", "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv6",
            "endpoints": [{ "addresses": ["fd00::2"] }, { "addresses": ["fd00::1"] }, { "addresses": ["fd00::2"] }],
            "ports": [
                { "name": "", "port": 80 },
                { "name": "dns", "port": 53, "protocol": "UDP" },
                { "name": "any" },
                { "name": "sigtran", "port": 2905, "protocol": "SCTP" },
                { "name": "http", "port": 8080, "protocol": "TCP" },
            ],
        }),
    );
    let Object::EndpointSlice(slice) = object else { panic!("{object:?}") };
    assert_eq!(slice.service, Some(ObjectName::new("ns", "web")));
    let ports: Vec<_> = slice.ports.iter().map(|port| (port.name.as_deref(), port.port)).collect();
    assert_eq!(ports, [(None, 80), (Some("dns"), 53), (Some("http"), 8080)]);
    let addresses: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(addresses, ["fd00::1", "fd00::2"]);
}

#[test]
fn a_slice_of_names_or_of_nothing_has_no_endpoints() {
    for body in [
        json!({ "addressType": "FQDN", "endpoints": [{ "addresses": ["example.com"] }] }),
        json!({ "addressType": "IPv4", "endpoints": null, "ports": null }),
    ] {
        let Object::EndpointSlice(slice) = read(Kind::EndpointSlice, body) else { panic!("a slice") };
        assert!(slice.endpoints.is_empty() && slice.service.is_none());
    }
}

#[test]
fn a_secret_is_read_only_where_its_data_is_there() {
    let content = |body: Value| {
        let object = read(Kind::Secret, body);
        let Object::Secret(secret) = object else { panic!("{object:?}") };
        secret.content.clone()
    };
    assert_eq!(content(json!({})), SecretContent::NotRead);
    assert_eq!(content(json!({ "type": "kubernetes.io/tls" })), SecretContent::NotRead);
    let tls = json!({ "type": "kubernetes.io/tls", "data": { "tls.crt": "YQ==", "tls.key": "Y\ng==" } });
    assert_eq!(content(tls), SecretContent::Tls { chain: b"a".into(), key: b"b".into(), authority: None });
    let opaque = json!({ "type": "Opaque", "data": { "a": "Yg==" } });
    assert_eq!(content(opaque), SecretContent::Other("its type is `Opaque`, not kubernetes.io/tls".into()));
}

#[test]
fn no_key_is_shown() {
    let tls =
        json!({ "type": "kubernetes.io/tls", "stringData": { "tls.crt": "chain", "tls.key": "hidden" } });
    let shown = format!("{:?}", read(Kind::Secret, tls));
    assert!(!shown.contains("hidden") && !shown.contains(&format!("{:?}", b"hidden")), "{shown}");
}

#[test]
fn a_fault_names_the_field() {
    let check = |kind, body, wanted: &str| {
        let found = fault(kind, body);
        assert!(found.starts_with(wanted), "{found}");
    };
    check(Kind::Gateway, json!({}), "missing field `spec`");
    check(Kind::Gateway, json!({ "spec": { "listeners": [] } }), "spec: missing field `gatewayClassName`");
    let rules = json!([{}, { "backendRefs": [{ "name": "a", "weight": -1 }] }]);
    check(
        Kind::HttpRoute,
        json!({ "spec": { "rules": rules } }),
        "spec.rules[1].backendRefs[0].weight: invalid value",
    );
    let endpoints = json!([{ "addresses": ["10.0.0.1"] }, { "addresses": [] }]);
    let slice = json!({ "addressType": "IPv4", "endpoints": endpoints });
    check(Kind::EndpointSlice, slice, "endpoints[1].addresses[0]: an endpoint needs an address");
}

#[test]
fn an_object_that_can_not_be_read_keeps_its_name_its_class_its_parents_and_its_hostnames() {
    let raw = json!({
        "metadata": { "name": "n", "namespace": "ns", "uid": "u", "generation": 2, "labels": 5 },
        "spec": {
            "gatewayClassName": "us",
            "parentRefs": [{ "name": "a" }, { "name": [] }, { "name": "b" }],
            "hostnames": ["a.example"],
        },
    });
    let gateway = observe(Kind::Gateway, &raw).expect_err("labels are a map");
    assert_eq!(
        (gateway.named.owner.as_deref(), gateway.meta.generation, &*gateway.meta.uid),
        (Some("us"), 2, "u")
    );
    let route = observe(Kind::HttpRoute, &raw).expect_err("labels are a map");
    assert_eq!(route.reference.to_string(), "HTTPRoute ns/n");
    let parents: Vec<_> = route.named.parents.iter().map(|parent| &*parent.name).collect();
    assert_eq!(parents, ["a", "b"]);
    assert_eq!(route.named.hostnames.as_deref(), Some(&["a.example".to_owned()][..]));
    assert_eq!(route.meta.created, Timestamp::MAX.as_second(), "without an age it takes nothing from others");
}

#[test]
fn an_object_is_either_read_or_malformed() {
    let good = json!({ "metadata": { "name": "n", "namespace": "ns" }, "spec": { "ports": [] } });
    let bad = json!({ "metadata": { "name": "n", "namespace": "ns" }, "spec": { "ports": 5 } });
    let mut snapshot = Snapshot::default();
    assert!(snapshot.put(observe(Kind::Service, &good)));
    assert!(!snapshot.put(observe(Kind::Service, &good)), "nothing has changed");
    assert!(snapshot.put(observe(Kind::Service, &bad)));
    assert_eq!((snapshot.services.len(), snapshot.malformed.len()), (0, 1));
    assert!(!snapshot.put(observe(Kind::Service, &bad)), "nothing has changed");
    assert!(snapshot.put(observe(Kind::Service, &good)));
    assert_eq!((snapshot.services.len(), snapshot.malformed.len()), (1, 0));
    let reference = ObjectRef::new(Kind::Service, ObjectName::new("ns", "n"));
    assert!(snapshot.contains(&reference) && snapshot.remove(&reference) && !snapshot.remove(&reference));
}
