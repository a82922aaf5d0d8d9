//! Small clusters for property tests: few names, so that objects meet, and few values, so that they agree.

use std::ops::Range;
use std::sync::OnceLock;

use actors_core::observe::observe;
use actors_core::snapshot::Snapshot;
use actors_core::snapshot::meta::{Kind, ObjectRef};
use proptest::prelude::*;
use proxy_config::name::ObjectName;
use serde_json::{Value, json};

/// An edit of the cluster: an object is put as drawn, or removed.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    kind: Kind,
    name: u8,
    /// What the object holds; `None`: it is removed.
    drawn: Option<[u8; 6]>,
    malformed: bool,
}

/// Edits of all kinds.
pub(crate) fn edits(count: Range<usize>) -> impl Strategy<Value = Vec<Edit>> {
    // Routes and Gateways change most; the rest stands around them.
    let kind = prop_oneof![
        6 => Just(Kind::HttpRoute),
        4 => Just(Kind::Gateway),
        3 => Just(Kind::ListenerSet),
        2 => Just(Kind::GrpcRoute),
        4 => prop_oneof![Just(Kind::TlsRoute), Just(Kind::TcpRoute), Just(Kind::UdpRoute)],
        3 => Just(Kind::Service),
        3 => Just(Kind::BackendTlsPolicy),
        2 => Just(Kind::BackendTrafficPolicy),
        3 => Just(Kind::Backend),
        2 => Just(Kind::ConfigMap),
        2 => Just(Kind::EndpointSlice),
        2 => Just(Kind::Secret),
        2 => Just(Kind::ReferenceGrant),
        2 => Just(Kind::GatewayClass),
        1 => Just(Kind::EdgeParameters),
        1 => Just(Kind::Namespace),
        1 => Just(Kind::Node),
        1 => Just(Kind::Proxy),
        1 => Just(Kind::CustomResourceDefinition),
    ];
    let drawn = prop_oneof![1 => Just(None), 5 => any::<[u8; 6]>().prop_map(Some)];
    let edit = (kind, 0..6u8, drawn, prop::bool::weighted(0.03));
    let edit = edit.prop_map(|(kind, name, drawn, malformed)| Edit { kind, name, drawn, malformed });
    prop::collection::vec(edit, count)
}

/// A Gateway of ours that takes routes of all namespaces, and a node with a proxy: what [`edits_outside`] happen around.
pub(crate) fn ground() -> [Edit; 4] {
    [Kind::GatewayClass, Kind::Gateway, Kind::Node, Kind::Proxy].map(|kind| Edit {
        kind,
        name: 0,
        drawn: Some([0; 6]),
        malformed: false,
    })
}

/// Edits of XBackends, of what these have read, and of what leads to them.
pub(crate) fn edits_outside(count: Range<usize>) -> impl Strategy<Value = Vec<Edit>> {
    let kind = prop_oneof![
        5 => Just(Kind::Backend),
        4 => Just(Kind::HttpRoute),
        2 => prop_oneof![Just(Kind::GrpcRoute), Just(Kind::TcpRoute)],
        3 => prop_oneof![Just(Kind::Secret), Just(Kind::ConfigMap)],
        2 => prop_oneof![Just(Kind::BackendTrafficPolicy), Just(Kind::ReferenceGrant)],
    ];
    let drawn = prop_oneof![1 => Just(None), 3 => any::<[u8; 6]>().prop_map(Some)];
    let edit = (kind, 0..6u8, drawn, prop::bool::weighted(0.8)).prop_map(|(kind, name, drawn, leads)| {
        let is_route = leads && kind == Kind::HttpRoute;
        // From the Gateway to an XBackend beside it.
        let towards = |[a, b, c, d, e, f]: [u8; 6]| {
            if is_route { [0, b, c, 6 + d % 3, e, 0] } else { [a, b, c, d, e, f] }
        };
        let name = if leads { name / 2 * 2 } else { name };
        Edit { kind, name, drawn: drawn.map(towards), malformed: false }
    });
    prop::collection::vec(edit, count)
}

impl Edit {
    /// Puts an object that can't be read.
    pub(crate) fn malformed(kind: Kind, name: u8) -> Self {
        Self { kind, name, drawn: Some([0; 6]), malformed: true }
    }

    /// The object that is edited.
    pub(crate) fn reference(&self) -> ObjectRef {
        let metadata = self.metadata();
        let text = |key: &str| metadata[key].as_str().unwrap_or_default();
        ObjectRef::new(self.kind, ObjectName::new(text("namespace"), text("name")))
    }

    /// Edits the cluster.
    pub(crate) fn apply(&self, snapshot: &mut Snapshot) {
        let Some(drawn) = self.drawn else {
            snapshot.remove(&self.reference());
            return;
        };
        let mut object = pruned(self.body(drawn));
        object["metadata"] = self.metadata();
        if self.malformed {
            object["metadata"]["creationTimestamp"] = json!(5);
        }
        snapshot.put(observe(self.kind, &object));
    }

    fn metadata(&self) -> Value {
        let name = self.name;
        let namespace = ["a", "b"][usize::from(name % 2)];
        let created = format!("2026-01-01T00:00:0{}Z", name % 3);
        let name = match self.kind {
            Kind::GatewayClass => format!("class-{}", name % 2),
            Kind::Namespace => namespace.to_owned(),
            Kind::CustomResourceDefinition => {
                let plural = ["gateways", "things", "things", "grpcroutes", "tcproutes", "httproutes"];
                format!("{}.gateway.networking.k8s.io", plural[usize::from(name)])
            }
            Kind::EdgeParameters | Kind::Node => format!("n{}", name % 2),
            _ => format!("n{}", name / 2),
        };
        let mut metadata = json!({ "name": name, "uid": "u", "generation": 1, "creationTimestamp": created });
        let cluster_scoped = [
            Kind::GatewayClass,
            Kind::Namespace,
            Kind::Node,
            Kind::EdgeParameters,
            Kind::CustomResourceDefinition,
        ];
        if !cluster_scoped.contains(&self.kind) {
            metadata["namespace"] = json!(namespace);
        }
        if self.kind == Kind::CustomResourceDefinition {
            let version =
                ["v1.6.1", "v1.6.1", "v1.2.0"][usize::from(self.drawn.map_or(0, |drawn| drawn[0]) % 3)];
            metadata["annotations"] = json!({ "gateway.networking.k8s.io/bundle-version": version });
        }
        if let (Kind::Namespace, Some(drawn)) = (self.kind, self.drawn) {
            metadata["labels"] = json!({ "team": pick(&["red", "blue"], drawn[0]) });
        }
        if let (Kind::EndpointSlice, Some(drawn)) = (self.kind, self.drawn) {
            metadata["labels"] = json!({ "kubernetes.io/service-name": format!("n{}", drawn[0] % 3) });
        }
        metadata
    }

    fn body(&self, drawn: [u8; 6]) -> Value {
        let [a, b, ..] = drawn;
        match self.kind {
            Kind::GatewayClass => json!({ "spec": {
                "controllerName": pick(&["portreeve.dev/gateway-controller", "portreeve.dev/gateway-controller", "else.dev/x"], a),
                "parametersRef": pick(&[Value::Null, Value::Null, json!({
                    "group": "portreeve.dev", "kind": "EdgeParameters", "name": format!("n{}", b % 2),
                })], b / 2),
            } }),
            Kind::EdgeParameters => json!({ "spec": { "addressProvider": address_provider(a) } }),
            Kind::Gateway => gateway(drawn),
            Kind::ListenerSet => listener_set(drawn),
            Kind::HttpRoute => route(drawn),
            Kind::GrpcRoute => grpc_route(drawn),
            Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => l4_route(drawn),
            Kind::ReferenceGrant => grant(a, b),
            Kind::Service => json!({ "spec": {
                "type": pick(&["ClusterIP", "ClusterIP", "ClusterIP", "ExternalName"], a),
                "ports": [{
                    "port": pick(&[80, 80, 81], b),
                    "name": pick(&["http", ""], b / 3),
                    "appProtocol": pick(&[Value::Null, json!("kubernetes.io/h2c"), json!("https")], b / 6),
                    "protocol": pick(&["TCP", "TCP", "TCP", "UDP"], b / 18),
                }],
            } }),
            Kind::EndpointSlice => json!({
                "addressType": "IPv4",
                "ports": [{ "name": "http", "port": 3000 }],
                "endpoints": [{ "addresses": [format!("10.0.0.{b}")] }],
            }),
            Kind::Secret => secret(a),
            Kind::BackendTlsPolicy => policy(drawn),
            Kind::BackendTrafficPolicy => traffic_policy(drawn),
            Kind::Backend => external(drawn),
            Kind::ConfigMap => config_map(a),
            Kind::Node => {
                json!({ "status": { "addresses": [{ "type": "InternalIP", "address": format!("10.1.0.{}", a % 3) }] } })
            }
            Kind::Proxy => pod(a, b),
            Kind::Namespace | Kind::CustomResourceDefinition => json!({}),
        }
    }
}

fn pick<T: Clone>(of: &[T], drawn: u8) -> T {
    of[usize::from(drawn) % of.len()].clone()
}

/// As the API server keeps an object: what is null is not there.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, pruned(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(pruned).collect(),
        other => other,
    }
}

/// The group of XBackends.
const EXPERIMENTAL: &str = "gateway.networking.x-k8s.io";

/// What a route may name: a Service, now and then an XBackend.
fn backend_ref(drawn: u8) -> Value {
    let (group, kind) = pick(&[("", "Service"), ("", "Service"), (EXPERIMENTAL, "XBackend")], drawn / 5);
    json!({ "group": group, "kind": kind, "name": format!("n{}", drawn % 3), "port": 80 })
}

fn external([a, b, c, d, e, f]: [u8; 6]) -> Value {
    let secret = json!({ "name": format!("n{}", d % 3), "namespace": pick(&[Value::Null, json!("a"), json!("b")], d / 3) });
    let authority =
        json!({ "group": "", "kind": pick(&["ConfigMap", "Secret"], e), "name": format!("n{}", e / 2 % 3) });
    let validation = json!({ "hostname": "api.example.com", "caCertificateRefs": [authority] });
    let tls = pick(
        &[
            Value::Null,
            json!({ "mode": "ServerOnly" }),
            json!({ "mode": "ServerOnly", "validation": validation }),
            json!({ "mode": "ClientAndServer", "clientCertificateRef": secret, "validation": validation }),
            json!({ "mode": "ClientAndServer", "clientCertificateRef": secret }),
        ],
        f,
    );
    json!({ "spec": {
        "type": "ExternalHostname",
        "externalHostname": { "hostname": pick(&["api.example.com", "api.example.com", "10.0.0.1"], a) },
        "port": { "port": pick(&[80, 80, 80, 81], b) },
        "protocol": pick(&[Value::Null, json!("HTTP"), json!("HTTP2"), json!("H2C"), json!("TCP")], c),
        "tls": tls,
    } })
}

fn traffic_policy([a, b, c, d, ..]: [u8; 6]) -> Value {
    let target = |drawn| {
        let mut target = backend_ref(drawn);
        target.as_object_mut().expect("an object").remove("port");
        target
    };
    json!({ "spec": {
        "targetRefs": pick(&[json!([target(a)]), json!([target(a), target(b)])], b / 3),
        "retryConstraint": pick(&[Value::Null, json!({}), json!({ "budget": { "percent": 5 } }), json!({ "budget": { "interval": "2h" } })], c),
        "sessionPersistence": pick(&[Value::Null, json!({}), json!({ "sessionName": "s" })], d),
    } })
}

fn address_provider(drawn: u8) -> Value {
    let pool = |cidrs: &[&str]| json!({ "pool": { "cidrs": cidrs } });
    let small = pool(&["10.1.0.0/30"]);
    let two = pool(&["10.1.0.0/30", "10.3.0.0/31"]);
    pick(&[json!({}), json!({ "node": {} }), json!({ "slots": {} }), small, two], drawn)
}

fn pod(node: u8, ready: u8) -> Value {
    json!({
        "spec": { "nodeName": format!("n{}", node % 2) },
        "status": {
            "hostIP": "10.2.0.1",
            "conditions": [{ "type": "Ready", "status": pick(&["True", "False"], ready) }],
        },
    })
}

fn gateway([a, b, c, d, e, f]: [u8; 6]) -> Value {
    let hostname = |drawn| pick(&[Value::Null, json!("*.example.com"), json!("shop.example.com")], drawn);
    let secret = json!({ "name": format!("n{}", e % 3), "namespace": pick(&[Value::Null, json!("a"), json!("b")], e / 3) });
    let held = pick(&[json!([]), json!([{ "value": "10.1.0.1" }]), json!([{ "value": "10.1.0.2" }])], c / 9);
    json!({ "status": { "addresses": held }, "spec": {
        "gatewayClassName": pick(&["class-0", "class-0", "class-0", "class-1", "none"], a),
        "addresses": pick(&[json!([]), json!([]), json!([]), json!([{ "value": "10.1.0.1" }]), json!([{ "type": "Hostname", "value": "x" }])], f),
        "defaultScope": pick(&[Value::Null, json!("All")], f / 5),
        "allowedListeners": pick(&[Value::Null, json!({ "namespaces": { "from": "All" } }), json!({ "namespaces": { "from": "Same" } })], d / 4),
        "tls": {
            "backend": { "clientCertificateRef": pick(&[Value::Null, Value::Null, secret.clone()], a / 5) },
            "frontend": { "default": { "validation": pick(&[Value::Null, Value::Null, Value::Null, json!({
                "caCertificateRefs": [{ "group": "", "kind": "ConfigMap", "name": format!("n{}", e % 3) }],
            })], e / 9) } },
        },
        "listeners": [
            {
                "name": "one",
                "port": pick(&[80, 80, 8080, 22], b),
                "protocol": "HTTP",
                "hostname": hostname(b / 4),
                "allowedRoutes": { "namespaces": pick(&[
                    json!({ "from": "All" }),
                    json!({ "from": "Same" }),
                    json!({ "from": "Selector", "selector": { "matchLabels": { "team": "red" } } }),
                ], c) },
            },
            {
                "name": "two",
                "port": pick(&[443, 443, 80], d),
                "protocol": pick(&["HTTPS", "HTTPS", "TCP"], d / 3),
                "hostname": hostname(d / 9),
                "tls": { "certificateRefs": [secret] },
                "allowedRoutes": { "kinds": pick(&[json!([]), json!([]), json!([{ "kind": "HTTPRoute" }, { "kind": "TCPRoute" }])], c / 3) },
            },
            {
                "name": "four",
                "port": 9000,
                "protocol": pick(&["TCP", "UDP", "UDP"], c / 9),
                "allowedRoutes": { "namespaces": { "from": "All" } },
            },
        ],
    } })
}

fn route([a, b, c, d, e, f]: [u8; 6]) -> Value {
    let parent = |drawn: u8| {
        json!({
            "name": format!("n{}", drawn % 3),
            "namespace": pick(&[Value::Null, json!("a"), json!("b")], drawn / 3),
            "sectionName": pick(&[Value::Null, Value::Null, json!("one"), json!("three")], drawn / 9),
            "port": pick(&[Value::Null, Value::Null, Value::Null, json!(80)], drawn / 36),
        })
    };
    let backend = |drawn: u8| {
        json!({
            "name": format!("n{}", drawn % 3),
            "kind": pick(&["Service", "Service", "XBackend", "Bucket"], drawn / 3),
            "group": pick(&["", "", EXPERIMENTAL, ""], drawn / 3),
            "namespace": pick(&[Value::Null, json!("a"), json!("b")], drawn / 12),
            "port": 80,
        })
    };
    let filters = pick(
        &[
            json!([]),
            json!([]),
            json!([{ "type": "CORS" }]),
            json!([{ "type": "URLRewrite", "urlRewrite": { "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" } } }]),
        ],
        f,
    );
    let path = pick(
        &[
            json!({ "type": "PathPrefix", "value": "/a" }),
            json!({ "type": "RegularExpression", "value": "(" }),
        ],
        f / 4,
    );
    json!({ "spec": {
        "parentRefs": [parent(a), parent(b)],
        "useDefaultGateways": pick(&[Value::Null, Value::Null, json!("All")], a / 80),
        "hostnames": pick(&[json!([]), json!(["shop.example.com"]), json!(["*.example.org", "www.example.com"])], c),
        "rules": [
            { "backendRefs": [backend(d), backend(e)], "filters": filters },
            { "backendRefs": [backend(e)], "matches": [{ "path": path }] },
        ],
    } })
}

fn listener_set([a, b, c, d, e, f]: [u8; 6]) -> Value {
    let hostname = |drawn| pick(&[Value::Null, json!("*.example.com"), json!("other.example.com")], drawn);
    let protocol = pick(&["HTTP", "HTTPS", "TLS", "TCP", "UDP"], b);
    let mode = pick(&["Terminate", "Passthrough"], c);
    let secret = json!({ "name": format!("n{}", e % 3), "namespace": pick(&[Value::Null, json!("a"), json!("b")], e / 3) });
    let allowed = json!({ "namespaces": { "from": "All" } });
    json!({ "spec": {
        "parentRef": {
            "name": format!("n{}", a % 3),
            "namespace": pick(&[Value::Null, json!("a"), json!("b")], a / 3),
        },
        "listeners": [
            { "name": "one", "port": pick(&[80, 8080], d), "protocol": "HTTP", "hostname": hostname(d / 2), "allowedRoutes": allowed },
            {
                "name": "four",
                "port": pick(&[80, 443, 9000], f),
                "protocol": protocol,
                "hostname": if protocol == "HTTP" { hostname(f / 3) } else { Value::Null },
                "tls": if ["HTTPS", "TLS"].contains(&protocol) {
                    json!({ "mode": mode, "certificateRefs": if mode == "Terminate" { json!([secret]) } else { json!([]) } })
                } else {
                    Value::Null
                },
                "allowedRoutes": allowed,
            },
        ],
    } })
}

/// A parentRef of a Gateway or a ListenerSet.
fn holder(drawn: u8) -> Value {
    json!({
        "kind": pick(&["Gateway", "ListenerSet"], drawn),
        "name": format!("n{}", drawn / 2 % 3),
        "namespace": pick(&[Value::Null, json!("a"), json!("b")], drawn / 6),
        "sectionName": pick(&[Value::Null, json!("four")], drawn / 18),
    })
}

fn grpc_route([a, b, c, d, e, _]: [u8; 6]) -> Value {
    let method = pick(
        &[
            Value::Null,
            json!({ "method": { "service": "shop.Cart", "method": "Get" } }),
            json!({ "method": { "type": "RegularExpression", "method": "(" } }),
        ],
        d,
    );
    json!({ "spec": {
        "parentRefs": [holder(a), holder(b)],
        "hostnames": pick(&[json!([]), json!(["shop.example.com"])], c),
        "rules": [
            { "backendRefs": [backend_ref(e)] },
            { "matches": if method.is_null() { json!([]) } else { json!([method]) } },
        ],
    } })
}

fn l4_route([a, b, c, d, e, _]: [u8; 6]) -> Value {
    let backend = |drawn: u8| {
        let mut backend = backend_ref(drawn / 3);
        backend["namespace"] = pick(&[Value::Null, json!("a"), json!("b")], drawn);
        backend
    };
    json!({ "spec": {
        "parentRefs": [holder(a), holder(b)],
        "hostnames": pick(&[json!(["shop.example.com"]), json!(["*.example.com"])], c),
        "rules": [{ "backendRefs": [backend(d), backend(e)] }],
    } })
}

fn grant(a: u8, b: u8) -> Value {
    let from = pick(&["HTTPRoute", "Gateway", "ListenerSet", "TCPRoute", "XBackend"], a);
    json!({ "spec": {
                "from": [{
                    "group": if from == "XBackend" { EXPERIMENTAL } else { "gateway.networking.k8s.io" },
                    "kind": from,
                    "namespace": pick(&["a", "b"], a / 5),
                }],
                "to": [pick(&[
                    json!({ "group": "", "kind": "Service" }),
                    json!({ "group": "", "kind": "Secret" }),
                    json!({ "group": "", "kind": "Service", "name": "n0" }),
                    json!({ "group": EXPERIMENTAL, "kind": "XBackend" }),
                ], b)],
            } })
}

fn config_map(a: u8) -> Value {
    match a % 4 {
        0 | 1 => json!({ "kind": "ConfigMap", "data": { "ca.crt": pairs()[usize::from(a % 4)].0 } }),
        2 => json!({ "kind": "ConfigMap", "data": { "ca.crt": "rubbish" } }),
        _ => json!({}),
    }
}

fn policy([a, b, c, ..]: [u8; 6]) -> Value {
    let reference = json!({
        "group": "",
        "kind": pick(&["ConfigMap", "ConfigMap", "Secret", "Bucket"], b),
        "name": format!("n{}", b / 4 % 3),
    });
    let refs = if c % 3 == 0 { json!([]) } else { json!([reference]) };
    json!({ "spec": {
        "targetRefs": [{
            "group": "",
            "kind": "Service",
            "name": format!("n{}", a % 3),
            "sectionName": pick(&[Value::Null, json!("http")], a / 3),
        }],
        "validation": {
            "hostname": pick(&["backend.example.com", "backend.example.com", "-"], c / 3),
            "caCertificateRefs": refs,
            "wellKnownCACertificates": if c % 3 == 0 { json!("System") } else { Value::Null },
        },
    } })
}

/// Two certificates with their keys.
fn pairs() -> &'static [(String, String)] {
    static PAIRS: OnceLock<Vec<(String, String)>> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let pair = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        let pairs = ["one", "two"].map(pair);
        pairs.map(|pair| (pair.cert.pem(), pair.signing_key.serialize_pem())).into()
    })
}

fn secret(drawn: u8) -> Value {
    let pairs = pairs();
    let tls = |chain: &str, key: &str| json!({ "type": "kubernetes.io/tls", "stringData": { "tls.crt": chain, "tls.key": key, "ca.crt": chain } });
    match drawn % 6 {
        0 | 1 => tls(&pairs[0].0, &pairs[0].1),
        2 => tls(&pairs[1].0, &pairs[1].1),
        3 => tls(&pairs[1].0, &pairs[0].1),
        4 => tls("rubbish", "rubbish"),
        _ => json!({ "type": "kubernetes.io/tls" }),
    }
}
