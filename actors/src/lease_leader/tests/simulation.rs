//! Random faults, clocks, deaths and births, from seeds: never two that act, always one in the end.

use http::StatusCode;
use jiff::SignedDuration;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sandbox::{Fault, Faults, How, Matcher};

use super::fleet::{Act, Clocks, Fleet, MS, SECOND};

const SEEDS: u64 = 500;

/// Rates up to 5 % apart, wall clocks up to 30 s apart.
fn clocks(rng: &mut SmallRng) -> Clocks {
    Clocks {
        rate: rng.random_range(0.975..1.025),
        ahead: SignedDuration::from_secs(rng.random_range(-15..=15)),
    }
}

/// What goes wrong for one replica for a while.
fn trouble(rng: &mut SmallRng) -> Faults {
    if rng.random_bool(0.2) {
        return Faults::cut_off();
    }
    let faults = [
        (0.15, Fault::Throttle { retry_after: 1 }),
        (0.15, Fault::ServerError(StatusCode::SERVICE_UNAVAILABLE)),
        (0.1, Fault::Conflict),
        (0.15, Fault::LoseAnswer),
        (0.1, Fault::Refuse),
        (0.1, Fault::Hang(5 * SECOND)),
        (0.2, Fault::Delay(600 * MS)),
        (0.1, Fault::DelayAnswer(900 * MS)),
        (0.1, Fault::DelayAnswer(3 * SECOND)),
        (0.2, Fault::StaleRead { revisions: 2 }),
    ];
    let with = |all: Faults, (most, fault)| {
        all.with(Matcher::all(), How::Chance(rng.random_range(0.0..most)), fault)
    };
    let faults = faults.into_iter().fold(Faults::none(), with);
    faults.seeded(rng.random())
}

/// One life of a fleet; answers how many terms there were.
async fn life(seed: u64) -> u64 {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut fleet = Fleet::start(0).await;
    for _ in 0..3 {
        fleet.add(clocks(&mut rng)).await;
    }
    for _ in 0..rng.random_range(4..10) {
        let alive = fleet.alive();
        let one = alive[rng.random_range(0..alive.len())];
        match rng.random_range(0..8) {
            0 => {
                fleet.kill(one).await;
                fleet.add(clocks(&mut rng)).await;
            }
            1 => {
                fleet.stop(one).await;
                fleet.add(clocks(&mut rng)).await;
            }
            2 | 3 => fleet.faults(one, Faults::none()),
            _ => fleet.faults(one, trouble(&mut rng)),
        }
        fleet.run_for(MS * rng.random_range(50..9_000)).await;
    }
    for replica in fleet.alive() {
        fleet.faults(replica, Faults::none());
    }
    // A request that hangs takes a second more than a death does.
    fleet.run_for(9 * SECOND).await;
    assert_eq!(fleet.acting().len(), 1, "seed {seed}: one leads in the end");
    let acts = fleet.acts.lock().unwrap().clone();
    never_two(seed, &acts);
    for replica in fleet.alive() {
        fleet.stop(replica).await;
    }
    acts.iter().map(|act| act.term).max().unwrap_or(0)
}

/// Acts of different replicas never overlap, terms only rise, and each has one leader.
fn never_two(seed: u64, acts: &[Act]) {
    let mut acts = acts.to_vec();
    acts.sort_by_key(|act| act.from);
    for pair in acts.windows(2) {
        let [before, after] = pair else { continue };
        let same = before.replica == after.replica;
        assert!(same || before.until <= after.from, "seed {seed}: two at once: {before:?} {after:?}");
        assert!(before.term <= after.term, "seed {seed}: a term falls: {before:?} {after:?}");
        assert!(same || before.term < after.term, "seed {seed}: a shared term: {before:?} {after:?}");
    }
}

fn virtual_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(future)
}

fn half(number: u64) {
    let terms: u64 = (0..SEEDS / 2).map(|i| virtual_time(life(number * SEEDS + i))).sum();
    assert!(terms > SEEDS, "leaders do change: {terms} terms");
}

#[test]
fn never_two_act_in_the_first_half_of_the_seeds() {
    half(0);
}

#[test]
fn never_two_act_in_the_second_half_of_the_seeds() {
    half(1);
}
