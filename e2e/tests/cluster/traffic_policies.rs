//! XBackendTrafficPolicy: how many requests to a Service may be retries, and that a client stays at its endpoint, as
//! requests through each node's proxy meet it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use cluster::Machine;
use e2e::origin;
use e2e::stage::play;
use e2e::testbed::{SOON, Testbed};
use e2e::traffic::Answer;
use e2e::wait::until;
use tokio_util::task::AbortOnDropHandle;

const PORT: u16 = 8080;
const FAILING: &str = "failing.example";
const STICKY: &str = "sticky.example";
/// Requests in a row.
const REQUESTS: usize = 100;

/// A Service whose every answer is 503, told to retry three times each, and `blue` with sessions: a route for each.
fn objects(address: Ipv4Addr) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: failing}}
spec: {{ports: [{{name: http, port: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: failing, labels: {{kubernetes.io/service-name: failing}}}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}]
endpoints: [{{addresses: ["{address}"]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: failing}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [{FAILING}]
  rules:
  - backendRefs: [{{name: failing, port: 8080}}]
    retry: {{codes: [503], attempts: 3, backoff: 1ms}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: sticky}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [{STICKY}]
  rules:
  - backendRefs: [{{name: blue, port: 8080}}]
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {{name: failing}}
spec:
  targetRefs: [{{group: "", kind: Service, name: failing}}]
  retryConstraint: {{budget: {{percent: 10, interval: 1h}}, minRetryRate: {{count: 5, interval: 1h}}}}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {{name: sticky}}
spec:
  targetRefs: [{{group: "", kind: Service, name: blue}}]
  sessionPersistence: {{type: Cookie, sessionName: edge-session}}
---"#
    )
}

/// A server that answers 503 to each request, and counts them, until it is dropped.
fn failing(machine: &Machine) -> Result<(Arc<AtomicUsize>, AbortOnDropHandle<()>)> {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let serving = origin::serve(machine, PORT, move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned()
    })?;
    Ok((requests, serving))
}

#[test]
fn a_policy_for_a_service_bounds_its_retries_and_keeps_clients_at_their_endpoints() -> Result<()> {
    play(async |testbed| {
        let machine = testbed.cluster.add_machine("failing")?;
        let (requests, _serving) = failing(&machine)?;
        testbed.cluster.apply(&objects(machine.address))?;
        for policy in ["failing", "sticky"] {
            is_accepted(testbed, policy).await?;
        }
        for node in 0..2 {
            // The policies came in this order: who knows the last one knows both.
            begins_a_session(testbed, testbed.address(node)).await?;
            retries_are_within_the_budget(testbed, node, &requests).await?;
        }
        clients_stay(testbed).await?;

        testbed.cluster.kubectl(&["delete", "xbackendtrafficpolicy", "failing", "sticky"])?;
        until("clients are shared out again", SOON, async || {
            let answer = testbed.client.get(testbed.address(0), STICKY, "/").await?;
            ensure!(!answer.headers.contains_key("set-cookie"), "{:?}", answer.headers);
            Ok(())
        })
        .await?;
        let others = ["delete", "httproute/failing", "httproute/sticky", "service/failing"];
        testbed.cluster.kubectl(&others).map(|_| ())
    })
}

/// As kubectl shows it: accepted by us, for the Gateway whose traffic it is.
async fn is_accepted(testbed: &Testbed, policy: &str) -> Result<()> {
    until(&format!("policy {policy} is accepted"), SOON, async || {
        let at = "/status/ancestors/0/conditions";
        let conditions = testbed.conditions("xbackendtrafficpolicy", policy, at).await?;
        ensure!(conditions["Accepted"] == "True Accepted", "{conditions:?}");
        let path = "jsonpath={.status.ancestors[*].controllerName} {.status.ancestors[*].ancestorRef.name}";
        let whose = testbed.cluster.kubectl(&["get", "xbackendtrafficpolicy", policy, "-o", path])?;
        ensure!(whose == "portreeve.dev/gateway-controller edge", "{whose}");
        Ok(())
    })
    .await
}

/// Of so many requests that all fail, a tenth are sent again, or five, whichever is more: not three for each.
async fn retries_are_within_the_budget(testbed: &Testbed, node: usize, requests: &AtomicUsize) -> Result<()> {
    let to = testbed.address(node);
    until("the failing Service is asked", SOON, async || {
        let before = requests.load(Ordering::Relaxed);
        testbed.client.get(to, FAILING, "/").await?;
        ensure!(requests.load(Ordering::Relaxed) > before, "nothing has come");
        Ok(())
    })
    .await?;
    let before = requests.load(Ordering::Relaxed);
    for _ in 0..REQUESTS {
        let answer = testbed.client.get(to, FAILING, "/").await?;
        ensure!(answer.status == 503, "{answer:?}");
    }
    let retries = requests.load(Ordering::Relaxed) - before - REQUESTS;
    // What is left of the five, and a tenth of these and of those that were asked before.
    ensure!((5..=20).contains(&retries), "{retries} retries of {REQUESTS} requests at node {node}");
    Ok(())
}

/// Waits until a session begins at an address.
async fn begins_a_session(testbed: &Testbed, to: SocketAddr) -> Result<Answer> {
    until("a session begins", SOON, async || {
        let answer = testbed.client.get(to, STICKY, "/").await?;
        ensure!(answer.headers.contains_key("set-cookie"), "{:?}", answer.headers);
        Ok(answer)
    })
    .await
}

/// A client that shows its cookie reaches the pod that gave it, through whichever node.
async fn clients_stay(testbed: &Testbed) -> Result<()> {
    let nodes: [SocketAddr; 2] = [testbed.address(0), testbed.address(1)];
    let mut pods = BTreeSet::new();
    for round in 0..10 {
        let first = begins_a_session(testbed, nodes[round % 2]).await?;
        let cookie = first.headers["set-cookie"].to_str()?;
        ensure!(cookie.starts_with("edge-session="), "{cookie}");
        let cookie = cookie.split(';').next().context("a cookie has a value")?;
        let pod = first.echo()["pod"].to_string();
        for to in nodes.repeat(5) {
            let again = testbed.client.get_with(to, STICKY, "/", ("cookie", cookie)).await?;
            ensure!(again.echo()["pod"] == first.echo()["pod"], "{pod}, then {}", again.echo()["pod"]);
        }
        pods.insert(pod);
    }
    ensure!(pods.len() == 2, "clients without a cookie are shared out: {pods:?}");
    Ok(())
}
