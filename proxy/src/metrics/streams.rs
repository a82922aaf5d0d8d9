//! Streams and sessions: what is counted of routes that know nothing of HTTP.
//!
//! A connection counts twice in its life, so all workers share the cells of a route. The compiler resolves
//! them once.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proxy_config::name::UnitId;

use super::text::{Label, family};
use super::{MAX_ROUTES, OVERFLOW};

/// What became of a connection or session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was passed on to an endpoint.
    Forwarded,
    /// Its route names no backend for it, or one that can't be used.
    NoBackend,
    /// Its backend has no endpoint.
    NoEndpoint,
    /// No endpoint could be reached.
    Unreachable,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Forwarded, Self::NoBackend, Self::NoEndpoint, Self::Unreachable];

    /// The outcome as metrics name it.
    fn label(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::NoBackend => "no_backend",
            Self::NoEndpoint => "no_endpoint",
            Self::Unreachable => "unreachable",
        }
    }
}

/// The series of one route.
#[derive(Debug, Default)]
pub struct StreamMetrics {
    name: Box<str>,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    open: AtomicI64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl StreamMetrics {
    fn new(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.into(), ..Self::default() })
    }

    /// Counts what became of a connection or session.
    pub fn record(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
    }

    /// How often this became of one.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Relaxed)
    }

    /// Counts a connection or session as open until the guard is dropped.
    pub fn open(self: &Arc<Self>) -> OpenStream {
        self.open.fetch_add(1, Relaxed);
        OpenStream(Arc::clone(self))
    }

    /// Adds the bytes that were passed on, to the endpoint and to the client.
    pub fn moved(&self, sent: u64, received: u64) {
        self.sent.fetch_add(sent, Relaxed);
        self.received.fetch_add(received, Relaxed);
    }
}

/// A connection or session that is open.
#[derive(Debug)]
pub struct OpenStream(Arc<StreamMetrics>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// The series of all routes of streams and datagrams.
#[derive(Debug)]
pub struct Streams {
    routes: Mutex<BTreeMap<UnitId, Arc<StreamMetrics>>>,
    overflow: Arc<StreamMetrics>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { routes: Mutex::default(), overflow: StreamMetrics::new(OVERFLOW) }
    }
}

impl Streams {
    /// The series of a route; it goes on where the route is compiled again.
    pub fn of(&self, id: &UnitId) -> Arc<StreamMetrics> {
        let mut routes = self.routes();
        if let Some(series) = routes.get(id) {
            return Arc::clone(series);
        }
        if routes.len() >= MAX_ROUTES {
            return Arc::clone(&self.overflow);
        }
        let series = StreamMetrics::new(id.as_str().strip_prefix("route/").unwrap_or(id.as_str()));
        routes.insert(id.clone(), Arc::clone(&series));
        series
    }

    /// The series to show now. One that no route and no connection holds any more is shown once more.
    fn scrape(&self) -> Vec<Arc<StreamMetrics>> {
        let mut routes = self.routes();
        let mut shown: Vec<_> = routes.values().map(Arc::clone).collect();
        // One is the map's, one is in `shown`.
        routes.retain(|_, series| Arc::strong_count(series) > 2);
        shown.push(Arc::clone(&self.overflow));
        shown
    }

    /// The map is whole after each call, so a panic elsewhere leaves nothing half done.
    fn routes(&self) -> MutexGuard<'_, BTreeMap<UnitId, Arc<StreamMetrics>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Renders all series; nothing where no route of streams was ever used.
pub(super) fn render(out: &mut String, streams: &Streams) -> fmt::Result {
    let routes = streams.scrape();
    let used: Vec<_> =
        routes.iter().filter(|route| Outcome::ALL.iter().any(|outcome| route.count(*outcome) > 0)).collect();
    if used.is_empty() {
        return Ok(());
    }
    const TOTAL: &str = "portreeve_streams_total";
    family(out, TOTAL, "counter", "Connections and UDP sessions by route and by what became of them.")?;
    for route in &used {
        for outcome in Outcome::ALL.into_iter().filter(|outcome| route.count(*outcome) > 0) {
            let (name, label, count) = (Label(&route.name), outcome.label(), route.count(outcome));
            writeln!(out, "{TOTAL}{{route=\"{name}\",outcome=\"{label}\"}} {count}")?;
        }
    }
    const OPEN: &str = "portreeve_streams";
    family(out, OPEN, "gauge", "Connections and UDP sessions that are open, by route.")?;
    for route in &used {
        writeln!(out, "{OPEN}{{route=\"{}\"}} {}", Label(&route.name), route.open.load(Relaxed))?;
    }
    const BYTES: &str = "portreeve_stream_bytes_total";
    family(out, BYTES, "counter", "Bytes of ended connections and of UDP sessions, by route and direction.")?;
    for route in &used {
        for (direction, bytes) in [("sent", &route.sent), ("received", &route.received)] {
            let (name, bytes) = (Label(&route.name), bytes.load(Relaxed));
            writeln!(out, "{BYTES}{{route=\"{name}\",direction=\"{direction}\"}} {bytes}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proxy_config::name::ObjectName;

    use super::*;

    #[test]
    fn a_route_shows_its_connections_by_outcome_and_its_bytes() {
        let streams = Streams::default();
        let route = streams.of(&UnitId::route("TCPRoute", &ObjectName::new("shop", "db")));
        let _open = route.open();
        route.record(Outcome::Forwarded);
        route.record(Outcome::Unreachable);
        route.moved(3, 5);
        let mut text = String::new();
        render(&mut text, &streams).unwrap();
        for line in [
            "portreeve_streams_total{route=\"TCPRoute/shop/db\",outcome=\"forwarded\"} 1",
            "portreeve_streams_total{route=\"TCPRoute/shop/db\",outcome=\"unreachable\"} 1",
            "portreeve_streams{route=\"TCPRoute/shop/db\"} 1",
            "portreeve_stream_bytes_total{route=\"TCPRoute/shop/db\",direction=\"sent\"} 3",
            "portreeve_stream_bytes_total{route=\"TCPRoute/shop/db\",direction=\"received\"} 5",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
    }
}
