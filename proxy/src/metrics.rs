//! Metrics: what workers count while they serve, and what became of configurations.
//!
//! Each worker counts in cells of its own with relaxed atomics, so that counting shares no cache line;
//! a scrape adds the cells up ([`text`]). The compiler resolves a route's [`RouteMetrics`] once.
//! Made beside the tree: no restart of an actor resets a count. It knows nothing of HTTP but a status.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use proxy_config::name::UnitId;

use crate::http::respond::Reason;
use crate::listen::admission::Refused;

pub mod actors;
pub mod histogram;
pub mod names;
pub mod pushes;
pub mod streams;
pub mod text;
pub mod threads;

use histogram::Histogram;
use names::Names;
use pushes::Pushes;
use streams::Streams;

/// Routes with series of their own; those beyond share the series [`OVERFLOW`].
pub const MAX_ROUTES: usize = 10_000;

/// The name of the series that routes beyond [`MAX_ROUTES`] share.
pub const OVERFLOW: &str = "overflow";

/// The classes of status as the label `class` names them; the first holds what is none of the others.
pub const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// All metrics of a proxy.
#[derive(Debug)]
pub struct Metrics {
    workers: Box<[WorkerMetrics]>,
    routes: Mutex<BTreeMap<UnitId, Arc<RouteMetrics>>>,
    overflow: Arc<RouteMetrics>,
    /// Connections of clients that were not let in, by [`Refused`].
    pub turned_away: [AtomicU64; Refused::ALL.len()],
    /// What is counted of routes that know nothing of HTTP.
    pub streams: Streams,
    /// What became of names outside the cluster.
    pub names: Names,
    /// What became of configurations.
    pub pushes: Pushes,
}

impl Metrics {
    /// Metrics for that many workers, all zero.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers: (0..workers).map(|_| WorkerMetrics::default()).collect(),
            routes: Mutex::default(),
            overflow: Arc::new(RouteMetrics::new(OVERFLOW, workers)),
            turned_away: Default::default(),
            streams: Streams::default(),
            names: Names::default(),
            pushes: Pushes::default(),
        })
    }

    /// The cells of a worker, by its index.
    ///
    /// # Panics
    /// Where there are fewer workers.
    pub fn worker(&self, worker: usize) -> &WorkerMetrics {
        &self.workers[worker]
    }

    /// Counts a connection of a client that is not let in.
    pub fn turned_away(&self, refused: Refused) {
        self.turned_away[refused as usize].fetch_add(1, Relaxed);
    }

    /// The series of a route; it goes on where the route is compiled again.
    pub fn route(&self, id: &UnitId) -> Arc<RouteMetrics> {
        let mut routes = self.routes();
        if let Some(series) = routes.get(id) {
            return Arc::clone(series);
        }
        if routes.len() >= MAX_ROUTES {
            return Arc::clone(&self.overflow);
        }
        let name = id.as_str().strip_prefix("route/").unwrap_or(id.as_str());
        let series = Arc::new(RouteMetrics::new(name, self.workers.len()));
        routes.insert(id.clone(), Arc::clone(&series));
        series
    }

    /// The series to show now. A route that no table and no exchange holds any more is shown once more,
    /// with its last counts, then forgotten.
    fn scrape_routes(&self) -> Vec<Arc<RouteMetrics>> {
        let mut routes = self.routes();
        let mut shown: Vec<_> = routes.values().map(Arc::clone).collect();
        // One is the map's, one is in `shown`.
        routes.retain(|_, series| Arc::strong_count(series) > 2);
        shown.push(Arc::clone(&self.overflow));
        shown
    }

    /// The map is whole after each call, so a panic elsewhere leaves nothing half done.
    fn routes(&self) -> MutexGuard<'_, BTreeMap<UnitId, Arc<RouteMetrics>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one worker counts beside routes.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerMetrics {
    /// Connections of clients accepted.
    pub connections: AtomicU64,
    /// Connections of clients that are open.
    pub open_connections: AtomicI64,
    /// Requests that are being served.
    pub active_requests: AtomicI64,
    reasons: [AtomicU64; Reason::ALL.len()],
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self {
            connections: AtomicU64::default(),
            open_connections: AtomicI64::default(),
            active_requests: AtomicI64::default(),
            reasons: std::array::from_fn(|_| AtomicU64::default()),
        }
    }
}

impl WorkerMetrics {
    /// Counts an answer of the proxy's own, or an exchange that was cut short. Those that a route took
    /// are counted there too.
    pub fn refused(&self, reason: Reason) {
        self.reasons[reason as usize].fetch_add(1, Relaxed);
    }

    /// Counts a request as being served until the guard is dropped.
    pub fn active(&self) -> Active<'_> {
        change(&self.active_requests, 1);
        Active(self)
    }
}

/// A request that is being served.
#[derive(Debug)]
pub struct Active<'m>(&'m WorkerMetrics);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        change(&self.0.active_requests, -1);
    }
}

/// Adds to a count of which its worker is the only writer: without a locked instruction.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Relaxed).wrapping_add(more), Relaxed);
}

/// As [`add`], for what goes up and down.
fn change(count: &AtomicI64, by: i64) {
    count.store(count.load(Relaxed).wrapping_add(by), Relaxed);
}

/// The series of one route.
#[derive(Debug)]
pub struct RouteMetrics {
    name: Box<str>,
    /// One per worker, made at its first request: a route that is not used costs a pointer per worker.
    cells: Box<[OnceLock<Box<Cell>>]>,
}

#[derive(Debug, Default)]
struct Cell {
    classes: [AtomicU64; CLASSES.len()],
    durations: Histogram,
}

impl RouteMetrics {
    fn new(name: &str, workers: usize) -> Self {
        Self { name: name.into(), cells: (0..workers).map(|_| OnceLock::new()).collect() }
    }

    /// Counts an exchange at its end: the final status that the client was sent, and the time from the
    /// request's first byte to the response's last.
    pub fn record(&self, worker: usize, status: u16, duration: Duration) {
        let Some(cell) = self.cells.get(worker) else { return };
        let cell = cell.get_or_init(Box::default);
        let class = usize::from(status / 100);
        add(&cell.classes[if class < CLASSES.len() { class } else { 0 }], 1);
        cell.durations.observe(duration);
    }

    /// How many exchanges ended with a status of this class (`2` for 2xx), over all workers.
    pub fn count(&self, class: usize) -> u64 {
        self.used_cells().map(|cell| cell.classes[class].load(Relaxed)).sum()
    }

    fn used_cells(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter_map(OnceLock::get).map(|cell| &**cell)
    }
}
