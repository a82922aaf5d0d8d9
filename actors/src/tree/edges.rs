//! What outlives the actors: the channels and stores that state flows through, made once beside the tree.
//! Called where the tree is made, which gives clones to each (re)start; read by pages and tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use actors_core::snapshot::Snapshot;
use actors_core::snapshot::meta::{Kind, ObjectRef};
use imbl::OrdSet;
use supervisor::{Address, Child, Gate};
use tokio::sync::watch;

use crate::lead::event_writer;
use crate::lease_leader::Standing;
use crate::metrics::Metrics;
use crate::observe::node_watcher::{self, KnownProxies};
use crate::observe::resource::Resource;
use crate::observe::route_watcher;
use crate::observe::stores::Stores;
use crate::observe::translator::Newest;
use crate::push::acks::Board;
use crate::push::identity::Identity;
use crate::push::proxy_client::Outgoing;
use crate::push::pusher::Watched;
use crate::settings::{Fleet, Settings};
use crate::term::Leadership;

/// What outlives the actors: the state that flows between them.
#[derive(Clone, Debug)]
pub struct Edges {
    /// What is known of the cluster.
    pub stores: Stores,
    /// Counts the snapshots of the process.
    pub generation: Arc<AtomicU64>,
    /// The newest snapshot.
    pub snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    /// Counts the resyncs: all is looked at again though nothing has changed.
    pub resync: watch::Sender<u64>,
    /// The newest translation.
    pub translation: watch::Sender<Newest>,
    /// The Secrets that are to be read.
    pub wanted: watch::Sender<OrdSet<ObjectRef>>,
    /// The known proxies.
    pub proxies: watch::Sender<KnownProxies>,
    /// The controller's own identity.
    pub identity: watch::Sender<Option<Arc<Identity>>>,
    /// Whether this process leads, and until when.
    pub leadership: watch::Sender<Option<Leadership>>,
    /// The same as a gate for what only a leader runs.
    pub gate: watch::Sender<Gate>,
    /// How the Lease stands, for pages.
    pub standing: watch::Sender<Standing>,
    /// How many branches exist of what only a leader runs.
    pub acting: watch::Sender<usize>,
    /// Set when they have not stopped in time: the process must exit.
    pub overrun: watch::Sender<bool>,
    /// The highest term that a proxy has named.
    pub highest_term: watch::Sender<u64>,
    /// What is to be pushed.
    pub outgoing: watch::Sender<Option<Arc<Outgoing>>>,
    /// Which proxy clients there should be.
    pub clients: watch::Sender<Arc<BTreeMap<String, Child>>>,
    /// What proxies have answered.
    pub board: Board,
    /// Who tells of trouble by Events.
    pub events: Address<event_writer::Msg>,
    /// What is counted.
    pub metrics: Metrics,
    /// The join of the stores, which a new leader asks to join anew.
    pub route_watcher: Address<route_watcher::Msg>,
    /// The watchers, which are asked to list anew.
    pub watched: Vec<Watched>,
}

impl Edges {
    /// Nothing is known yet.
    pub fn new(settings: &Settings) -> Self {
        let resources = resources(&settings.fleet);
        let stores = Stores::new(resources.iter().map(|resource| resource.kind));
        if let Fleet::Named(names) = &settings.fleet {
            stores.writer(Kind::Proxy).replace(node_watcher::named(names));
        }
        let watched = resources.into_iter().map(|resource| Watched { resource, watcher: Address::new() });
        Self {
            stores,
            generation: Arc::default(),
            snapshot: watch::Sender::default(),
            resync: watch::Sender::default(),
            translation: watch::Sender::default(),
            wanted: watch::Sender::default(),
            proxies: watch::Sender::default(),
            identity: watch::Sender::default(),
            leadership: watch::Sender::default(),
            gate: watch::Sender::default(),
            standing: watch::Sender::default(),
            acting: watch::Sender::default(),
            overrun: watch::Sender::default(),
            highest_term: watch::Sender::default(),
            outgoing: watch::Sender::default(),
            clients: watch::Sender::default(),
            board: Board::new(),
            events: Address::new(),
            metrics: Metrics::new(),
            route_watcher: Address::new(),
            watched: watched.collect(),
        }
    }
}

fn resources(fleet: &Fleet) -> Vec<Resource> {
    let named = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Proxy).map(Resource::of);
    match fleet {
        Fleet::Pods(pods, _) => named.chain([Resource::proxies(pods.clone())]).collect(),
        Fleet::Named(_) => named.collect(),
    }
}
