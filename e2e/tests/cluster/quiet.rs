//! A steady state writes nothing but the Lease, by the API server's own account, and also beside another controller.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::audit::Event;
use e2e::manifests::route;
use e2e::stage::play;
use e2e::testbed::{SOON, Testbed};
use e2e::wait::until;
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at};

/// How long nothing may be written.
const STEADY: Duration = Duration::from_secs(60);
/// So long without a write, everything that had to be written has been.
const SETTLED: Duration = Duration::from_secs(5);
/// How our entries are marked.
const OURS: &str = "portreeve.dev/gateway-controller";
/// And those of another class.
const OTHER: &str = "example.com/another-controller";

/// What the controllers have written since the event with this number, the Lease apart; and how often the Lease.
fn written(testbed: &Testbed, since: usize) -> Result<(Vec<Event>, usize)> {
    let ours = |event: &Event| testbed.machines.iter().any(|one| one.address.to_string() == event.source);
    let events = testbed.cluster.audit()?.split_off(since);
    let (lease, others): (Vec<_>, _) = events
        .into_iter()
        .filter(|event| ours(event) && event.writes())
        .partition(|event| event.resource == "leases" && event.object.starts_with("portreeve-system/"));
    Ok((others, lease.len()))
}

async fn settled(testbed: &Testbed) -> Result<()> {
    until("everything is written that had to be", SOON * 2, async || {
        let before = testbed.cluster.audit()?.len();
        tokio::time::sleep(SETTLED).await;
        let (others, _) = written(testbed, before)?;
        ensure!(others.is_empty(), "{others:?}");
        Ok(())
    })
    .await
}

fn parents(testbed: &Testbed) -> Result<Vec<Value>> {
    let route = testbed.cluster.kubectl(&["get", "httproute", "echo", "-o", "json"])?;
    let route: Value = serde_json::from_str(&route)?;
    Ok(route["status"]["parents"].as_array().context("the route has a status")?.clone())
}

fn entry<'a>(parents: &'a [Value], controller: &str) -> Result<&'a Value> {
    parents.iter().find(|parent| parent["controllerName"] == controller).context("the entry is there")
}

/// Writes the other controller's entry of the route as one would: reads the list, replaces its own entry, and writes
/// the list if nobody has in between. Says whether it did.
fn write_as_another(testbed: &Testbed, message: &str) -> Result<bool> {
    let object = testbed.cluster.kubectl(&["get", "httproute", "echo", "-o", "json"])?;
    let object: Value = serde_json::from_str(&object)?;
    let mut parents = object["status"]["parents"].as_array().context("the route has a status")?.clone();
    parents.retain(|parent| parent["controllerName"] != OTHER);
    parents.push(json!({
        "controllerName": OTHER,
        "parentRef": {"name": "another", "group": "gateway.networking.k8s.io", "kind": "Gateway"},
        "conditions": [{
            "type": "Accepted", "status": "False", "reason": "NoMatchingParent", "message": message,
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }));
    let patch = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": object["metadata"]["resourceVersion"]},
        {"op": "replace", "path": "/status/parents", "value": parents},
    ]);
    let patch =
        ["patch", "httproute", "echo", "--subresource=status", "--type=json", "-p", &patch.to_string()];
    Ok(testbed.cluster.kubectl(&patch).is_ok())
}

/// Takes the route away, with the other's entry.
fn leave(testbed: &Testbed) -> Result<()> {
    testbed.cluster.kubectl(&["delete", "httproute", "echo"]).map(|_| ())
}

#[test]
fn a_steady_state_writes_nothing_but_the_lease_whatever_another_controller_writes() -> Result<()> {
    play(async |testbed| {
        settled(testbed).await?;
        let (since, began) = (testbed.cluster.audit()?.len(), Instant::now());
        let mut seconds = interval_at(began + STEADY / 2, Duration::from_secs(1));
        while began.elapsed() < STEADY {
            seconds.tick().await;
            ensure!(write_as_another(testbed, &format!("{:?}", began.elapsed()))?, "nobody else writes");
        }
        let (others, lease) = written(testbed, since)?;
        assert_eq!(others, [], "nothing has changed");
        assert!((30..=90).contains(&lease), "the Lease was renewed {lease} times in {STEADY:?}");
        let parents = parents(testbed)?;
        entry(&parents, OTHER)?;
        entry(&parents, OURS)?;
        leave(testbed)
    })
}

#[test]
fn a_status_follows_its_route_while_another_controller_writes_to_it_and_keeps_what_it_wrote() -> Result<()> {
    play(async |testbed| {
        for (round, weight) in (1..=10).zip([0, 1].into_iter().cycle()) {
            testbed.cluster.apply(&route(&[("blue", 1), ("green", weight)]))?;
            let message = format!("round {round}");
            until("both have written", SOON, async || {
                // It may lose a race, and tries again as any controller does.
                ensure!(write_as_another(testbed, &message)?, "written in between");
                let object = testbed.cluster.kubectl(&["get", "httproute", "echo", "-o", "json"])?;
                let object: Value = serde_json::from_str(&object)?;
                let parents = parents(testbed)?;
                let ours = entry(&parents, OURS)?;
                let observed = &ours["conditions"][0]["observedGeneration"];
                ensure!(*observed == object["metadata"]["generation"], "ours is of before: {ours}");
                let other = entry(&parents, OTHER)?;
                ensure!(other["conditions"][0]["message"] == message, "the other's is lost: {other}");
                Ok(())
            })
            .await?;
        }
        // What we wrote last has lost nothing either.
        settled(testbed).await?;
        let parents = parents(testbed)?;
        assert_eq!(entry(&parents, OTHER)?["conditions"][0]["message"], "round 10", "{parents:?}");
        entry(&parents, OURS)?;
        leave(testbed)
    })
}
