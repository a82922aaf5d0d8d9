//! A leader that was stopped for longer than its lease, on a real API server: it does no harm when it wakes.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use cluster::process::run;
use e2e::fleet::Portreeve;
use e2e::manifests::route;
use e2e::stage::play;
use e2e::testbed::{SOON, SYSTEM, Testbed};
use e2e::traffic::Client;
use e2e::wait::until;
use serde_json::Value;

/// Drops, or lets through again, what `controller` sends to the admin port of any proxy.
fn cut_pushes(controller: &Portreeve, cut: bool) -> Result<()> {
    let change = if cut { "-A" } else { "-D" };
    let rule = ["OUTPUT", "-p", "tcp", "--dport", "9901", "-j", "DROP"];
    let mut iptables: Command = controller.namespace().command("iptables");
    run(iptables.args(["-w", change]).args(rule)).map(|_| ())
}

/// Lets the kernel under `controller` send again every second what was not acknowledged, rather than ever more seldom.
fn retransmit_every_second(controller: &Portreeve) -> Result<()> {
    let mut sysctl = controller.namespace().command("sysctl");
    run(sysctl.args(["-qw", "net.ipv4.tcp_rto_max_ms=1000"])).context("this test needs Linux 6.15")?;
    Ok(())
}

/// Whether the kernel under `controller` holds something that is not acknowledged for so many proxies.
fn in_flight(controller: &Portreeve, proxies: usize) -> Result<()> {
    let sockets = run(controller.namespace().command("ss").args(["-Htn", "dport = :9901"]))?;
    let held = |line: &str| line.split_whitespace().nth(2).is_some_and(|queue| queue != "0");
    ensure!(sockets.lines().filter(|line| held(line)).count() == proxies, "not for {proxies}: {sockets}");
    Ok(())
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

/// Waits until every proxy serves by the Lease's term, which is above `first`.
async fn the_proxies_know_a_term_above(testbed: &Testbed, first: u64) -> Result<()> {
    let now = term(testbed).await?;
    ensure!(now > first, "a new leader has a new term");
    for proxy in &testbed.proxies {
        until("the proxies know the new term", SOON, async || {
            let known = counted(proxy, "portreeve_config_term", "").await?;
            ensure!(known == now, "it knows {known}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// What the child called `name` is doing, somewhere below `node` of a live tree.
fn state<'a>(node: &'a Value, name: &str) -> Option<&'a str> {
    if node["name"] == name {
        return node["state"].as_str();
    }
    node["children"].as_array()?.iter().find_map(|child| state(child, name))
}

#[test]
fn a_leader_that_slept_through_its_lease_is_refused_and_follows() -> Result<()> {
    play(async |testbed| {
        let load = testbed.load(0);
        let old = testbed.leader().await?;
        let (sleeper, first_term) = (&testbed.controllers[old], term(testbed).await?);

        // A push that is in flight: written by the leader, held by its machine's kernel, which goes on sending it. A
        // change right before keeps the connection fresh: a proxy closes one that is idle for 30 s.
        retransmit_every_second(sleeper)?;
        testbed.cluster.apply(&route(&[("blue", 0), ("green", 1)]))?;
        testbed.serves(0, "green").await?;
        cut_pushes(sleeper, true)?;
        testbed.cluster.apply(&route(&[("blue", 1), ("green", 0)]))?;
        until("a push is in flight", SOON, async || in_flight(sleeper, 2)).await?;
        sleeper.pause()?;

        // Another leads, and the proxies know its term when the push arrives.
        let new = testbed.new_leader(old, SOON).await?;
        the_proxies_know_a_term_above(testbed, first_term).await?;
        let refused = async |proxy: &Portreeve| counted(proxy, "portreeve_pushes_total", "stale").await;
        let mut before = Vec::new();
        for proxy in &testbed.proxies {
            before.push(refused(proxy).await?);
        }
        cut_pushes(sleeper, false)?;
        for (proxy, before) in testbed.proxies.iter().zip(before) {
            until("the push that was in flight is refused", SOON, async || {
                ensure!(refused(proxy).await? > before, "nothing was refused");
                Ok(())
            })
            .await?;
        }
        testbed.moves_to("green").await?;

        sleeper.resume()?;
        let leader_name = testbed.controllers[new].name();
        // That what only a leader runs stops in time it sees to itself, and exits otherwise: all live at the end.
        until("the old leader follows the new one", SOON, async || {
            let shown = testbed.supervision(sleeper).await?;
            let facts = shown["facts"].to_string();
            ensure!(facts.contains(leader_name), "it says {facts}");
            let serve = state(&shown["tree"], "serve").context("what only a leader runs is in the tree")?;
            ensure!(serve == "gated", "what only a leader runs is {serve}");
            Ok(())
        })
        .await?;

        // From here on it sends nothing: both proxies have refused what it had sent.
        let settled = refused(&testbed.proxies[0]).await? + refused(&testbed.proxies[1]).await?;
        for node in [0, 1].repeat(100) {
            assert_eq!(testbed.get(node, "/").await?.deployment(), "green");
        }
        assert_eq!(refused(&testbed.proxies[0]).await? + refused(&testbed.proxies[1]).await?, settled);

        let lease = testbed.cluster.kubectl(&["get", "lease", "--namespace", SYSTEM])?;
        assert!(lease.contains(leader_name), "{lease}");
        assert_eq!(load.stop().await?.faults(), Vec::<String>::new());
        testbed.all_live()?;
        Ok(())
    })
}
