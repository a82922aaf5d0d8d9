//! Every actor of a controller is struck in every way, one after the other: whichever there are, so that a
//! new one is covered by itself. What it held is there again, nothing moves but what is changed.

use std::time::Duration;

use actors::push::authority::Authority;
use actors::push::credentials::{SECRET, Trust};
use actors::push::identity::file;
use actors::tree::{self, Controller};
use proxy_config::name::{ObjectName, UnitId};
use serde_json::json;
use supervisor::{ChildState, Fault, NodeState};

use crate::election::leader;
use crate::ports::{LOCAL, get};
use crate::stage::{GROUND, Stage, route, until};
use crate::status::status;

/// Between two strikes: the limits of branches and backoffs are not what is tested here.
const APART: Duration = Duration::from_secs(10);
/// An actor is back within this time, a new leader included.
const BACK_WITHIN: Duration = Duration::from_secs(8);

/// A cluster with two proxies and two controllers, of which one leads.
struct House {
    stage: Stage,
    controllers: Vec<Controller>,
    routes: usize,
}

impl House {
    async fn new() -> Self {
        let stage = Stage::new(2).await;
        stage.apply(GROUND).await;
        stage.apply(&secret_of(&stage.authority)).await;
        let mut controllers = Vec::new();
        for name in ["a", "b"] {
            let mut settings = stage.candidate(name);
            settings.trust = Trust::Secret(settings.client.clone(), "default".to_owned());
            settings.status_bind = Some(LOCAL);
            settings.admin_bind = Some(LOCAL);
            controllers.push(tree::run(settings).await.unwrap());
        }
        let mut house = Self { stage, controllers, routes: 0 };
        until("a leader", || leader(&house.controllers).is_some()).await;
        house.change().await;
        house
    }

    /// The controller that leads, or that follows.
    fn one_that(&self, leads: bool) -> &Controller {
        let leading = leader(&self.controllers).unwrap();
        &self.controllers[if leads { leading } else { 1 - leading }]
    }

    /// How many units have been moved to a proxy.
    fn moved(&self) -> usize {
        self.stage
            .proxies
            .values()
            .map(|proxy| proxy.held().taken.iter().map(|(_, n)| n).sum::<usize>())
            .sum()
    }

    /// Adds a route and waits until every proxy and the status have it.
    async fn change(&mut self) {
        self.routes += 1;
        let name = format!("r-{}", self.routes);
        self.stage.apply(&route(&name, &format!("/{name}"))).await;
        let unit = UnitId::route("HTTPRoute", &ObjectName::new("default", name));
        let held = || self.stage.proxies.values().all(|proxy| proxy.held().units.get(&unit).is_some());
        until("the new route", held).await;
        for _ in 0..100 {
            let status = status(&self.stage, "Gateway", "edge").await;
            if status["listeners"][0]["attachedRoutes"] == self.routes {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the status does not follow: {}", status(&self.stage, "Gateway", "edge").await);
    }

    /// Strikes an actor of the one that leads, or of the other one; returns its node once all is up again.
    async fn strike(&self, leads: bool, path: &[String], fault: Fault) -> NodeState {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let struck = self.one_that(leads);
        let node = || struck.running.live.snapshot().at(&path).cloned();
        let before = node().unwrap().restarts;
        struck.running.drill().strike(&path, fault).await.unwrap();
        let begun = tokio::time::Instant::now();
        until(&path.join("/"), || {
            let up = |one: &Controller| all_up(&one.running.live.snapshot());
            leader(&self.controllers).is_some()
                && self.controllers.iter().all(up)
                && node().is_some_and(|node| node.restarts > before)
        })
        .await;
        assert!(begun.elapsed() <= BACK_WITHIN, "{path:?}: {:?}", begun.elapsed());
        node().unwrap()
    }

    async fn stop(self) {
        for controller in self.controllers {
            controller.running.stop().await.unwrap();
        }
    }
}

/// The Secret that controllers share where proxies are Pods.
fn secret_of(authority: &Authority) -> String {
    let data = json!({ file::CHAIN: authority.certificates(), file::KEY: authority.key_pem() });
    let metadata = json!({ "name": SECRET, "namespace": "default" });
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data }).to_string()
}

fn all_up(node: &NodeState) -> bool {
    match node.state {
        ChildState::Running => node.children.iter().all(all_up),
        ChildState::Gated => true,
        _ => false,
    }
}

async fn every_actor_of_the_leader_is_struck(fault: Fault, reason: &str) {
    let mut house = House::new().await;
    let paths = house.one_that(true).running.drill().paths();
    let shown: Vec<_> = paths.iter().map(|path| path.join("/")).collect();
    for path in [
        "credentials",
        "admin",
        "observe/watches/httproutes",
        "observe/translator",
        "leadership/lease-leader",
        "leadership/serve/trust-bundle",
        "leadership/serve/push/proxy-clients/edge-0",
    ] {
        assert!(shown.iter().any(|shown| shown == path), "{path} is not in {shown:?}");
    }
    for path in &paths {
        let moved = house.moved();
        let node = house.strike(true, path, fault).await;
        let why = node.last_error.unwrap_or_default();
        assert!(why.contains(reason), "{path:?}: {why}");
        tokio::time::sleep(APART).await;
        assert_eq!(house.moved(), moved, "{path:?}: a death moves nothing");
        house.change().await;
        assert_eq!(house.moved(), moved + 2, "{path:?}: one unit to each proxy");
        for controller in &house.controllers {
            assert_eq!(get(controller.status.unwrap(), "/readyz").await.status, 200, "{path:?}");
        }
    }
    house.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leaders_actors_that_panic_are_back_and_nothing_moves() {
    every_actor_of_the_leader_is_struck(Fault::Panic, "a panic on purpose").await;
}

#[tokio::test(start_paused = true)]
async fn a_leaders_actors_that_fail_are_back_and_nothing_moves() {
    every_actor_of_the_leader_is_struck(Fault::Error, "an error on purpose").await;
}

#[tokio::test(start_paused = true)]
async fn a_leaders_actors_that_are_killed_are_back_and_nothing_moves() {
    every_actor_of_the_leader_is_struck(Fault::Kill, "killed").await;
}

#[tokio::test(start_paused = true)]
async fn a_followers_actors_that_are_killed_are_back_and_the_leader_does_not_notice() {
    let mut house = House::new().await;
    let leading = leader(&house.controllers);
    let paths = house.one_that(false).running.drill().paths();
    let connections = |house: &House| house.stage.proxy(0).held().connections;
    let (moved, open) = (house.moved(), connections(&house));
    for path in &paths {
        let node = house.strike(false, path, Fault::Kill).await;
        assert_eq!(node.last_error.as_deref(), Some("killed"), "{path:?}");
        tokio::time::sleep(APART).await;
        assert_eq!(leader(&house.controllers), leading, "{path:?}");
    }
    assert_eq!((house.moved(), connections(&house)), (moved, open));
    house.change().await;
    let translated = |one: &Controller| one.edges.translation.borrow().as_ref().map(|new| new.units.root());
    until("both want the same", || translated(&house.controllers[0]) == translated(&house.controllers[1]))
        .await;
    house.stop().await;
}

/// The highest term that a proxy was pushed to in.
fn term(house: &House) -> u64 {
    house.stage.proxy(0).held().version.term
}

#[tokio::test(start_paused = true)]
async fn after_a_death_of_the_lease_leader_whoever_leads_does_so_in_a_higher_term() {
    let house = House::new().await;
    let path = ["leadership".to_owned(), "lease-leader".to_owned()];
    for _ in 0..5 {
        let (before, moved) = (term(&house), house.moved());
        house.strike(true, &path, Fault::Kill).await;
        until("the new term", || term(&house) > before).await;
        tokio::time::sleep(APART).await;
        assert_eq!(house.moved(), moved, "and moves nothing");
    }
    house.stop().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_root_of_the_leader_is_killed_another_leads_and_nothing_moves() {
    let mut house = House::new().await;
    let (before, moved) = (term(&house), house.moved());
    let first = house.controllers.remove(leader(&house.controllers).unwrap());
    first.running.drill().strike(&[] as &[&str], Fault::Kill).await.unwrap();
    first.running.stopped().await.unwrap_err();
    let begun = tokio::time::Instant::now();
    until("the other one", || leader(&house.controllers).is_some()).await;
    assert!(begun.elapsed() <= BACK_WITHIN, "{:?}", begun.elapsed());
    until("the new term", || term(&house) > before).await;
    assert_eq!(house.moved(), moved);
    house.change().await;
    house.stop().await;
}
