//! The API as a tower service: one value per client.
//!
//! Owns nothing but the client's name. Called by `kube::Client` in process and by the HTTP server. It carries faults out,
//! writes the access log, and refuses to know what requests mean: see `state`.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header, request};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use thiserror::Error;
use tower::{BoxError, Service};

use crate::{
    Shared,
    access_log::Access,
    call::{Asked, Call, Verb},
    discovery,
    faults::Fault,
    refusal::Refusal,
    state::Done,
    watching::Watch,
};

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Broken>;

/// A connection that broke on purpose.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Broken {
    /// Before anything was done.
    #[error("connection refused by a fault")]
    Refused,
    /// After nothing had been answered for a while.
    #[error("connection timed out by a fault")]
    TimedOut,
    /// After the request was carried out and before its answer.
    #[error("connection reset by a fault before the answer")]
    AnswerLost,
    /// In the middle of a watch.
    #[error("watch cut by a fault")]
    Cut,
}

/// The API server as one client reaches it.
#[derive(Clone)]
pub struct ApiService {
    shared: Arc<Shared>,
    client: Arc<str>,
}

impl fmt::Debug for ApiService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApiService").field("client", &self.client).finish_non_exhaustive()
    }
}

impl ApiService {
    pub(crate) fn new(shared: Arc<Shared>, client: &str) -> Self {
        Self { shared, client: client.into() }
    }
}

impl<B> Service<Request<B>> for ApiService
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(Into::into)?.to_bytes();
            Ok(this.answer(&parts, &body).await?)
        })
    }
}

impl ApiService {
    async fn answer(&self, parts: &request::Parts, body: &[u8]) -> Result<Response<Body>, Broken> {
        let call = match Asked::read(parts) {
            Err(refusal) => return Ok(refused(&refusal)),
            Ok(Asked::Document(path)) => return Ok(self.document(&path, parts)),
            Ok(Asked::Resource(call)) => call,
        };
        let fault = self.shared.strike(&self.client, &call);
        let entry = Access { fault: fault.clone(), ..Access::of(&call, &self.client, self.shared.now()) };
        let (answer, changed) = self.carry_out(&call, body, fault.as_ref()).await;
        let code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
        tracing::debug!(
            client = %self.client,
            verb = ?call.verb,
            resource = %call.target.plural,
            name = call.target.name.as_deref().unwrap_or_default(),
            code,
            ?fault,
            "request"
        );
        self.shared.log(Access { at: self.shared.now(), code, changed, ..entry });
        answer
    }

    /// Carries out a request as far as its fault lets it; also answers whether a revision was written.
    async fn carry_out(
        &self,
        call: &Call,
        body: &[u8],
        fault: Option<&Fault>,
    ) -> (Result<Response<Body>, Broken>, bool) {
        let nothing = |answer| (answer, false);
        match fault {
            Some(Fault::Throttle { retry_after }) => {
                return nothing(Ok(refused(&Refusal::too_many_requests(*retry_after))));
            }
            Some(Fault::ServerError(code)) => {
                return nothing(Ok(refused(&Refusal::server_error(*code, "a fault"))));
            }
            Some(Fault::Conflict) => {
                let refusal = self.shared.lock().conflict(call);
                return nothing(Ok(refused(&refusal)));
            }
            Some(Fault::Refuse) => return nothing(Err(Broken::Refused)),
            Some(Fault::Hang(time)) => {
                tokio::time::sleep(*time).await;
                return nothing(Err(Broken::TimedOut));
            }
            Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
            _ => {}
        }
        let (answer, changed) = self.execute(call, body, fault);
        match fault {
            Some(Fault::LoseAnswer) => (Err(Broken::AnswerLost), changed),
            Some(Fault::DelayAnswer(time)) => {
                tokio::time::sleep(*time).await;
                (Ok(answer), changed)
            }
            _ => (Ok(answer), changed),
        }
    }

    /// Everything that happens at one instant, under the lock.
    fn execute(&self, call: &Call, body: &[u8], fault: Option<&Fault>) -> (Response<Body>, bool) {
        let mut state = self.shared.lock();
        let before = state.store.revision();
        let stale = match fault {
            Some(Fault::StaleRead { revisions }) => Some(before.saturating_sub(*revisions)),
            _ => None,
        };
        let on = match state.subject(call) {
            Ok(on) => on,
            Err(refusal) => return (refused(&refusal), false),
        };
        let done = match call.verb {
            Verb::Watch => {
                let watch = Watch::open(&self.shared, &state, on, call, (&self.client, fault));
                return (watch.map_or_else(|refusal| refused(&refusal), streamed), false);
            }
            Verb::Get => state.get(&on, call, stale),
            Verb::List => state.list(&on, call, stale),
            Verb::Create => state.create(&on, call, body),
            Verb::Update => state.update(&on, call, body),
            Verb::Patch => state.patch(&on, call, body),
            Verb::Delete => state.delete(&on, call, body),
            Verb::DeleteCollection => state.delete_collection(&on, call),
        };
        let after = state.store.revision();
        drop(state);
        if after != before {
            self.shared.changed.send_replace(after);
        }
        (done.map_or_else(|refusal| refused(&refusal), answered), after != before)
    }

    fn document(&self, path: &[String], parts: &request::Parts) -> Response<Body> {
        let accept = parts.headers.get(header::ACCEPT);
        let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
        match discovery::document(&self.shared.lock().kinds, path, accept) {
            Some(document) => document.into_response(),
            None => refused(&Refusal::unknown_path()),
        }
    }
}

pub(crate) fn response(code: StatusCode, media_type: &str, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = code;
    if let Ok(media_type) = media_type.parse() {
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    }
    response
}

fn answered(done: Done) -> Response<Body> {
    response(done.code, "application/json", done.body.to_string())
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let (media_type, text) = refusal.body();
    let mut answer = response(refusal.code, media_type, text);
    if let Some(seconds) = refusal.retry_after {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

fn streamed(watch: Watch) -> Response<Body> {
    let lines = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line.map(Frame::data), watch))
    });
    let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
