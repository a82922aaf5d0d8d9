//! The tree as it is declared, and what its restarts keep.

use std::sync::Arc;

use actors::admin;
use actors::observe::watch;
use actors::tree::control_plane;
use actors::tree::edges::Edges;

use crate::stage::{GROUND, Stage, route, until};

#[tokio::test(start_paused = true)]
async fn the_tree_is_as_the_documentation_prints_it() {
    let stage = Stage::new(0).await;
    let settings = stage.candidate("c");
    let edges = Edges::new(&settings);
    let admin = admin::Args {
        name: "c".into(),
        status: None,
        admin: None,
        enrol: None,
        edges: edges.clone(),
        live: Arc::default(),
    };
    insta::assert_snapshot!(supervisor::render(&control_plane(&settings, &edges, admin)));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_fails_loses_nothing_and_goes_on() {
    let stage = Stage::new(0).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let controller = stage.controller("c").await;
    let routes = || controller.edges.snapshot.borrow().as_ref().map_or(0, |all| all.http_routes.len());
    until("the first snapshot", || routes() == 1).await;
    for watched in &controller.edges.watched {
        watched.watcher.send(watch::Msg::Ended).unwrap();
    }
    tokio::task::yield_now().await;
    assert_eq!(routes(), 1);
    stage.apply(&route("two", "/two")).await;
    until("the change", || routes() == 2).await;
    let live = controller.running.live.snapshot();
    let restarts = |name: &str| live.at(&["observe", "watches", name]).unwrap().restarts;
    assert_eq!(restarts("httproutes"), 1);
    controller.running.stop().await.unwrap();
}
