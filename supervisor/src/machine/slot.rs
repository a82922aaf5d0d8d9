//! One child as its supervisor's machine sees it.
//!
//! Used by `machine` alone, which decides over all slots; here is what one slot knows by itself.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Backoff, Ended, Gate, Instance, Restart};
use crate::cause::{Cause, Exit};

/// What is declared of a child.
#[derive(Clone, Debug)]
pub(crate) struct SlotSpec {
    pub(crate) name: Arc<str>,
    pub(crate) restart: Restart,
    pub(crate) backoff: Backoff,
    pub(crate) revision: u64,
    /// `None`: not gated.
    pub(crate) gate: Option<Gate>,
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Down,
    Starting,
    Up,
    Stopping,
}

/// A child and its instance.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) spec: SlotSpec,
    pub(crate) phase: Phase,
    pub(crate) instance: Option<Instance>,
    /// It was up once since the branch started.
    pub(crate) booted: bool,
    /// It ended and is not to be restarted.
    pub(crate) finished: bool,
    /// It ended for good, and badly.
    pub(crate) failed: bool,
    /// It has to go down before its group is started again.
    pub(crate) bounced: bool,
    /// Gone from the declaration.
    pub(crate) retired: bool,
    /// The end of its backoff.
    pub(crate) due: Option<Instant>,
    /// Failures in a row.
    pub(crate) attempts: u32,
    pub(crate) up_since: Option<Instant>,
    /// The next start is a restart.
    pub(crate) restarting: bool,
    /// How often it was restarted.
    pub(crate) restarts: u64,
    /// Why it last ended when it should not have, and when.
    pub(crate) last_error: Option<(Cause, Instant)>,
    /// Revision and gate that the instance was started for.
    started_for: (u64, Option<Gate>),
}

impl Slot {
    pub(super) fn new(spec: SlotSpec) -> Self {
        Self {
            started_for: (spec.revision, spec.gate),
            spec,
            phase: Phase::Down,
            instance: None,
            booted: false,
            finished: false,
            failed: false,
            bounced: false,
            retired: false,
            due: None,
            attempts: 0,
            up_since: None,
            restarting: false,
            restarts: 0,
            last_error: None,
        }
    }

    /// The same child is declared again.
    pub(super) fn redeclare(&mut self, spec: SlotSpec) {
        if self.retired || self.spec.revision != spec.revision {
            self.renew();
        }
        self.retired = false;
        self.spec = spec;
    }

    pub(super) fn set_gate(&mut self, gate: Gate) {
        if self.spec.gate.replace(gate) != Some(gate) {
            self.renew();
        }
    }

    /// A new life: what the last one did counts no more.
    fn renew(&mut self) {
        self.finished = false;
        self.failed = false;
        self.restarting = false;
        self.due = None;
        self.attempts = 0;
    }

    /// Whether an instance of it is up or on its way.
    pub(super) fn alive(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Up)
    }

    /// Whether the declaration wants it up.
    pub(crate) fn wanted(&self) -> bool {
        !self.retired && !self.finished && !self.shut()
    }

    /// Whether its gate is closed.
    pub(crate) fn shut(&self) -> bool {
        self.spec.gate == Some(Gate::Closed)
    }

    /// Whether the instance belongs to another revision or epoch.
    pub(super) fn stale(&self) -> bool {
        self.started_for != (self.spec.revision, self.spec.gate)
    }

    /// Whether an instance is on its way down, or only waits for its turn.
    pub(crate) fn leaving(&self) -> bool {
        let condemned = !self.wanted() || self.bounced || self.stale();
        self.phase == Phase::Stopping || (self.alive() && condemned)
    }

    /// Whether it is still in backoff.
    pub(crate) fn waits(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due > now)
    }

    /// Whether what is declared after it need not wait for it.
    pub(super) fn settled(&self) -> bool {
        match self.phase {
            Phase::Down => !self.wanted(),
            Phase::Up => !self.leaving(),
            Phase::Starting | Phase::Stopping => false,
        }
    }

    pub(super) fn start(&mut self, instance: Instance) {
        self.phase = Phase::Starting;
        self.instance = Some(instance);
        self.started_for = (self.spec.revision, self.spec.gate);
        self.due = None;
        if std::mem::take(&mut self.restarting) {
            self.restarts += 1;
        }
    }

    /// It is restarted because of a sibling. As in OTP, a temporary child is not started again (unless
    /// it has never been up: the branch still starts), and a transient one that had ended is.
    pub(super) fn bounce(&mut self) {
        if self.spec.restart == Restart::Temporary && (self.booted || self.finished) {
            self.finished |= self.alive();
            return;
        }
        self.bounced = self.phase != Phase::Down;
        self.restarting = true;
        self.finished = false;
        self.due = None;
    }

    /// Nothing is left of the instance. Answers whether it was to stop anyway: as in OTP, what fails
    /// while it is being stopped is no failure.
    pub(super) fn down(&mut self, ended: &Ended, now: Instant) -> bool {
        let unexpected = !self.leaving();
        self.phase = Phase::Down;
        self.instance = None;
        self.bounced = false;
        let up_since = self.up_since.take();
        match ended {
            Ended::NotStarted(cause) if unexpected || *cause != Cause::Cancelled => {
                self.last_error = Some((cause.clone(), now));
            }
            // A child that is killed because its policy says so did nothing wrong.
            Ended::Down(Exit::Abnormal(cause)) if unexpected || *cause != Cause::Killed => {
                self.last_error = Some((cause.clone(), now));
            }
            Ended::Down(exit @ Exit::Normal(_)) if unexpected && self.spec.restart == Restart::Permanent => {
                self.last_error = Some((exit.clone().into_cause(), now));
            }
            Ended::NotStarted(_) | Ended::Down(_) => {}
        }
        if unexpected {
            let stable = self.spec.backoff.reset_after;
            if up_since.is_some_and(|since| now.duration_since(since) >= stable) {
                self.attempts = 0;
            }
            self.attempts += 1;
        }
        !unexpected
    }
}
