//! A change costs what depends on it, not what is there.

use actors_core::observe::observe;
use actors_core::snapshot::Snapshot;
use actors_core::snapshot::meta::{Kind, ObjectRef};
use actors_core::status::StatusContent;
use actors_core::translate::{Settings, Translator};
use proxy_config::name::ObjectName;
use serde_json::{Value, json};

fn put(snapshot: &mut Snapshot, kind: Kind, namespace: &str, name: &str, mut object: Value) {
    object["metadata"] = json!({ "name": name, "namespace": namespace, "generation": 1 });
    if kind == Kind::EndpointSlice {
        object["metadata"]["labels"] = json!({ "kubernetes.io/service-name": name });
    }
    assert!(snapshot.put(observe(kind, &object)), "{kind} {name} changes something");
}

fn route(backend: usize, path: &str) -> Value {
    json!({ "spec": {
        "parentRefs": [{ "name": "edge" }],
        "rules": [{
            "matches": [{ "path": { "type": "PathPrefix", "value": path } }],
            "backendRefs": [{ "name": format!("s{backend}"), "port": 80 }],
        }],
    } })
}

fn slice(address: &str) -> Value {
    json!({ "addressType": "IPv4", "ports": [{ "port": 80 }], "endpoints": [{ "addresses": [address] }] })
}

/// One Gateway, `routes` routes, a Service with endpoints for every ten of them.
fn cluster(routes: usize) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let class = json!({ "spec": { "controllerName": "portreeve.dev/gateway-controller" } });
    put(&mut snapshot, Kind::GatewayClass, "", "portreeve", class);
    for gateway in ["edge", "other"] {
        let listener = json!({ "name": "http", "port": 80, "protocol": "HTTP", "hostname": format!("{gateway}.example.com") });
        let spec = json!({ "spec": { "gatewayClassName": "portreeve", "listeners": [listener] } });
        put(&mut snapshot, Kind::Gateway, "shop", gateway, spec);
    }
    for index in 0..routes {
        if index % 10 == 0 {
            let service = json!({ "spec": { "ports": [{ "port": 80 }] } });
            put(&mut snapshot, Kind::Service, "shop", &format!("s{}", index / 10), service);
            put(&mut snapshot, Kind::EndpointSlice, "shop", &format!("s{}", index / 10), slice("10.0.0.1"));
        }
        put(
            &mut snapshot,
            Kind::HttpRoute,
            "shop",
            &format!("r{index}"),
            route(index / 10, &format!("/r{index}")),
        );
    }
    snapshot
}

#[test]
fn a_change_runs_what_depends_on_it_and_nothing_else() {
    let mut snapshot = cluster(500);
    let mut translator = Translator::new(Settings::default());
    let before = translator.update(&snapshot);
    assert!(translator.ran() > 500);

    // Every update looks at the proxies, which is the first task of each count below.
    translator.update(&snapshot);
    assert_eq!(translator.ran(), 1, "nothing has changed");

    put(&mut snapshot, Kind::HttpRoute, "shop", "r7", route(0, "/changed"));
    let after = translator.update(&snapshot);
    assert_eq!(translator.ran(), 2, "a route: itself");
    assert_eq!(after.units.diff(&before.units).0.len(), 1);

    put(&mut snapshot, Kind::EndpointSlice, "shop", "s3", slice("10.0.0.2"));
    translator.update(&snapshot);
    assert_eq!(translator.ran(), 2, "an EndpointSlice: itself");

    put(
        &mut snapshot,
        Kind::Service,
        "shop",
        "s4",
        json!({ "spec": { "ports": [{ "port": 80, "name": "http" }] } }),
    );
    translator.update(&snapshot);
    assert_eq!(
        translator.ran(),
        13,
        "a Service: the ten routes that name it, its port, and whether it can be read"
    );

    put(&mut snapshot, Kind::HttpRoute, "shop", "new", route(0, "/new"));
    translator.update(&snapshot);
    assert_eq!(translator.ran(), 3, "a new route: itself and its Gateway's count");

    let spec = json!({ "gatewayClassName": "portreeve", "listeners": [{ "name": "http", "port": 81, "protocol": "HTTP" }] });
    put(&mut snapshot, Kind::Gateway, "shop", "other", json!({ "spec": spec }));
    translator.update(&snapshot);
    assert_eq!(
        translator.ran(),
        7,
        "a Gateway without routes: what it asks and claims, two ports, its listeners, its status"
    );

    put(&mut snapshot, Kind::Namespace, "", "shop", json!({}));
    translator.update(&snapshot);
    assert_eq!(translator.ran(), 2, "labels that no listener asks for");
}

#[test]
fn what_a_pool_gives_to_one_gateway_is_of_no_matter_to_the_others() {
    let mut snapshot = Snapshot::default();
    let pool = json!({ "spec": { "addressProvider": { "pool": { "cidrs": ["10.0.0.0/20"] } } } });
    put(&mut snapshot, Kind::EdgeParameters, "", "pool", pool);
    let class = json!({ "spec": {
        "controllerName": "portreeve.dev/gateway-controller",
        "parametersRef": { "group": "portreeve.dev", "kind": "EdgeParameters", "name": "pool" },
    } });
    put(&mut snapshot, Kind::GatewayClass, "", "pool", class);
    let gateway = |status: Value| {
        let listener = json!({ "name": "http", "port": 80, "protocol": "HTTP" });
        json!({ "spec": { "gatewayClassName": "pool", "listeners": [listener] }, "status": status })
    };
    for index in 0..200 {
        put(&mut snapshot, Kind::Gateway, "shop", &format!("g{index}"), gateway(json!({})));
    }
    let mut translator = Translator::new(Settings::default());
    let before = translator.update(&snapshot);

    put(&mut snapshot, Kind::Gateway, "shop", "new", gateway(json!({})));
    let after = translator.update(&snapshot);
    assert_eq!(
        translator.ran(),
        7,
        "what it asks, the pool, its claims, its port, its listeners, its status"
    );
    assert_eq!(after.units.diff(&before.units).0.len(), 1);

    let reference = ObjectRef::new(Kind::Gateway, ObjectName::new("shop", "new"));
    let StatusContent::Gateway(status) = &after.statuses[&reference].content else { panic!("a Gateway") };
    let addresses = json!({ "addresses": [{ "value": status.addresses[0].1 }] });
    put(&mut snapshot, Kind::Gateway, "shop", "new", gateway(addresses));
    let echoed = translator.update(&snapshot);
    assert_eq!(translator.ran(), 4, "its status now says what it has: what it asks, the pool, its claims");
    assert_eq!(echoed.units.root(), after.units.root());
}

#[test]
fn of_a_service_with_ten_thousand_endpoints_only_the_slice_that_changed_is_pushed() {
    let mut snapshot = cluster(10);
    let of_many = |number: usize, first: u8| {
        let endpoint = |host: u8| json!({ "addresses": [format!("10.1.{number}.{host}")] });
        let endpoints: Vec<_> = (first..first + 100).map(endpoint).collect();
        json!({
            "metadata": { "name": format!("s0-{number}"), "namespace": "shop",
                "labels": { "kubernetes.io/service-name": "s0" } },
            "addressType": "IPv4", "ports": [{ "port": 80 }], "endpoints": endpoints,
        })
    };
    for number in 0..100 {
        assert!(snapshot.put(observe(Kind::EndpointSlice, &of_many(number, 0))));
    }
    let mut translator = Translator::new(Settings::default());
    let before = translator.update(&snapshot);
    let slices = before.units.iter().filter(|unit| unit.id.as_str().starts_with("endpoints/shop/s0-"));
    assert_eq!(slices.count(), 100);

    assert!(snapshot.put(observe(Kind::EndpointSlice, &of_many(7, 1))));
    let after = translator.update(&snapshot);
    assert_eq!(translator.ran(), 2, "an EndpointSlice: itself");
    let (put, deleted) = after.units.diff(&before.units);
    assert_eq!((put.len(), deleted.len()), (1, 0));
}

#[test]
fn the_echo_of_our_own_status_changes_nothing() {
    let mut snapshot = cluster(10);
    let mut object = route(0, "/r3");
    object["metadata"] =
        json!({ "name": "r3", "namespace": "shop", "generation": 1, "resourceVersion": "99" });
    object["status"] = json!({ "parents": [] });
    assert!(!snapshot.put(observe(Kind::HttpRoute, &object)));
}
