//! The port where proxies get their identity: TLS, by which they know the controller, and a token, by which
//! it knows them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::accept::{CONNECTION_WITHIN, accept, answer_for};
use crate::push::enrolment::{Enrolment, EnrolmentError};
use crate::push::mtls;
use crate::retry::chain;
use crate::tree::edges::Edges;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The largest request, in bytes.
const REQUEST: usize = 16 << 10;

/// Serves the port until it is dropped.
pub(super) async fn serve(listener: TcpListener, edges: Edges, enrolment: Enrolment) -> io::Result<()> {
    let router = router(enrolment);
    accept(listener, |stream, peer| connection(stream, peer, edges.clone(), router.clone())).await
}

async fn connection(stream: TcpStream, peer: SocketAddr, edges: Edges, router: Router) {
    // As it is now: a new certificate serves from the next connection on.
    let Some(identity) = edges.identity.borrow().clone() else { return };
    let tls = match mtls::open_server(&identity) {
        Ok(tls) => TlsAcceptor::from(Arc::new(tls)),
        Err(error) => {
            tracing::error!(%error, "the enrolment port has no identity that can be used");
            return;
        }
    };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => answer_for(CONNECTION_WITHIN, stream, peer, router).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a handshake on the enrolment port failed"),
        Err(_) => tracing::debug!(%peer, "a handshake on the enrolment port took too long"),
    }
}

fn router(enrolment: Enrolment) -> Router {
    Router::new().route("/enrol", post(enrol).layer(DefaultBodyLimit::max(REQUEST))).with_state(enrolment)
}

async fn enrol(State(enrolment): State<Enrolment>, headers: HeaderMap, request: String) -> Response {
    let Some(token) = bearer(&headers) else {
        return (StatusCode::UNAUTHORIZED, "a bearer token is needed\n").into_response();
    };
    match enrolment.enrol(token.to_owned(), &request).await {
        Ok(enrolled) => Json(enrolled).into_response(),
        Err(error) => {
            tracing::warn!(error = chain(&error), "a proxy was given no certificate");
            (status(&error), format!("{}\n", chain(&error))).into_response()
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

fn status(error: &EnrolmentError) -> StatusCode {
    match error {
        EnrolmentError::Token(_) => StatusCode::UNAUTHORIZED,
        EnrolmentError::NotAProxy(_) => StatusCode::FORBIDDEN,
        EnrolmentError::Request(_) => StatusCode::BAD_REQUEST,
        EnrolmentError::Api(_) | EnrolmentError::Late | EnrolmentError::Trust(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
