//! The one supervising actor: events in, the machine's steps out.
//!
//! Owns: the keepers of its children, the alarm for the next backoff, the watches on gates.
//! Reads: gates and wanted children (watch channels made beside the tree).
//! Writes: its children's nodes of the live tree.
//! Rebuilt from: its declaration; a restarted supervisor starts its children anew.
//!
//! No handler waits: starts and stops run in keepers, and what they report comes back as messages.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::cause::{Cause, Exit, chain};
use crate::census::Token;
use crate::drill::feel;
use crate::keeper::{How, Keeper, Post, Report, keep};
use crate::live::LiveNode;
use crate::machine::{Ended, Halt, Instance, Machine, Order, SlotSpec, Step};
use crate::spec::{Child, Desired, Gate, Kind, Strategy};

/// What happens to a supervisor.
pub(crate) enum Msg {
    /// Start the children.
    Begin,
    /// A keeper: the instance is up.
    Started { instance: Instance },
    /// A keeper: nothing is left of the instance.
    Ended { instance: Instance, report: Report },
    /// A gate or the set of wanted children changed. Dropping `seen` asks for the next change.
    Changed { seen: oneshot::Sender<()> },
    /// A backoff is over.
    Due,
    /// Stop all children, then end.
    Shutdown,
}

/// What a supervisor is made from.
pub(crate) struct Args {
    pub(crate) branch: Child,
    pub(crate) live: Arc<LiveNode>,
    pub(crate) token: Token,
    /// Answered when all children are up, or the reason why not all are.
    pub(crate) ready: oneshot::Sender<Result<(), Cause>>,
    /// Why it ended in order; unset when it was killed.
    pub(crate) verdict: Arc<OnceLock<Halt>>,
}

pub(crate) struct State {
    machine: Machine,
    /// The newest declaration of each child.
    children: BTreeMap<Arc<str>, Child>,
    desired: Option<Desired>,
    keepers: HashMap<Instance, Keeper>,
    /// How actors ended, from ractor, until their keepers report that nothing is left.
    exits: HashMap<ActorId, Exit>,
    alarm: Option<(Instant, AbortOnDropHandle<()>)>,
    watches: HashMap<Arc<str>, AbortOnDropHandle<()>>,
    _desired_watch: Option<AbortOnDropHandle<()>>,
    live: Arc<LiveNode>,
    ready: Option<oneshot::Sender<Result<(), Cause>>>,
    verdict: Arc<OnceLock<Halt>>,
    name: Arc<str>,
    token: Token,
}

/// The supervising actor.
pub(crate) struct Supervisor;

impl Actor for Supervisor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let state = State::new(&myself, args);
        myself.send_message(Msg::Begin)?;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Begin | Msg::Due => {}
            Msg::Started { instance } => state.machine.started(instance, Instant::now()),
            Msg::Ended { instance, report } => state.ended(instance, report),
            Msg::Changed { seen } => state.changed(&myself, seen),
            Msg::Shutdown => state.machine.shutdown(),
        }
        state.settle(&myself)
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Msg>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        feel(&event)?;
        state.heard(event);
        Ok(())
    }
}

impl State {
    fn new(myself: &ActorRef<Msg>, args: Args) -> Self {
        let branch = args.branch;
        let never = branch.never_escalates;
        let (machine, declared, desired) = match branch.kind {
            Kind::Branch { strategy, intensity, children } => {
                let machine = Machine::new(Order::Declared(strategy), intensity, never);
                (machine, children.to_vec(), None)
            }
            Kind::Dynamic { intensity, desired } => {
                let machine = Machine::new(Order::Independent, intensity, never);
                (machine, Vec::new(), Some(desired))
            }
            // A worker is never given to a supervisor as its own declaration.
            Kind::Worker(_) => {
                let one = crate::spec::Intensity::new(0, std::time::Duration::ZERO);
                let order = Order::Declared(Strategy::OneForOne);
                (Machine::new(order, one, never), Vec::new(), None)
            }
        };
        let mut state = Self {
            machine,
            children: BTreeMap::new(),
            _desired_watch: desired.clone().map(|d| forward(d, myself.clone())),
            desired,
            keepers: HashMap::new(),
            exits: HashMap::new(),
            alarm: None,
            watches: HashMap::new(),
            live: args.live,
            ready: Some(args.ready),
            verdict: args.verdict,
            name: branch.name,
            token: args.token,
        };
        for child in declared {
            state.declare(child, myself);
        }
        state.redeclare(myself);
        state
    }

    /// Takes up a declaration, and follows its gate.
    fn declare(&mut self, mut child: Child, myself: &ActorRef<Msg>) {
        if let Some(gate) = &mut child.gate {
            gate.mark_unchanged();
            let watch = forward(gate.clone(), myself.clone());
            self.watches.insert(child.name.clone(), watch);
        } else {
            self.watches.remove(&child.name);
        }
        self.machine.declare(SlotSpec {
            name: child.name.clone(),
            restart: child.restart,
            backoff: child.backoff,
            revision: child.revision,
            gate: child.gate.as_ref().map(|gate| *gate.borrow()),
        });
        self.children.insert(child.name.clone(), child);
    }

    /// Brings a dynamic branch's declarations to what is wanted now.
    fn redeclare(&mut self, myself: &ActorRef<Msg>) {
        let Some(desired) = &mut self.desired else {
            return;
        };
        let wanted = desired.borrow_and_update().clone();
        let gone: Vec<Arc<str>> =
            self.children.keys().filter(|n| !wanted.contains_key(&***n)).cloned().collect();
        for name in gone {
            self.machine.retire(&name);
            self.children.remove(&name);
            self.watches.remove(&name);
        }
        for (name, child) in wanted.iter() {
            let known = self.children.get(name.as_str());
            if known.is_none_or(|known| known.revision != child.revision) {
                let mut child = child.clone();
                child.name = name.as_str().into();
                self.live.adopt(&child);
                self.declare(child, myself);
            }
        }
    }

    /// A gate or the set of wanted children changed.
    fn changed(&mut self, myself: &ActorRef<Msg>, seen: oneshot::Sender<()>) {
        // From here on the next change is a new message; what is read below is at least as new.
        drop(seen);
        self.redeclare(myself);
        for child in self.children.values() {
            if let Some(gate) = &child.gate {
                let gate: Gate = *gate.borrow();
                self.machine.gate(&child.name, gate);
            }
        }
    }

    /// ractor says how an actor ended; its keeper will say when nothing is left of it.
    fn heard(&mut self, event: SupervisionEvent) {
        match event {
            SupervisionEvent::ActorTerminated(cell, _state, reason) => {
                let exit = match reason.as_deref() {
                    Some("killed") => Exit::Abnormal(Cause::Killed),
                    Some("actor_task_cancelled") => Exit::Abnormal(Cause::Cancelled),
                    other => Exit::Normal(other.map(Into::into)),
                };
                self.exits.insert(cell.get_id(), exit);
            }
            SupervisionEvent::ActorFailed(cell, error) => {
                let cause = match error.downcast::<Cause>() {
                    Ok(cause) => *cause,
                    Err(error) => Cause::Failed(chain(error.as_ref()).into()),
                };
                self.exits.insert(cell.get_id(), Exit::Abnormal(cause));
            }
            _ => {}
        }
    }

    fn ended(&mut self, instance: Instance, report: Report) {
        self.keepers.remove(&instance);
        let exit = report.actor.and_then(|id| self.exits.remove(&id));
        let ended = match report.how {
            How::NotStarted(cause) => Ended::NotStarted(cause),
            // ractor sends its event before the task ends, to a port that is read first.
            How::Gone => Ended::Down(exit.unwrap_or(Exit::Abnormal(Cause::Cancelled))),
            How::Overdue(within) => Ended::Down(Exit::Abnormal(Cause::Overdue(within))),
        };
        let child = self.machine.name_of(instance);
        tracing::debug!(branch = %self.name, ?child, ?ended, "a child ended");
        self.machine.ended(instance, ended, Instant::now(), rand::random());
    }

    /// Does what the machine says until it has nothing more to say, then shows how it stands.
    fn settle(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        let now = Instant::now();
        let mut end = None;
        for step in self.machine.settle(now) {
            match step {
                Step::Start { child, instance } => self.start(myself, &child, instance),
                Step::Stop { instance } => self.stop(instance),
                Step::Ready => self.answer(Ok(())),
                Step::Finish(halt) => end = Some(halt),
            }
        }
        self.set_alarm(myself, now);
        self.publish(now);
        end.map_or(Ok(()), |halt| self.finish(myself, halt))
    }

    fn start(&mut self, myself: &ActorRef<Msg>, name: &Arc<str>, instance: Instance) {
        let Some((child, live)) = self.children.get(name).cloned().zip(self.live.child(name)) else {
            return;
        };
        tracing::debug!(branch = %self.name, child = %name, "starting a child");
        let keeper =
            keep(Post { child, instance, supervisor: myself.clone(), live, token: self.token.clone() });
        self.keepers.insert(instance, keeper);
    }

    fn stop(&mut self, instance: Instance) {
        if let Some(keeper) = self.keepers.get_mut(&instance) {
            keeper.stop();
        }
    }

    /// Answers whoever waits for the start of this branch, once.
    fn answer(&mut self, started: Result<(), Cause>) {
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(started);
        }
    }

    fn set_alarm(&mut self, myself: &ActorRef<Msg>, now: Instant) {
        let due = self.machine.next_due(now);
        if self.alarm.as_ref().map(|(at, _)| *at) == due {
            return;
        }
        self.alarm = due.map(|at| {
            let myself = myself.clone();
            let alarm = tokio::spawn(async move {
                tokio::time::sleep_until(at).await;
                let _ = myself.send_message(Msg::Due);
            });
            (at, AbortOnDropHandle::new(alarm))
        });
    }

    fn publish(&self, now: Instant) {
        for slot in self.machine.slots() {
            if let Some(node) = self.live.child(&slot.spec.name) {
                node.publish(slot, now);
            }
        }
        if self.desired.is_some() {
            let slots = self.machine.slots();
            self.live.keep_only(|name| slots.iter().any(|s| &*s.spec.name == name));
        }
    }

    /// All children are down: end as the machine says.
    fn finish(&mut self, myself: &ActorRef<Msg>, halt: Halt) -> Result<(), ActorProcessingErr> {
        let _ = self.verdict.set(halt.clone());
        match halt {
            Halt::Shutdown => self.answer(Err(Cause::Cancelled)),
            Halt::Boot(cause) => self.answer(Err(cause)),
            Halt::Escalated(cause) => {
                tracing::error!(branch = %self.name, cause = cause.chain(), "a branch gives up");
                self.answer(Err(cause.clone()));
                return Err(Box::new(cause));
            }
        }
        myself.stop(None);
        Ok(())
    }
}

/// Turns changes of a channel into messages, at most one of them waiting.
fn forward<T: Send + Sync + 'static>(
    mut channel: watch::Receiver<T>,
    supervisor: ActorRef<Msg>,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        while channel.changed().await.is_ok() {
            let (seen, was_seen) = oneshot::channel();
            if supervisor.send_message(Msg::Changed { seen }).is_err() {
                return;
            }
            // The message was dropped: it was seen, or nobody will see it.
            let _ = was_seen.await;
        }
    }))
}
