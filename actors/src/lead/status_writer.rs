//! Writes the statuses of GatewayClasses, Gateways and routes; nobody else does.
//!
//! Owns: what each status should say, and which objects have to be looked at.
//! Reads: the newest translation; what proxies have answered; the statuses that stand, as watched.
//! Writes: statuses, by patches that name the version which they change.
//! Rebuilt from: looking at every object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actors_core::snapshot::meta::{Kind, ObjectRef};
use actors_core::status::fleet::Finaliser;
use actors_core::status::merge::merge_status;
use actors_core::status::news::{News, news};
use actors_core::status::{DesiredStatus, StatusContent};
use actors_core::translate::Translation;
use jiff::Timestamp;
use kube::Client;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::Address;
use tokio::sync::watch;
use tokio::time::Instant;

use super::event_writer::{self, Told};
use super::fleet::{Since, fleet, next_verdict};
use super::pace::Pace;
use super::status_patch::{Outcome, Write, as_patch, overtaken};
use crate::metrics::Metrics;
use crate::observe::convert::parse_status;
use crate::observe::node_watcher::KnownProxies;
use crate::observe::stores::{ObjectVersion, Stores};
use crate::observe::translator::Newest;
use crate::push::acks::Acks;
use crate::push::proxy_client::NotLeading;
use crate::task::{Task, on_change, report};
use crate::term::{Leadership, Term};

/// How many statuses are written at once.
const AT_ONCE: usize = 8;
/// How many objects are looked at before other messages get their turn.
const LOOKS: usize = 256;
/// How long statuses wait for the proxies' answers to the push that made them.
const HOLD: Duration = Duration::from_secs(2);
/// For how long a route must not be ours before our entries are taken from it: the translation of one that
/// has just been seen may be on its way.
const LEAVE: Duration = Duration::from_secs(2);
/// How long to wait before an object is looked at again whose write failed.
const AGAIN: Duration = Duration::from_secs(1);

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// Something that statuses say may have changed.
    Changed,
    /// It is time to look at what waits.
    Due,
    /// A write ended.
    Written(ObjectRef, Outcome),
}

supervisor::message_names!(Msg { Changed, Due, Written });

/// What it needs.
#[derive(Clone)]
pub struct Args {
    /// The API server.
    pub client: Client,
    /// The controller's name, which marks our entries in a route's status.
    pub controller_name: Arc<str>,
    /// What is known, statuses included.
    pub stores: Stores,
    /// The newest translation.
    pub translation: watch::Receiver<Newest>,
    /// What proxies have answered.
    pub acks: watch::Receiver<Acks>,
    /// The known proxies.
    pub proxies: watch::Receiver<KnownProxies>,
    /// Who tells of what has changed.
    pub events: Address<event_writer::Msg>,
    /// Counts the resyncs.
    pub resync: watch::Receiver<u64>,
    /// Whether this process leads.
    pub leadership: watch::Receiver<Option<Leadership>>,
    /// What is counted.
    pub metrics: Metrics,
}

/// What it holds.
pub struct State {
    args: Args,
    term: Term,
    since: Instant,
    touched: watch::Receiver<u64>,
    /// What statuses should say.
    desired: Finaliser,
    /// Until when what changed waits for the proxies' answers.
    held: Option<Instant>,
    /// Whether every object has been looked at once in this term.
    begun: bool,
    /// Objects to look at, and from when on.
    noted: BTreeMap<ObjectRef, Instant>,
    /// Routes with entries of ours that are ours no longer, and since when.
    leaving: BTreeMap<ObjectRef, Instant>,
    writing: BTreeMap<ObjectRef, Task>,
    /// Objects that said what they should when they were looked at: in which version, and what that was.
    good: BTreeMap<ObjectRef, (ObjectVersion, Arc<DesiredStatus>)>,
    pace: Pace,
    wakes: Vec<Task>,
    timer: Option<Task>,
}

/// The actor.
#[derive(Debug)]
pub struct StatusWriter;

impl Actor for StatusWriter {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let term = Term::current(&args.leadership).ok_or(NotLeading)?;
        let now = Instant::now();
        myself.send_message(Msg::Changed)?;
        Ok(State {
            term,
            since: now,
            touched: args.stores.status_changes(),
            desired: Finaliser::default(),
            held: None,
            begun: false,
            noted: BTreeMap::new(),
            leaving: BTreeMap::new(),
            writing: BTreeMap::new(),
            good: BTreeMap::new(),
            pace: Pace::new(now),
            wakes: Vec::new(),
            timer: None,
            args,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Changed => state.reconsider(&myself),
            Msg::Due => state.pump(&myself),
            Msg::Written(object, outcome) => state.written(&myself, object, outcome),
        }
        Ok(())
    }
}

impl State {
    /// Works out anew what statuses should say, and notes the objects where that has changed.
    fn reconsider(&mut self, myself: &ActorRef<Msg>) {
        self.touched.borrow_and_update();
        self.args.proxies.borrow_and_update();
        self.args.acks.borrow_and_update();
        let translation = self.args.translation.borrow_and_update().clone();
        let now = Instant::now();
        if let Some(translation) = translation {
            self.desire(&translation, now);
        }
        for object in self.args.stores.take_touched() {
            self.note(object, now);
        }
        if self.args.resync.has_changed().unwrap_or(false) {
            self.args.resync.borrow_and_update();
            self.resync(now);
        }
        self.wakes = vec![
            on_change(myself, &self.args.resync, || Msg::Changed),
            on_change(myself, &self.touched, || Msg::Changed),
            on_change(myself, &self.args.translation, || Msg::Changed),
            on_change(myself, &self.args.acks, || Msg::Changed),
            on_change(myself, &self.args.proxies, || Msg::Changed),
        ];
        let next = next_verdict(&self.args.acks.borrow(), Since { begun: self.since, now });
        if let Some(at) = next {
            self.wakes.push(wake(myself, at, Msg::Changed));
        }
        self.pump(myself);
    }

    fn desire(&mut self, translation: &Translation, now: Instant) {
        let (fleet, settled) = {
            let (acks, proxies) = (self.args.acks.borrow(), self.args.proxies.borrow());
            fleet(translation, &acks, &proxies, Since { begun: self.since, now })
        };
        self.held = if settled { None } else { Some(self.held.unwrap_or(now + HOLD)) };
        let changed = self.desired.update(translation, &fleet);
        if !std::mem::replace(&mut self.begun, true) {
            // Routes and policies that are no longer ours may carry entries of an earlier term.
            for kind in Kind::ALL.into_iter().filter(|kind| kind.has_entries()) {
                for name in self.args.stores.versions(kind).into_keys() {
                    self.note(ObjectRef::new(kind, name), now);
                }
            }
        }
        for object in changed {
            self.note(object, now);
        }
    }

    /// Notes what has not been looked at as it stands, though nothing told of a change.
    fn resync(&mut self, now: Instant) {
        let mut left = self.desired.statuses().iter().peekable();
        let mut doubtful = Vec::new();
        // Both are in order: one walk along them instead of a search for each.
        self.good.retain(|object, (_, seen)| {
            while let Some((unseen, _)) = left.next_if(|(other, _)| *other < object) {
                doubtful.push(unseen.clone());
            }
            let found = left.next_if(|(other, _)| *other == object);
            doubtful.extend(found.filter(|(_, desired)| **desired != *seen).map(|_| object.clone()));
            found.is_some()
        });
        doubtful.extend(left.map(|(object, _)| object.clone()));
        let versions: Vec<_> = self.good.iter().map(|(object, (version, _))| (object, version)).collect();
        // In parts: the watchers write to the stores in between.
        for part in versions.chunks(LOOKS) {
            doubtful.extend(self.args.stores.outdated(part.iter().copied()).into_iter().cloned());
        }
        for object in doubtful {
            self.note(object, now);
        }
    }

    fn note(&mut self, object: ObjectRef, from: Instant) {
        self.noted.entry(object).or_insert(from);
    }

    /// Looks at what is noted and writes what differs, as fast as the pace allows.
    fn pump(&mut self, myself: &ActorRef<Msg>) {
        if !self.begun {
            return;
        }
        let now = Instant::now();
        if let Some(held) = self.held.filter(|held| *held > now) {
            self.timer = Some(wake(myself, held, Msg::Due));
            return;
        }
        let ready: Vec<_> = (self.noted.iter())
            .filter(|(object, from)| **from <= now && !self.writing.contains_key(*object))
            .map(|(object, _)| object.clone())
            .take(LOOKS)
            .collect();
        for object in ready {
            if self.writing.len() >= AT_ONCE {
                // The end of a write comes back here.
                self.timer = None;
                return;
            }
            if let Some(later) = self.pace.not_before(&object, now) {
                self.noted.insert(object, later);
                continue;
            }
            if let Some(later) = self.leaves(&object, now) {
                self.noted.insert(object, later);
                continue;
            }
            let Some(write) = self.look(&object) else {
                self.pace.settled(&object);
                self.noted.remove(&object);
                continue;
            };
            if let Err(later) = self.pace.take(&object, now) {
                self.timer = Some(wake(myself, later, Msg::Due));
                return;
            }
            self.noted.remove(&object);
            self.begin(myself, object, write);
        }
        let left = self.noted.iter().filter(|(object, _)| !self.writing.contains_key(*object));
        let next = left.map(|(_, from)| *from).min();
        self.timer = next.map(|next| wake(myself, next, Msg::Due));
    }

    /// What has to be written of an object; `None` where its status says what it should.
    fn look(&mut self, object: &ObjectRef) -> Option<Write> {
        let (version, generation, status) = self.args.stores.status(object)?;
        let desired = match self.desired.statuses().get(object) {
            Some(desired) => desired.clone(),
            None => self.nothing(object, &version.uid, status.as_ref())?,
        };
        if desired.uid != version.uid || overtaken(&desired, Some(generation)) {
            // Another object of that name, or another spec than the one that was translated. The translation
            // is about to follow; what stands may be from it already, written by another leader.
            return None;
        }
        let before = parse_status(status.as_ref());
        let Some(merged) = merge_status(&desired, &before, Timestamp::now()) else {
            self.good.insert(object.clone(), (version, desired));
            return None;
        };
        let news = news(&before, &merged);
        Some(Write { object: object.clone(), version, desired, status: as_patch(&before, merged), news })
    }

    /// Until when a route that may have ceased to be ours is left alone, if that is not over.
    fn leaves(&mut self, object: &ObjectRef, now: Instant) -> Option<Instant> {
        if self.desired.statuses().contains_key(object) || !object.kind.has_entries() {
            self.leaving.remove(object);
            return None;
        }
        let since = *self.leaving.entry(object.clone()).or_insert(now);
        let later = Some(since + LEAVE).filter(|later| *later > now);
        if later.is_none() {
            self.leaving.remove(object);
        }
        later
    }

    /// What the status of a route or policy should say that is ours no longer, but still has entries of ours.
    fn nothing(
        &self,
        object: &ObjectRef,
        uid: &Arc<str>,
        status: Option<&Arc<str>>,
    ) -> Option<Arc<DesiredStatus>> {
        let controller = self.args.controller_name.clone();
        if !object.kind.has_entries() || !status?.contains(&*controller) {
            return None;
        }
        let content = match object.kind {
            Kind::BackendTlsPolicy | Kind::BackendTrafficPolicy => {
                StatusContent::Policy { controller, ancestors: Vec::new() }
            }
            Kind::Backend => StatusContent::Backend { controller, parents: Vec::new() },
            _ => StatusContent::Route { controller, parents: Vec::new() },
        };
        Some(Arc::new(DesiredStatus { observed_generation: 0, uid: uid.clone(), content }))
    }

    fn begin(&mut self, myself: &ActorRef<Msg>, object: ObjectRef, write: Write) {
        let (client, term, to) = (self.args.client.clone(), self.term.clone(), object.clone());
        let tell =
            |news: &News| Told { object: object.clone(), uid: write.version.uid.clone(), news: news.clone() };
        let told: Vec<_> = write.news.iter().map(tell).collect();
        let events = self.args.events.clone();
        let task = report(myself, async move {
            let outcome = write.run(&client, &term).await;
            if matches!(outcome, Outcome::Written) && !told.is_empty() {
                // Events are for people: where they can't be taken, the status has said it.
                let _ = events.send(event_writer::Msg::Tell(told));
            }
            Msg::Written(to, outcome)
        });
        self.writing.insert(object, task);
    }

    fn written(&mut self, myself: &ActorRef<Msg>, object: ObjectRef, outcome: Outcome) {
        self.writing.remove(&object);
        self.args.metrics.status_written(object.kind.as_str(), outcome.name());
        let now = Instant::now();
        match outcome {
            Outcome::Written | Outcome::Unneeded => {
                self.pace.succeeded();
                self.pace.settled(&object);
            }
            // What stands in its place is about to be watched.
            Outcome::Gone => self.pace.settled(&object),
            // A term that has really ended takes this branch with it; one whose renewal was late goes on.
            Outcome::Conflict | Outcome::Expired => self.note(object, now + AGAIN),
            Outcome::Failed(why) => {
                tracing::warn!(%object, why, "a status can't be written: it is tried again");
                self.pace.slow_down(now);
                self.note(object, now + AGAIN);
            }
            Outcome::Refused(why) => {
                let again = self.pace.refused(&object, now);
                tracing::warn!(%object, why, wait = ?(again - now), "a status is refused: it is tried again");
                self.note(object, again);
            }
        }
        self.pump(myself);
    }
}

fn wake(myself: &ActorRef<Msg>, at: Instant, message: Msg) -> Task {
    report(myself, async move {
        tokio::time::sleep_until(at).await;
        message
    })
}
