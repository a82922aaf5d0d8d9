//! A random tree, what its workers will do, and what is done to it from outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use supervisor::{Backoff, Child, Gate, Intensity, Restart, Shutdown, Strategy, branch, dynamic};
use tokio::sync::watch;

use crate::probe::{Death, Script, Start, Stop, World};

/// What the invariants need to know of a node; its name is its path (`r.0.1`).
pub(crate) struct Info {
    pub(crate) name: String,
    pub(crate) parent: String,
    /// Its place among its siblings.
    pub(crate) place: usize,
    pub(crate) worker: bool,
    pub(crate) permanent: bool,
    /// It, or a branch above it, is gated, dynamic, or below a branch whose start never fails.
    pub(crate) optional: bool,
    pub(crate) gated: bool,
    /// The strategy of its branch.
    pub(crate) strategy: Strategy,
}

type Wanted = Arc<BTreeMap<String, Child>>;

/// A tree and its surroundings.
pub(crate) struct Plan {
    pub(crate) world: Arc<World>,
    pub(crate) root: Child,
    pub(crate) nodes: Vec<Info>,
    /// No instance dies by itself.
    pub(crate) quiet: bool,
    gates: Vec<watch::Sender<Gate>>,
    wanted: Vec<(String, watch::Sender<Wanted>)>,
}

/// An even number of milliseconds below `limit`.
fn even(rng: &mut SmallRng, limit: u64) -> Duration {
    Duration::from_millis(2 * rng.random_range(1..limit / 2))
}

impl Plan {
    pub(crate) fn draw(rng: &mut SmallRng) -> Self {
        let quiet = rng.random_bool(0.3);
        let bad_starts = if rng.random_bool(0.5) { 0.0 } else { 0.15 };
        let mut dice = SmallRng::seed_from_u64(rng.random());
        let world = World::with(move |_| script(&mut dice, quiet, bad_starts));
        let gates = (0..2).map(|_| watch::Sender::new(gate(rng))).collect();
        let root = branch("r", Strategy::OneForOne, Intensity::new(0, Duration::ZERO), vec![]);
        let mut plan = Self { world, root, nodes: Vec::new(), quiet, gates, wanted: Vec::new() };
        plan.root = plan.grow_branch(rng, "r", 0, false);
        plan
    }

    fn grow_branch(&mut self, rng: &mut SmallRng, path: &str, depth: u32, optional: bool) -> Child {
        let strategies = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];
        let strategy = strategies[rng.random_range(0..3)];
        let limit = Intensity::new(rng.random_range(0..5), even(rng, 3_000));
        let soft = rng.random_bool(0.1);
        if depth > 0 && rng.random_bool(0.15) {
            let (sender, desired) = watch::channel(Arc::default());
            self.wanted.push((path.to_owned(), sender));
            self.want(rng, self.wanted.len() - 1);
            return dynamic(path, limit, desired);
        }
        let children = (0..rng.random_range(1..=3))
            .map(|place| self.grow_child(rng, path, place, depth, optional || soft, strategy))
            .collect();
        let grown = branch(path, strategy, limit, children);
        if soft { grown.never_escalates() } else { grown }
    }

    fn grow_child(
        &mut self,
        rng: &mut SmallRng,
        parent: &str,
        place: usize,
        depth: u32,
        optional: bool,
        strategy: Strategy,
    ) -> Child {
        let name = format!("{parent}.{place}");
        let gated = rng.random_bool(0.2);
        let optional = optional || gated;
        let worker = depth == 2 || rng.random_bool(0.6);
        let permanent = rng.random_bool(0.7);
        let parent = parent.to_owned();
        let info = Info { name: name.clone(), parent, place, worker, permanent, optional, gated, strategy };
        self.nodes.push(info);
        let mut child = if worker {
            self.world.child(&name).shutdown(Shutdown::Timeout(even(rng, 300)))
        } else {
            self.grow_branch(rng, &name, depth + 1, optional)
        };
        if !worker && rng.random_bool(0.2) {
            child = child.shutdown(Shutdown::Timeout(even(rng, 200)));
        }
        child = policy(rng, child);
        if !permanent {
            let temporary = rng.random_bool(0.5);
            child = child.restart(if temporary { Restart::Temporary } else { Restart::Transient });
        }
        if gated {
            let gate = rng.random_range(0..self.gates.len());
            child = child.gated(self.gates[gate].subscribe());
        }
        child
    }

    /// Something from outside: a gate, or other wanted children.
    pub(crate) fn disturb(&mut self, rng: &mut SmallRng) {
        if !self.wanted.is_empty() && rng.random_bool(0.5) {
            let which = rng.random_range(0..self.wanted.len());
            self.want(rng, which);
        } else {
            let which = rng.random_range(0..self.gates.len());
            self.gates[which].send_replace(gate(rng));
        }
    }

    fn want(&mut self, rng: &mut SmallRng, which: usize) {
        let (path, sender) = &self.wanted[which];
        let mut children = BTreeMap::new();
        for i in 0..3 {
            if rng.random_bool(0.6) {
                let name = format!("{path}.{i}");
                let child = self.world.child(&name).shutdown(Shutdown::Timeout(even(rng, 300)));
                children.insert(name, policy(rng, child).revision(rng.random_range(0..2)));
            }
        }
        sender.send_replace(Arc::new(children));
    }
}

fn policy(rng: &mut SmallRng, child: Child) -> Child {
    let initial = even(rng, 200);
    let backoff = Backoff { initial, max: initial * 4, jitter: 0.0, reset_after: even(rng, 2_000) };
    child.backoff(backoff).start_timeout(even(rng, 1_000))
}

fn gate(rng: &mut SmallRng) -> Gate {
    match rng.random_range(0..3) {
        0 => Gate::Closed,
        epoch => Gate::Open(epoch),
    }
}

fn script(dice: &mut SmallRng, quiet: bool, bad_starts: f64) -> Script {
    let start = if dice.random_bool(bad_starts) {
        [Start::Error, Start::Panic, Start::Hang, Start::FactoryPanic][dice.random_range(0..4)]
    } else if dice.random_bool(0.2) {
        Start::Slow(even(dice, 150))
    } else {
        Start::Well
    };
    let deaths = [
        Death::Panic,
        Death::Error,
        Death::Kill,
        Death::Normal,
        Death::PostStartPanic,
        Death::PostStartError,
        Death::PostStartHang,
    ];
    let dies = !quiet && dice.random_bool(0.4);
    let death = dies.then(|| (even(dice, 1_500), deaths[dice.random_range(0..deaths.len())]));
    let stop = match dice.random_range(0..10) {
        0 => Stop::Hang,
        1 | 2 => Stop::Slow(even(dice, 300)),
        3 => Stop::Panic,
        4 => Stop::Error,
        _ => Stop::Well,
    };
    Script { start, death, stop }
}
