//! A leader that was stopped for longer than its lease, on a real API server: it does no harm when it wakes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::process::run;
use e2e::fleet::Portreeve;
use e2e::manifests::route;
use e2e::testbed::{SOON, SYSTEM, Testbed};
use e2e::traffic::Client;
use e2e::wait::until;

/// What a leader may take to stop all that only a leader runs.
const STEP_DOWN: Duration = Duration::from_millis(1500);

/// Drops, or lets through again, what `controller` sends to the admin port of any proxy.
fn cut_pushes(controller: &Portreeve, cut: bool) -> Result<()> {
    let change = if cut { "-A" } else { "-D" };
    let rule = ["OUTPUT", "-p", "tcp", "--dport", "9901", "-j", "DROP"];
    let mut iptables: Command = controller.namespace().command("iptables");
    run(iptables.args(["-w", change]).args(rule)).map(|_| ())
}

/// The sum of a counter's series whose labels contain `label`, from a process's /metrics.
async fn counted(process: &Portreeve, name: &str, label: &str) -> Result<u64> {
    let here = Client::new(process.namespace().clone());
    let answer = here.get("127.0.0.1:9902".parse()?, "localhost", "/metrics").await?;
    let series = answer.body.lines().filter(|line| line.starts_with(name) && line.contains(label));
    let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum::<f64>() as u64)
}

async fn term(testbed: &Testbed) -> Result<u64> {
    let annotations = testbed.lease().await?.metadata.annotations.unwrap_or_default();
    annotations.get("portreeve.dev/term").context("the Lease carries its term")?.parse().context("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_slept_through_its_lease_is_refused_and_follows() -> Result<()> {
    let testbed = Testbed::up("leader-stopped").await?;
    let load = testbed.load(0);
    let old = testbed.leader().await?;
    let (sleeper, first_term) = (&testbed.controllers[old], term(&testbed).await?);

    // A push that is in flight: written by the leader, held by its machine's kernel, which goes on sending it.
    cut_pushes(sleeper, true)?;
    testbed.cluster.apply(&route(&[("blue", 1), ("green", 1)]))?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    sleeper.pause()?;

    let new = testbed.new_leader(old, Duration::from_secs(8)).await?;
    ensure!(term(&testbed).await? > first_term, "a new leader has a new term");
    testbed.cluster.apply(&route(&[("blue", 0), ("green", 1)]))?;
    for node in 0..2 {
        testbed.serves(node, "green").await?;
    }

    // It arrives now, at proxies that know a higher term.
    let refused = async |proxy: &Portreeve| counted(proxy, "portreeve_pushes_total", "stale").await;
    let before = refused(&testbed.proxies[0]).await?;
    cut_pushes(sleeper, false)?;
    until("the push that was in flight is refused", SOON, async || {
        ensure!(refused(&testbed.proxies[0]).await? > before, "nothing was refused");
        Ok(())
    })
    .await?;

    sleeper.resume()?;
    let leader_name = testbed.controllers[new].name();
    until("the old leader follows the new one", STEP_DOWN, async || {
        let facts = testbed.supervision(sleeper).await?;
        let facts = facts["facts"].to_string();
        ensure!(facts.contains(leader_name), "it says {facts}");
        Ok(())
    })
    .await?;
    ensure!(sleeper.ended()?.is_none(), "it lives on");

    // From here on it sends nothing: all that is refused has been refused.
    let settled = refused(&testbed.proxies[0]).await? + refused(&testbed.proxies[1]).await?;
    for node in [0, 1].repeat(100) {
        assert_eq!(testbed.get(node, "/").await?.deployment(), "green");
    }
    assert_eq!(refused(&testbed.proxies[0]).await? + refused(&testbed.proxies[1]).await?, settled);

    let lease = testbed.cluster.kubectl(&["get", "lease", "--namespace", SYSTEM])?;
    assert!(lease.contains(leader_name), "{lease}");
    assert_eq!(load.stop().await?.faults(), Vec::<String>::new());
    Ok(())
}
