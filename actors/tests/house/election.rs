//! Several controllers, one Lease.

use std::time::Duration;

use actors::tree::{self, Controller};
use proxy_config::name::{ObjectName, UnitId};
use sandbox::Faults;
use tokio::time::Instant;

use crate::stage::{GROUND, Stage, route, until};

/// Which of them leads, if exactly one does.
pub(crate) fn leader(controllers: &[Controller]) -> Option<usize> {
    let leading = controllers.iter().enumerate().filter(|(_, one)| one.edges.leadership.borrow().is_some());
    let leading: Vec<_> = leading.map(|(index, _)| index).collect();
    assert!(leading.len() <= 1, "{leading:?} lead at once");
    leading.first().copied()
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_is_cut_off_another_takes_over_within_eight_seconds_and_moves_nothing() {
    let stage = Stage::new(2).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let unit = UnitId::route("HTTPRoute", &ObjectName::new("default", "one"));
    let names = ["a", "b", "c"];
    let mut controllers = Vec::new();
    for name in names {
        controllers.push(tree::run(stage.candidate(name)).await.unwrap());
    }
    until("a leader", || leader(&controllers).is_some()).await;
    let serves = || stage.proxies.values().all(|proxy| proxy.held().units.get(&unit).is_some());
    until("the route on every proxy", serves).await;
    let (first, term) = (leader(&controllers).unwrap(), stage.proxy(0).held().version.term);
    let before: Vec<_> = stage.proxies.values().map(|proxy| proxy.held().taken.len()).collect();

    stage.sandbox.set_faults(names[first], Faults::cut_off());
    let cut = Instant::now();
    until("another leader", || leader(&controllers).is_some_and(|index| index != first)).await;
    assert!(cut.elapsed() <= Duration::from_secs(8), "{:?}", cut.elapsed());
    until("the new term", || stage.proxies.values().all(|proxy| proxy.held().version.term > term)).await;
    for (proxy, before) in stage.proxies.values().zip(before) {
        assert!(proxy.held().taken[before..].iter().all(|(_, moved)| *moved == 0), "nothing moved");
    }
    for controller in &controllers {
        controller.running.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_clean_shutdown_another_leads_within_two_seconds() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    let mut controllers = Vec::new();
    for name in ["a", "b"] {
        controllers.push(tree::run(stage.candidate(name)).await.unwrap());
    }
    until("a leader", || leader(&controllers).is_some()).await;
    let first = controllers.remove(leader(&controllers).unwrap());
    first.running.stop().await.unwrap();
    let stopped = Instant::now();
    until("the other", || leader(&controllers).is_some()).await;
    assert!(stopped.elapsed() <= Duration::from_secs(2), "{:?}", stopped.elapsed());
    controllers[0].running.stop().await.unwrap();
}
