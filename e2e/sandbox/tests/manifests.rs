//! Manifests: made or replaced through the same door as any client's objects.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use k8s_openapi::api::{core::v1::ConfigMap, discovery::v1::EndpointSlice};
use kube::{Api, ResourceExt as _};
use sandbox::{ManifestError, Options, Sandbox};

const SLICE: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1], conditions: {ready: true}}]
ports: [{port: 8080}]
";

#[tokio::test(start_paused = true)]
async fn loopback_endpoints_are_refused_unless_the_sandbox_was_made_for_them() {
    let strict = Sandbox::new(Options::default());
    let refused = strict.apply_yaml(SLICE).await.unwrap_err();
    let ManifestError::Refused { name, code, message, .. } = refused else { panic!("{refused}") };
    assert_eq!((name.as_str(), code), ("web-1", 422));
    assert!(message.contains("endpoints[0].addresses[0]"), "{message}");

    let lenient = Sandbox::new(Options { loopback_endpoints: true, ..Options::default() });
    lenient.apply_yaml(SLICE).await.unwrap();
    let slices: Api<EndpointSlice> = Api::default_namespaced(lenient.client());
    assert_eq!(slices.get("web-1").await.unwrap().ports.unwrap()[0].port, Some(8080));
}

#[tokio::test(start_paused = true)]
async fn a_manifest_makes_and_replaces_in_order_and_stops_at_the_first_refusal() {
    let sandbox = Sandbox::new(Options::default());
    let config = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, namespace: shop}}\ndata: {{key: {value}}}\n"
        )
    };
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    sandbox.apply_yaml(&format!("---\n{namespace}---\n{}", config("one"))).await.unwrap();
    let api: Api<ConfigMap> = Api::namespaced(sandbox.client(), "shop");
    let first = api.get("a").await.unwrap();

    let unknown = "apiVersion: example.org/v1\nkind: Thing\nmetadata: {name: t}\n";
    let text = format!("{}---\n{unknown}---\n{}", config("two"), config("three"));
    let refused = sandbox.apply_yaml(&text).await.unwrap_err();
    assert!(matches!(refused, ManifestError::UnknownKind { ref kind, .. } if kind == "Thing"), "{refused}");
    let second = api.get("a").await.unwrap();
    assert_eq!(second.uid(), first.uid());
    assert_eq!(second.data.unwrap()["key"], "two");
}
