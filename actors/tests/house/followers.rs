//! What those do that do not lead: they follow, a little later, and are ready to lead.

use std::time::Duration;

use actors::tree::Controller;
use proxy_config::name::{ObjectName, UnitId};
use sandbox::{Fault, Faults, How, Matcher, Verb};
use tokio::time::Instant;

use crate::secrets::{self, certificate, read, secret};
use crate::stage::{lead, resign, route, until};

const AT_ONCE: Duration = Duration::from_millis(100);
const GATHERED: Duration = Duration::from_millis(250);
const SOON: Duration = Duration::from_secs(1);

fn generation(controller: &Controller) -> u64 {
    controller.edges.translation.borrow().as_ref().map_or(0, |translation| translation.generation)
}

fn has(controller: &Controller, name: &str) -> bool {
    let unit = UnitId::route("HTTPRoute", &ObjectName::new("default", name));
    controller.edges.translation.borrow().as_ref().is_some_and(|all| all.units.get(&unit).is_some())
}

#[tokio::test(start_paused = true)]
async fn a_follower_lets_changes_gather_and_a_leader_does_not() {
    let stage = secrets::stage(0).await;
    let controller = stage.controller("c").await;
    until("all there is", || certificate(&controller).is_some()).await;
    tokio::time::sleep(SOON).await;
    let (before, begun) = (generation(&controller), Instant::now());
    stage.apply(&route("one", "/one")).await;
    tokio::time::sleep(AT_ONCE).await;
    stage.apply(&route("two", "/two")).await;
    until("both routes", || has(&controller, "two")).await;
    assert!((GATHERED..SOON).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(generation(&controller), before + 1, "they were taken together");

    lead(&controller, 1);
    let begun = Instant::now();
    stage.apply(&route("three", "/three")).await;
    until("the third route", || has(&controller, "three")).await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    let held = certificate(&controller);
    stage.apply(&secret("cert")).await;
    until("the new certificate", || certificate(&controller) != held).await;
    assert!(begun.elapsed() < 2 * AT_ONCE, "{:?}", begun.elapsed());

    // What was gathering when it began to lead waits no longer.
    resign(&controller);
    let (begun, held) = (Instant::now(), certificate(&controller));
    stage.apply(&secret("cert")).await;
    drop(stage.sandbox.take_accesses());
    tokio::time::sleep(AT_ONCE).await;
    assert_eq!(certificate(&controller), held);
    assert_eq!(read(&stage), [""; 0], "the API server is not asked yet either");
    lead(&controller, 2);
    until("the new certificate", || certificate(&controller) != held).await;
    assert!(begun.elapsed() < 2 * AT_ONCE, "{:?}", begun.elapsed());
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_was_replaced_does_not_come_back_with_a_new_leader() {
    let stage = secrets::stage(1).await;
    let unit = UnitId::certificate(&ObjectName::new("default", "cert"));
    let served = || stage.proxy(0).held().units.get(&unit).map(|unit| unit.hash.to_string());
    let first = stage.leader("a", 1).await;
    let second = stage.controller("b").await;
    until("the certificate", || served().is_some() && certificate(&second).is_some()).await;
    let slow = Fault::DelayAnswer(Duration::from_millis(1500));
    let on = Matcher::resource("secrets").verb(Verb::Get);
    stage.sandbox.set_faults("b", Faults::none().with(on, How::Always, slow));
    let before = served();
    stage.apply(&secret("cert")).await;
    until("the new certificate", || served() != before).await;
    let new = served();
    first.running.stop().await.unwrap();
    assert_eq!(certificate(&second), before, "it has not read the new one yet");
    lead(&second, 2);
    until("the new leader", || {
        assert_eq!(served(), new);
        stage.proxy(0).held().version.term == 2
    })
    .await;
    assert_eq!(served(), new);
    second.running.stop().await.unwrap();
}
