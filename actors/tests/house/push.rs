//! From a snapshot to the proxies.

use std::time::Duration;

use actors::tree::Controller;
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::set::RootHash;
use proxy_config::wire::Version;
use tokio::time::Instant;

use crate::stage::{GROUND, Stage, lead, resign, route, until};

/// The root that a controller wants its proxies to hold.
fn wanted(controller: &Controller) -> Option<RootHash> {
    Some(controller.edges.outgoing.borrow().as_ref()?.target.units.root())
}

/// Waits until all proxies hold what the leader wants, and some unit is among it.
async fn settled(stage: &Stage, leader: &Controller, unit: &UnitId) {
    until("all proxies hold what is wanted", || {
        let wanted = wanted(leader);
        stage.proxies.values().all(|proxy| {
            let held = proxy.held();
            Some(held.units.root()) == wanted && held.units.get(unit).is_some()
        })
    })
    .await;
}

fn route_unit(name: &str) -> UnitId {
    UnitId::route("HTTPRoute", &ObjectName::new("default", name))
}

#[tokio::test(start_paused = true)]
async fn a_change_of_an_object_reaches_every_proxy_and_moves_what_changed() {
    let stage = Stage::new(2).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let controller = stage.leader("c", 7).await;
    settled(&stage, &controller, &route_unit("one")).await;
    assert!(stage.proxies.values().all(|proxy| proxy.held().version.term == 7));
    let before = stage.proxy(0).held().taken.len();
    stage.apply(&route("two", "/two")).await;
    settled(&stage, &controller, &route_unit("two")).await;
    let moved: usize = stage.proxy(0).held().taken[before..].iter().map(|(_, moved)| moved).sum();
    assert_eq!(moved, 1, "the new route alone");
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failover_moves_nothing_and_two_replicas_want_the_same_bytes() {
    let stage = Stage::new(2).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let (first, second) = (stage.leader("a", 1).await, stage.controller("b").await);
    settled(&stage, &first, &route_unit("one")).await;
    until("the follower is warm", || {
        let translation = second.edges.translation.borrow().clone();
        translation.is_some_and(|translation| Some(translation.units.root()) == wanted(&first))
    })
    .await;
    resign(&first);
    let before: Vec<_> = stage.proxies.values().map(|proxy| proxy.held().taken.len()).collect();
    lead(&second, 2);
    until("the new term", || stage.proxies.values().all(|proxy| proxy.held().version.term == 2)).await;
    for (proxy, before) in stage.proxies.values().zip(before) {
        assert!(proxy.held().taken[before..].iter().all(|(_, moved)| *moved == 0), "nothing moved");
    }
    first.running.stop().await.unwrap();
    second.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_comes_back_empty_is_given_everything_again() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let controller = stage.leader("c", 1).await;
    settled(&stage, &controller, &route_unit("one")).await;
    stage.proxy(0).restart();
    settled(&stage, &controller, &route_unit("one")).await;
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_does_not_answer_holds_up_no_other_and_catches_up() {
    let stage = Stage::new(2).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let controller = stage.leader("c", 1).await;
    settled(&stage, &controller, &route_unit("one")).await;
    stage.proxy(0).held.lock().unwrap().mute = true;
    stage.apply(&route("two", "/two")).await;
    let begun = Instant::now();
    until("the other one", || stage.proxy(1).held().units.get(&route_unit("two")).is_some()).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(60)).await;
    stage.proxy(0).held.lock().unwrap().mute = false;
    settled(&stage, &controller, &route_unit("two")).await;
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_proxy_is_pushed_to_at_most_twenty_times_a_second() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    let controller = stage.leader("c", 1).await;
    until("the first push", || !stage.proxy(0).held().taken.is_empty()).await;
    for index in 0..100 {
        stage.apply(&route(&format!("r-{index}"), "/")).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    settled(&stage, &controller, &route_unit("r-99")).await;
    let taken = stage.proxy(0).held().taken;
    let apart = taken.windows(2).map(|pair| pair[1].0 - pair[0].0).min().unwrap();
    assert!(apart >= Duration::from_millis(50), "{apart:?}");
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_proxy_of_a_later_term_refuses_and_the_term_is_told() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    stage.proxy(0).held.lock().unwrap().version = Version { term: 9, generation: 1 };
    let controller = stage.leader("c", 3).await;
    until("the higher term", || *controller.edges.highest_term.borrow() == 9).await;
    assert_eq!(stage.proxy(0).held().version.term, 9);
    lead(&controller, 10);
    until("the term above", || stage.proxy(0).held().version.term == 10).await;
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_term_that_another_leader_has_had_is_told() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    stage.proxy(0).held.lock().unwrap().version = Version { term: 3, generation: 1000 };
    let controller = stage.leader("c", 3).await;
    until("the term", || *controller.edges.highest_term.borrow() == 3).await;
    lead(&controller, 4);
    until("the term above", || stage.proxy(0).held().version.term == 4).await;
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_term_beyond_belief_hides_no_other() {
    let stage = Stage::new(2).await;
    stage.apply(GROUND).await;
    stage.proxy(0).held.lock().unwrap().version = Version { term: u64::MAX, generation: 1 };
    let controller = stage.leader("c", 3).await;
    until("the refusal", || controller.edges.board.read().borrow().values().any(|one| one.refused.is_some()))
        .await;
    assert_eq!(*controller.edges.highest_term.borrow(), 0);
    stage.proxy(1).held.lock().unwrap().version = Version { term: 9, generation: 1 };
    until("the higher term", || *controller.edges.highest_term.borrow() == 9).await;
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_has_lost_its_term_pushes_nothing_more() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    let controller = stage.leader("c", 1).await;
    until("the first push", || !stage.proxy(0).held().taken.is_empty()).await;
    // The proof is gone before the gate is closed: what runs still must not push.
    controller.edges.leadership.send_replace(None);
    let before = stage.proxy(0).held().taken.len();
    stage.apply(&route("one", "/one")).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(stage.proxy(0).held().taken.len(), before);
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_with_an_old_cache_rolls_nothing_back() {
    use sandbox::{Fault, Faults, How, Matcher, Verb};
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let (first, second) = (stage.leader("a", 1).await, stage.controller("b").await);
    settled(&stage, &first, &route_unit("one")).await;
    until("the follower is warm", || second.edges.translation.borrow().is_some()).await;
    // The second one's watches hang from now on, so that it does not see the second route come.
    let mute = Fault::MuteWatch(Duration::from_secs(3600));
    stage.sandbox.set_faults("b", Faults::none().with(Matcher::all().verb(Verb::Watch), How::Always, mute));
    tokio::time::sleep(Duration::from_secs(22)).await;
    stage.apply(&route("two", "/two")).await;
    settled(&stage, &first, &route_unit("two")).await;
    resign(&first);
    lead(&second, 2);
    until("the new term", || stage.proxy(0).held().version.term == 2).await;
    assert!(stage.proxy(0).held().units.get(&route_unit("two")).is_some(), "traffic was rolled back");
    first.running.stop().await.unwrap();
    second.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_after_a_new_leader_has_listed_it_does_not_keep_it_from_pushing() {
    use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind};
    use sandbox::{Fault, Faults, How, Matcher, Verb};
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let controller = stage.controller("c").await;
    until("the follower is warm", || controller.edges.translation.borrow().is_some()).await;
    let mute = Fault::MuteWatch(Duration::from_secs(3600));
    stage.sandbox.set_faults("c", Faults::none().with(Matcher::all().verb(Verb::Watch), How::Always, mute));
    tokio::time::sleep(Duration::from_secs(22)).await;
    stage.apply(&route("short", "/short")).await;
    drop(stage.sandbox.take_accesses());
    lead(&controller, 1);
    until("the comparison", || {
        let mut accesses = stage.sandbox.accesses().into_iter();
        accesses.any(|access| access.verb == Verb::List && access.resource == "httproutes")
    })
    .await;
    let gvk = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    let routes: Api<DynamicObject> =
        Api::namespaced_with(stage.sandbox.client(), "default", &ApiResource::from_gvk(&gvk));
    routes.delete("short", &DeleteParams::default()).await.unwrap();
    settled(&stage, &controller, &route_unit("one")).await;
    assert!(stage.proxy(0).held().units.get(&route_unit("short")).is_none());
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_answers_after_a_long_silence_is_given_what_it_lacks_at_once() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    stage.proxy(0).held.lock().unwrap().mute = true;
    let controller = stage.leader("c", 1).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    stage.proxy(0).held.lock().unwrap().mute = false;
    until("the first content", || !stage.proxy(0).held().taken.is_empty()).await;
    let held = stage.proxy(0).held();
    let waited = held.taken[0].0 - held.differed.unwrap();
    assert!(waited < Duration::from_millis(100), "{waited:?}");
    controller.running.stop().await.unwrap();
}
