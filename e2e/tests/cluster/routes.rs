//! From objects in a real Kubernetes to answers on its nodes, and what happens to traffic while they change.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::manifests::route;
use e2e::stage::play;
use e2e::testbed::SOON;
use e2e::traffic::Load;
use e2e::wait::until;

/// Ends what asked meanwhile, each of which has asked a lot and was answered with 200 each time.
pub(crate) async fn all_were_served(loads: [Load; 2]) -> Result<()> {
    for load in loads {
        let tally = load.stop().await?;
        assert!(tally.with_status(200) > 100, "{tally:?}");
        assert_eq!(tally.faults(), Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn a_change_of_weights_reaches_every_node_and_loses_no_request() -> Result<()> {
    play(async |testbed| {
        let loads = [testbed.load(0), testbed.load(1)];

        testbed.moves_to("green").await?;
        testbed.cluster.apply(&route(&[("blue", 1), ("green", 3)]))?;
        for node in 0..2 {
            until("both backends get their share", SOON, async || {
                let mut shares = BTreeMap::<String, u32>::new();
                for _ in 0..200 {
                    *shares.entry(testbed.get(node, "/share").await?.deployment()).or_default() += 1;
                }
                // 150 expected; 6 standard deviations are 37.
                ensure!(shares.get("green").is_some_and(|green| (113..=187).contains(green)), "{shares:?}");
                ensure!(shares.get("blue").is_some_and(|blue| (13..=87).contains(blue)), "{shares:?}");
                Ok(())
            })
            .await?;
        }

        all_were_served(loads).await
    })
}

#[test]
fn endpoints_come_and_go_without_a_lost_request() -> Result<()> {
    play(async |testbed| {
        let loads = [testbed.load(0), testbed.load(1)];

        for replicas in ["4", "1", "3"] {
            testbed.cluster.kubectl(&["scale", "deployment", "blue", "--replicas", replicas])?;
            testbed.cluster.kubectl(&["rollout", "status", "deployment", "blue", "--timeout=60s"])?;
            until("exactly the ready pods answer", SOON, async || {
                let mut pods = BTreeMap::<String, u32>::new();
                for node in [0, 1].repeat(20) {
                    let answer = testbed.get(node, "/pods").await?;
                    *pods.entry(answer.echo()["pod"].to_string()).or_default() += 1;
                }
                ensure!(pods.len().to_string() == replicas, "{pods:?}");
                Ok(())
            })
            .await?;
        }
        for load in loads {
            assert_eq!(load.stop().await?.faults(), Vec::<String>::new());
        }

        testbed.cluster.kubectl(&["scale", "deployment", "blue", "--replicas", "0"])?;
        for node in 0..2 {
            until("no endpoint is a 503", SOON, async || {
                // Of those that are ending, each refuses connections first, which is a 503 too.
                let of_blue = "--selector=kubernetes.io/service-name=blue";
                let endpoints = "jsonpath={.items[*].endpoints[*].addresses}";
                let left = testbed.cluster.kubectl(&["get", "endpointslices", of_blue, "-o", endpoints])?;
                ensure!(left.is_empty(), "there are still {left}");
                for _ in 0..20 {
                    let status = testbed.get(node, "/").await?.status;
                    ensure!(status == 503, "{status}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(())
            })
            .await?;
        }
        testbed.cluster.kubectl(&["scale", "deployment", "blue", "--replicas", "1"])?;
        testbed.all_serve("blue").await?;
        Ok(())
    })
}

#[test]
fn the_status_says_where_a_gateway_serves_and_that_its_route_is_in_force() -> Result<()> {
    play(async |testbed| {
        let (gateway, route) = ("/status/conditions", "/status/parents/0/conditions");
        testbed.says("gateway", "edge", gateway, "Accepted", "True Accepted").await?;
        testbed.says("gateway", "edge", gateway, "Programmed", "True Programmed").await?;
        testbed.says("httproute", "echo", route, "Accepted", "True Accepted").await?;
        testbed.says("httproute", "echo", route, "ResolvedRefs", "True ResolvedRefs").await?;
        until("the Gateway names each node", SOON, async || {
            let path = "jsonpath={.status.addresses[*].value}";
            let addresses = testbed.cluster.kubectl(&["get", "gateway", "edge", "-o", path])?;
            for node in testbed.cluster.nodes() {
                ensure!(addresses.contains(&node.internal_ip.to_string()), "{addresses}");
            }
            Ok(())
        })
        .await
    })
}
