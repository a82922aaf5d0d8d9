//! The limit of restarts is exact: flat trees of workers that die at drawn times, against a model.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use supervisor::{Backoff, Intensity, Strategy, branch, run};

use crate::chaos::virtual_time;
use crate::probe::{Death, Script, World};

/// All times are multiples of this, so that restarts often fall on the very edge of the window.
const TICK: u64 = 100;
const HORIZON: u64 = 40_000;
const CASES: u64 = 2_000;

#[derive(Clone, Copy, Debug)]
struct Case {
    seed: u64,
    strategy: Strategy,
    children: usize,
    restarts: u32,
    window: u64,
    backoff: u64,
}

impl Case {
    fn draw(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let strategies = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];
        Self {
            seed,
            strategy: strategies[rng.random_range(0..3)],
            children: rng.random_range(1..=3),
            restarts: rng.random_range(0..=3),
            window: rng.random_range(1..=12) * TICK,
            backoff: rng.random_range(0..=2) * TICK,
        }
    }

    /// How long instance number `nth` of a child lives.
    fn life(&self, child: usize, nth: u64) -> u64 {
        let key = self.seed.wrapping_mul(1_000_003) + (child as u64) * 7_919 + nth;
        SmallRng::seed_from_u64(key).random_range(1..=8) * TICK
    }

    /// When the tree gives up: `Err` when two things at one time make the order ambiguous.
    fn model(&self) -> Result<Option<u64>, ()> {
        let mut nth = vec![0; self.children];
        let mut born = vec![0; self.children];
        let mut death: Vec<u64> = (0..self.children).map(|c| self.life(c, 0)).collect();
        let mut failures: Vec<u64> = Vec::new();
        loop {
            let now = *death.iter().min().expect("there are children");
            if now > HORIZON {
                return Ok(None);
            }
            let dying: Vec<usize> = (0..self.children).filter(|&c| death[c] == now).collect();
            let (counted, again) = match self.strategy {
                Strategy::OneForOne => (dying.len(), dying.clone()),
                Strategy::OneForAll => (1, (0..self.children).collect()),
                Strategy::RestForOne if dying.len() > 1 => return Err(()),
                Strategy::RestForOne => (1, (dying[0]..self.children).collect()),
            };
            failures.extend(std::iter::repeat_n(now, counted));
            let within = failures.iter().filter(|&&t| now - t <= self.window).count();
            if within > self.restarts as usize {
                return Ok(Some(now));
            }
            for child in again {
                // One that waits for its own restart is taken along, and has not lived yet.
                if born[child] == now {
                    return Err(());
                }
                nth[child] += u64::from(born[child] < now);
                born[child] = now + self.backoff;
                death[child] = now + self.backoff + self.life(child, nth[child]);
            }
        }
    }

    async fn observe(self) -> Option<u64> {
        let mut nth: HashMap<String, u64> = HashMap::new();
        let world = World::with(move |name| {
            let child = name.parse().expect("children are named by number");
            let nth = nth.entry(name.to_owned()).or_default();
            let life = self.life(child, *nth);
            *nth += 1;
            Script::dying(Duration::from_millis(life), Death::Error)
        });
        let wait = Duration::from_millis(self.backoff);
        let backoff = Backoff { initial: wait, max: wait, jitter: 0.0, reset_after: Duration::from_secs(60) };
        let child = |c: usize| Arc::clone(&world).child(&c.to_string()).backoff(backoff);
        let limit = Intensity::new(self.restarts, Duration::from_millis(self.window));
        let tree = branch("root", self.strategy, limit, (0..self.children).map(child).collect());
        let running = run(tree).await.expect("every start goes well");
        let horizon = Duration::from_millis(HORIZON + 50);
        match tokio::time::timeout(horizon, running.stopped()).await {
            Ok(_) => Some(u64::try_from(world.now().as_millis()).expect("a short time")),
            Err(_) => {
                running.stop().await.expect("asked to stop");
                None
            }
        }
    }
}

#[test]
fn the_limit_of_restarts_is_exact_at_its_boundary() {
    let (mut escalated, mut survived) = (0, 0);
    for seed in 0..CASES {
        let case = Case::draw(seed);
        let Ok(expected) = case.model() else { continue };
        let observed = virtual_time(case.observe());
        assert_eq!(observed, expected, "{case:?}");
        *(if expected.is_some() { &mut escalated } else { &mut survived }) += 1;
    }
    assert!(escalated > CASES / 4, "{escalated} of {CASES} cases reach the limit");
    assert!(survived > CASES / 100, "{survived} of {CASES} cases do not");
}
