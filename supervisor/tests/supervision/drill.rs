//! Faults on purpose: they strike what they name, count as any other failure, and leave their reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use supervisor::{
    Backoff, Child, ChildState, DrillError, Fault, Intensity, Running, Strategy, branch, dynamic, run,
};
use tokio::sync::watch;

use crate::probe::{Death, Script, World};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Intensity = Intensity::new(2, Duration::from_secs(10));

fn quick(child: Child) -> Child {
    child.backoff(Backoff { initial: 10 * MS, max: SECOND, jitter: 0.0, reset_after: 60 * SECOND })
}

/// A tree with every kind of node.
async fn tree(world: &Arc<World>) -> Running {
    let inner = vec![quick(world.child("x")), quick(world.child("y"))];
    let named = BTreeMap::from([("one".to_owned(), quick(world.child("one")))]);
    let (_, desired) = watch::channel(Arc::new(named));
    let children = vec![
        quick(world.child("a")),
        quick(branch("inner", Strategy::RestForOne, LIMIT, inner)),
        quick(dynamic("named", LIMIT, desired)),
    ];
    run(branch("root", Strategy::OneForOne, LIMIT, children)).await.unwrap()
}

fn said(fault: Fault) -> &'static str {
    match fault {
        Fault::Panic => "a panic on purpose",
        Fault::Error => "an error on purpose",
        Fault::Kill => "killed",
    }
}

#[tokio::test(start_paused = true)]
async fn every_actor_of_a_tree_can_be_struck_in_every_way_and_is_back_with_the_reason_shown() {
    for fault in [Fault::Panic, Fault::Error, Fault::Kill] {
        let world = World::new();
        let running = tree(&world).await;
        let drill = running.drill();
        tokio::time::sleep(MS).await;
        let paths = drill.paths();
        let shown: Vec<_> = paths.iter().map(|path| path.join("/")).collect();
        assert_eq!(shown, ["a", "inner", "inner/x", "inner/y", "named", "named/one"]);
        let present = world.present();
        for path in &paths {
            drill.strike(path, fault).await.unwrap();
            tokio::time::sleep(60 * SECOND).await;
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let tree = running.live.snapshot();
            let node = tree.at(&path).unwrap();
            assert_eq!(node.state, ChildState::Running, "{path:?}");
            let why = node.last_error.as_deref().unwrap_or_default();
            assert!(why.contains(said(fault)), "{path:?} {fault:?}: {why}");
            assert_eq!(world.present(), present, "{path:?}");
        }
        let restarts = |path: &[&str]| running.live.snapshot().at(path).unwrap().restarts;
        assert_eq!([restarts(&["a"]), restarts(&["inner"]), restarts(&["inner", "x"])], [1, 1, 1]);
        assert_eq!(restarts(&["inner", "y"]), 2, "its own, and with the rest after x");
        assert!(world.twice().is_empty(), "{:?}", world.twice());
        assert_eq!(drill.paths(), paths);
        running.stop().await.unwrap();
        assert_eq!(drill.paths(), Vec::<Vec<String>>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_drill_counts_as_any_failure_does() {
    let world = World::new();
    let running = tree(&world).await;
    for _ in 0..3 {
        running.drill().strike(&["a"], Fault::Error).await.unwrap();
        tokio::time::sleep(100 * MS).await;
    }
    let cause = running.stopped().await.unwrap_err().cause.chain();
    assert!(cause.contains("more than 2 restarts") && cause.contains("on purpose"), "{cause}");
    assert!(world.present().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_root_can_be_struck_and_takes_the_tree_along() {
    let world = World::new();
    let running = tree(&world).await;
    running.drill().strike(&[] as &[&str], Fault::Kill).await.unwrap();
    assert_eq!(running.stopped().await.unwrap_err().cause.chain(), "killed");
    assert!(world.present().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_kill_strikes_what_hangs_where_an_error_must_wait() {
    let world = World::new();
    world.script("a", Script::dying(Duration::ZERO, Death::PostStartHang));
    let running = tree(&world).await;
    let state = || running.live.snapshot().at(&["a"]).unwrap().restarts;
    running.drill().strike(&["a"], Fault::Error).await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(state(), 0, "it still hangs");
    running.drill().strike(&["a"], Fault::Kill).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(state(), 1);
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_named() {
    let world = World::new();
    let running = tree(&world).await;
    let drill = running.drill();
    let lost = drill.strike(&["inner", "z"], Fault::Kill).await.unwrap_err();
    assert_eq!(lost, DrillError::Unknown("inner/z".to_owned()));
    for fault in [Fault::Kill, Fault::Error] {
        drill.strike(&["a"], fault).await.unwrap();
        tokio::time::sleep(MS).await;
        let down = drill.strike(&["a"], fault).await.unwrap_err();
        assert_eq!(down, DrillError::Down("a".to_owned()), "it is in backoff");
        tokio::time::sleep(60 * SECOND).await;
    }
    running.stop().await.unwrap();
}
