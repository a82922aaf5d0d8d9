//! The crash matrix: each way to end, under each strategy and each restart type.

use std::time::Duration;

use supervisor::{
    Backoff, Child, ChildState, Gate, Intensity, NodeState, Restart, Running, Shutdown, Strategy, branch, run,
};

use tokio::sync::watch;

use crate::probe::{Death, Script, Start, Stop, What, World};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DEATHS: [Death; 6] =
    [Death::Panic, Death::Error, Death::Kill, Death::Normal, Death::PostStartPanic, Death::PostStartError];
const STRATEGIES: [Strategy; 3] = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];

fn quick(child: Child) -> Child {
    let backoff = Backoff { initial: 10 * MS, max: 100 * MS, jitter: 0.0, reset_after: 60 * SECOND };
    child.backoff(backoff).start_timeout(300 * MS).shutdown(Shutdown::Timeout(200 * MS))
}

fn three(world: &std::sync::Arc<World>, strategy: Strategy, restart: Restart) -> Child {
    let child = |name| quick(world.child(name)).restart(restart);
    branch("root", strategy, Intensity::new(3, 10 * SECOND), vec![child("a"), child("b"), child("c")])
}

fn state(running: &Running, child: &str) -> NodeState {
    running.live.snapshot().at(&[child]).unwrap().clone()
}

/// Which of a, b, c were made again, in order.
fn made(world: &World) -> String {
    let log = world.log();
    log.iter().filter(|e| e.what == What::Made).map(|e| e.child.as_str()).collect()
}

fn gone(world: &World) -> String {
    let log = world.log();
    log.iter().filter(|e| e.what == What::Gone).map(|e| e.child.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn each_death_restarts_whom_the_strategy_names() {
    for strategy in STRATEGIES {
        for death in DEATHS {
            let world = World::new();
            world.script("b", Script::dying(SECOND, death));
            let running = run(three(&world, strategy, Restart::Permanent)).await.unwrap();
            tokio::time::sleep(3 * SECOND).await;
            let (down, up) = match strategy {
                Strategy::OneForOne => ("b", "abcb"),
                Strategy::OneForAll => ("bca", "abcabc"),
                Strategy::RestForOne => ("bc", "abcbc"),
            };
            let case = format!("{strategy} {death:?}");
            assert_eq!(gone(&world), down, "{case}");
            assert_eq!(made(&world), up, "{case}");
            assert_eq!(state(&running, "b").restarts, 1, "{case}");
            let error = state(&running, "b").last_error.expect("the death is explained");
            let word = match death {
                Death::Kill => "killed",
                Death::Normal => "ended by itself",
                Death::PostStartPanic | Death::PostStartError => "post_start",
                Death::Panic => "panic of b",
                _ => "error of b",
            };
            assert!(error.contains(word), "{case}: {error}");
            world.forget();
            running.stop().await.unwrap();
            assert_eq!(gone(&world), "cba", "{case}");
            assert!(world.present().is_empty() && world.twice().is_empty(), "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn transient_children_come_back_only_after_an_abnormal_end() {
    for death in DEATHS {
        let world = World::new();
        world.script("b", Script::dying(SECOND, death));
        let tree = three(&world, Strategy::OneForOne, Restart::Transient);
        let running = run(tree).await.unwrap();
        tokio::time::sleep(3 * SECOND).await;
        let back = death != Death::Normal;
        assert_eq!(made(&world), if back { "abcb" } else { "abc" }, "{death:?}");
        let expected = if back { ChildState::Running } else { ChildState::Stopped };
        assert_eq!(state(&running, "b").state, expected, "{death:?}");
        running.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn temporary_children_never_come_back() {
    for strategy in STRATEGIES {
        for death in DEATHS {
            let world = World::new();
            world.script("b", Script::dying(SECOND, death));
            let running = run(three(&world, strategy, Restart::Temporary)).await.unwrap();
            tokio::time::sleep(3 * SECOND).await;
            assert_eq!((made(&world), gone(&world)), ("abc".into(), "b".into()), "{death:?}");
            let normal = death == Death::Normal;
            let expected = if normal { ChildState::Stopped } else { ChildState::Failed };
            assert_eq!(state(&running, "b").state, expected, "{death:?}");
            running.stop().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_undoes_what_was_started_in_reverse() {
    for start in [Start::Error, Start::Panic, Start::Hang, Start::FactoryPanic] {
        let world = World::new();
        world.script("c", Script::starting(start));
        let tree = three(&world, Strategy::OneForOne, Restart::Permanent);
        let error = run(tree).await.unwrap_err();
        assert_eq!(made(&world), "abc", "{start:?}");
        assert_eq!(gone(&world), "cba", "{start:?}");
        assert!(world.present().is_empty(), "{start:?}");
        let text = format!("{:?}", error);
        assert!(text.contains("\"c\""), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_restart_is_a_failure_with_backoff() {
    for start in [Start::Error, Start::Panic, Start::Hang, Start::FactoryPanic] {
        let world = World::new();
        world.script("b", Script::dying(SECOND, Death::Panic));
        world.script("b", Script::starting(start));
        world.script("b", Script::starting(start));
        let tree = three(&world, Strategy::OneForOne, Restart::Permanent);
        let running = run(tree).await.unwrap();
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(made(&world), "abcbbb", "{start:?}");
        let at: Vec<_> = world.log().into_iter().filter(|e| e.what == What::Made).map(|e| e.at).collect();
        let hang = if start == Start::Hang { 300 * MS } else { Duration::ZERO };
        assert_eq!(at[3], SECOND + 10 * MS, "{start:?}");
        assert_eq!(at[4], at[3] + hang + 20 * MS, "{start:?}");
        assert_eq!(at[5], at[4] + hang + 40 * MS, "{start:?}");
        assert_eq!(state(&running, "b").state, ChildState::Running, "{start:?}");
        running.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_restart_more_than_the_limit_stops_all_in_reverse_and_says_why() {
    for strategy in STRATEGIES {
        let world = World::with(|name| match name {
            "b" => Script::dying(SECOND, Death::Error),
            _ => Script::default(),
        });
        let running = run(three(&world, strategy, Restart::Permanent)).await.unwrap();
        let stopped = running.stopped().await.unwrap_err();
        let text = stopped.cause.chain();
        assert!(text.contains("more than 3 restarts within 10s"), "{text}");
        assert!(text.contains("error of b"), "{text}");
        assert!(world.present().is_empty(), "{strategy}");
        assert_eq!(made(&world).matches('b').count(), 4, "{strategy}");
        assert_eq!(state(&running, "b").state, ChildState::Failed, "{strategy}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_stop_is_killed_at_its_own_deadline() {
    let stops = [Stop::Hang, Stop::Slow(SECOND), Stop::Slow(50 * MS), Stop::Panic, Stop::Error];
    for stop in stops {
        let world = World::new();
        world.script("b", Script::stopping(stop));
        let tree = three(&world, Strategy::OneForOne, Restart::Permanent);
        let running = run(tree).await.unwrap();
        let before = world.now();
        running.stop().await.unwrap();
        let took = match stop {
            Stop::Hang => 200 * MS,
            Stop::Slow(time) => time.min(200 * MS),
            _ => Duration::ZERO,
        };
        assert_eq!(world.now() - before, took, "{stop:?}");
        assert_eq!(gone(&world), "cba", "{stop:?}");
        let overdue = matches!(stop, Stop::Hang) || stop == Stop::Slow(SECOND);
        let error = state(&running, "b").last_error.unwrap_or_default();
        assert_eq!(error.contains("did not stop within 200ms"), overdue, "{stop:?} {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_waits_for_the_end_of_what_it_replaces() {
    let world = World::new();
    world.script("a", Script::dying(SECOND, Death::Panic));
    world.script("c", Script::stopping(Stop::Slow(150 * MS)));
    let tree = three(&world, Strategy::RestForOne, Restart::Permanent);
    let running = run(tree).await.unwrap();
    tokio::time::sleep(3 * SECOND).await;
    let log = world.log();
    let at = |child: &str, what, nth: usize| {
        log.iter().filter(|e| e.child == child && e.what == what).nth(nth).unwrap().at
    };
    assert_eq!(at("c", What::Gone, 0), SECOND + 150 * MS);
    assert_eq!(at("b", What::Stopping, 0), SECOND + 150 * MS);
    assert_eq!(at("a", What::Made, 1), SECOND + 150 * MS);
    assert!(world.twice().is_empty());
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_cancels_a_backoff_and_a_start() {
    let world = World::new();
    world.script("b", Script::dying(SECOND, Death::Panic));
    world.script("b", Script::starting(Start::Hang));
    let tree = three(&world, Strategy::OneForOne, Restart::Permanent);
    let running = run(tree).await.unwrap();
    tokio::time::sleep(SECOND + 5 * MS).await;
    assert_eq!(state(&running, "b").state, ChildState::Backoff);
    assert_eq!(state(&running, "b").backoff_ms, Some(5));
    running.stop().await.unwrap();
    assert_eq!((made(&world), world.now()), ("abc".into(), SECOND + 5 * MS));

    let world = World::new();
    world.script("b", Script::dying(SECOND, Death::Panic));
    world.script("b", Script::starting(Start::Hang));
    let running = run(three(&world, Strategy::OneForOne, Restart::Permanent)).await.unwrap();
    tokio::time::sleep(SECOND + 100 * MS).await;
    assert_eq!(state(&running, "b").state, ChildState::Starting);
    running.stop().await.unwrap();
    assert_eq!((made(&world), world.now()), ("abcb".into(), SECOND + 100 * MS));
    assert!(world.present().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_killed_branch_is_restarted_only_when_nothing_below_it_is_left() {
    let world = World::with(|name| match name {
        "deep" => Script::stopping(Stop::Hang),
        _ => Script::default(),
    });
    let deep = world.child("deep").shutdown(Shutdown::Timeout(60 * SECOND));
    let inner = branch("inner", Strategy::OneForOne, Intensity::new(3, SECOND), vec![deep]);
    let inner = quick(inner);
    world.script("first", Script::dying(SECOND, Death::Panic));
    let first = quick(world.child("first"));
    let tree = branch("root", Strategy::OneForAll, Intensity::new(3, SECOND), vec![first, inner]);
    let running = run(tree).await.unwrap();
    tokio::time::sleep(3 * SECOND).await;
    assert!(world.twice().is_empty());
    let snapshot = running.live.snapshot();
    let inner = snapshot.at(&["inner"]).unwrap();
    assert!(inner.last_error.as_ref().unwrap().contains("did not stop within 200ms"));
    assert_eq!(inner.restarts, 1);
    assert_eq!(snapshot.at(&["inner", "deep"]).unwrap().state, ChildState::Running);
    assert_eq!(
        world.told(),
        [
            "first Made",
            "first Started",
            "deep Made",
            "deep Started",
            "first Dies(Panic)",
            "first Gone",
            "deep Stopping",
            "deep Gone",
            "first Made",
            "first Started",
            "deep Made",
            "deep Started",
        ]
    );
    running.stop().await.unwrap();
    assert!(world.present().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_backoff_doubles_up_to_its_limit_and_is_forgotten_after_a_stable_time() {
    let world = World::new();
    for life in [100, 100, 100, 100, 1_000, 100] {
        world.script("a", Script::dying(life * MS, Death::Error));
    }
    let backoff = Backoff { initial: 10 * MS, max: 40 * MS, jitter: 0.0, reset_after: SECOND };
    let tree = branch(
        "root",
        Strategy::OneForOne,
        Intensity::new(10, 10 * SECOND),
        vec![world.child("a").backoff(backoff)],
    );
    let running = run(tree).await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    let log = world.log();
    let at = |what| log.iter().filter(move |e| e.what == what).map(|e| e.at);
    let waits: Vec<_> = at(What::Made).skip(1).zip(at(What::Gone)).map(|(up, down)| up - down).collect();
    assert_eq!(waits, [10, 20, 40, 40, 10, 20].map(|ms| ms * MS));
    running.stop().await.unwrap();
}

#[test]
fn jitter_only_shortens_a_backoff() {
    let backoff = Backoff { initial: 100 * MS, max: SECOND, jitter: 0.5, reset_after: SECOND };
    assert_eq!(backoff.delay(1, 0.0), 100 * MS);
    assert_eq!(backoff.delay(1, 1.0), 50 * MS);
    assert_eq!(backoff.delay(3, 0.5), 300 * MS);
    assert_eq!(backoff.delay(u32::MAX, 0.0), SECOND);
}

/// A branch of one child, which must stop within 50 ms, behind a gate.
fn impatient(world: &std::sync::Arc<World>, open: watch::Receiver<Gate>) -> Child {
    let deep = world.child("deep").shutdown(Shutdown::Timeout(60 * SECOND));
    let mid = branch("mid", Strategy::OneForOne, Intensity::new(3, SECOND), vec![deep]);
    branch("inner", Strategy::OneForOne, Intensity::new(3, SECOND), vec![mid])
        .shutdown(Shutdown::Timeout(50 * MS))
        .gated(open)
}

#[tokio::test(start_paused = true)]
async fn what_went_with_a_killed_supervisor_is_shown_as_down_and_why() {
    let world = World::with(|_| Script::stopping(Stop::Hang));
    let (gate, open) = watch::channel(Gate::Open(1));
    let limit = Intensity::new(3, SECOND);
    let tree = branch("root", Strategy::OneForOne, limit, vec![impatient(&world, open)]);
    let running = run(tree).await.unwrap();
    gate.send_replace(Gate::Closed);
    tokio::time::sleep(SECOND).await;
    assert!(world.present().is_empty());
    let snapshot = running.live.snapshot();
    let deep = snapshot.at(&["inner", "mid", "deep"]).unwrap();
    assert_eq!(deep.state, ChildState::Stopped);
    assert_eq!(deep.last_error.as_deref(), Some("killed with its supervisor"));
    running.stop().await.unwrap();
}

/// In real time: a thread that is blocked can't be paused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_waits_even_for_what_a_kill_cannot_interrupt() {
    let world = World::new();
    world.script("deep", Script::stopping(Stop::Blocks(300 * MS)));
    let (gate, open) = watch::channel(Gate::Open(1));
    let limit = Intensity::new(3, SECOND);
    let tree = branch("root", Strategy::OneForOne, limit, vec![impatient(&world, open)]);
    let running = run(tree).await.unwrap();
    gate.send_replace(Gate::Open(2));
    let mut again = false;
    for _ in 0..1_000 {
        tokio::time::sleep(10 * MS).await;
        again = made(&world) == "deepdeep";
        if again {
            break;
        }
    }
    assert!(again, "it comes back");
    assert!(world.twice().is_empty(), "two instances at one time");
    running.stop().await.unwrap();
    assert!(world.present().is_empty());
}
