//! Keeps one proxy at the newest configuration.
//!
//! Owns: the connection to the proxy and what it is known to hold.
//! Reads: what is to be pushed; the controller's identity.
//! Writes: the proxy's answers; the highest term that a refusal named.
//! Rebuilt from: an empty push, which the proxy acks or answers with what it holds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actors_core::election::CREDIBLE;
use proxy_config::wire::Reply;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

use super::acks::{Acked, Board};
use super::identity::{Identity, Role};
use super::link::{Dial, Link, PushError};
use super::mtls;
use super::session::{Outcome, Session, Target};
use crate::metrics::Metrics;
use crate::observe::node_watcher::KnownProxy;
use crate::retry::{Retry, chain};
use crate::task::{Task, on_change, report};
use crate::term::{Leadership, Term};

/// The least time between two pushes to one proxy.
const APART: Duration = Duration::from_millis(50);
/// A proxy that has been told nothing for this long is asked whether it still holds what it held.
const PROBE: Duration = Duration::from_secs(5);
/// How pushes end, as metrics name it.
pub const OUTCOMES: [&str; 6] = ["acked", "differs", "superseded", "refused", "wrong_peer", "failed"];

/// What is to be pushed under a term.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// What the proxies are to hold.
    pub target: Target,
    /// The W3C trace context of the change.
    pub traceparent: String,
}

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// There may be something to push.
    Due,
    /// A push ended.
    Answered(Box<Answer>),
    /// The connection of this number ended.
    Disconnected(u64),
}

supervisor::message_names!(Msg { Due, Answered, Disconnected });

/// How a push ended.
#[derive(Debug)]
pub struct Answer {
    link: Option<(u64, Link)>,
    sent: Arc<Outgoing>,
    took: Duration,
    reply: Result<Reply, PushError>,
}

/// What it needs.
#[derive(Clone)]
pub struct Args {
    /// The proxy.
    pub proxy: KnownProxy,
    /// What is to be pushed; `None` until the leader may push.
    pub outgoing: watch::Receiver<Option<Arc<Outgoing>>>,
    /// The controller's identity.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// Whether this process leads.
    pub leadership: watch::Receiver<Option<Leadership>>,
    /// The highest term that a proxy has named in a refusal.
    pub highest_term: watch::Sender<u64>,
    /// Where answers are written.
    pub board: Board,
    /// How the proxy is dialled.
    pub dial: Dial,
    /// What is counted.
    pub metrics: Metrics,
}

/// What it holds.
pub struct State {
    args: Args,
    term: Term,
    session: Session,
    link: Option<(u64, Link)>,
    links: u64,
    in_flight: bool,
    last: Option<Instant>,
    failing: Option<Instant>,
    retry: Retry,
    /// Counts answers that the proxy holds something else, apart from failures.
    differing: Retry,
    waiting: Vec<Task>,
}

/// This process does not lead: the branch is about to be stopped.
#[derive(Debug, Error)]
#[error("this process does not lead, so it pushes nothing")]
pub struct NotLeading;

/// The actor.
#[derive(Debug)]
pub struct ProxyClient;

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Args").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl Actor for ProxyClient {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let term = Term::current(&args.leadership).ok_or(NotLeading)?;
        let mut state = State {
            term,
            session: Session::new(&args.proxy.identity),
            link: None,
            links: 0,
            in_flight: false,
            last: None,
            failing: None,
            retry: Retry::new(),
            differing: Retry::new(),
            waiting: Vec::new(),
            args,
        };
        state.consider(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Due => state.consider(&myself),
            Msg::Answered(answer) => state.take(&myself, *answer),
            Msg::Disconnected(link) => state.disconnected(&myself, link),
        }
        Ok(())
    }
}

impl State {
    /// Pushes now, or sets what wakes this actor up when it is time.
    fn consider(&mut self, myself: &ActorRef<Msg>) {
        if self.in_flight {
            return;
        }
        if self.args.identity.has_changed().unwrap_or(false) {
            // A connection goes on with the identity that it was made with: renew it between pushes.
            self.args.identity.borrow_and_update();
            self.link = None;
        }
        let outgoing = self.args.outgoing.borrow_and_update().clone();
        let outgoing = outgoing.filter(|outgoing| outgoing.target.version.term == self.term.number());
        let now = Instant::now();
        let due = outgoing.as_ref().map(|outgoing| self.due(&outgoing.target, now));
        self.waiting.clear();
        match (outgoing, due) {
            (Some(outgoing), Some(due)) if due <= now => return self.push(myself, outgoing),
            (_, Some(due)) => self.waiting.push(report(myself, async move {
                tokio::time::sleep_until(due).await;
                Msg::Due
            })),
            (_, None) => {}
        }
        // One that fails is tried again in its own time, with what is newest then.
        if self.failing.is_none() {
            self.waiting.push(on_change(myself, &self.args.outgoing, || Msg::Due));
            self.waiting.push(on_change(myself, &self.args.identity, || Msg::Due));
        }
    }

    /// When to push next: the first change at once, then at most 20 a second.
    fn due(&self, target: &Target, now: Instant) -> Instant {
        match (self.failing, self.last) {
            (Some(again), _) => again,
            (None, None) => now,
            (None, Some(last)) if self.session.needs(target) => last + APART,
            (None, Some(last)) => last + PROBE,
        }
    }

    fn push(&mut self, myself: &ActorRef<Msg>, outgoing: Arc<Outgoing>) {
        self.in_flight = true;
        self.last = Some(Instant::now());
        self.args.board.asked(&self.args.proxy.identity);
        let push = self.session.push(&outgoing.target, Some(outgoing.traceparent.clone()));
        let (link, term, args) = (self.link.take(), self.term.clone(), self.args.clone());
        let identity = self.args.identity.borrow().clone();
        self.links += 1;
        let (number, actor) = (self.links, myself.clone());
        let span = tracing::debug_span!(
            "push",
            proxy = self.args.proxy.name,
            term = term.number(),
            generation = outgoing.target.version.generation,
            traceparent = outgoing.traceparent,
            put = push.put.len(),
            delete = push.delete.len(),
        );
        let work = async move {
            let began = Instant::now();
            let mut link = link;
            let reply = async {
                let (_, link) = match &mut link {
                    Some(link) => link,
                    None => link.insert((number, open(&args, identity, actor, number).await?)),
                };
                link.push(&push, &term).await
            }
            .await;
            Msg::Answered(Box::new(Answer { link, sent: outgoing, took: began.elapsed(), reply }))
        };
        self.waiting = vec![report(myself, tracing::Instrument::instrument(work, span))];
    }

    fn take(&mut self, myself: &ActorRef<Msg>, answer: Answer) {
        self.in_flight = false;
        let name = self.args.proxy.name.clone();
        match answer.reply {
            Ok(reply) => {
                self.link = answer.link;
                let outcome = self.session.take(&answer.sent.target, reply);
                let label = self.settle(outcome, &answer.sent);
                self.args.metrics.pushed(&name, label, answer.took);
            }
            Err(error) => {
                self.session.forget();
                // Its failures have waits of their own: once it is back, what it lacks goes out at once.
                self.differing.reset();
                self.args.metrics.pushed(&name, "failed", answer.took);
                self.fail(chain(&error), false);
            }
        }
        self.consider(myself);
    }

    /// What an outcome means for what comes next; returns its name.
    fn settle(&mut self, outcome: Outcome, sent: &Outgoing) -> &'static str {
        let identity = &self.args.proxy.identity;
        match outcome {
            Outcome::Acked(ack) => {
                self.args.metrics.acked(&self.args.proxy.name, ack.version.generation);
                let units = sent.target.units.clone();
                self.args.board.acked(identity, Acked { version: ack.version, units, broken: ack.broken });
                self.failing = None;
                self.retry.reset();
                self.differing.reset();
                "acked"
            }
            Outcome::Differs => {
                // What differs goes out at once, but a proxy that always differs is no reason to spin.
                self.failing = Some(Instant::now() + self.differing.delay() - FIRST_IS_AT_ONCE);
                "differs"
            }
            Outcome::Superseded(term) => {
                let own = self.term.number();
                self.args.highest_term.send_if_modified(|highest| {
                    // A faulty proxy must not hide what the others say later.
                    let higher = term > *highest && term.saturating_sub(own) <= CREDIBLE;
                    if higher {
                        *highest = term;
                    }
                    higher
                });
                self.fail(format!("the proxy was told in term {term} what is not older than this"), true);
                "superseded"
            }
            Outcome::Refused(nack) => {
                self.fail(format!("the proxy refused: {:?}", nack.reason), true);
                "refused"
            }
            Outcome::WrongProxy(other) => {
                self.link = None;
                self.fail(format!("another proxy answered: {other}"), false);
                "wrong_peer"
            }
            Outcome::WrongRoot(root) => {
                self.fail(format!("the proxy says that another root is in force: {}", root.0), true);
                "refused"
            }
        }
    }

    fn fail(&mut self, why: String, answered: bool) {
        tracing::warn!(proxy = self.args.proxy.name, why, "a push failed: it is tried again");
        let (board, identity) = (&self.args.board, &self.args.proxy.identity);
        if answered {
            board.refused(identity, why);
        } else {
            board.failed(identity, why);
        }
        self.failing = Some(Instant::now() + self.retry.delay());
    }

    /// The proxy may have been replaced by one that holds less: it is asked at once.
    fn disconnected(&mut self, myself: &ActorRef<Msg>, link: u64) {
        if self.link.as_ref().is_some_and(|(current, _)| *current == link) {
            self.link = None;
            self.session.forget();
            self.consider(myself);
        }
    }
}

/// The first retry, taken off: what a proxy lacks is sent without waiting.
const FIRST_IS_AT_ONCE: Duration = Duration::from_millis(100);

async fn open(
    args: &Args,
    identity: Option<Arc<Identity>>,
    actor: ActorRef<Msg>,
    number: u64,
) -> Result<Link, PushError> {
    let identity = identity.ok_or(PushError::NoIdentity)?;
    let tls = mtls::client(&identity, &Role::Proxy(args.proxy.identity.clone()))?;
    // An actor that is gone needs no news.
    let closed = move || drop(actor.send_message(Msg::Disconnected(number)));
    Link::open(&args.dial, args.proxy.admin, Arc::new(tls), closed).await
}
