//! The status port: health, readiness, metrics and the live tree. Read-only, and without secrets or
//! configuration: anybody may see it.

use std::io;
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
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::accept::{CONNECTION_WITHIN, accept, answer_for};
use crate::config_store::in_force::{InForce, Source};
use crate::listen::drain::Drain;
use crate::metrics::{Metrics, actors, text};

/// What the status port shows.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) identity: Arc<str>,
    pub(super) in_force: watch::Receiver<Arc<InForce>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: Arc<Drain>,
    /// Known once the tree runs.
    pub(super) live: Arc<OnceLock<LiveTree>>,
}

/// Serves the status port until it is dropped.
pub(super) async fn serve(listener: TcpListener, status: Status) -> io::Result<()> {
    let router = router(status);
    accept(listener, |stream, peer| answer_for(CONNECTION_WITHIN, stream, peer, router.clone())).await
}

fn router(status: Status) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/supervision", get(supervision))
        .with_state(status)
}

async fn ready(State(status): State<Status>) -> (StatusCode, &'static str) {
    if *status.drain.draining().borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if status.in_force.borrow().is_some() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no configuration yet\n")
    }
}

async fn metrics(State(status): State<Status>) -> impl IntoResponse {
    let mut shown = text::render(&status.metrics);
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
