//! The Kubernetes API in memory: a tower service with faults, for tests under paused time and for the demo.
//!
//! Owns one API server's whole state, shared by cloneable handles; nothing is global, so any number run in one process.
//! Called in process by [`kube::Client`]s, or over loopback HTTP. It refuses to know Portreeve: what it serves is Kubernetes
//! as far as the README of this crate says, and the contract tests hold it to the real API server.

mod access_log;
mod admission;
mod apply;
mod call;
mod clock;
mod crds;
mod discovery;
mod faults;
mod kinds;
mod managed;
mod manifests;
mod object;
mod patch;
mod refusal;
mod schema;
mod selector;
mod serve;
mod service;
mod state;
mod store;
mod watching;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::watch;

pub use access_log::Access;
pub use call::Verb;
pub use crds::Channel;
pub use faults::{Fault, Faults, How, Matcher, Rule};
pub use manifests::ManifestError;
pub use refusal::Cause;
pub use serve::Server;
pub use service::{ApiService, Body, Broken};

use access_log::AccessLog;
use admission::Leniency;
use call::Call;
use clock::Clock;
use faults::Plan;
use state::State;

/// How a sandbox is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Let EndpointSlices hold loopback addresses. The one difference from a real API server that is a choice: the demo's.
    pub loopback_endpoints: bool,
    /// Of uids and generated names.
    pub seed: u64,
    /// What the server's clock shows at first; `None` is the time of this machine.
    pub start: Option<Timestamp>,
    /// How many changes are kept before old revisions are Gone.
    pub history: usize,
    /// How often a watch that allows them gets a bookmark.
    pub bookmark_every: Duration,
    /// How many requests the access log keeps.
    pub access_log: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            loopback_endpoints: false,
            seed: 0,
            start: None,
            history: 10_000,
            bookmark_every: Duration::from_secs(60),
            access_log: 100_000,
        }
    }
}

/// One API server in memory. Clones are handles to the same one.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

/// Without the objects: some are Secrets.
impl fmt::Debug for Sandbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sandbox").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// What all handles, services and watches of one sandbox share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    /// The revision of the last write, for watches to wait on.
    pub(crate) changed: watch::Sender<u64>,
    clock: Clock,
    state: Mutex<State>,
    clients: Mutex<BTreeMap<String, Plan>>,
    log: Mutex<AccessLog>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn strike(&self, client: &str, call: &Call) -> Option<Fault> {
        let mut clients = self.clients();
        clients.get_mut(client)?.strike(call)
    }

    /// Changes when a client's watches are cut.
    pub(crate) fn cuts(&self, client: &str) -> watch::Receiver<u64> {
        self.clients().entry(client.to_owned()).or_default().cuts.subscribe()
    }

    pub(crate) fn log(&self, access: Access) {
        self.access_log().push(access);
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<String, Plan>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn access_log(&self) -> MutexGuard<'_, AccessLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sandbox {
    /// An API server with the built-in kinds and the namespaces that every cluster has.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let clock = Clock::starting_at(options.start.unwrap_or_else(Timestamp::now));
        let leniency = Leniency { loopback_endpoints: options.loopback_endpoints };
        let state = State::new(clock.clone(), leniency, options.history, options.seed);
        let shared = Shared {
            changed: watch::Sender::new(state.store.revision()),
            clock,
            state: Mutex::new(state),
            clients: Mutex::default(),
            log: Mutex::new(AccessLog::new(options.access_log)),
            options,
        };
        Self { shared: Arc::new(shared) }
    }

    /// A client without faults, named `test`. Needs a tokio runtime.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client_with("test", Faults::none())
    }

    /// A client of its own name, for which `faults` go wrong.
    #[must_use]
    pub fn client_with(&self, name: &str, faults: Faults) -> kube::Client {
        self.set_faults(name, faults);
        kube::Client::new(self.service(name), "default")
    }

    /// The API as this client reaches it.
    #[must_use]
    pub fn service(&self, client: &str) -> ApiService {
        ApiService::new(Arc::clone(&self.shared), client)
    }

    /// Replaces what goes wrong for a client from its next request on; watches that are open go on.
    pub fn set_faults(&self, client: &str, faults: Faults) {
        self.shared.clients().entry(client.to_owned()).or_default().set(faults);
    }

    /// Breaks all open watches of a client, as [`Faults::cut_off`] does its next requests.
    pub fn cut_watches(&self, client: &str) {
        let mut clients = self.shared.clients();
        clients.entry(client.to_owned()).or_default().cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What the wall clock of a client's machine shows: the server's, and the client's offset.
    #[must_use]
    pub fn clock_of(&self, client: &str) -> Timestamp {
        let offset = self.shared.clients().get(client).map(|plan| plan.faults.clock_offset);
        let now = self.shared.now();
        now.checked_add(offset.unwrap_or_default()).unwrap_or(now)
    }

    /// Forgets all history: watches and lists from older revisions are told 410 Gone.
    pub fn compact(&self) {
        let mut state = self.shared.lock();
        state.store.compact();
    }

    /// The requests so far, oldest first.
    #[must_use]
    pub fn accesses(&self) -> Vec<Access> {
        self.shared.access_log().all()
    }

    /// The requests since the last time, oldest first.
    #[must_use]
    pub fn take_accesses(&self) -> Vec<Access> {
        self.shared.access_log().take()
    }

    /// The revision of the last write.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.lock().store.revision()
    }
}
