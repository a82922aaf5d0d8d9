//! Random trees, random faults, random timings, against the invariants of supervision.
//!
//! All that a tree does happens at even milliseconds, all that is done to it at odd ones: so what is
//! observed at an odd one is at rest.

mod invariants;
mod plan;

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use supervisor::run;

use invariants::{Outcome, check};
use plan::Plan;

/// In total; each of the tests below takes a quarter, so that they run on all cores.
const CASES: u64 = 10_000;

/// Runs to the end in virtual time, alone on this thread.
pub(crate) fn virtual_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    runtime.block_on(future)
}

/// One case: grow a tree, start it, disturb it, stop it, look at what happened.
async fn case(seed: u64) -> Outcome {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut plan = Plan::draw(&mut rng);
    let world = plan.world.clone();
    let started = tokio::time::timeout(Duration::from_secs(600), run(plan.root.clone()));
    let Ok(running) = started.await.expect("a start ends") else {
        check(seed, &plan, None, world.log().len());
        return Outcome::NotStarted;
    };
    let booted = world.log().len();
    tokio::time::sleep(Duration::from_millis(1)).await;
    for _ in 0..rng.random_range(0..8) {
        tokio::time::sleep(Duration::from_millis(2 * rng.random_range(1..300))).await;
        plan.disturb(&mut rng);
    }
    let stopped = tokio::time::timeout(Duration::from_secs(600), running.stop());
    let stopped = stopped.await.unwrap_or_else(|_| panic!("seed {seed}: a stop ends"));
    check(seed, &plan, Some(&running.live.snapshot()), booted);
    match stopped {
        Ok(()) => Outcome::Stopped,
        Err(_) => Outcome::GaveUp,
    }
}

fn quarter(number: u64) {
    let mut seen = [0; 3];
    for i in 0..CASES / 4 {
        seen[virtual_time(case(number * CASES + i)) as usize] += 1;
    }
    // Random cases are worth something only if they reach every end.
    assert!(seen.iter().all(|&n| n > CASES / 400), "not started, stopped, gave up: {seen:?}");
}

#[test]
fn invariants_hold_in_the_first_quarter() {
    quarter(0);
}

#[test]
fn invariants_hold_in_the_second_quarter() {
    quarter(1);
}

#[test]
fn invariants_hold_in_the_third_quarter() {
    quarter(2);
}

#[test]
fn invariants_hold_in_the_fourth_quarter() {
    quarter(3);
}
