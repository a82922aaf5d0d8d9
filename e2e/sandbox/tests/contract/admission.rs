//! What is refused, and for which fields.

use serde_json::{Value, json};

use crate::talk::{CORE, GATEWAY, Talk, WIDGETS};

pub(crate) async fn builtin(talk: &mut Talk) {
    let slices = talk.path("/apis/discovery.k8s.io/v1", "endpointslices");
    for (family, address) in [
        ("IPv4", "10.0.0.1"),
        ("IPv4", "127.0.0.1"),
        ("IPv4", "169.254.1.1"),
        ("IPv4", "224.0.0.1"),
        ("IPv4", "0.0.0.0"),
        ("IPv4", "fd00::1"),
        ("IPv6", "fd00::1"),
        ("IPv6", "::1"),
        ("IPv4", "010.0.0.1"),
        ("IPv4", "example.org"),
        ("None", "10.0.0.1"),
    ] {
        let slice = json!({
            "metadata": {"name": "slice"}, "addressType": family,
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": [{"port": 80}],
        });
        talk.note(&format!("{family} {address}"));
        talk.post(&format!("{slices}?dryRun=All"), &slice).await;
    }
    let bad = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [{"addresses": []}],
        "ports": [{"port": 0}, {"port": 70000}]});
    talk.post(&slices, &bad).await;
    talk.note("names, labels, Services, Secrets");
    let maps = talk.path(CORE, "configmaps");
    for metadata in [
        json!({}),
        json!({"name": "Upper"}),
        json!({"name": "-a"}),
        json!({"name": "a", "labels": {"x": "not valid"}}),
        json!({"name": "a", "labels": {"x": 1}}),
    ] {
        talk.post(&maps, &json!({ "metadata": metadata })).await;
    }
    let services = talk.path(CORE, "services");
    for spec in [
        json!({}),
        json!({"ports": [{"port": 80}, {"port": 81}]}),
        json!({"ports": [{"port": 0}]}),
        json!({"ports": [{"port": "80"}]}),
    ] {
        talk.post(&services, &json!({"metadata": {"name": "a"}, "spec": spec})).await;
    }
    let secrets = talk.path(CORE, "secrets");
    talk.post(&secrets, &json!({"metadata": {"name": "tls"}, "type": "kubernetes.io/tls"})).await;
    talk.post(&secrets, &json!({"metadata": {"name": "a"}, "data": {"a": "not base64!"}})).await;
    talk.post(&secrets, &json!({"metadata": {"name": "a"}, "stringData": {"a": "b"}})).await;
}

pub(crate) async fn types(talk: &mut Talk) {
    let all = format!("{}?dryRun=All", talk.path(WIDGETS, "widgets"));
    for spec in [
        json!({}),
        json!(null),
        json!("text"),
        json!({"size": "1"}),
        json!({"size": 1.5}),
        json!({"size": 0}),
        json!({"size": 10}),
        json!({"size": 1, "ratio": 0}),
        json!({"size": 1, "color": "blue"}),
        json!({"size": 1, "name": "a"}),
        json!({"size": 1, "name": "abcde"}),
        json!({"size": 1, "name": "AB"}),
        json!({"size": 1, "when": "now"}),
        json!({"size": 1, "when": "2026-01-01T00:00:00Z"}),
        json!({"size": 1, "either": true}),
        json!({"size": 1, "either": 5}),
        json!({"size": 1, "labels": {"a": "1", "b": "2", "c": "3"}}),
        json!({"size": 1, "labels": {"a": "long"}}),
        json!({"size": 1, "parts": [{"name": "a"}, {"name": "a"}]}),
        json!({"size": 1, "parts": [{"weight": 1}]}),
        json!({"size": 1, "parts": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}]}),
        json!({"size": 1, "parts": {}}),
        json!({"size": 1, "tags": ["a", "a"]}),
        json!({"size": 1, "tags": [1]}),
        json!({"size": 1, "address": "192.0.2.1"}),
        json!({"size": 1, "address": "192.0.2"}),
        json!({"size": 5, "color": "red"}),
        json!({"size": 4, "color": "red"}),
    ] {
        talk.note(&spec.to_string());
        talk.post(
            &all,
            &json!({"apiVersion": "test.portreeve.dev/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}),
        )
        .await;
    }
}

async fn try_specs(talk: &mut Talk, kind: &str, plural: &str, specs: Vec<Value>) {
    let all = format!("{}?dryRun=All", talk.path(GATEWAY, plural));
    for spec in specs {
        talk.note(&spec.to_string());
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec,
        });
        talk.post(&all, &object).await;
    }
}

pub(crate) async fn gateways(talk: &mut Talk) {
    let with = |listeners: Value| json!({"gatewayClassName": "portreeve", "listeners": listeners});
    let listener = |change: Value| {
        let mut listener = json!({"name": "http", "port": 80, "protocol": "HTTP"});
        for (field, value) in change.as_object().into_iter().flatten() {
            listener[field] = value.clone();
        }
        with(json!([listener]))
    };
    let reference = json!([{"name": "cert"}]);
    let specs = vec![
        listener(json!({})),
        listener(json!({"port": 0})),
        listener(json!({"port": 65_536})),
        listener(json!({"hostname": "UPPER.example"})),
        listener(json!({"hostname": "*.example.org"})),
        listener(json!({"hostname": "a.*.example"})),
        listener(json!({"protocol": ""})),
        listener(json!({"name": null})),
        listener(json!({"tls": {"mode": "Terminate", "certificateRefs": reference}})),
        listener(json!({"protocol": "HTTPS", "tls": {"mode": "Passthrough"}})),
        listener(json!({"protocol": "HTTPS", "tls": {"mode": "Terminate"}})),
        listener(json!({"protocol": "HTTPS", "tls": {"certificateRefs": reference}})),
        listener(json!({"protocol": "TCP", "hostname": "example.org"})),
        listener(json!({"allowedRoutes": {"namespaces": {"from": "Everywhere"}}})),
        with(json!([])),
        with(json!([
            {"name": "a", "port": 80, "protocol": "HTTP"}, {"name": "a", "port": 81, "protocol": "HTTP"},
        ])),
        with(json!([
            {"name": "a", "port": 80, "protocol": "HTTP"}, {"name": "b", "port": 80, "protocol": "HTTP"},
        ])),
        json!({"gatewayClassName": "", "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]}),
        json!({"listeners": "none"}),
    ];
    try_specs(talk, "Gateway", "gateways", specs).await;
}

pub(crate) async fn routes(talk: &mut Talk) {
    let rule = |rule: Value| json!({"parentRefs": [{"name": "edge"}], "rules": [rule]});
    let filter = |filter: Value| rule(json!({"filters": [filter]}));
    let path = |path: Value| rule(json!({"matches": [{ "path": path }]}));
    let specs = vec![
        json!({}),
        json!({"parentRefs": [{"name": "edge"}], "hostnames": ["example.org", "192.0.2.1"]}),
        json!({"hostnames": ["*"]}),
        json!({"parentRefs": [{"name": "edge"}, {"name": "edge"}]}),
        json!({"parentRefs": [{"name": "edge", "sectionName": "a"}, {"name": "edge", "sectionName": "b"}]}),
        path(json!({"type": "Exact", "value": "/a"})),
        path(json!({"type": "Exact", "value": "a"})),
        path(json!({"type": "PathPrefix", "value": "/a//b"})),
        path(json!({"type": "PathPrefix", "value": "/a/../b"})),
        path(json!({"type": "Regex", "value": "/a"})),
        path(json!({"type": "Exact", "value": "/a b"})),
        rule(json!({"matches": [{"headers": [{"name": "bad name", "value": "x"}]}]})),
        rule(json!({"matches": [{"method": "BREW"}]})),
        rule(json!({"backendRefs": [{"name": "web"}]})),
        rule(json!({"backendRefs": [{"name": "web", "port": 80, "weight": -1}]})),
        rule(json!({"backendRefs": [{"name": "web", "port": 80, "weight": 1_000_001}]})),
        filter(json!({"type": "RequestRedirect"})),
        filter(json!({"type": "RequestRedirect", "requestRedirect": {"statusCode": 200}})),
        filter(json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath"}}})),
        filter(json!({"type": "RequestHeaderModifier", "urlRewrite": {"hostname": "a.example"}})),
        filter(json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a"}]}})),
        filter(json!({"type": "Unknown"})),
        rule(json!({"filters": [
            {"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}},
            {"type": "URLRewrite", "urlRewrite": {"hostname": "a.example"}},
        ]})),
        rule(json!({
            "backendRefs": [{"name": "web", "port": 80}],
            "filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}],
        })),
        rule(json!({"timeouts": {"request": "1x"}})),
        rule(json!({"timeouts": {"request": "1s", "backendRequest": "2s"}})),
        rule(json!({"timeouts": {"request": "2s", "backendRequest": "1s"}})),
        rule(json!({"timeouts": {"request": "0s", "backendRequest": "1s"}})),
    ];
    try_specs(talk, "HTTPRoute", "httproutes", specs).await;
}
