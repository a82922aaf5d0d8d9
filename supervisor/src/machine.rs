//! The decisions of a supervisor: who starts, who stops, who restarts when. Pure.
//!
//! The supervising actor tells it what happened and does the [`Step`]s that [`Machine::settle`]
//! answers. It declares what should be rather than remembering operations: a child that should be
//! down is stopped, a child that should be up is started, as soon as the order allows. So a stop can
//! overtake a start, a shutdown cancels what is pending, and nothing is ever stale.
//! Refuses to know actors, tasks and clocks: time and randomness come in with each event.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use crate::cause::{Cause, Exit};
use crate::spec::{Backoff, Gate, Intensity, Restart, Strategy};

mod slot;

pub(crate) use slot::{Phase, Slot, SlotSpec};

/// Identifies one instance of one child within its supervisor; never used twice.
pub(crate) type Instance = u64;

/// How the children of a branch depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Declared in order, restarted by the strategy.
    Declared(Strategy),
    /// Dynamic: no order at all.
    Independent,
}

/// What the supervising actor does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Start an instance of the child.
    Start { child: Arc<str>, instance: Instance },
    /// Stop the instance (or its start), by its deadline.
    Stop { instance: Instance },
    /// The branch has started.
    Ready,
    /// All children are down: the branch ends.
    Finish(Halt),
}

/// Why a branch stops all its children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// It was asked to.
    Shutdown,
    /// A child did not start: all or nothing.
    Boot(Cause),
    /// Too many restarts.
    Escalated(Cause),
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It never got up.
    NotStarted(Cause),
    /// It was up.
    Down(Exit),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    Booting,
    Running,
    Halting(Halt),
    Finished,
}

/// The state of a supervisor.
#[derive(Debug)]
pub(crate) struct Machine {
    order: Order,
    intensity: Intensity,
    never_escalates: bool,
    slots: Vec<Slot>,
    /// When the restarts within the window happened, oldest first.
    failures: VecDeque<Instant>,
    mode: Mode,
    ready: bool,
    next_instance: Instance,
}

impl Machine {
    pub(crate) fn new(order: Order, intensity: Intensity, never_escalates: bool) -> Self {
        Self {
            order,
            intensity,
            never_escalates,
            slots: Vec::new(),
            failures: VecDeque::new(),
            mode: Mode::Booting,
            ready: false,
            next_instance: 1,
        }
    }

    /// The children as they stand.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The child that an instance belongs to.
    pub(crate) fn name_of(&self, instance: Instance) -> Option<Arc<str>> {
        let slot = self.slots.iter().find(|s| s.instance == Some(instance));
        slot.map(|s| s.spec.name.clone())
    }

    /// Declares a child: a new one is the last; one of the same name gets this policy from its next start
    /// on, and another revision stops it first.
    pub(crate) fn declare(&mut self, spec: SlotSpec) {
        match self.slots.iter_mut().find(|s| s.spec.name == spec.name) {
            Some(slot) => slot.redeclare(spec),
            None => self.slots.push(Slot::new(spec)),
        }
    }

    /// Takes a child out of the declaration: it is stopped, then forgotten.
    pub(crate) fn retire(&mut self, name: &str) {
        if let Some(slot) = self.slots.iter_mut().find(|s| &*s.spec.name == name) {
            slot.retired = true;
        }
    }

    /// The gate of a child stands so now.
    pub(crate) fn gate(&mut self, name: &str, gate: Gate) {
        if let Some(slot) = self.slots.iter_mut().find(|s| &*s.spec.name == name) {
            slot.set_gate(gate);
        }
    }

    /// The branch is to stop.
    pub(crate) fn shutdown(&mut self) {
        if !matches!(self.mode, Mode::Finished) {
            self.mode = Mode::Halting(Halt::Shutdown);
        }
    }

    /// An instance is up.
    pub(crate) fn started(&mut self, instance: Instance, now: Instant) {
        if let Some(slot) = self.slot_of(instance)
            && slot.phase == Phase::Starting
        {
            slot.phase = Phase::Up;
            slot.booted = true;
            slot.up_since = Some(now);
        }
    }

    /// Nothing is left of an instance. `sample` in `[0, 1)` is the random part of a backoff.
    pub(crate) fn ended(&mut self, instance: Instance, ended: Ended, now: Instant, sample: f64) {
        let halting = matches!(self.mode, Mode::Halting(_));
        let strict = !self.never_escalates && self.order != Order::Independent;
        let booting = self.mode == Mode::Booting && strict;
        let Some(i) = self.slots.iter().position(|s| s.instance == Some(instance)) else {
            return;
        };
        let slot = &mut self.slots[i];
        let leaving = slot.down(&ended, now);
        if halting || leaving {
            return;
        }
        match ended {
            Ended::NotStarted(cause) if booting && !slot.booted => {
                slot.failed = true;
                let child = slot.spec.name.clone();
                let cause = Box::new(cause);
                self.mode = Mode::Halting(Halt::Boot(Cause::Boot { child, cause }));
            }
            Ended::Down(Exit::Normal(_)) if slot.spec.restart != Restart::Permanent => {
                slot.finished = true;
            }
            Ended::NotStarted(_) | Ended::Down(_) if slot.spec.restart == Restart::Temporary => {
                slot.finished = true;
                slot.failed = true;
            }
            Ended::NotStarted(cause) => self.failure(i, cause, now, sample),
            Ended::Down(exit) => self.failure(i, exit.into_cause(), now, sample),
        }
    }

    /// A child is to be restarted: count it, and say when and with whom.
    fn failure(&mut self, i: usize, cause: Cause, now: Instant, sample: f64) {
        let within = self.intensity.within;
        self.failures.retain(|&t| now.duration_since(t) <= within);
        self.failures.push_back(now);
        let too_many = self.failures.len() > self.intensity.restarts as usize;
        let slot = &mut self.slots[i];
        if too_many && !self.never_escalates {
            slot.failed = true;
            self.mode = Mode::Halting(Halt::Escalated(Cause::Intensity {
                limit: self.intensity,
                child: slot.spec.name.clone(),
                cause: Box::new(cause),
            }));
            return;
        }
        slot.restarting = true;
        let backoff = slot.spec.backoff;
        let wait = if too_many {
            self.failures.clear();
            backoff.max
        } else {
            backoff.delay(slot.attempts, sample)
        };
        slot.due = now.checked_add(wait);
        let group = match self.order {
            Order::Declared(Strategy::OneForAll) => 0..self.slots.len(),
            Order::Declared(Strategy::RestForOne) => i + 1..self.slots.len(),
            Order::Declared(Strategy::OneForOne) | Order::Independent => return,
        };
        for (j, slot) in self.slots.iter_mut().enumerate() {
            if j != i && group.contains(&j) {
                slot.bounce();
            }
        }
    }

    /// What to do now. Each answered step is taken as done.
    pub(crate) fn settle(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        self.slots.retain(|s| !(s.retired && s.phase == Phase::Down));
        if !self.ready && self.boots_softly() && !matches!(self.mode, Mode::Halting(_)) {
            self.ready = true;
            steps.push(Step::Ready);
        }
        self.stops(&mut steps);
        if let Mode::Halting(halt) = &self.mode {
            if self.slots.iter().all(|s| s.phase == Phase::Down) {
                steps.push(Step::Finish(halt.clone()));
                self.mode = Mode::Finished;
            }
            return steps;
        }
        self.starts(now, &mut steps);
        if self.mode == Mode::Booting && self.slots.iter().all(|s| s.booted || !s.wanted()) {
            self.mode = Mode::Running;
            if !self.ready {
                self.ready = true;
                steps.push(Step::Ready);
            }
        }
        steps
    }

    /// When to settle again although nothing happens: the end of the earliest backoff.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let live = matches!(self.mode, Mode::Booting | Mode::Running);
        let waiting = self.slots.iter().filter(|s| live && s.phase == Phase::Down && s.wanted());
        waiting.filter_map(|s| s.due).filter(|&due| due > now).min()
    }

    /// Whether the branch's own start waits for no child.
    fn boots_softly(&self) -> bool {
        self.never_escalates || self.order == Order::Independent
    }

    fn stops(&mut self, steps: &mut Vec<Step>) {
        let halting = matches!(self.mode, Mode::Halting(_) | Mode::Finished);
        for slot in self.slots.iter_mut().rev() {
            if slot.alive() && (halting || slot.leaving()) {
                slot.phase = Phase::Stopping;
                let instance = slot.instance.expect("a child that is alive has an instance");
                steps.push(Step::Stop { instance });
            }
            // In reverse order, each awaited before the one declared before it.
            if slot.phase == Phase::Stopping && self.order != Order::Independent {
                return;
            }
        }
    }

    fn starts(&mut self, now: Instant, steps: &mut Vec<Step>) {
        for i in 0..self.slots.len() {
            if !self.may_start(i, now) {
                continue;
            }
            let instance = self.next_instance;
            self.next_instance += 1;
            let slot = &mut self.slots[i];
            slot.start(instance);
            steps.push(Step::Start { child: slot.spec.name.clone(), instance });
        }
    }

    fn may_start(&self, i: usize, now: Instant) -> bool {
        let slot = &self.slots[i];
        if slot.phase != Phase::Down || !slot.wanted() || slot.waits(now) {
            return false;
        }
        let before = &self.slots[..i];
        let after = &self.slots[i + 1..];
        match self.order {
            Order::Independent => true,
            Order::Declared(Strategy::OneForOne) => {
                self.mode != Mode::Booting || before.iter().all(|s| s.booted || !s.wanted())
            }
            Order::Declared(Strategy::RestForOne) => {
                before.iter().all(Slot::settled) && !after.iter().any(Slot::leaving)
            }
            Order::Declared(Strategy::OneForAll) => {
                let group_waits = |s: &Slot| s.leaving() || (s.wanted() && s.waits(now));
                before.iter().all(Slot::settled) && !after.iter().any(group_waits)
            }
        }
    }

    fn slot_of(&mut self, instance: Instance) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|s| s.instance == Some(instance))
    }
}
