//! Routes that lead to hosts outside the cluster (XBackends), as a name server says where they are.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use e2e::names::NameServer;
use e2e::stage::play;
use e2e::testbed::{SOON, Testbed};
use e2e::wait::until;

/// Outside is what the proxies know by its name alone: here, pods of the scene.
const OUTSIDE: &str = r#"
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: outside}
spec: {type: ExternalHostname, externalHostname: {hostname: outside.example.com}, port: {port: 3000}}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: unproven}
spec:
  type: ExternalHostname
  externalHostname: {hostname: outside.example.com}
  port: {port: 3000}
  tls:
    mode: ServerOnly
    validation: {hostname: outside.example.com, caCertificateRefs: [{group: "", kind: ConfigMap, name: no-such-roots}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: outside}
spec:
  parentRefs: [{name: edge}]
  hostnames: [outside.example]
  rules:
  - backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: outside, port: 3000}]
  - matches: [{path: {value: /unproven}}]
    backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: unproven}]
---
"#;

/// The address of a pod of a Deployment.
fn pod(testbed: &Testbed, deployment: &str) -> Result<Ipv4Addr> {
    let selector = format!("--selector=app={deployment}");
    let path = "jsonpath={.items[0].status.podIP}";
    let address = testbed.cluster.kubectl(&["get", "pods", &selector, "-o", path])?;
    address.trim().parse().with_context(|| format!("{deployment} has a pod with an address: {address:?}"))
}

async fn all_lead_to(testbed: &Testbed, deployment: &str) -> Result<()> {
    for node in 0..testbed.proxies.len() {
        until(&format!("node {node} leads to {deployment}"), SOON, async || {
            let answer = testbed.client.get(testbed.address(node), "outside.example", "/").await?;
            ensure!(answer.deployment() == deployment, "{} {}", answer.status, answer.body);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[test]
fn a_route_leads_to_where_a_hostname_stands_and_the_xbackend_says_so() -> Result<()> {
    play(async |testbed| {
        let machine = testbed.cluster.add_machine("names")?;
        let names = NameServer::listen(&machine)?;
        testbed.resolve_by(machine.address)?;
        names.set("outside.example.com", pod(testbed, "green")?);
        testbed.cluster.apply(OUTSIDE)?;

        all_lead_to(testbed, "green").await?;
        let parent = "/status/parents/0/conditions";
        testbed.says("xbackend", "outside", parent, "Accepted", "True Accepted").await?;
        testbed.says("xbackend", "outside", parent, "ResolvedRefs", "True ResolvedRefs").await?;
        let (accepted, resolved) = ("False NoValidCACertificate", "False InvalidCACertificateRef");
        testbed.says("xbackend", "unproven", parent, "Accepted", accepted).await?;
        testbed.says("xbackend", "unproven", parent, "ResolvedRefs", resolved).await?;
        for node in 0..testbed.proxies.len() {
            let unproven = testbed.client.get(testbed.address(node), "outside.example", "/unproven").await?;
            assert_eq!(unproven.status, 500, "{unproven:?}");
        }

        names.set("outside.example.com", pod(testbed, "blue")?);
        all_lead_to(testbed, "blue").await?;

        testbed.cluster.kubectl(&["delete", "httproute", "outside"])?;
        until("nothing is said of what no route leads to", SOON, async || {
            let parents = "jsonpath={.status.parents}";
            let said = testbed.cluster.kubectl(&["get", "xbackend", "outside", "-o", parents])?;
            ensure!(["", "[]"].contains(&said.trim()), "{said}");
            Ok(())
        })
        .await?;
        testbed.cluster.kubectl(&["delete", "xbackend", "outside", "unproven"]).map(|_| ())
    })
}
