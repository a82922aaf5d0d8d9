//! The port that anybody may read: health, readiness, metrics and the live tree; no configuration, no
//! secrets.

use std::io;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::Args;
use super::accept::{CONNECTION_WITHIN, accept, answer_for};
use crate::observe::node_watcher::KnownProxy;
use crate::observe::stores::Progress;
use crate::push::acks::Answers;
use crate::tree::edges::Edges;

/// Serves the port until it is dropped.
pub(super) async fn serve(listener: TcpListener, args: Args) -> io::Result<()> {
    let router = router(args);
    accept(listener, |stream, peer| answer_for(CONNECTION_WITHIN, stream, peer, router.clone())).await
}

fn router(args: Args) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/supervision", get(supervision))
        .with_state(args)
}

/// Ready once the cluster is known and translated, as follower too: then it could lead at once.
async fn ready(State(args): State<Args>) -> (StatusCode, String) {
    if args.edges.translation.borrow().is_some() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let waiting: Vec<_> = (args.edges.stores.progress().into_iter())
        .filter(|(_, progress)| *progress == Progress::Waiting)
        .map(|(kind, _)| kind.to_string())
        .collect();
    (StatusCode::SERVICE_UNAVAILABLE, format!("not everything has been listed yet: {}\n", waiting.join(", ")))
}

async fn metrics(State(args): State<Args>) -> Response {
    let Some(live) = args.live.get() else { return starting() };
    let leads = args.edges.leadership.borrow().map(|leadership| leadership.term);
    args.edges.metrics.leading(leads);
    ends(&args.edges, jiff::Timestamp::now());
    let text = args.edges.metrics.render(&live.snapshot());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// When certificates end, as of now.
fn ends(edges: &Edges, now: jiff::Timestamp) {
    let left = |until: jiff::Timestamp| until.duration_since(now).as_secs_f64();
    if let Some(translation) = edges.translation.borrow().clone() {
        let until = |seconds| jiff::Timestamp::from_second(seconds).ok().map(left);
        let ends = translation.expiries.iter();
        let ends = ends.filter_map(|(secret, validity)| Some((secret.to_string(), until(validity.until)?)));
        edges.metrics.certificates(ends);
    }
    let identity = edges.identity.borrow().as_ref().map(|identity| identity.not_after);
    if let Some(until) = identity.and_then(|until| jiff::Timestamp::try_from(until).ok()) {
        edges.metrics.identity(left(until));
    }
}

#[derive(Debug, Default, Deserialize)]
struct Format {
    format: Option<String>,
}

async fn supervision(
    State(args): State<Args>,
    Query(Format { format }): Query<Format>,
    headers: HeaderMap,
) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let as_json = format.map_or_else(|| accept.contains("application/json"), |format| format == "json");
    if !as_json {
        return Html(supervisor::page()).into_response();
    }
    let Some(live) = args.live.get() else { return starting() };
    let shown = json!({ "tree": live.snapshot(), "facts": facts(&args) });
    ([(CACHE_CONTROL, "no-store")], Json(shown)).into_response()
}

fn starting() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the tree is starting\n").into_response()
}

fn facts(args: &Args) -> Value {
    let edges = &args.edges;
    let standing = edges.standing.borrow().clone();
    let translation = edges.translation.borrow().clone();
    let (proxies, acks) = (edges.proxies.borrow().clone(), edges.board.read().borrow().clone());
    let now = Instant::now();
    let shown = proxies.values().map(|known| {
        let answers = acks.get(&known.identity);
        (known.name.clone(), proxy(known, answers, now))
    });
    let absent: Vec<_> = (edges.stores.progress().into_iter())
        .filter(|(_, progress)| *progress == Progress::Absent)
        .map(|(kind, _)| kind.to_string())
        .collect();
    json!({
        "process": "controller",
        "name": *args.name,
        "leadership": {
            "leads": edges.leadership.borrow().is_some(),
            "leader": standing.holder,
            "term": standing.term,
        },
        "configuration": {
            "generation": translation.as_ref().map(|translation| translation.generation),
            "root": translation.as_ref().map(|translation| translation.units.root()),
            "units": translation.as_ref().map(|translation| translation.units.len()),
            "objects with problems": translation.as_ref().map(|translation| translation.problems.len()),
        },
        "proxies": shown.collect::<Map<_, _>>(),
        "kinds not installed": absent,
    })
}

/// A proxy as the leader knows it; a follower knows where it is, and no more.
fn proxy(known: &KnownProxy, answers: Option<&Answers>, now: Instant) -> Value {
    let acked = answers.and_then(|answers| answers.acked.as_ref());
    json!({
        "admin": known.admin,
        "ready": known.ready,
        "term": acked.map(|acked| acked.version.term),
        "generation": acked.map(|acked| acked.version.generation),
        "root": acked.map(|acked| acked.units.root()),
        "broken units": acked.map(|acked| acked.broken.len()),
        "silent": answers.is_some_and(|answers| answers.is_silent(now)),
        "failure": answers.and_then(|answers| answers.refused.clone().or_else(|| answers.failure.clone())),
    })
}
