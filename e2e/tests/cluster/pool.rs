//! Gateways with addresses of a pool: each its own, on every node, kept whoever leads.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use cluster::Cluster;
use e2e::manifests::class_with;
use e2e::pool;
use e2e::stage::play;
use e2e::testbed::{SOON, Testbed};
use e2e::traffic::Client;
use e2e::wait::{programmed, until};
use serde_json::{Value, json};

use crate::parameters::{CRD, install};

const RANGE: &str = "172.31.9.0/29";

/// A Gateway that takes everything on port 80, with a route to `service`.
fn gateway(name: &str, service: &str, addresses: &Value) -> String {
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": name},
        "spec": {
            "gatewayClassName": "pooled", "addresses": addresses,
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    });
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": name}],
            "rules": [{"backendRefs": [{"name": service, "port": 8080}]}],
        },
    });
    format!("{gateway}\n---\n{route}")
}

fn delete(cluster: &Cluster, name: &str) -> Result<()> {
    let both = [format!("gateway/{name}"), format!("httproute/{name}")];
    cluster.kubectl(&["delete", &both[0], &both[1]]).map(|_| ())
}

/// A machine from which the pool is reached through one node alone.
fn beside(testbed: &Testbed, node: usize) -> Result<Client> {
    let machine = testbed.cluster.add_machine(&format!("pool-{node}"))?;
    pool::route(&machine.namespace, RANGE, testbed.cluster.node(node))?;
    Ok(Client::new(machine.namespace))
}

async fn serves(client: &Client, address: IpAddr, deployment: &str) -> Result<()> {
    until(&format!("{address} is served by {deployment}"), SOON, async || {
        let answer = client.get((address, 80).into(), "any.example", "/").await?;
        ensure!(answer.deployment() == deployment, "{answer:?}");
        Ok(())
    })
    .await
}

#[test]
fn each_gateway_of_a_pool_keeps_an_address_of_its_own_whoever_leads() -> Result<()> {
    play(async |testbed| {
        let cluster = &testbed.cluster;
        install(testbed).await?;
        pool::make_local(cluster, RANGE)?;
        cluster.apply(&class_with("pooled", &format!("{{pool: {{cidrs: [{RANGE}]}}}}")))?;
        cluster.apply(&gateway("one", "blue", &json!([])))?;
        // Not the one that its name leads to.
        cluster.apply(&gateway("two", "green", &json!([{"value": "172.31.9.1"}])))?;
        let clients = [beside(testbed, 0)?, beside(testbed, 1)?];
        let one = programmed(cluster, "one", SOON).await?;
        let two = programmed(cluster, "two", SOON).await?;
        ensure!(one.len() == 1 && two.len() == 1 && one != two, "{one:?} {two:?}");
        for client in &clients {
            serves(client, one[0], "blue").await?;
            serves(client, two[0], "green").await?;
        }

        cluster.apply(&gateway("two", "green", &json!([])))?;
        let load = |client: &Client| {
            let to = SocketAddr::new(two[0], 80);
            client.load(to, "any.example", "/", 2, Duration::from_millis(20))
        };
        let loads = clients.each_ref().map(load);
        for controller in &testbed.controllers {
            controller.kill()?;
        }
        cluster.apply(&gateway(
            "another",
            "green",
            &json!([{"type": "IPAddress"}, {"type": "IPAddress"}]),
        ))?;
        for controller in &testbed.controllers {
            controller.start(cluster)?;
        }
        let another = programmed(cluster, "another", SOON).await?;
        let again = [programmed(cluster, "one", SOON).await?, programmed(cluster, "two", SOON).await?];
        ensure!(again == [one.clone(), two.clone()], "{again:?}");
        let all: BTreeSet<_> = [&one, &two, &another].into_iter().flatten().collect();
        ensure!(all.len() == 4, "one address each and two for the other: {all:?}");
        for (client, address) in clients.iter().zip(&another) {
            serves(client, *address, "green").await?;
        }
        for load in loads {
            assert_eq!(load.stop().await?.faults(), Vec::<String>::new());
        }

        what_is_taken_is_free_once_it_is_given_up(testbed, one[0], &clients[0]).await?;
        for name in ["two", "another", "heir"] {
            delete(cluster, name)?;
        }
        let objects = ["gatewayclass/pooled".to_owned(), format!("crd/{CRD}")];
        cluster.kubectl(&["delete", &objects[0], &objects[1]]).map(|_| ())
    })
}

async fn what_is_taken_is_free_once_it_is_given_up(
    testbed: &Testbed,
    one: IpAddr,
    client: &Client,
) -> Result<()> {
    testbed.cluster.apply(&gateway("heir", "green", &json!([{"value": one}])))?;
    testbed.says("gateway", "heir", "/status/conditions", "Programmed", "False AddressNotUsable").await?;
    serves(client, one, "blue").await?;
    delete(&testbed.cluster, "one")?;
    ensure!(programmed(&testbed.cluster, "heir", SOON).await? == [one]);
    serves(client, one, "green").await
}
