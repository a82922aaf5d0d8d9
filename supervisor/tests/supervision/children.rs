//! Gated and dynamic children, and branches that never escalate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use supervisor::{Backoff, Child, ChildState, Gate, Intensity, Strategy, branch, dynamic, run};
use tokio::sync::watch;

use crate::probe::{Death, Script, Start, Stop, World};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Intensity = Intensity::new(2, Duration::from_secs(10));

fn quick(child: Child) -> Child {
    let backoff = Backoff { initial: 10 * MS, max: SECOND, jitter: 0.0, reset_after: 60 * SECOND };
    child.backoff(backoff).start_timeout(300 * MS)
}

async fn rest() {
    tokio::time::sleep(MS).await;
}

#[tokio::test(start_paused = true)]
async fn a_gate_starts_and_stops_what_is_behind_it_in_order() {
    let world = World::new();
    let (gate, open) = watch::channel(Gate::Closed);
    let first = quick(world.child("first"));
    let serve =
        branch("serve", Strategy::RestForOne, LIMIT, vec![quick(world.child("x")), quick(world.child("y"))]);
    let cloud = quick(world.child("cloud")).gated(open.clone());
    let tree = branch("root", Strategy::RestForOne, LIMIT, vec![first, serve.gated(open), cloud]);
    let running = run(tree).await.unwrap();
    let state = |name| running.live.snapshot().at(&[name]).unwrap().state;
    assert_eq!((state("serve"), state("cloud")), (ChildState::Gated, ChildState::Gated));
    assert_eq!(world.present(), ["first"]);
    gate.send_replace(Gate::Open(1));
    rest().await;
    assert_eq!(world.present(), ["cloud", "first", "x", "y"]);
    assert_eq!(running.live.snapshot().at(&["serve"]).unwrap().epoch, Some(1));
    world.forget();
    gate.send_replace(Gate::Open(2));
    rest().await;
    let told = world.told();
    assert_eq!(
        told,
        [
            "cloud Stopping",
            "cloud Gone",
            "y Stopping",
            "y Gone",
            "x Stopping",
            "x Gone",
            "x Made",
            "x Started",
            "y Made",
            "y Started",
            "cloud Made",
            "cloud Started",
        ],
        "a new epoch is a stop, then a start"
    );
    world.forget();
    gate.send_replace(Gate::Closed);
    rest().await;
    assert_eq!(
        world.told(),
        ["cloud Stopping", "cloud Gone", "y Stopping", "y Gone", "x Stopping", "x Gone"]
    );
    assert_eq!(state("serve"), ChildState::Gated);
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_closes_cancels_a_start_and_a_backoff() {
    let world = World::new();
    let (gate, open) = watch::channel(Gate::Open(1));
    world.script("a", Script::dying(SECOND, Death::Error));
    let tree = branch("root", Strategy::OneForOne, LIMIT, vec![quick(world.child("a")).gated(open)]);
    let running = run(tree).await.unwrap();
    tokio::time::sleep(SECOND + 5 * MS).await;
    gate.send_replace(Gate::Closed);
    tokio::time::sleep(SECOND).await;
    assert_eq!(running.live.snapshot().at(&["a"]).unwrap().state, ChildState::Gated);
    world.script("a", Script::starting(Start::Hang));
    gate.send_replace(Gate::Open(2));
    tokio::time::sleep(5 * MS).await;
    assert_eq!(running.live.snapshot().at(&["a"]).unwrap().state, ChildState::Starting);
    gate.send_replace(Gate::Closed);
    rest().await;
    assert!(world.present().is_empty());
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_gated_child_that_fails_after_its_gate_opened_is_retried() {
    let world = World::new();
    let (gate, open) = watch::channel(Gate::Closed);
    let tree = branch("root", Strategy::OneForOne, LIMIT, vec![quick(world.child("a")).gated(open)]);
    let running = run(tree).await.unwrap();
    world.script("a", Script::starting(Start::Error));
    gate.send_replace(Gate::Open(1));
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.present(), ["a"]);
    assert_eq!(running.live.snapshot().at(&["a"]).unwrap().restarts, 1);
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_counted_child_counts_until_nothing_is_left_of_it() {
    let world = World::with(|_| Script::stopping(Stop::Slow(100 * MS)));
    let (gate, open) = watch::channel(Gate::Closed);
    let count = watch::Sender::new(0);
    let serve = branch("serve", Strategy::OneForOne, LIMIT, vec![quick(world.child("a"))]);
    let serve = serve.gated(open).counted(count.clone());
    let running = run(branch("root", Strategy::OneForOne, LIMIT, vec![serve])).await.unwrap();
    assert_eq!(*count.borrow(), 0);
    gate.send_replace(Gate::Open(1));
    rest().await;
    assert_eq!(*count.borrow(), 1);
    gate.send_replace(Gate::Closed);
    let mut counts = count.subscribe();
    counts.wait_for(|n| *n == 0).await.unwrap();
    assert!(world.present().is_empty());
    assert_eq!(world.now(), 101 * MS);
    running.stop().await.unwrap();
}

type Wanted = watch::Sender<Arc<BTreeMap<String, Child>>>;

fn want(wanted: &Wanted, children: Vec<(&str, Child)>) {
    let map = children.into_iter().map(|(name, child)| (name.to_owned(), child)).collect();
    wanted.send_replace(Arc::new(map));
}

#[tokio::test(start_paused = true)]
async fn a_dynamic_branch_becomes_what_is_wanted() {
    let world = World::new();
    let (wanted, desired) = watch::channel(Arc::default());
    let tree = branch("root", Strategy::OneForOne, LIMIT, vec![dynamic("proxies", LIMIT, desired)]);
    let running = run(tree).await.unwrap();
    let child = |name| quick(world.child(name));
    want(&wanted, vec![("a", child("a")), ("b", child("b"))]);
    rest().await;
    assert_eq!(world.present(), ["a", "b"]);
    world.forget();
    want(&wanted, vec![("b", child("b").revision(1)), ("c", child("c"))]);
    rest().await;
    assert_eq!(world.present(), ["b", "c"]);
    let of_b: Vec<_> = world.told().into_iter().filter(|t| t.starts_with('b')).collect();
    assert_eq!(of_b, ["b Stopping", "b Gone", "b Made", "b Started"], "another revision restarts");
    let names: Vec<_> =
        running.live.snapshot().children[0].children.iter().map(|c| c.name.to_string()).collect();
    assert_eq!(names, ["b", "c"]);
    world.forget();
    want(&wanted, vec![("b", child("b").revision(1)), ("c", child("c"))]);
    rest().await;
    assert!(world.told().is_empty(), "the same revision is left alone");
    running.stop().await.unwrap();
    assert!(world.present().is_empty());
}

#[tokio::test(start_paused = true)]
async fn dynamic_children_do_not_wait_for_each_other() {
    let world = World::new();
    let (wanted, desired) = watch::channel(Arc::default());
    let tree = branch("root", Strategy::OneForOne, LIMIT, vec![dynamic("proxies", LIMIT, desired)]);
    let running = run(tree).await.unwrap();
    world.script("a", Script::starting(Start::Hang));
    world.script("b", Script::stopping(Stop::Hang));
    let child = |name| quick(world.child(name));
    want(&wanted, vec![("a", child("a")), ("b", child("b"))]);
    rest().await;
    assert_eq!(world.present(), ["a", "b"]);
    want(&wanted, vec![("a", child("a")), ("c", child("c"))]);
    rest().await;
    assert_eq!(world.present(), ["a", "b", "c"]);
    // `b` comes back while its old instance still stops: it waits for the end of that.
    want(&wanted, vec![("b", child("b"))]);
    rest().await;
    assert!(world.twice().is_empty());
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(world.present(), ["b"]);
    assert!(world.twice().is_empty());
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_never_escalates_rests_at_the_longest_backoff() {
    let world = World::with(|name| match name {
        "aws" => Script::starting(Start::Error),
        _ => Script::default(),
    });
    let cloud = branch("cloud", Strategy::OneForOne, LIMIT, vec![quick(world.child("aws"))]);
    let tree = branch(
        "root",
        Strategy::OneForOne,
        Intensity::new(0, SECOND),
        vec![cloud.never_escalates(), quick(world.child("other"))],
    );
    let running = run(tree).await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(world.present(), ["other"]);
    let aws = running.live.snapshot().at(&["cloud", "aws"]).unwrap().clone();
    assert_eq!(aws.state, ChildState::Backoff);
    assert!((60..=200).contains(&aws.restarts), "{}", aws.restarts);
    running.stop().await.unwrap();
}
