//! What a connection works with.
//!
//! [`Shared`] is one per proxy, made beside the tree. [`Context`] is one per worker and never leaves its
//! thread: the cached table, the pool, the switch of the drain; [`Client`] one per connection. Made by
//! the worker, borrowed by the codecs of both protocols (`h1::serve(stream, client, context)`). Refuses to
//! know a protocol.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proxy_config::listener::Protocol;
use proxy_config::name::UnitId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::drain::Drain;
use super::handoff::{Load, Seats};
use super::tls::{Certificates, Terms, Tls, TlsSettings};
use crate::http::h1::buffer::Buffers;
use crate::http::standing::Standing;
use crate::http::timers::Timers;
use crate::limits::Limits;
use crate::metrics::{Metrics, WorkerMetrics};
use crate::table::clients::Clients;
use crate::table::{SharedTable, Table};
use crate::upstream::budget::Budget;
use crate::upstream::pool::Pool;

/// Who is at the other end of a connection, and how it came.
#[derive(Clone, Debug)]
pub struct Client {
    /// The client's address.
    pub peer: SocketAddr,
    /// The address and port that it connected to.
    pub local: SocketAddr,
    /// Whether it speaks TLS with us.
    pub secure: bool,
    /// The server name of the TLS handshake, lower case.
    pub sni: Option<Arc<str>>,
    /// The listener that its TLS handshake chose.
    pub listener: Option<UnitId>,
    /// How it was validated, where it was.
    pub validated: Option<Arc<Clients>>,
    /// When it was accepted: the timeout of the first head counts from here.
    pub accepted: Instant,
}

impl Client {
    /// One of which nothing but its addresses is known: no TLS has been spoken.
    pub fn in_clear(peer: SocketAddr, local: SocketAddr, accepted: Instant) -> Self {
        Self { peer, local, secure: false, sni: None, listener: None, validated: None, accepted }
    }
}

/// What all workers of a proxy share.
#[derive(Debug)]
pub struct Shared {
    /// The table in force.
    pub table: SharedTable,
    /// The workers' seats.
    pub seats: Arc<Seats>,
    /// The switches of a drain.
    pub drain: Arc<Drain>,
    /// What ends TLS.
    pub tls: Tls,
    /// Where is counted.
    pub metrics: Arc<Metrics>,
    /// What clients and endpoints are held to.
    pub limits: Limits,
    /// The connections to endpoints that it may have.
    pub upstreams: Arc<Budget>,
    /// Told by the config store when a table takes away something that was served.
    pub lost: watch::Sender<()>,
}

impl Shared {
    /// For one proxy.
    ///
    /// # Errors
    /// Where the system gives no randomness for ticket keys.
    pub fn new(
        table: SharedTable,
        seats: Arc<Seats>,
        drain: Arc<Drain>,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Result<Self, rustls::Error> {
        let tls = Tls::new(Arc::new(Current(table.clone())), TlsSettings::default())?;
        Ok(Self {
            table,
            seats,
            drain,
            tls,
            metrics,
            limits,
            upstreams: Budget::new(limits.upstream_connections),
            lost: watch::Sender::default(),
        })
    }
}

/// The certificates of the table in force.
struct Current(SharedTable);

impl Certificates for Current {
    fn terms(&self, local: SocketAddr, sni: Option<&str>) -> Option<Terms> {
        let table = self.0.load();
        let port = table.port(local)?;
        let chosen = port.chosen_by(sni)?;
        let http = chosen.protocol == Protocol::Https;
        Some(Terms { certificate: port.certificate(sni)?, http, clients: chosen.clients.cloned() })
    }

    fn tells_unknown_names(&self, local: SocketAddr) -> bool {
        self.0.load().port(local).is_some_and(|port| port.protocol() == Protocol::Https)
    }
}

/// What the connections of one worker share.
pub struct Context {
    worker: usize,
    shared: Arc<Shared>,
    table: RefCell<arc_swap::Cache<SharedTable, Arc<Table>>>,
    load: Arc<Load>,
    is_draining: Cell<bool>,
    is_stopping: Cell<bool>,
    /// The worker's idle connections to endpoints.
    pub pool: Rc<Pool>,
    /// The deadlines of the worker's connections.
    pub timers: Timers,
    /// The memory that they read into.
    pub buffers: Buffers,
}

impl Context {
    /// For one worker, on its own thread.
    pub fn new(worker: usize, load: Arc<Load>, shared: &Arc<Shared>) -> Self {
        Self {
            worker,
            table: RefCell::new(arc_swap::Cache::new(shared.table.clone())),
            load,
            is_draining: Cell::new(false),
            is_stopping: Cell::new(false),
            pool: Rc::new(Pool::new(shared.seats.len(), shared.upstreams.clone())),
            timers: Timers::default(),
            buffers: Buffers::default(),
            shared: shared.clone(),
        }
    }

    /// The number of the worker.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Reads the table in force, once per request; what is kept of it is an `Arc` of a part.
    pub fn table<R>(&self, read: impl FnOnce(&Table) -> R) -> R {
        read(self.table.borrow_mut().load())
    }

    /// What the proxy shares.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The cells in which this worker counts.
    pub fn metrics(&self) -> &WorkerMetrics {
        self.shared.metrics.worker(self.worker)
    }

    /// The worker's load: codecs count their streams there.
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// Whether connections are to end: answer with `Connection: close` or GOAWAY, close idle ones soon.
    pub fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Whether idle connections are to end at once.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    /// How long what is open may go on, by how it stands in the table in force; `None`: for good.
    pub fn time_left(&self, standing: impl FnOnce(&Table) -> Standing) -> Option<Duration> {
        match self.table(standing) {
            Standing::Stays => None,
            Standing::Ends => Some(self.shared.limits.close_within),
            Standing::Cut => Some(Duration::ZERO),
        }
    }

    /// Asks the connections of this worker to end.
    pub(crate) fn begin_drain(&self) {
        self.is_draining.set(true);
        self.timers.wake_all();
    }

    /// Asks the same, with little time left.
    pub(crate) fn stop(&self) {
        self.is_stopping.set(true);
        self.begin_drain();
    }

    /// Asks what is open on this worker to look whether it is still served.
    pub(super) fn look_for_losses(&self) {
        self.timers.ask_all();
    }

    /// Lets go of what has been idle for too long.
    pub(super) fn tidy(&self) {
        self.pool.sweep(std::time::Instant::now());
    }
}
