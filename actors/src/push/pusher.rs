//! Decides what is pushed under this term, and to whom.
//!
//! Owns: whether this leader may push yet.
//! Reads: the newest translation; the known proxies; the API server, once, to see that nothing held is old.
//! Writes: what is to be pushed; which proxy clients there should be.
//! Rebuilt from: the translation and the stores.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actors_core::snapshot::meta::{Kind, ObjectRef};
use imbl::OrdSet;
use kube::Client;
use proxy_config::name::ObjectName;
use proxy_config::wire::Version;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::{Address, Child};
use tokio::sync::watch;

use super::freshness::{Listed, behind, list};
use super::proxy_client::{self, NotLeading, Outgoing, ProxyClient};
use super::session::Target;
use crate::observe::node_watcher::{KnownProxies, KnownProxy};
use crate::observe::resource::Resource;
use crate::observe::stores::Stores;
use crate::observe::translator::Newest;
use crate::observe::{route_watcher, watch as watching};
use crate::retry::{Retry, chain};
use crate::task::{Task, on_change, report};
use crate::term::Term;
use crate::tree::STEP_DOWN;

/// How long a watch may take to deliver what a list has shown, before its kind is listed again.
const CATCH_UP: Duration = Duration::from_secs(3);
/// It doubles with each round, up to this.
const CATCH_UP_LONGEST: Duration = Duration::from_secs(24);
/// How long what Secrets hold now is waited for.
const CONTENTS: Duration = Duration::from_secs(5);

/// A kind that is watched, and its watcher.
#[derive(Clone, Debug)]
pub struct Watched {
    /// How it is asked for.
    pub resource: Resource,
    /// Its watcher.
    pub watcher: Address<watching::Msg>,
}

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// All that is held is at least as new as what the API server listed.
    Fresh,
    /// The translation or the proxies may have changed.
    Changed,
}

supervisor::message_names!(Msg { Fresh, Changed });

/// What it needs.
#[derive(Clone)]
pub struct Args {
    /// The API server.
    pub client: Client,
    /// What is watched; empty where nothing is, and there is nothing to compare with.
    pub watched: Vec<Watched>,
    /// What is known.
    pub stores: Stores,
    /// Counts the snapshots of the process.
    pub generation: Arc<AtomicU64>,
    /// Who joins the stores into a snapshot.
    pub route_watcher: Address<route_watcher::Msg>,
    /// The Secrets and ConfigMaps that are to be read.
    pub wanted: watch::Receiver<OrdSet<ObjectRef>>,
    /// The newest translation.
    pub translation: watch::Receiver<Newest>,
    /// The known proxies.
    pub proxies: watch::Receiver<KnownProxies>,
    /// What is to be pushed.
    pub outgoing: watch::Sender<Option<Arc<Outgoing>>>,
    /// Which clients there should be.
    pub clients: watch::Sender<Arc<BTreeMap<String, Child>>>,
    /// What every client needs, whose proxy is put in here.
    pub client_args: ClientArgs,
}

/// What every client needs besides its proxy.
pub type ClientArgs = Arc<dyn Fn(KnownProxy) -> proxy_client::Args + Send + Sync>;

/// What it holds.
pub struct State {
    args: Args,
    term: Term,
    /// Only translations after this generation are pushed; `None` until the stores are known to be fresh.
    after: Option<u64>,
    known: KnownProxies,
    waiting: Vec<Task>,
}

/// The actor.
#[derive(Debug)]
pub struct Pusher;

impl Actor for Pusher {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let client = (args.client_args)(nobody());
        let term = Term::current(&client.leadership).ok_or(NotLeading)?;
        client.board.clear();
        args.outgoing.send_replace(None);
        args.clients.send_replace(Arc::default());
        let (fresh, term_number) = (args.clone(), term.number());
        let checking = report(&myself, async move {
            let began = tokio::time::Instant::now();
            freshen(&fresh).await;
            tracing::info!(term = term_number, took = ?began.elapsed(), "what is held is fresh: pushes begin");
            Msg::Fresh
        });
        Ok(State { args, term, after: None, known: Arc::default(), waiting: vec![checking] })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Fresh => state.begin(&myself),
            Msg::Changed => state.publish(&myself),
        }
        Ok(())
    }
}

impl State {
    /// From now on: what is translated from a snapshot that is taken from now on.
    fn begin(&mut self, myself: &ActorRef<Msg>) {
        self.after = Some(self.args.generation.load(Ordering::Acquire));
        if self.args.route_watcher.send(route_watcher::Msg::Changed).is_err() {
            // It is being restarted, and will join anew by itself.
            tracing::debug!("the join of the stores is restarting");
        }
        self.publish(myself);
    }

    fn publish(&mut self, myself: &ActorRef<Msg>) {
        self.publish_outgoing();
        self.publish_clients();
        self.waiting = vec![
            on_change(myself, &self.args.translation, || Msg::Changed),
            on_change(myself, &self.args.proxies, || Msg::Changed),
        ];
    }

    fn publish_outgoing(&mut self) {
        let newest = self.args.translation.borrow_and_update().clone();
        let Some(translation) = newest.filter(|new| self.after.is_some_and(|after| new.generation > after))
        else {
            return;
        };
        let version = Version { term: self.term.number(), generation: translation.generation };
        let target = Target { version, units: translation.units.clone(), keep: translation.waiting.clone() };
        self.args.outgoing.send_if_modified(|outgoing| {
            let same = |old: &Target| old.units.root() == target.units.root() && old.keep == target.keep;
            let news = outgoing.as_ref().is_none_or(|old| !same(&old.target));
            if news {
                let traceparent = traceparent();
                tracing::info!(
                    generation = version.generation,
                    term = version.term,
                    traceparent,
                    "a new configuration"
                );
                *outgoing = Some(Arc::new(Outgoing { target, traceparent }));
            }
            news
        });
    }

    fn publish_clients(&mut self) {
        let known = self.args.proxies.borrow_and_update().clone();
        if known == self.known {
            return;
        }
        for old in self.known.values() {
            let now = known.get(&old.identity);
            let client = (self.args.client_args)(old.clone());
            if now.is_none() {
                client.board.forget(&old.identity);
            }
            if now.is_none_or(|now| now.name != old.name) {
                client.metrics.forget_proxy(&old.name);
            }
        }
        let clients = known.values().map(|proxy| (proxy.identity.clone(), self.client(proxy))).collect();
        self.args.clients.send_replace(Arc::new(clients));
        self.known = known;
    }

    /// The client of a proxy; one that is found elsewhere gets another.
    fn client(&self, proxy: &KnownProxy) -> Child {
        let mut revision = DefaultHasher::new();
        (&proxy.admin, &proxy.name).hash(&mut revision);
        let (make, proxy) = (self.args.client_args.clone(), proxy.clone());
        let name = proxy.identity.clone();
        supervisor::worker(&name, &Address::new(), move || (ProxyClient, make(proxy.clone())))
            .shutdown(STEP_DOWN)
            .revision(revision.finish())
    }
}

/// Waits until all that is held is at least as new as what the API server lists now.
async fn freshen(args: &Args) {
    let kinds = args.watched.iter().map(|watched| freshen_kind(args, watched));
    futures_util::future::join_all(kinds).await;
    if !args.watched.is_empty() {
        contents_are_read(&args.stores, &args.wanted).await;
    }
}

/// Waits until what is used of Secrets and ConfigMaps is of the versions that are held: a certificate that was
/// replaced under the leader before must not come back. One that changes all the time holds up nobody for long.
async fn contents_are_read(stores: &Stores, wanted: &watch::Receiver<OrdSet<ObjectRef>>) {
    let unanswered = || stores.unanswered(wanted.borrow().iter()).cloned();
    if let Some(object) = left_after(CONTENTS, Duration::from_millis(5), unanswered).await {
        tracing::warn!(%object, "what it holds now has not been read: pushes begin with what was read before");
    }
}

/// What is deleted after a list will never be held: each round compares with a list of its own.
async fn freshen_kind(args: &Args, Watched { resource, watcher }: &Watched) {
    let mut retry = Retry::new();
    let mut patience = CATCH_UP;
    loop {
        let listed = match list(&args.client, resource).await {
            Ok(Some(listed)) => listed,
            Ok(None) => return,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(kind = %resource.kind, error, "can't compare with the API server: tried again");
                retry.wait().await;
                continue;
            }
        };
        retry.reset();
        let Some(object) = still_behind(&args.stores, resource.kind, &listed, patience).await else { return };
        tracing::warn!(kind = %resource.kind, %object, "what is held is old: it is listed again");
        // A watcher that is restarting lists by itself.
        let _ = watcher.send(watching::Msg::Relist);
        // A long list must not be cut off by the next round for ever.
        patience = (patience * 2).min(CATCH_UP_LONGEST);
    }
}

/// Waits until what is held is as new as what was listed; an object that is still older after this long.
async fn still_behind(
    stores: &Stores,
    kind: Kind,
    listed: &Listed,
    patience: Duration,
) -> Option<ObjectName> {
    left_after(patience, Duration::from_millis(250), || behind(&stores.versions(kind), listed)).await
}

/// Asks until nothing is left; what still is after this long. Versions move without anything that is used changing,
/// so there is no channel to wait on.
async fn left_after<T>(
    patience: Duration,
    longest_pause: Duration,
    mut left: impl FnMut() -> Option<T>,
) -> Option<T> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut pause = Duration::from_millis(10);
    loop {
        let left = left()?;
        if tokio::time::Instant::now() >= deadline {
            return Some(left);
        }
        pause = pause.min(longest_pause);
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// A new trace context (W3C Trace Context, version 00, sampled).
fn traceparent() -> String {
    let (trace, span): (u128, u64) = (rand::random(), rand::random());
    format!("00-{trace:032x}-{span:016x}-01")
}

/// Stands in for a proxy where only what all clients share is wanted.
fn nobody() -> KnownProxy {
    KnownProxy { identity: String::new(), name: String::new(), admin: ([0, 0, 0, 0], 0).into(), ready: false }
}
