//! What a change costs among 1,000 and 10,000 routes: `cargo bench -p actors-core`.

use std::time::{Duration, Instant};

use actors_core::observe::observe;
use actors_core::snapshot::Snapshot;
use actors_core::snapshot::meta::Kind;
use actors_core::translate::{Settings, Translator};
use serde_json::{Value, json};

fn put(snapshot: &mut Snapshot, kind: Kind, name: &str, mut object: Value) {
    object["metadata"] = json!({ "name": name, "namespace": "shop", "generation": 1 });
    if kind == Kind::EndpointSlice {
        object["metadata"]["labels"] = json!({ "kubernetes.io/service-name": name });
    }
    snapshot.put(observe(kind, &object));
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

fn slice(last: usize) -> Value {
    let address = format!("10.0.{}.{}", last / 250, last % 250);
    json!({ "addressType": "IPv4", "ports": [{ "port": 80 }], "endpoints": [{ "addresses": [address] }] })
}

fn cluster(routes: usize) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let class = json!({
        "metadata": { "name": "portreeve" },
        "spec": { "controllerName": "portreeve.dev/gateway-controller" },
    });
    snapshot.put(observe(Kind::GatewayClass, &class));
    let listener = json!({ "name": "http", "port": 80, "protocol": "HTTP" });
    let spec = json!({ "spec": { "gatewayClassName": "portreeve", "listeners": [listener] } });
    put(&mut snapshot, Kind::Gateway, "edge", spec);
    for index in 0..routes {
        put(
            &mut snapshot,
            Kind::Service,
            &format!("s{index}"),
            json!({ "spec": { "ports": [{ "port": 80 }] } }),
        );
        put(&mut snapshot, Kind::EndpointSlice, &format!("s{index}"), slice(index));
        put(&mut snapshot, Kind::HttpRoute, &format!("r{index}"), route(index, &format!("/r{index}")));
    }
    snapshot
}

/// The median and the worst of a hundred changes.
fn changes(
    snapshot: &mut Snapshot,
    translator: &mut Translator,
    change: impl Fn(&mut Snapshot, usize),
) -> (Duration, Duration) {
    let mut times: Vec<_> = (0..100)
        .map(|round| {
            change(snapshot, round);
            let began = Instant::now();
            let translation = translator.update(snapshot);
            let took = began.elapsed();
            drop(translation);
            took
        })
        .collect();
    times.sort();
    (times[50], times[99])
}

fn main() {
    println!("routes  from nothing  a route (median, worst)  an EndpointSlice (median, worst)");
    for routes in [1_000, 10_000] {
        let mut snapshot = cluster(routes);
        let mut translator = Translator::new(Settings::default());
        let began = Instant::now();
        let translation = translator.update(&snapshot);
        let full = began.elapsed();
        assert_eq!(translation.units.len(), routes * 3 + 1);
        let route = changes(&mut snapshot, &mut translator, |snapshot, round| {
            let index = round * 7;
            put(snapshot, Kind::HttpRoute, &format!("r{index}"), route(index, &format!("/changed-{round}")));
        });
        let endpoints = changes(&mut snapshot, &mut translator, |snapshot, round| {
            put(snapshot, Kind::EndpointSlice, &format!("s{}", round * 7), slice(round + 20_000));
        });
        println!("{routes:6}  {full:?}  {route:?}  {endpoints:?}");
    }
}
