//! Resolves the names of backends outside the cluster, and keeps what it knows of them fresh.
//!
//! Owns: when each wanted name is asked for again, how it has fared.
//! Reads: the wanted names.
//! Writes: the known addresses, from which the config store makes endpoints. No request ever waits for it.
//! Rebuilt from: the wanted names and the known addresses, which live beside the tree; every name is asked for
//! anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::{Address, message_names};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::delivery::{deliver, on_change};
use crate::metrics::Metrics;

pub mod destination;
pub mod dns;
pub mod names;
pub mod standing;

use destination::{Forbidden, Path, judge, path};
use dns::Lookup;
use names::{Hostname, MAX_NAMES, Names};
use standing::{Answer, Family, Standing};

/// Names that are asked for at the same time.
const AT_A_TIME: usize = 64;

/// How names are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolverSettings {
    /// The name servers; none: those of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// Names may stand for loopback addresses: for tests and for nothing else, because the node's own doors open to
    /// those.
    pub loopback_destinations: bool,
}

/// What it is told.
#[derive(Debug)]
pub enum Msg {
    /// Other names are wanted.
    Wanted,
    /// What was answered.
    Answered(Hostname, Answer),
}

message_names!(Msg { Wanted, Answered });

/// What it is started with.
#[derive(Clone)]
pub struct Args {
    /// What is wanted, and what is known.
    pub names: Names,
    /// How names are asked for.
    pub lookup: Lookup,
    /// Whether names may stand for loopback addresses.
    pub loopback_destinations: bool,
    /// Where is counted.
    pub metrics: Arc<Metrics>,
    /// Its own address.
    pub myself: Address<Msg>,
}

/// What it holds.
pub struct State {
    args: Args,
    asked: BTreeMap<Hostname, Asked>,
    slots: Arc<Semaphore>,
    /// Whether it was said that there are too many.
    is_over: bool,
    _wanted: AbortOnDropHandle<()>,
}

/// A name that is wanted.
struct Asked {
    standing: Standing,
    /// It was said that it stands for what is never dialled.
    is_forbidden: bool,
    /// It was said that it can't be resolved.
    is_failing: bool,
    _question: AbortOnDropHandle<()>,
}

impl Asked {
    fn new(question: AbortOnDropHandle<()>) -> Self {
        Self { standing: Standing::default(), is_forbidden: false, is_failing: false, _question: question }
    }
}

/// The actor.
pub struct Resolver;

impl Actor for Resolver {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let wanted = on_change(args.names.wanted(), args.myself.clone(), || Msg::Wanted);
        let slots = Arc::new(Semaphore::new(AT_A_TIME));
        let mut state = State { args, asked: BTreeMap::new(), slots, is_over: false, _wanted: wanted };
        state.wanted();
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Wanted => state.wanted(),
            Msg::Answered(name, answer) => state.answered(&name, answer),
        }
        Ok(())
    }
}

impl State {
    fn wanted(&mut self) {
        let wanted = self.args.names.wanted().borrow().clone();
        let is_over = wanted.len() > MAX_NAMES;
        if is_over && !self.is_over {
            warn!(wanted = wanted.len(), most = MAX_NAMES, "too many names outside the cluster are wanted");
        }
        self.is_over = is_over;
        let wanted: BTreeSet<&Hostname> = wanted.iter().take(MAX_NAMES).collect();
        self.asked.retain(|name, _| wanted.contains(name));
        for name in wanted {
            if !self.asked.contains_key(name) {
                let question = self.ask(name, Duration::ZERO);
                self.asked.insert(name.clone(), Asked::new(question));
            }
        }
        self.args.names.forget_unwanted();
        self.count();
    }

    fn answered(&mut self, name: &Hostname, answer: Answer) {
        let Some(asked) = self.asked.get_mut(name) else { return };
        let reason = answer.v4.failure().or(answer.v6.failure()).map(str::to_owned);
        self.args.metrics.names.asked(&answer);
        let may_loop = self.args.loopback_destinations;
        let (answer, forbidden) = sift(answer, may_loop);
        for (address, why) in &forbidden {
            self.args.metrics.names.forbidden(*why);
            if !asked.is_forbidden {
                warn!(%name, %address, reason = why.label(), "a name stands for an address that is never dialled");
            }
        }
        asked.is_forbidden = !forbidden.is_empty();
        let before = self.args.names.known().borrow().get(name).cloned();
        let known = before.as_deref().unwrap_or_default();
        let next = asked.standing.take(&answer, known, Instant::now(), rand::random());
        let is_failing = reason.is_some();
        if let Some(reason) = reason.filter(|_| !asked.is_failing) {
            warn!(%name, %reason, kept = known.len(), again_after = ?next.after, "a name can't be resolved");
        }
        asked.is_failing = is_failing;
        match next.addresses {
            Some(addresses) if before.is_none() || !addresses.iter().eq(known) => {
                debug!(%name, ?addresses, "resolved");
                self.args.names.learn(name, addresses.into_iter().collect());
            }
            // That it has been asked for is news as well.
            None if before.is_none() => self.args.names.learn(name, Arc::default()),
            Some(_) | None => {}
        }
        let question = self.ask(name, next.after);
        if let Some(asked) = self.asked.get_mut(name) {
            asked._question = question;
        }
        self.count();
    }

    /// Asks for a name after a while.
    fn ask(&self, name: &Hostname, after: Duration) -> AbortOnDropHandle<()> {
        let (name, lookup) = (name.clone(), self.args.lookup.clone());
        let (slots, myself) = (self.slots.clone(), self.args.myself.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            sleep(after).await;
            let answer = {
                // It is closed by nobody.
                let _slot = slots.acquire().await;
                lookup(name.clone()).await
            };
            deliver(&myself, Msg::Answered(name, answer)).await;
        }))
    }

    fn count(&self) {
        let known = self.args.names.known().borrow().clone();
        let has_none = |name: &&Hostname| known.get(*name).is_none_or(|addresses| addresses.is_empty());
        let unresolved = self.asked.keys().filter(has_none).count();
        let metrics = &self.args.metrics.names;
        metrics.wanted.store(self.asked.len() as u64, Relaxed);
        metrics.unresolved.store(unresolved as u64, Relaxed);
    }
}

/// Takes out what must not be dialled, and what can't be where there is something that can.
fn sift(answer: Answer, may_loop: bool) -> (Answer, BTreeMap<IpAddr, Forbidden>) {
    let mut forbidden = BTreeMap::new();
    let mut judged = |family: Family| match family {
        Family::Found(addresses, life) => {
            let mut addresses: Vec<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
            addresses.retain(|address| {
                let is_own = || path(*address) == Path::Here && !(may_loop && address.is_loopback());
                let own = |()| if is_own() { Err(Forbidden::OwnAddress) } else { Ok(()) };
                let judged = judge(*address, may_loop).and_then(own);
                if let Err(why) = judged {
                    forbidden.insert(*address, why);
                }
                judged.is_ok()
            });
            Family::Found(addresses, life)
        }
        other => other,
    };
    let mut answer = Answer { v4: judged(answer.v4), v6: judged(answer.v6) };
    let is_reached = |address: &IpAddr| path(*address) != Path::Nowhere;
    let found = |family: &Family| match family {
        Family::Found(addresses, _) => addresses.clone(),
        Family::None | Family::Failed(_) => Vec::new(),
    };
    if found(&answer.v4).iter().chain(&found(&answer.v6)).any(is_reached) {
        for family in [&mut answer.v4, &mut answer.v6] {
            if let Family::Found(addresses, _) = family {
                addresses.retain(is_reached);
            }
        }
    }
    (answer, forbidden)
}

#[cfg(test)]
mod tests;
