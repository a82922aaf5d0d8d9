//! Golden pairs: `golden/NAME.in.yaml` holds objects, which are added to those of `golden/base.yaml`, and
//! `golden/NAME.out.yaml` what follows from them.
//!
//! A pair's name says the behaviour. To write the outputs anew: `UPDATE_GOLDEN=1 cargo test -p actors-core
//! --test golden`, then read the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors_core::observe::observe;
use actors_core::snapshot::cluster::{Secret, SecretContent};
use actors_core::snapshot::meta::{Kind, ObjectRef};
use actors_core::snapshot::{Object, Snapshot};
use actors_core::status::fleet::{Acked, Fleet, ProxyState, finalise};
use actors_core::status::merge::merge_status;
use actors_core::translate::{AddressSource, Settings, Translation, Translator};
use jiff::Timestamp;
use proxy_config::backend::{Destination, ExternalHost};
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::route::Target;
use proxy_config::unit::Unit;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Certificates differ from run to run; what follows from them does not.
fn with_certificates(yaml: &str) -> String {
    let pair = || rcgen::generate_simple_self_signed(["example.com".to_owned()]).expect("a certificate");
    let (one, other) = (pair(), pair());
    let quoted = |text: String| text.replace('\n', "\\n");
    yaml.replace("${CERTIFICATE}", &quoted(one.cert.pem()))
        .replace("${KEY}", &quoted(one.signing_key.serialize_pem()))
        .replace("${OTHER_KEY}", &quoted(other.signing_key.serialize_pem()))
}

/// A pair that begins with this line is translated as without a cluster.
const AS_WRITTEN: &str = "# Addresses are bound as written, or else 127.0.0.1.";

fn settings(yaml: &str) -> Settings {
    let default = [127, 0, 0, 1].into();
    let without_cluster = yaml.starts_with(AS_WRITTEN);
    let addresses = if without_cluster { AddressSource::AsWritten { default } } else { AddressSource::Class };
    Settings { addresses, ..Settings::default() }
}

fn snapshot(yaml: &str) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let base = std::fs::read_to_string(folder().join("base.yaml")).expect("the base");
    let yaml = with_certificates(&format!("{base}---\n{yaml}"));
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).expect("the input is YAML");
    for object in objects.iter().filter(|object| !object.is_null()) {
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        let kind = Kind::of(text("apiVersion"), text("kind"));
        snapshot.put(observe(kind.expect("the kind is one that is observed"), object));
    }
    snapshot
}

/// Every proxy of the snapshot has acked everything.
fn fleet(snapshot: &Snapshot, translation: &Translation) -> Fleet {
    let acked = Some(Acked { units: translation.units.clone(), broken: BTreeMap::new() });
    let state = |ready| ProxyState { ready, acked: acked.clone(), ..ProxyState::default() };
    let proxies = snapshot.proxies.values().map(|proxy| (proxy.meta.name.to_string(), state(proxy.ready)));
    Fleet { proxies: proxies.collect(), ..Fleet::default() }
}

fn conditions(status: &mut Value) {
    let status = match status {
        Value::Array(items) => return items.iter_mut().for_each(conditions),
        Value::Object(fields) => fields,
        _ => return,
    };
    for (key, value) in status.iter_mut() {
        if key != "conditions" {
            conditions(value);
            continue;
        }
        let lines = value.as_array().expect("a list").iter().map(|condition| {
            let text = |key: &str| condition[key].as_str().expect("a string").to_owned();
            let generation = &condition["observedGeneration"];
            json!(format!(
                "{}={} {} @{generation}: {}",
                text("type"),
                text("status"),
                text("reason"),
                text("message")
            ))
        });
        *value = Value::Array(lines.collect());
    }
}

fn render(settings: Settings, snapshot: &Snapshot) -> String {
    let translation = Translator::new(settings).update(snapshot);
    let mut units = BTreeMap::new();
    for unit in translation.units.iter() {
        let body = match unit.decode().expect("our own units can be read") {
            Unit::Key(_) => json!("(not shown)"),
            Unit::Certificate(mut certificate) => {
                certificate.chain = "(not shown)".into();
                json!(certificate)
            }
            Unit::Authority(mut authority) => {
                authority.bundle = "(not shown)".into();
                json!(authority)
            }
            other => serde_json::to_value(other).expect("units are JSON"),
        };
        units.insert(unit.id.to_string(), body);
    }
    let mut statuses = BTreeMap::new();
    for (object, status) in &finalise(&translation, &fleet(snapshot, &translation)) {
        if let Some(mut merged) = merge_status(status, &Value::Null, Timestamp::UNIX_EPOCH) {
            merged.as_object_mut().expect("an object").remove("supportedFeatures");
            conditions(&mut merged);
            statuses.insert(object.to_string(), merged);
        }
    }
    let problems: BTreeMap<_, Vec<_>> = translation
        .problems
        .iter()
        .map(|(object, problems)| {
            let lines = problems.iter().map(ToString::to_string);
            (object.to_string(), lines.collect())
        })
        .collect();
    let services: BTreeMap<_, _> = translation
        .services
        .iter()
        .map(|(name, service)| {
            (name.to_string(), json!({ "labels": service.labels, "annotations": service.annotations }))
        })
        .collect();
    let names = |set: &imbl::OrdSet<ObjectRef>| -> Vec<_> { set.iter().map(ToString::to_string).collect() };
    let all = json!({
        "units": units,
        "statuses": statuses,
        "problems": problems,
        "services": services,
        "wanted": names(&translation.wanted),
        "unread": names(&translation.unread),
    });
    serde_saphyr::to_string(&all).expect("it can be written as YAML")
}

#[test]
fn what_follows_is_as_written() {
    let update = std::env::vars().any(|(name, _)| name == "UPDATE_GOLDEN");
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).expect("the folder of pairs") {
        let input = entry.expect("an entry").path();
        let Some(name) = input.file_name().and_then(|name| name.to_str()?.strip_suffix(".in.yaml")) else {
            continue;
        };
        count += 1;
        let output = folder().join(format!("{name}.out.yaml"));
        let yaml = std::fs::read_to_string(&input).expect("the input");
        let found = render(settings(&yaml), &snapshot(&yaml));
        if update {
            std::fs::write(&output, &found).expect("the output can be written");
        } else if std::fs::read_to_string(&output).unwrap_or_default() != found {
            wrong.push(format!("--- {name}: found\n{found}"));
        }
    }
    assert!(count > 0, "there are pairs");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// These objects, and a Gateway of one listener.
fn beside_a_gateway(objects: &str) -> String {
    let gateway = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop, generation: 1}
spec: {gatewayClassName: portreeve, listeners: [{name: http, port: 80, protocol: HTTP}]}
---";
    [gateway, objects].concat()
}

/// Holds that a unit waits as soon as the Secret `shop/pair` can't be read, and not before.
fn stays_while_the_pair_can_not_be_read(yaml: &str, unit: &UnitId) {
    let mut held = snapshot(yaml);
    let waiting = |held: &Snapshot| Translator::new(settings(yaml)).update(held).waiting.clone();
    assert!(waiting(&held).is_empty());
    let known = held.secrets[&ObjectName::new("shop", "pair")].clone();
    let content = SecretContent::Unavailable("the API server does not answer".into());
    held.put(Ok(Object::Secret(Arc::new(Secret { content, ..Secret::clone(&known) }))));
    assert!(waiting(&held).contains(unit), "{:?}", waiting(&held));
}

#[test]
fn a_listener_stays_as_it_is_while_what_its_gateway_shows_to_backends_can_not_be_read() {
    let yaml = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop, generation: 1}
spec:
  gatewayClassName: portreeve
  tls: {backend: {clientCertificateRef: {name: pair}}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Secret
metadata: {name: pair, namespace: shop}
type: kubernetes.io/tls
stringData: {tls.crt: \"${CERTIFICATE}\", tls.key: \"${KEY}\"}
";
    stays_while_the_pair_can_not_be_read(yaml, &UnitId::listener(&ObjectName::new("shop", "edge"), "http"));
}

#[test]
fn a_backend_stays_as_it_is_while_what_it_is_shown_can_not_be_read() {
    let yaml = &beside_a_gateway(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: out, namespace: shop, generation: 1}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: out}]}]
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: out, namespace: shop, generation: 1}
spec:
  type: ExternalHostname
  externalHostname: {hostname: out.example.com}
  port: {port: 443}
  tls: {mode: ClientAndServer, clientCertificateRef: {name: pair}}
---
apiVersion: v1
kind: Secret
metadata: {name: pair, namespace: shop}
type: kubernetes.io/tls
stringData: {tls.crt: \"${CERTIFICATE}\", tls.key: \"${KEY}\"}
",
    );
    stays_while_the_pair_can_not_be_read(
        yaml,
        &UnitId::external_backend("XBackend", &ObjectName::new("shop", "out")),
    );
}

#[test]
fn what_was_said_of_an_xbackend_is_taken_back_when_no_route_leads_there() {
    let yaml = "
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: out, namespace: shop, generation: 1}
spec: {type: ExternalHostname, externalHostname: {hostname: out.example.com}, port: {port: 80}}
";
    let translation = Translator::new(settings(yaml)).update(&snapshot(yaml));
    let object = ObjectRef::new(Kind::Backend, ObjectName::new("shop", "out"));
    let status = translation.statuses.get(&object).expect("it has one");
    let ours =
        json!({ "controllerName": Settings::default().controller_name, "parentRef": {}, "conditions": [] });
    let merged = merge_status(status, &json!({ "parents": [ours] }), Timestamp::UNIX_EPOCH);
    assert_eq!(merged, Some(json!({ "parents": [] })));
}

/// The unit of this id among those that follow.
fn unit(yaml: &str, id: &UnitId) -> Unit {
    let translation = Translator::new(settings(yaml)).update(&snapshot(yaml));
    let unit = translation.units.get(id).expect("proxies are told of it");
    unit.decode().expect("our own units can be read")
}

#[test]
fn tls_that_is_passed_on_leads_to_a_host_outside_the_cluster() {
    let yaml = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop, generation: 1}
spec:
  gatewayClassName: portreeve
  listeners: [{name: pass, port: 443, protocol: TLS, tls: {mode: Passthrough}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: out, namespace: shop, generation: 1}
spec:
  parentRefs: [{name: edge}]
  hostnames: [db.example.com]
  rules: [{backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: out}]}]
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: out, namespace: shop, generation: 1}
spec: {type: ExternalHostname, externalHostname: {hostname: db.example.com}, port: {port: 5432}, protocol: TCP}
";
    let name = ObjectName::new("shop", "out");
    let id = UnitId::external_backend("XBackend", &name);
    let Unit::L4Route(route) = unit(yaml, &UnitId::route("TLSRoute", &name)) else { panic!("a route") };
    let targets: Vec<_> = route.backends.into_iter().map(|backend| backend.target).collect();
    assert_eq!(targets, [Target::Backend(id.clone())]);
    let Unit::Backend(backend) = unit(yaml, &id) else { panic!("a backend") };
    let host = ExternalHost { hostname: "db.example.com".to_owned(), port: 5432 };
    assert_eq!((backend.destination, backend.tls), (Destination::External(host), None));
}

#[test]
fn sessions_of_the_ports_of_a_service_and_of_an_xbackend_of_one_name_are_told_apart() {
    let yaml = &beside_a_gateway("
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all, namespace: shop, generation: 1}
spec:
  parentRefs: [{name: edge}]
  rules:
  - backendRefs:
    - {name: web, port: 80}
    - {name: web, port: 81}
    - {group: gateway.networking.x-k8s.io, kind: XBackend, name: web}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}, {name: other, port: 81}]}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: web, namespace: shop, generation: 1}
spec: {type: ExternalHostname, externalHostname: {hostname: web.example.com}, port: {port: 80}}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: both, namespace: shop, generation: 1}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}, {group: gateway.networking.x-k8s.io, kind: XBackend, name: web}]
  sessionPersistence: {}
");
    let session = |id: UnitId| {
        let Unit::Backend(backend) = unit(yaml, &id) else { panic!("a backend") };
        backend.traffic.and_then(|traffic| traffic.session).expect("its policy says so").name
    };
    let web = ObjectName::new("shop", "web");
    let ids =
        [UnitId::backend(&web, 80), UnitId::backend(&web, 81), UnitId::external_backend("XBackend", &web)];
    let names: BTreeSet<_> = ids.map(session).into_iter().collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn more_than_all_requests_can_not_be_mirrored_however_that_is_written() {
    let yaml = &beside_a_gateway("
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mirrors, namespace: shop, generation: 1}
spec:
  parentRefs: [{name: edge}]
  rules:
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, percent: 100}}]
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, fraction: {numerator: 3, denominator: 3}}}]
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, fraction: {numerator: 3, denominator: 2}}}]
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, fraction: {numerator: 101}}}]
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, fraction: {numerator: 0, denominator: 0}}}]
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, percent: 1, fraction: {numerator: 1}}}]
");
    let id = UnitId::route("HTTPRoute", &ObjectName::new("shop", "mirrors"));
    let Unit::Route(route) = unit(yaml, &id) else { panic!("a route") };
    let invalid: Vec<_> = route.rules.iter().map(|rule| rule.invalid.as_deref()).collect();
    let expected = [
        None,
        None,
        Some("filters[0].requestMirror.fraction: 3 of 2 requests can't be copied"),
        Some("filters[0].requestMirror.fraction: 101 of 100 requests can't be copied"),
        Some("filters[0].requestMirror.fraction: 0 of 0 requests can't be copied"),
        Some("filters[0].requestMirror.percent and fraction exclude each other"),
    ];
    assert_eq!(invalid, expected);
}

#[test]
fn a_route_that_can_not_be_read_or_served_gives_its_hostname_to_no_rival() {
    let younger = &beside_a_gateway(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: younger, namespace: shop, generation: 1, creationTimestamp: \"2026-01-02T00:00:00Z\"}
spec: {parentRefs: [{name: edge}], hostnames: [a.example.com], rules: [{}]}
",
    );
    let older = "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: older, namespace: shop, generation: 1, creationTimestamp: \"2026-01-01T00:00:00Z\"}
spec: {parentRefs: [{name: edge}], hostnames: [a.example.com], rules: RULES}
";
    let with = |rules: &str| format!("{younger}{}", older.replace("RULES", rules));
    let no_expression = "[{matches: [{path: {type: RegularExpression, value: \"(\"}}]}]";
    let steps: [(String, &[&str]); 5] = [
        (with("[{}]"), &["route/HTTPRoute/shop/older"]),
        (with("nonsense"), &[]),
        (with(no_expression), &[]),
        (with("[{}]"), &["route/HTTPRoute/shop/older"]),
        (younger.to_owned(), &["route/GRPCRoute/shop/younger"]),
    ];
    let mut translator = Translator::new(settings(younger));
    for (yaml, served) in steps {
        let translation = translator.update(&snapshot(&yaml));
        let units = translation.units.iter().map(|unit| unit.id.to_string());
        let routes: Vec<_> = units.filter(|unit| unit.starts_with("route/")).collect();
        assert_eq!(routes, served, "{yaml}");
    }
}

#[test]
fn a_gateway_that_names_all_nodes_goes_on_while_the_proxy_of_one_is_not_ready() {
    let yaml = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop, generation: 1}
spec:
  gatewayClassName: portreeve
  addresses: [{value: 10.0.0.1}, {value: 10.0.0.2}]
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Node
metadata: {name: node-b}
status: {addresses: [{type: InternalIP, address: 10.0.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: proxy-b, namespace: portreeve, uid: uid-b}
spec: {nodeName: node-b}
status: {hostIP: 10.0.0.2, conditions: [{type: Ready, status: \"False\"}]}
";
    let id = UnitId::listener(&ObjectName::new("shop", "edge"), "http");
    let is_served =
        |yaml: &str| Translator::new(settings(yaml)).update(&snapshot(yaml)).units.get(&id).is_some();
    assert!(is_served(yaml));
    assert!(!is_served(&yaml.replace("{value: 10.0.0.1}, ", "")), "a node that serves is not named");
    assert!(!is_served(&yaml.replace("{value: 10.0.0.1}, ", "{value: 10.0.0.1}, {value: 192.0.2.1}, ")));
}
