//! From the API server to a snapshot.

use std::time::Duration;

use actors::observe::stores::Progress;
use actors::tree::Controller;
use actors_core::snapshot::Snapshot;
use actors_core::snapshot::meta::Kind;
use sandbox::{Channel, Fault, Faults, How, Matcher, Verb};

use crate::stage::{GROUND, Stage, route, until};

/// The names of the HTTPRoutes in the newest snapshot.
fn routes(controller: &Controller) -> Vec<String> {
    let names = |snapshot: &Snapshot| snapshot.http_routes.keys().map(|name| name.name.to_string()).collect();
    controller.edges.snapshot.borrow().as_deref().map(names).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn what_is_written_to_the_api_server_is_in_the_next_snapshot() {
    let stage = Stage::new(0).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let controller = stage.controller("c").await;
    until("the first snapshot", || routes(&controller) == ["one"]).await;
    stage.apply(&route("two", "/two")).await;
    until("the change", || routes(&controller) == ["one", "two"]).await;
    let snapshot = controller.edges.snapshot.borrow().clone().unwrap();
    assert_eq!(snapshot.services.len(), 1);
    assert_eq!(snapshot.endpoint_slices.len(), 1);
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_missing_kind_idles_and_wakes_up_when_it_is_installed() {
    let stage = Stage::with(0, None).await;
    let controller = stage.controller("c").await;
    until("a snapshot without Gateway API", || controller.edges.snapshot.borrow().is_some()).await;
    assert_eq!(controller.edges.stores.progress()[&Kind::HttpRoute], Progress::Absent);
    drop(stage.sandbox.take_accesses());
    tokio::time::sleep(Duration::from_secs(25)).await;
    let asked = stage.sandbox.take_accesses().iter().filter(|access| access.resource == "httproutes").count();
    assert!(asked <= 1, "an absent kind is asked for rarely, not {asked} times");
    stage.sandbox.install_gateway_api(Channel::Standard).await.unwrap();
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    until("the route", || routes(&controller) == ["one"]).await;
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_cut_or_expired_loses_nothing() {
    let stage = Stage::new(0).await;
    stage.apply(GROUND).await;
    let controller = stage.controller("c").await;
    until("the first snapshot", || controller.edges.snapshot.borrow().is_some()).await;
    for (index, fault) in [
        Fault::CutWatch(Duration::from_secs(1)),
        Fault::ExpireWatch(Duration::from_secs(1)),
        Fault::MuteWatch(Duration::from_secs(600)),
        Fault::Hang(Duration::from_secs(600)),
    ]
    .into_iter()
    .enumerate()
    {
        let on = Matcher::resource("httproutes").verb(Verb::Watch);
        stage.sandbox.set_faults("c", Faults::none().with(on, How::Times(1), fault.clone()));
        // The watch that is open is renewed after 20 s, and meets the fault.
        tokio::time::sleep(Duration::from_secs(21)).await;
        stage.sandbox.compact();
        let name = format!("route-{index}");
        stage.apply(&route(&name, "/")).await;
        let seen = async { until("the route", || routes(&controller).contains(&name)).await };
        tokio::time::timeout(Duration::from_secs(35), seen)
            .await
            .unwrap_or_else(|_| panic!("too late after {fault:?}"));
    }
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_delays_but_changes_nothing() {
    let stage = Stage::new(0).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let controller = stage.controller("c").await;
    until("the first snapshot", || routes(&controller) == ["one"]).await;
    stage.sandbox.set_faults("c", Faults::cut_off());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(routes(&controller), ["one"]);
    stage.apply(&route("two", "/two")).await;
    stage.sandbox.set_faults("c", Faults::none());
    let seen = async { until("the change", || routes(&controller) == ["one", "two"]).await };
    tokio::time::timeout(Duration::from_secs(10), seen).await.unwrap();
    controller.running.stop().await.unwrap();
}
