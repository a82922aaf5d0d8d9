//! Objects that make no sense, of every kind that is read: each one's own status says so, and nobody else notices.

use std::io::Write;

use actors_api::crds;
use anyhow::{Result, ensure};
use e2e::manifests::route_named;
use e2e::stage::play;
use e2e::testbed::{SOON, Testbed};
use e2e::wait::until;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// The CRDs of Gateway API refuse most nonsense. An older or patched one does not: this makes them take anything, and
/// gives back what they were.
fn take_anything(testbed: &Testbed, crds: &[&str]) -> Result<Vec<(String, Value)>> {
    let mut before = Vec::new();
    for crd in crds {
        let text = testbed.cluster.kubectl(&["get", "crd", crd, "-o", "json"])?;
        let object: Value = serde_json::from_str(&text)?;
        before.push(((*crd).to_owned(), object["spec"]["versions"].clone()));
        let mut versions = object["spec"]["versions"].clone();
        for version in versions.as_array_mut().into_iter().flatten() {
            let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            version["schema"]["openAPIV3Schema"] = anything;
        }
        set_versions(testbed, crd, &versions)?;
    }
    Ok(before)
}

fn set_versions(testbed: &Testbed, crd: &str, versions: &Value) -> Result<()> {
    // Longer than an argument may be.
    let patch = json!([{"op": "replace", "path": "/spec/versions", "value": versions}]);
    let patch_file = file(&patch.to_string())?;
    let patch = format!("--patch-file={}", patch_file.path().display());
    testbed.cluster.kubectl(&["patch", "crd", crd, "--type=json", &patch]).map(|_| ())
}

fn file(text: &str) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// Applies `yaml` until it is taken: the API server needs a moment to forget the old schema.
async fn apply_nonsense(testbed: &Testbed, yaml: &str) -> Result<()> {
    until("the nonsense is taken", SOON, async || testbed.cluster.apply(yaml)).await
}

/// Deletes what was applied.
fn remove(testbed: &Testbed, yaml: &str) -> Result<()> {
    let yaml = file(yaml)?;
    testbed.cluster.kubectl(&["delete", "--wait=false", "-f", &yaml.path().to_string_lossy()]).map(|_| ())
}

#[test]
fn what_the_schemas_admit_and_makes_no_sense_is_said_by_its_own_status() -> Result<()> {
    play(async |testbed| {
        let loads = [testbed.load(0), testbed.load(1)];
        testbed.cluster.apply(ADMITTED_NONSENSE)?;
        testbed.cluster.apply(&route_named("nowhere", "nowhere.example", &[("no-such-service", 1)]))?;

        let parent = "/status/parents/0/conditions";
        testbed.says("gatewayclass", "odd-class", "/status/conditions", "Accepted", "False").await?;
        let listener = "/status/listeners/0/conditions";
        testbed.says("gateway", "no-secret", listener, "ResolvedRefs", "False InvalidCertificateRef").await?;
        testbed
            .says("gateway", "bad-secret", listener, "ResolvedRefs", "False InvalidCertificateRef")
            .await?;
        testbed.says("httproute", "nowhere", parent, "ResolvedRefs", "False BackendNotFound").await?;
        testbed.says("httproute", "bad-regex", parent, "Accepted", "False UnsupportedValue").await?;
        testbed.says("httproute", "odd-kind", parent, "ResolvedRefs", "False InvalidKind").await?;
        testbed.says("httproute", "ungranted", parent, "ResolvedRefs", "False RefNotPermitted").await?;
        // A status says nothing of whether the proxies have heard of it.
        until("routes to nowhere are errors", SOON, async || {
            let nowhere = testbed.client.get(testbed.address(0), "nowhere.example", "/").await?;
            ensure!(nowhere.status == 500, "{nowhere:?}");
            let no_addresses = testbed.client.get(testbed.address(0), "by-name.example", "/").await?;
            ensure!(no_addresses.status.is_server_error(), "{no_addresses:?}");
            Ok(())
        })
        .await?;

        the_others_do_not_notice(testbed, loads).await?;
        remove(testbed, ADMITTED_NONSENSE)?;
        testbed.cluster.kubectl(&["delete", "httproute", "nowhere"]).map(|_| ())
    })
}

#[test]
fn what_cannot_even_be_read_is_said_by_its_own_status() -> Result<()> {
    play(async |testbed| {
        let loads = [testbed.load(0), testbed.load(1)];
        for crd in crds::ours() {
            testbed.cluster.apply(&serde_json::to_string(&crd)?)?;
        }
        let before = take_anything(testbed, UNREADABLE_KINDS)?;
        apply_nonsense(testbed, UNREADABLE_NONSENSE).await?;
        let version = "gateway.networking.k8s.io/bundle-version";
        annotate(testbed, &format!("{version}=v1.99.0"))?;

        let (conditions, parent) = ("/status/conditions", "/status/parents/0/conditions");
        testbed.says("gatewayclass", "unreadable", conditions, "Accepted", "False InvalidParameters").await?;
        testbed
            .says("gatewayclass", "by-unreadable", conditions, "Accepted", "False InvalidParameters")
            .await?;
        testbed.says("gateway", "unreadable", conditions, "Accepted", "False Invalid").await?;
        testbed.says("httproute", "unreadable", parent, "Accepted", "False UnsupportedValue").await?;
        testbed.says("httproute", "half-granted", parent, "ResolvedRefs", "False RefNotPermitted").await?;
        testbed.says("httproute", "granted", parent, "ResolvedRefs", "True").await?;
        testbed.says("gatewayclass", "portreeve", conditions, "SupportedVersion", "False").await?;
        testbed.says("gatewayclass", "portreeve", conditions, "Accepted", "True").await?;
        the_others_do_not_notice(testbed, loads).await?;

        annotate(testbed, &format!("{version}={}", crds::BUNDLE_VERSION))?;
        testbed.says("gatewayclass", "portreeve", conditions, "SupportedVersion", "True").await?;
        remove(testbed, UNREADABLE_NONSENSE)?;
        for (crd, versions) in before {
            set_versions(testbed, &crd, &versions)?;
        }
        testbed.cluster.kubectl(&["delete", "crd", "edgeparameters.portreeve.dev"])?;
        Ok(())
    })
}

fn annotate(testbed: &Testbed, annotation: &str) -> Result<()> {
    let crd = "gateways.gateway.networking.k8s.io";
    testbed.cluster.kubectl(&["annotate", "--overwrite", "crd", crd, annotation]).map(|_| ())
}

/// The good Gateway and route still serve, still follow changes, and no process died.
async fn the_others_do_not_notice(testbed: &Testbed, loads: [e2e::traffic::Load; 2]) -> Result<()> {
    testbed.moves_to("green").await?;
    for load in loads {
        assert_eq!(load.stop().await?.faults(), Vec::<String>::new());
    }
    testbed.all_live()?;
    testbed.says("gateway", "edge", "/status/conditions", "Programmed", "True").await?;
    testbed.says("httproute", "echo", "/status/parents/0/conditions", "Accepted", "True").await
}

const ADMITTED_NONSENSE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: odd-class}
spec:
  controllerName: portreeve.dev/gateway-controller
  parametersRef: {group: example.com, kind: Nonsense, name: none}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: no-secret}
spec:
  gatewayClassName: portreeve
  listeners:
  - {name: https, port: 8443, protocol: HTTPS, hostname: a.example, tls: {certificateRefs: [{name: none}]}}
---
apiVersion: v1
kind: Secret
metadata: {name: bad}
type: kubernetes.io/tls
stringData: {tls.crt: this is no certificate, tls.key: nor is this a key}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: bad-secret}
spec:
  gatewayClassName: portreeve
  listeners:
  - {name: https, port: 8443, protocol: HTTPS, hostname: b.example, tls: {certificateRefs: [{name: bad}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bad-regex}
spec:
  parentRefs: [{name: edge}]
  hostnames: [regex.example]
  rules:
  - matches: [{path: {type: RegularExpression, value: "/a(b"}}]
    backendRefs: [{name: blue, port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: odd-kind}
spec:
  parentRefs: [{name: edge}]
  hostnames: [kind.example]
  rules: [{backendRefs: [{group: example.com, kind: Nonsense, name: blue, port: 8080}]}]
---
apiVersion: v1
kind: Namespace
metadata: {name: apart, labels: {"portreeve.dev/odd": ""}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ungranted}
spec:
  parentRefs: [{name: edge}]
  hostnames: [ungranted.example]
  rules: [{backendRefs: [{name: blue, namespace: apart, port: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: by-name}
spec: {type: ExternalName, externalName: elsewhere.example, ports: [{port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: by-name-1, labels: {kubernetes.io/service-name: by-name}}
addressType: FQDN
ports: [{port: 3000}]
endpoints: [{addresses: [elsewhere.example]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: by-name}
spec:
  parentRefs: [{name: edge}]
  hostnames: [by-name.example]
  rules: [{backendRefs: [{name: by-name, port: 8080}]}]
---
apiVersion: v1
kind: Node
metadata: {name: nowhere-node}
status:
  addresses: [{type: InternalIP, address: no address}, {type: Nonsense, address: "300.1.1.1"}]
---
"#;

/// What is made to take anything.
const UNREADABLE_KINDS: &[&str] = &[
    "gatewayclasses.gateway.networking.k8s.io",
    "gateways.gateway.networking.k8s.io",
    "httproutes.gateway.networking.k8s.io",
    "referencegrants.gateway.networking.k8s.io",
    "edgeparameters.portreeve.dev",
];

const UNREADABLE_NONSENSE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: unreadable}
spec: {controllerName: portreeve.dev/gateway-controller, parametersRef: 7}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: unreadable}
spec: {gatewayClassName: portreeve, listeners: {not: a list}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: unreadable}
spec:
  parentRefs: [{name: edge}]
  hostnames: [unreadable.example]
  rules: nonsense
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: unreadable}
spec: [not, an, object]
---
apiVersion: portreeve.dev/v1alpha1
kind: EdgeParameters
metadata: {name: unreadable}
spec: {addressProvider: nonsense}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: by-unreadable}
spec:
  controllerName: portreeve.dev/gateway-controller
  parametersRef: {group: portreeve.dev, kind: EdgeParameters, name: unreadable}
---
apiVersion: v1
kind: Namespace
metadata: {name: granting}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: unreadable, namespace: granting}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}], to: everything}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: readable, namespace: granting}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: "", kind: Service, name: granted}]
---
apiVersion: v1
kind: Service
metadata: {name: granted, namespace: granting}
spec: {ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: half-granted, namespace: granting}
spec: {ports: [{port: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: granted}
spec:
  parentRefs: [{name: edge}]
  hostnames: [granted.example]
  rules: [{backendRefs: [{name: granted, namespace: granting, port: 8080}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: half-granted}
spec:
  parentRefs: [{name: edge}]
  hostnames: [half-granted.example]
  rules: [{backendRefs: [{name: half-granted, namespace: granting, port: 8080}]}]
---
"#;
