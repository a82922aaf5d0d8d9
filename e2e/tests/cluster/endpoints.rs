//! A Service of ten thousand endpoints, as requests through each node's proxy meet it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::Machine;
use e2e::origin;
use e2e::stage::play;
use e2e::testbed::{SOON, Testbed};
use e2e::wait::until;

use crate::routes::all_were_served;

const PORT: u16 = 8080;
const HOST: &str = "many.example";
/// Where the endpoints are: all on one machine. Source: RFC 2544, C.2.2.
const RANGE: &str = "198.18.0.0/16";
/// Slices, and endpoints of each: Kubernetes itself puts no more than a hundred into one.
const MANY: u8 = 100;
/// Requests in a row.
const REQUESTS: usize = 300;

const ROUTE: &str = "
apiVersion: v1
kind: Service
metadata: {name: many}
spec: {ports: [{name: http, port: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: many}
spec:
  parentRefs: [{name: edge}]
  hostnames: [many.example]
  rules: [{backendRefs: [{name: many, port: 8080}]}]
";

/// One of the slices; its half is a label of it.
fn slice(number: u8) -> String {
    let half = if number < MANY / 2 { "first" } else { "second" };
    let endpoints: Vec<_> =
        (0..MANY).map(|host| format!("{{addresses: [{}]}}", Ipv4Addr::new(198, 18, number, host))).collect();
    format!(
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: many-{number}, labels: {{kubernetes.io/service-name: many, half: {half}}}}}
addressType: IPv4
ports: [{{name: http, port: {PORT}, protocol: TCP}}]
endpoints: [{}]
",
        endpoints.join(", ")
    )
}

/// Makes all of the range the machine's own, and leads both nodes there.
fn own(testbed: &Testbed, machine: &Machine) -> Result<()> {
    let route = |mut command: Command, arguments: &[&str]| {
        let status = command.args(["route", "replace"]).args(arguments).status().context("run ip")?;
        ensure!(status.success(), "ip route replace {arguments:?}");
        Ok(())
    };
    route(machine.namespace.command("ip"), &["local", RANGE, "dev", "lo"])?;
    let via = machine.address.to_string();
    testbed
        .cluster
        .nodes()
        .iter()
        .try_for_each(|node| route(node.namespace.command("ip"), &[RANGE, "via", &via]))
}

/// Which endpoints the next requests through a node reach.
async fn reached(testbed: &Testbed, node: usize) -> Result<BTreeSet<Ipv4Addr>> {
    let mut reached = BTreeSet::new();
    for _ in 0..REQUESTS {
        let answer = testbed.client.get(testbed.address(node), HOST, "/").await?;
        ensure!(answer.status == 200, "{answer:?}");
        reached.insert(answer.body.parse()?);
    }
    Ok(reached)
}

#[test]
fn a_service_may_have_ten_thousand_endpoints_and_lose_half_of_them_at_once() -> Result<()> {
    play(async |testbed| {
        let machine = testbed.cluster.add_machine("many")?;
        let _serving = origin::serve(&machine, PORT, |asked| {
            let own = asked.ip().to_string();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{own}", own.len())
        })?;
        own(testbed, &machine)?;
        let slices: String = (0..MANY).map(slice).collect();
        testbed.cluster.apply(&format!("{ROUTE}{slices}"))?;
        for node in 0..2 {
            until("each request goes to another endpoint", SOON, async || {
                let reached = reached(testbed, node).await?;
                ensure!(reached.len() == REQUESTS, "{} endpoints", reached.len());
                Ok(())
            })
            .await?;
        }

        let loads = [0, 1]
            .map(|node| testbed.client.load(testbed.address(node), HOST, "/", 4, Duration::from_millis(5)));
        testbed.cluster.kubectl(&["delete", "endpointslice", "-l", "half=first"])?;
        for node in 0..2 {
            until("half of them are left", SOON, async || {
                let reached = reached(testbed, node).await?;
                let gone = reached.iter().find(|address| address.octets()[2] < MANY / 2);
                ensure!(gone.is_none() && reached.len() > REQUESTS / 2, "{gone:?}");
                Ok(())
            })
            .await?;
        }
        all_were_served(loads).await?;
        testbed.cluster.kubectl(&["delete", "endpointslice", "-l", "half"])?;
        testbed.cluster.kubectl(&["delete", "httproute/many", "service/many"]).map(|_| ())
    })
}
