//! The lease leader: wins the Lease, renews it, says who leads.
//!
//! Owns: the Lease of the fleet, as far as this process holds it.
//! Reads: the Lease; the ConfigMap `portreeve-ca`, when it makes the Lease; the highest term that a proxy has named;
//! how much of what only a leader runs exists.
//! Writes: [`Leadership`] and the gate of what only a leader runs; the Lease's standing, for pages.
//! Rebuilt from: the Lease. A restarted one starts as a follower; if the Lease still names this
//! process, it takes it again in a new term.
//!
//! What to do is decided by `actors_core::election`; here are the requests and the clock. The client has
//! a connection of its own and must not retry: an attempt that fails is decided about, not repeated.

use std::fmt;
use std::sync::Arc;

use actors_core::election::record::{Claim, Record};
use actors_core::election::{Action, Answer, Elector, Moment, Timing};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::{Gate, message_names};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::lead::trust_bundle::CONFIG_MAP;
use crate::task::{self, Task};
use crate::term::Leadership;

/// What the lease leader is told, by itself alone.
#[derive(Debug)]
pub enum Msg {
    /// The next moment of the election has come.
    Wake,
    /// A read was answered.
    Read {
        /// Before the request.
        sent: Moment,
        /// What came of it.
        answer: Answer,
    },
    /// A write was answered.
    Written {
        /// Before the request.
        sent: Moment,
        /// What came of it.
        answer: Answer,
    },
    /// A proxy has named a higher term.
    Refused,
    /// What only a leader runs has not stopped in time.
    Overrun,
}

message_names!(Msg { Wake, Read, Written, Refused, Overrun });

/// How the Lease stands, for pages and logs. Nobody decides by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whom the Lease names.
    pub holder: Option<String>,
    /// The highest term seen on it.
    pub term: u64,
    /// Whether this process leads.
    pub leads: bool,
}

/// What the lease leader is made from.
#[derive(Clone)]
pub struct Args {
    /// For the Lease alone, without retries.
    pub client: Client,
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub lease: String,
    /// This process, as no other ever is: see [`identity`].
    pub identity: String,
    /// The times of the election.
    pub timing: Timing,
    /// The clock of the election.
    pub clock: Clock,
    /// The wall clock, for those who read the Lease.
    pub wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Where leadership is published.
    pub leadership: watch::Sender<Option<Leadership>>,
    /// Opened with the term while this process leads.
    pub gate: watch::Sender<Gate>,
    /// Where the Lease's standing is published.
    pub standing: watch::Sender<Standing>,
    /// The highest term that a proxy has named.
    pub highest_term: watch::Receiver<u64>,
    /// How many branches exist of what only a leader runs.
    pub acting: watch::Receiver<usize>,
    /// Set when they have not stopped in time: the process must exit.
    pub overrun: watch::Sender<bool>,
}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Args")
            .field("lease", &self.lease)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// The identity of a process: its Pod's name and uid, and a number of its own, so that a restarted
/// container is another holder.
pub fn identity(name: &str, uid: &str) -> String {
    format!("{name}_{uid}_{:016x}", rand::random::<u64>())
}

/// What the lease leader remembers.
pub struct State {
    args: Args,
    elector: Elector,
    api: Api<Lease>,
    /// Of the Lease's namespace.
    config_maps: Api<ConfigMap>,
    published: Option<(u64, Moment)>,
    exchange: Option<Task>,
    alarm: Option<Task>,
    refusals: Task,
    /// Runs from the loss of leadership until all that acted has stopped.
    stopping: Option<Task>,
}

/// The actor.
pub struct LeaseLeader;

impl Actor for LeaseLeader {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        args.timing.check()?;
        let state = State::new(&myself, args);
        myself.send_message(Msg::Wake)?;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Wake => {}
            Msg::Read { sent, answer } => state.read(answer, sent),
            Msg::Written { sent, answer } => state.written(answer, sent),
            Msg::Refused => state.refused(&myself),
            Msg::Overrun => state.overrun(),
        }
        state.advance(&myself);
        Ok(())
    }

    /// Gives the Lease up, so that the next leader need not wait for it to expire. A courtesy: it
    /// expires anyway.
    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.withdraw();
        state.exchange = None;
        if *state.args.acting.borrow() == 0
            && let Some(Action::Write { base, claim }) = state.elector.release()
        {
            let mut answer = state.exchange(base, Some(claim)).await;
            if answer == Answer::Conflict {
                answer = state.give_up_what_stands().await.unwrap_or(answer);
            }
            tracing::info!(?answer, "gave the lease up");
        }
        Ok(())
    }
}

impl State {
    fn new(myself: &ActorRef<Msg>, mut args: Args) -> Self {
        // What is in the channel already is heeded with the first step.
        args.highest_term.borrow_and_update();
        let state = Self {
            elector: Elector::new(args.identity.clone(), args.timing),
            api: Api::namespaced(args.client.clone(), &args.namespace),
            config_maps: Api::namespaced(args.client.clone(), &args.namespace),
            published: None,
            exchange: None,
            alarm: None,
            refusals: task::on_change(myself, &args.highest_term, || Msg::Refused),
            stopping: None,
            args,
        };
        // What an instance before this one published holds no more.
        state.withdraw();
        state
    }

    fn read(&mut self, answer: Answer, sent: Moment) {
        self.exchange = None;
        self.elector.answered(answer, sent, self.args.clock.now(), rand::random());
    }

    fn written(&mut self, answer: Answer, sent: Moment) {
        self.exchange = None;
        let now = self.args.clock.now();
        match answer {
            Answer::Lease(lease) => self.elector.confirmed(lease, sent, now, rand::random()),
            other => self.elector.answered(other, sent, now, rand::random()),
        }
    }

    /// Gives up what a renewal wrote that was under way when this actor was stopped. `None` where it was somebody else
    /// who wrote.
    async fn give_up_what_stands(&self) -> Option<Answer> {
        let Answer::Lease(lease) = self.exchange(None, None).await else { return None };
        let record = Record::of(&lease);
        let is_ours = record.holder.as_deref() == Some(&*self.args.identity);
        let claim = is_ours.then(|| Claim::release(&record))?;
        Some(self.exchange(Some(lease), Some(claim)).await)
    }

    fn refused(&mut self, myself: &ActorRef<Msg>) {
        self.args.highest_term.borrow_and_update();
        self.refusals = task::on_change(myself, &self.args.highest_term, || Msg::Refused);
    }

    fn overrun(&self) {
        if self.stopping.is_some() {
            tracing::error!("what only a leader runs has not stopped in time: this process must exit");
            self.args.overrun.send_replace(true);
        }
    }

    /// Does the next thing, unless a request is under way, and says how it stands.
    fn advance(&mut self, myself: &ActorRef<Msg>) {
        let now = self.args.clock.now();
        // Each time: whether a claim is credible changes with what the Lease says.
        self.elector.refused(*self.args.highest_term.borrow(), now);
        let action = match self.exchange {
            // While a request is under way, only leadership can lapse.
            Some(_) => Action::Wait(self.elector.reign(now).map_or(Moment::MAX, |reign| reign.acts_until)),
            None => self.elector.step(now),
        };
        self.publish(myself, now);
        self.alarm = None;
        match action {
            Action::Wait(Moment::MAX) => {}
            Action::Wait(until) => {
                let until = self.args.clock.instant(until);
                self.alarm = Some(task::report(myself, async move {
                    tokio::time::sleep_until(until).await;
                    Msg::Wake
                }));
            }
            Action::Read => {
                let exchange = self.exchange(None, None);
                self.exchange =
                    Some(task::report(
                        myself,
                        async move { Msg::Read { sent: now, answer: exchange.await } },
                    ));
            }
            Action::Write { base, claim } => {
                let exchange = self.exchange(base, Some(claim));
                self.exchange =
                    Some(task::report(
                        myself,
                        async move { Msg::Written { sent: now, answer: exchange.await } },
                    ));
            }
        }
    }

    /// Publishes what changed; a renewal moves the end of the leadership.
    fn publish(&mut self, myself: &ActorRef<Msg>, now: Moment) {
        let reign = self.elector.reign(now);
        let publish = reign.map(|reign| (reign.term, reign.valid_until));
        let standing = Standing {
            holder: self.elector.holder().filter(|holder| !holder.is_empty()).map(str::to_owned),
            term: self.elector.highest_term(),
            leads: reign.is_some(),
        };
        self.args.standing.send_if_modified(|was| std::mem::replace(was, standing.clone()) != standing);
        if publish == self.published {
            return;
        }
        let before = std::mem::replace(&mut self.published, publish).map(|(term, _)| term);
        match reign {
            Some(reign) => {
                if before != Some(reign.term) {
                    tracing::info!(term = reign.term, identity = self.args.identity, "this process leads");
                }
                let valid_until = self.args.clock.instant(reign.valid_until);
                self.args.leadership.send_replace(Some(Leadership::new(reign.term, valid_until)));
                self.args
                    .gate
                    .send_if_modified(|gate| std::mem::replace(gate, Gate::Open(reign.term)) != *gate);
                self.stopping = None;
            }
            None => {
                tracing::warn!(term = before, holder = self.elector.holder(), "this process leads no longer");
                self.withdraw();
                self.stopping = Some(self.await_stop(myself));
            }
        }
    }

    fn withdraw(&self) {
        self.args.leadership.send_replace(None);
        self.args.gate.send_replace(Gate::Closed);
    }

    /// Reports if what only a leader runs has not stopped within its time.
    fn await_stop(&self, myself: &ActorRef<Msg>) -> Task {
        let mut acting = self.args.acting.clone();
        let within = self.args.clock.real(self.args.timing.stop);
        task::report(myself, async move {
            let stopped = async { acting.wait_for(|count| *count == 0).await.is_ok() };
            match tokio::time::timeout(within, stopped).await {
                Ok(_) => std::future::pending().await,
                Err(_) => Msg::Overrun,
            }
        })
    }

    /// One request, within its time: a claim is written, or the Lease is read.
    fn exchange(
        &self,
        base: Option<Box<Lease>>,
        claim: Option<Claim>,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let (api, config_maps) = (self.api.clone(), self.config_maps.clone());
        let name = self.args.lease.clone();
        let wall = (self.args.wall)();
        let within = self.args.clock.real(self.args.timing.request_timeout);
        async move {
            let request = async {
                match claim {
                    None => api.get_opt(&name).await,
                    Some(claim) => {
                        let lease = claim.write(base.as_deref(), &name, wall);
                        let params = PostParams::default();
                        match base {
                            Some(_) => api.replace(&name, &params, &lease).await.map(Some),
                            None => make(&api, &config_maps, lease).await.map(Some),
                        }
                    }
                }
            };
            match tokio::time::timeout(within, request).await {
                Ok(result) => answer(result, base.is_some()),
                Err(_) => {
                    tracing::debug!(?within, "no answer about the lease in time");
                    Answer::Unknown
                }
            }
        }
    }
}

/// Makes the Lease. It goes with the ConfigMap that the chart has made, if that is there: whoever takes the release away
/// takes the Lease away with it, though it is none of the chart's own objects (which could not be made again by anyone).
async fn make(
    leases: &Api<Lease>,
    config_maps: &Api<ConfigMap>,
    mut lease: Lease,
) -> Result<Lease, kube::Error> {
    let map = match config_maps.get_opt(CONFIG_MAP).await {
        // Who may not look can't know of an owner, and is to lead all the same.
        Err(kube::Error::Api(status)) if status.code == 403 => None,
        map => map?,
    };
    let owner = map.and_then(|map| map.owner_ref(&()));
    lease.metadata.owner_references = owner.map(|owner| vec![owner]);
    leases.create(&PostParams::default(), &lease).await
}

/// What a result means to the election.
fn answer(result: Result<Option<Lease>, kube::Error>, replaces: bool) -> Answer {
    match result {
        Ok(Some(lease)) => Answer::Lease(Box::new(lease)),
        Ok(None) => Answer::Absent,
        Err(kube::Error::Api(status)) if status.code == 409 => Answer::Conflict,
        Err(kube::Error::Api(status)) if status.code == 404 && replaces => Answer::Absent,
        Err(error) => {
            tracing::debug!(%error, "a request about the lease failed");
            Answer::Unknown
        }
    }
}

#[cfg(test)]
mod tests;
