//! What controllers write, by the API server's own account; and another controller, which writes to the same routes.
//!
//! Owns the reading of the audit log and the other's part. Who ours are is told by the suite: they may be processes
//! beside the cluster or Pods of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::Cluster;
use cluster::audit::Event;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::testbed::{SOON, SYSTEM};
use crate::wait::until;

/// How our entries of a route's status are marked.
pub const OURS: &str = "portreeve.dev/gateway-controller";
/// And those of the other controller.
pub const OTHER: &str = "example.com/another-controller";
/// So long without a write, everything that had to be written has been.
const SETTLED: Duration = Duration::from_secs(5);

/// Controllers of ours, as the API server sees them.
pub struct Controllers<'a> {
    /// Where they are at work.
    pub cluster: &'a Cluster,
    /// Whether a request is one of theirs.
    pub ours: &'a dyn Fn(&Event) -> bool,
}

impl Controllers<'_> {
    /// What they have written since the event with this number, the Lease apart; and how often the Lease.
    pub fn written(&self, since: usize) -> Result<(Vec<Event>, usize)> {
        let lease = format!("{SYSTEM}/");
        let events = self.cluster.audit()?.split_off(since);
        let (lease, others): (Vec<_>, _) = events
            .into_iter()
            .filter(|event| (self.ours)(event) && event.writes())
            .partition(|event| event.resource == "leases" && event.object.starts_with(&lease));
        Ok((others, lease.len()))
    }

    /// Waits until everything is written that has to be.
    pub async fn settled(&self) -> Result<()> {
        until("everything is written that had to be", SOON * 2, async || {
            let before = self.cluster.audit()?.len();
            tokio::time::sleep(SETTLED).await;
            let (others, _) = self.written(before)?;
            ensure!(others.is_empty(), "{others:?}");
            Ok(())
        })
        .await
    }

    /// Holds that they write nothing but the Lease for `time`, though the other controller writes to one of these routes
    /// each second of its second half.
    pub async fn write_nothing(&self, time: Duration, routes: &[Route]) -> Result<()> {
        self.settled().await?;
        let (since, began) = (self.cluster.audit()?.len(), Instant::now());
        let mut seconds = interval_at(began + time / 2, Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for route in routes.iter().cycle() {
            seconds.tick().await;
            if began.elapsed() >= time {
                break;
            }
            let written = route.write_as_another(self.cluster, &format!("{:?}", began.elapsed()))?;
            ensure!(written, "somebody else writes to {route:?}");
        }
        let (others, lease) = self.written(since)?;
        ensure!(others.is_empty(), "nothing has changed, and yet: {others:?}");
        let (fewest, most) = (time.as_secs() / 2, time.as_secs() * 3 / 2);
        ensure!(
            (fewest..=most).contains(&u64::try_from(lease)?),
            "the Lease was renewed {lease} times in {time:?}"
        );
        for route in routes {
            let parents = route.parents(self.cluster)?;
            entry(&parents, OTHER)?;
            entry(&parents, OURS)?;
        }
        Ok(())
    }
}

/// A route, by its kind and name, as kubectl takes them.
#[derive(Debug, Clone, Copy)]
pub struct Route(pub &'static str, pub &'static str);

impl Route {
    /// The object as it is.
    pub fn read(&self, cluster: &Cluster) -> Result<Value> {
        let route = cluster.kubectl(&["get", self.0, self.1, "-o", "json"])?;
        serde_json::from_str(&route).with_context(|| format!("{self:?} is JSON"))
    }

    /// Its status, by parents.
    pub fn parents(&self, cluster: &Cluster) -> Result<Vec<Value>> {
        parents(&self.read(cluster)?)
    }

    /// Writes the other controller's entry of the route as one would: reads the list, replaces its own entry, and writes
    /// the list if nobody has in between. Says whether it did.
    pub fn write_as_another(&self, cluster: &Cluster, message: &str) -> Result<bool> {
        let object = self.read(cluster)?;
        let mut parents = parents(&object)?;
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
            ["patch", self.0, self.1, "--subresource=status", "--type=json", "-p", &patch.to_string()];
        Ok(cluster.kubectl(&patch).is_ok())
    }
}

fn parents(route: &Value) -> Result<Vec<Value>> {
    Ok(route["status"]["parents"].as_array().context("the route has a status")?.clone())
}

/// The entry of one controller.
pub fn entry<'a>(parents: &'a [Value], controller: &str) -> Result<&'a Value> {
    parents.iter().find(|parent| parent["controllerName"] == controller).context("the entry is there")
}
