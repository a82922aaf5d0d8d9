//! Whatever objects the schemas of the definitions allow: translation has an answer to them, the same one each
//! time and soon; proxies can use what it makes; and what others have does not change.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking, and nobody imports it")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors_core::observe::observe;
use actors_core::snapshot::Snapshot;
use actors_core::snapshot::meta::Kind;
use actors_core::translate::{Settings, Translation, Translator};
use proptest::prelude::*;
use proxy::metrics::Metrics;
use proxy::table::compile::Compiler;
use proxy::upstream::registry::Registry;
use proxy_config::wire::Version;
use serde_json::Value;

mod objects;

use objects::{Definition, Source, definitions};

const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

/// What must not notice: a Gateway that takes routes of all namespaces, with a route of its own, made earlier.
const GOOD: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop, uid: edge, generation: 1, creationTimestamp: "2020-01-01T00:00:00Z"}
spec:
  gatewayClassName: portreeve
  listeners:
    - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
    - {name: tcp, port: 8080, protocol: TCP, allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good, namespace: shop, uid: good, generation: 1, creationTimestamp: "2020-01-01T00:00:00Z"}
spec:
  parentRefs: [{name: edge}]
  hostnames: [example.com, "*.com"]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: good, namespace: shop, uid: good-tcp, generation: 1, creationTimestamp: "2020-01-01T00:00:00Z"}
spec:
  parentRefs: [{name: edge, sectionName: tcp}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: bad}
spec: {ports: [{port: 80}, {port: 443, appProtocol: https}, {port: 8080, appProtocol: kubernetes.io/h2c}]}
"#;

fn put(snapshot: &mut Snapshot, object: &Value) {
    let text = |key: &str| object[key].as_str().unwrap();
    if let Some(kind) = Kind::of(text("apiVersion"), text("kind")) {
        snapshot.put(observe(kind, object));
    }
}

fn good() -> Snapshot {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../actors/core/tests/golden/base.yaml");
    let yaml = format!("{}\n---\n{GOOD}", std::fs::read_to_string(folder).unwrap());
    let mut snapshot = Snapshot::default();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    objects.iter().filter(|object| !object.is_null()).for_each(|object| put(&mut snapshot, object));
    snapshot
}

fn translated(snapshot: &Snapshot) -> Translation {
    Translator::new(Settings::default()).update(snapshot)
}

/// Some objects of each kind, in any order.
fn drawn(definitions: &[Definition], seed: u64) -> Vec<Value> {
    let mut source = Source::new(seed);
    let count = 4 + source.below(12);
    (0..count)
        .map(|_| {
            let (definition, number) = (source.below(definitions.len()), source.below(3));
            source.object(&definitions[definition], number)
        })
        .collect()
}

/// What a proxy says that it does not have, whatever it is told.
fn is_known(reason: &str) -> bool {
    reason.contains("this proxy has no CORS of a single backend filter")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn translation_has_an_answer_to_everything_and_the_same_one_each_time(seed: u64) {
        let definitions = definitions_once();
        let mut snapshot = good();
        let mut step_by_step = Translator::new(Settings::default());
        step_by_step.update(&snapshot);
        for object in drawn(definitions, seed) {
            put(&mut snapshot, &object);
            let begun = Instant::now();
            let translation = step_by_step.update(&snapshot);
            prop_assert!(begun.elapsed() < Duration::from_secs(5), "{object}");
            let panicked = translation.problems.iter().find(|(_, problems)| {
                problems.iter().any(|problem| problem.reason == "Panicked")
            });
            prop_assert!(panicked.is_none(), "{:?}: {object}", panicked.map(|(object, _)| object));
        }
        let (one, other, edited) = (translated(&snapshot), translated(&snapshot), step_by_step.update(&snapshot));
        prop_assert_eq!(one.units.root(), other.units.root());
        prop_assert_eq!(one.units.root(), edited.units.root());
        prop_assert_eq!(&one.statuses, &other.statuses);
        prop_assert_eq!(&one.statuses, &edited.statuses);
    }

    #[test]
    fn what_was_served_before_stays_as_it_was(seed: u64) {
        let mut snapshot = good();
        let before = translated(&snapshot);
        let objects = drawn(definitions_once(), seed);
        objects.iter().for_each(|object| put(&mut snapshot, object));
        let after = translated(&snapshot);
        for unit in before.units.iter() {
            prop_assert_eq!(after.units.get(&unit.id), Some(unit), "{}", serde_json::to_string(&objects).unwrap());
        }
    }

    #[test]
    fn proxies_can_use_what_is_made_of_it(seed: u64) {
        let mut snapshot = good();
        let objects = drawn(definitions_once(), seed);
        objects.iter().for_each(|object| put(&mut snapshot, object));
        let translation = translated(&snapshot);
        let mut compiler = Compiler::new(NODE, Arc::new(Registry::default()), Metrics::new(1));
        compiler.apply(translation.units.iter(), [], Version::default(), translation.units.root());
        let broken: Vec<_> = compiler.broken().filter(|broken| !is_known(&broken.reason)).collect();
        prop_assert!(broken.is_empty(), "{broken:#?}\n{}", serde_json::to_string(&objects).unwrap());
    }
}

fn definitions_once() -> &'static [Definition] {
    static DEFINITIONS: std::sync::OnceLock<Vec<Definition>> = std::sync::OnceLock::new();
    DEFINITIONS.get_or_init(definitions)
}

/// What the drawn objects must have together, or the tests above would say little.
const EVERYTHING: &[&str] = &[
    "UnsupportedValue",
    "UnsupportedProtocol",
    "RefNotPermitted",
    "BackendNotFound",
    "InvalidKind",
    "InvalidCertificateRef",
    "InvalidRouteKinds",
    "InvalidParameters",
    "IncompatibleFilters",
    "HostnameConflict",
    "ProtocolConflict",
    "PortUnavailable",
    "NoMatchingParent",
    "NotAllowedByListeners",
    "listener",
    "route",
    "backend",
    "XBackend",
];

#[test]
fn the_objects_are_served_in_part_and_are_wrong_in_every_way() {
    let mut seen = std::collections::BTreeSet::new();
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let mut snapshot = good();
        for object in drawn(definitions_once(), seed * 7919 + 1) {
            kinds.insert(object["kind"].as_str().unwrap().to_owned());
            put(&mut snapshot, &object);
        }
        let translation = translated(&snapshot);
        seen.extend(translation.problems.values().flat_map(|problems| problems.iter().map(|one| one.reason)));
        let own = translation.units.iter().filter(|unit| unit.id.as_str().contains("/bad/"));
        for unit in own {
            seen.insert(unit.id.kind().unwrap().prefix());
            seen.extend(unit.id.as_str().ends_with("/XBackend").then_some("XBackend"));
        }
    }
    let missing: Vec<_> = EVERYTHING.iter().filter(|wanted| !seen.contains(**wanted)).collect();
    assert!(missing.is_empty(), "no object has {missing:?}: {seen:?}");
    assert_eq!(kinds.len(), definitions_once().len(), "{kinds:?}");
}
