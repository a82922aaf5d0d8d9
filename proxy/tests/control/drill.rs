//! Every actor of a proxy is struck in every way while clients ask: what they notice, and what comes back.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use supervisor::{ChildState, Fault, NodeState};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::acked;
use crate::rig::{Origin, Rig};
use crate::traffic::{Traffic, answer};
use crate::units::World;

/// How long an actor may take to be back: the longest backoff of a second failure, and a stop by deadline.
const BACK_WITHIN: Duration = Duration::from_secs(8);

/// What a worker that dies gives to what is under way.
pub(crate) const FINISH_WITHIN: Duration = Duration::from_millis(500);

/// Waits until an actor was started again and the whole tree is up.
async fn back(rig: &Rig, path: &[&str], restarts: u64) -> NodeState {
    let begun = Instant::now();
    loop {
        let tree = rig.proxy().live().snapshot();
        let node = tree.at(path).filter(|node| node.restarts > restarts && all_up(&tree));
        if let Some(node) = node {
            return node.clone();
        }
        assert!(begun.elapsed() < BACK_WITHIN, "{path:?} is not back: {tree:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until so many connections are open and so many requests are being served.
async fn until_under_way(rig: &Rig, wanted: (i64, i64)) {
    let begun = Instant::now();
    while rig.under_way() != wanted {
        assert!(begun.elapsed() < BACK_WITHIN, "{:?}", rig.under_way());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn all_up(node: &NodeState) -> bool {
    node.state == ChildState::Running && node.children.iter().all(all_up)
}

/// Strikes each actor, one after the other: whichever there are, so that a new one is covered by itself.
async fn every_actor_is_struck(fault: Fault, reason: &str) {
    let (blue, green) = (Origin::named("blue").await, Origin::named("green").await);
    let mut rig = Rig::enrolled().await;
    let mut controller = rig.controller();
    let world = || World::new(rig.port).route("/", &blue);
    acked(controller.push(&world().units(), 1).await);
    assert_eq!(rig.get("/").await, "blue");
    let traffic = Traffic::start(rig.address());
    traffic.flows().await;
    let drill = rig.proxy().drill();
    let paths = drill.paths();
    for name in ["admin", "enroller", "config-store", "workers", "listeners"] {
        assert!(paths.contains(&vec![name.to_owned()]), "{paths:?}");
    }
    for (generation, path) in (2..).zip(&paths) {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let before = rig.proxy().live().snapshot().at(&path).unwrap().restarts;
        let resent = traffic.resent();
        drill.strike(&path, fault).await.unwrap();
        let node = back(&rig, &path, before).await;
        let why = node.last_error.unwrap_or_default();
        assert!(why.contains(reason), "{path:?}: {why}");
        let changed = world().route(&format!("/{generation}"), &green).units();
        acked(controller.push(&changed, generation).await);
        assert_eq!(rig.get(&format!("/{generation}")).await, "green", "after {path:?}");
        assert_eq!(rig.status("/readyz").await.0, 200);
        traffic.flows().await;
        let resent = traffic.resent() - resent;
        let bound = if path[0] == "workers" { Traffic::KEPT } else { 0 };
        assert!(resent <= bound, "{path:?}: {resent} requests met a connection that had ended");
    }
    traffic.end();
    rig.stop().await;
}

#[tokio::test]
async fn actors_that_panic_are_back_and_no_request_fails() {
    every_actor_is_struck(Fault::Panic, "a panic on purpose").await;
}

#[tokio::test]
async fn actors_that_fail_are_back_and_no_request_fails() {
    every_actor_is_struck(Fault::Error, "an error on purpose").await;
}

#[tokio::test]
async fn actors_that_are_killed_are_back_and_no_request_fails() {
    every_actor_is_struck(Fault::Kill, "killed").await;
}

/// What docs/supervision.md says of a worker that dies: what is under way has half a second.
#[tokio::test]
async fn a_worker_that_dies_finishes_what_is_quick_and_cuts_the_rest_of_its_own() {
    let [soon, later] = [1, 0].map(|permits| Arc::new(Semaphore::new(permits)));
    let origin = Origin::gated("late", soon.clone()).await;
    let slower = Origin::gated("too late", later.clone()).await;
    let mut rig = Rig::start().await;
    let units = World::new(rig.port).route("/", &origin).route("/slow", &slower).units();
    acked(rig.controller().push(&units, 1).await);
    assert_eq!(rig.get("/").await, "late");
    until_under_way(&rig, (0, 0)).await;
    let ask = |path: &'static str| {
        let address = rig.address();
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            answer(&mut stream).await.is_some()
        })
    };
    let quick: Vec<_> = (0..8).map(|_| ask("/")).collect();
    until_under_way(&rig, (8, 8)).await;
    let served = || [0, 1].map(|worker| rig.proxy().metrics().worker(worker).active_requests.load(Relaxed));
    let (before, mut slow) = (served(), Vec::new());
    // A worker that was held up lately gets nothing for a while.
    while slow.len() < 8 || served().iter().zip(before).any(|(now, before)| *now == before) {
        slow.push(ask("/slow"));
        let all = i64::try_from(quick.len() + slow.len()).unwrap();
        until_under_way(&rig, (all, all)).await;
    }
    let count = slow.len();
    rig.proxy().drill().strike(&["workers", "worker-0"], Fault::Kill).await.unwrap();
    soon.add_permits(quick.len());
    for request in quick {
        assert!(request.await.unwrap(), "a request that takes a moment is answered");
    }
    back(&rig, &["workers", "worker-0"], 0).await;
    let begun = Instant::now();
    while !slow.iter().any(JoinHandle::is_finished) {
        assert!(begun.elapsed() < BACK_WITHIN, "those of the killed worker are cut");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    later.add_permits(slow.len());
    let mut answered = 0;
    for request in slow {
        answered += usize::from(request.await.unwrap());
    }
    assert!(answered > 0, "the other worker's requests go on");
    assert!(answered < count, "those of the killed worker are cut");
    rig.stop().await;
}

#[tokio::test]
async fn of_many_new_connections_none_is_lost_with_a_worker() {
    let blue = Origin::named("blue").await;
    let mut rig = Rig::start().await;
    acked(rig.controller().push(&World::new(rig.port).route("/", &blue).units(), 1).await);
    assert_eq!(rig.get("/").await, "blue");
    let mut late_rounds = 0;
    for round in 0..5 {
        let address = rig.address();
        let clients: Vec<_> = (0..100)
            .map(|_| {
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
                    stream.write_all(request).await.unwrap();
                    (answer(&mut stream).await.is_some(), Instant::now())
                })
            })
            .collect();
        let before = rig.proxy().live().snapshot().at(&["workers"]).unwrap().restarts;
        tokio::task::yield_now().await;
        let struck = Instant::now();
        rig.proxy().drill().strike(&["workers"], Fault::Kill).await.unwrap();
        let mut is_late = false;
        for client in clients {
            let (is_answered, ended) = client.await.unwrap();
            assert!(
                is_answered || ended >= struck + FINISH_WITHIN,
                "in round {round}: it was not waited for"
            );
            is_late |= !is_answered;
        }
        late_rounds += u32::from(is_late);
        back(&rig, &["workers"], before).await;
    }
    // A busy machine may take longer than a worker that dies waits, though not each time.
    assert!(late_rounds < 3, "{late_rounds} of 5 rounds lost something");
    rig.stop().await;
}
