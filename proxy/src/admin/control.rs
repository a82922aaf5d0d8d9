//! The admin port: pushes, what is in force, recompiling. Only controllers get here (mutual TLS).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use rustls::ServerConfig;
use serde_json::{Value, json};
use supervisor::Address;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use proxy_config::name::UnitKind;
use proxy_config::unit::EncodedUnit;
use proxy_config::wire::{MAX_PUSH_BYTES, Nack, NackReason, Push, Reply};

use super::accept::{Port, accept, answer};
use crate::config_store;
use crate::config_store::in_force::InForce;
use crate::metrics::Metrics;

/// How long the config store may take with a push.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How long a handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// How long a push may take to come: the controller waits no longer for its answer.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// What the admin port answers from.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) identity: Arc<str>,
    pub(super) store: Address<config_store::Msg>,
    pub(super) in_force: watch::Receiver<Arc<InForce>>,
    pub(super) metrics: Arc<Metrics>,
}

/// Serves the admin port until it is dropped.
pub(super) async fn serve(
    port: Port,
    tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    control: Control,
) -> io::Result<()> {
    let router = router(control);
    accept(
        || port.next(),
        |(stream, peer)| {
            // The identity of this moment.
            let tls = tls.borrow().clone().map(TlsAcceptor::from);
            connection(stream, peer, tls, router.clone())
        },
    )
    .await
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, router: Router) {
    // Without an identity of our own there is nothing to say yet: controllers try again.
    let Some(tls) = tls else { return };
    match timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await {
        Ok(Ok(stream)) => answer(stream, peer, router).await,
        Ok(Err(error)) => warn!(%peer, %error, "handshake on the admin port failed"),
        Err(_) => warn!(%peer, "handshake on the admin port took too long"),
    }
}

fn router(control: Control) -> Router {
    Router::new()
        .route("/push", post(push).layer(DefaultBodyLimit::max(MAX_PUSH_BYTES)))
        .route("/config", get(config))
        .route("/reload", post(reload))
        .with_state(control)
}

async fn push(State(control): State<Control>, request: Request) -> Response {
    let body = match timeout(BODY_WITHIN, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(refused)) => return refused.into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the push did not come in time\n").into_response(),
    };
    let push: Push = match serde_json::from_slice(&body) {
        Ok(push) => push,
        Err(error) => return Json(control.malformed(error.to_string())).into_response(),
    };
    let store = &control.store;
    match store.ask(ANSWER_WITHIN, |reply| config_store::Msg::Apply(Box::new(push), reply)).await {
        Ok(reply) => Json(reply).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

impl Control {
    fn malformed(&self, reason: String) -> Reply {
        let version = self.in_force.borrow().version;
        let reason = NackReason::Malformed(reason);
        let reply = Reply::Nack(Nack { proxy: self.identity.to_string(), version, reason });
        self.metrics.pushes.answered(&reply);
        reply
    }
}

async fn reload(State(control): State<Control>) -> Response {
    match control.store.ask(ANSWER_WITHIN, config_store::Msg::Recompile).await {
        Ok(ack) => Json(ack).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

async fn config(State(control): State<Control>) -> Json<Value> {
    let in_force = control.in_force.borrow().clone();
    Json(json!({
        "proxy": control.identity,
        "version": in_force.version,
        "root": in_force.units.root(),
        "broken": in_force.broken,
        "units": in_force.units.iter().map(shown).collect::<Vec<_>>(),
    }))
}

/// A unit as it may be shown: private keys and what this version does not know stay hidden.
fn shown(unit: &EncodedUnit) -> Value {
    let hidden = matches!(unit.id.kind(), None | Some(UnitKind::Key));
    let body = if hidden { json!("redacted") } else { json!(*unit.body) };
    json!({ "id": unit.id, "hash": unit.hash, "body": body })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::{StreamExt, stream};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_push_that_stops_half_way_is_given_up() {
        let control = Control {
            identity: "edge-1".into(),
            store: Address::new(),
            in_force: watch::Sender::default().subscribe(),
            metrics: Metrics::new(1),
        };
        let begun = stream::once(async { Ok::<_, io::Error>("{\"wire\":") });
        let request = Request::new(Body::from_stream(begun.chain(stream::pending())));
        let answer = push(State(control), request);
        let answer = timeout(BODY_WITHIN + Duration::from_secs(1), answer).await.unwrap();
        assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    }
}
