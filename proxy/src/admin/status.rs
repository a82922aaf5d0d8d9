//! The status port: health, readiness, metrics and the live tree. Read-only, and without secrets or
//! configuration: anybody may see it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use supervisor::LiveTree;
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::accept::{CONNECTION_WITHIN, Port, accept, answer_for};
use crate::config_store::in_force::{InForce, Source};
use crate::handover::turn::Turns;
use crate::listen::drain::Drain;
use crate::metrics::{Metrics, actors, text, threads};
use crate::watchdog::Watchdog;

/// What the status port shows.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) identity: Arc<str>,
    pub(super) in_force: watch::Receiver<Arc<InForce>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: Arc<Drain>,
    pub(super) watchdog: Arc<Watchdog>,
    /// Known once the tree runs.
    pub(super) live: Arc<OnceLock<LiveTree>>,
    /// Whether it is this process that serves the node.
    pub(super) turns: Turns,
}

/// Serves the status port until it is dropped.
pub(super) async fn serve(port: Port, status: Status) -> io::Result<()> {
    let router = router(status);
    accept(|| port.next(), |(stream, peer)| answer_for(CONNECTION_WITHIN, stream, peer, router.clone())).await
}

/// Serves the same on a Unix socket, for probes: whoever has the port, this process answers.
pub(super) async fn serve_locally(listener: UnixListener, status: Status) -> io::Result<()> {
    let router = router(status);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    accept(|| listener.accept(), |(stream, _)| answer_for(CONNECTION_WITHIN, stream, peer, router.clone()))
        .await
}

fn router(status: Status) -> Router {
    Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/supervision", get(supervision))
        .with_state(status)
}

/// Healthy is a proxy whose every thread comes round; one that does not would fail its clients for good.
async fn healthy(State(status): State<Status>) -> (StatusCode, String) {
    let stalled: Vec<&str> =
        status.watchdog.threads().filter(|(_, is_stalled)| *is_stalled).map(|(name, _)| name).collect();
    match stalled.as_slice() {
        [] => (StatusCode::OK, "ok\n".to_owned()),
        names => (StatusCode::SERVICE_UNAVAILABLE, format!("stalled: {}\n", names.join(", "))),
    }
}

async fn ready(State(status): State<Status>) -> (StatusCode, &'static str) {
    if *status.drain.draining().borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if !status.turns.is_ours() {
        (StatusCode::SERVICE_UNAVAILABLE, "another proxy serves this node\n")
    } else if status.in_force.borrow().is_some() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no configuration yet\n")
    }
}

async fn metrics(State(status): State<Status>) -> impl IntoResponse {
    let mut shown = text::render(&status.metrics);
    shown.push_str(&threads::render(&status.watchdog));
    if let Some(live) = status.live.get() {
        shown.push_str(&actors::render(&live.snapshot()));
    }
    ([(CONTENT_TYPE, text::CONTENT_TYPE)], shown)
}

#[derive(Debug, Default, Deserialize)]
struct Format {
    format: Option<String>,
}

async fn supervision(
    State(status): State<Status>,
    Query(Format { format }): Query<Format>,
    headers: HeaderMap,
) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let as_json = format.map_or_else(|| accept.contains("application/json"), |format| format == "json");
    if !as_json {
        return Html(supervisor::page()).into_response();
    }
    match status.live.get() {
        Some(live) => {
            let shown = json!({ "tree": live.snapshot(), "facts": status.facts() });
            ([(CACHE_CONTROL, "no-store")], Json(shown)).into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "the tree is starting\n").into_response(),
    }
}

impl Status {
    fn facts(&self) -> Value {
        let in_force = self.in_force.borrow().clone();
        let source = match in_force.source {
            Source::Nothing => "none yet",
            Source::Disk => "last good, from disk",
            Source::Controller => "controller",
        };
        let confirmed = in_force.confirmed.map(|at| {
            let age = SystemTime::now().duration_since(at).unwrap_or_default();
            format!("{} s ago", age.as_secs())
        });
        let broken: Vec<String> =
            in_force.broken.iter().map(|broken| format!("{}: {}", broken.unit, broken.reason)).collect();
        json!({
            "process": "proxy",
            "proxy": self.identity,
            "configuration": {
                "term": in_force.version.term,
                "generation": in_force.version.generation,
                "root": in_force.units.root(),
                "units": in_force.units.len(),
                "from": source,
                "confirmed": confirmed,
                "broken": broken,
            },
            "draining": *self.drain.draining().borrow(),
            "open connections": self.drain.open(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::Limits;

    #[tokio::test]
    async fn a_proxy_is_healthy_for_as_long_as_every_thread_comes_round() {
        let names = ["control", "worker-0"].map(str::to_owned);
        let watchdog = Watchdog::start(names, Duration::from_millis(50)).unwrap();
        let status = Status {
            identity: "edge-1".into(),
            in_force: watch::Sender::default().subscribe(),
            metrics: Metrics::new(1),
            drain: Arc::new(Drain::new(&Limits::new(1))),
            watchdog: watchdog.clone(),
            live: Arc::default(),
            turns: Turns::new(crate::handover::turn::Turn::Ours),
        };
        assert_eq!(healthy(State(status.clone())).await.0, StatusCode::OK);
        let heart = watchdog.heart("worker-0");
        while watchdog.threads().all(|(_, is_stalled)| !is_stalled) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (code, text) = healthy(State(status.clone())).await;
        assert_eq!((code, text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "stalled: worker-0\n"));
        let shown = threads::render(&watchdog);
        assert!(shown.contains("portreeve_thread_stalled{thread=\"worker-0\"} 1\n"), "{shown}");
        assert!(shown.contains("portreeve_thread_stalled{thread=\"control\"} 0\n"), "{shown}");
        drop(heart);
        while healthy(State(status.clone())).await.0 != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
