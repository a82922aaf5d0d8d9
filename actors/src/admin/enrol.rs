//! The port where proxies get their identity: TLS, by which they know the controller, and a token, by which
//! it knows them.

use std::io;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use tokio::net::TcpListener;

use super::accept::accept;
use super::secured::Port;
use crate::push::enrolment::{Enrolment, EnrolmentError};
use crate::push::mtls;
use crate::retry::chain;
use crate::tree::edges::Edges;

/// The largest request, in bytes.
const REQUEST: usize = 16 << 10;

/// The port.
const PORT: Port = Port { name: "enrolment", tls: mtls::open_server };

/// Serves the port until it is dropped.
pub(super) async fn serve(listener: TcpListener, edges: Edges, enrolment: Enrolment) -> io::Result<()> {
    let router = router(enrolment);
    accept(listener, |stream, peer| PORT.serve(stream, peer, edges.clone(), router.clone())).await
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
        EnrolmentError::Api(_) | EnrolmentError::Trust(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
