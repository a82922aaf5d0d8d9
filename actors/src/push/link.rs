//! Owns: one connection to one proxy: HTTP/1.1 over TLS 1.3, pinned to the proxy's identity.
//! Called by the proxy client. Refuses to know what is pushed and when.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use proxy_config::wire::{Push, Reply};
use rustls::ClientConfig;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::mtls::any_name;
use crate::term::{Expired, Term};

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(3);
/// Until a push is answered: compiling the largest config takes a proxy a few seconds.
const ANSWER: Duration = Duration::from_secs(10);
/// The largest answer that is read: bucket hashes and the reasons of broken units.
const MAX_ANSWER: usize = 4 << 20;

/// A stream of bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How proxies are dialled: TCP, or within the process.
#[derive(Clone)]
pub struct Dial(Arc<DialFn>);
type DialFn = dyn Fn(SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> + Send + Sync;

impl Dial {
    /// By TCP.
    pub fn tcp() -> Self {
        Self::new(|address| {
            Box::pin(async move {
                let stream = tokio::net::TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream) as Box<dyn Stream>)
            })
        })
    }

    /// By a function.
    pub fn new(
        dial: impl Fn(SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(dial))
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}

/// Why a push was not answered.
#[derive(Debug, Error)]
pub enum PushError {
    /// This process leads no longer.
    #[error(transparent)]
    Expired(#[from] Expired),
    /// No connection.
    #[error("the proxy can't be reached at {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The own identity can't be used.
    #[error("the controller's identity can't be used")]
    Identity(#[from] super::identity::IdentityError),
    /// There is no identity yet.
    #[error("the controller has no certificate yet")]
    NoIdentity,
    /// HTTP failed.
    #[error("the connection to the proxy failed")]
    Http(#[from] hyper::Error),
    /// An answer that is not of this protocol.
    #[error("the proxy answered {status} with something that is not a reply: {text}")]
    NotAReply {
        /// The HTTP status.
        status: u16,
        /// What stood there, shortened.
        text: String,
    },
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
}

/// A connection that stands. Dropping it closes it.
#[derive(Debug)]
pub struct Link {
    sender: SendRequest<Full<Bytes>>,
    _connection: AbortOnDropHandle<()>,
}

impl Link {
    /// Connects; `closed` is called once the connection has ended by itself.
    ///
    /// # Errors
    /// Where the proxy is not reached in time, or is not the one that `tls` is pinned to.
    pub async fn open(
        dial: &Dial,
        address: SocketAddr,
        tls: Arc<ClientConfig>,
        closed: impl FnOnce() + Send + 'static,
    ) -> Result<Self, PushError> {
        let fail = |source| PushError::Connect { address, source };
        let connect = async {
            let stream = (dial.0)(address).await?;
            TlsConnector::from(tls).connect(any_name(), stream).await
        };
        let stream = tokio::time::timeout(CONNECT, connect)
            .await
            .map_err(|_| fail(io::ErrorKind::TimedOut.into()))?
            .map_err(fail)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "the connection to a proxy ended");
            }
            closed();
        }));
        Ok(Self { sender, _connection: connection })
    }

    /// Sends a push, if the term still runs, and reads the reply.
    ///
    /// # Errors
    /// Where there is no reply in time; the proxy may have taken the push all the same.
    pub async fn push(&mut self, push: &Push, term: &Term) -> Result<Reply, PushError> {
        let body = serde_json::to_vec(push).map_err(|error| not_a_reply(0, &error.to_string()))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri("/push")
            .header(header::HOST, "proxy")
            .header(header::CONTENT_TYPE, "application/json");
        let request = match &push.traceparent {
            Some(context) => request.header("traceparent", context),
            None => request,
        };
        let request =
            request.body(Full::new(body.into())).expect("constant parts, and a hexadecimal context");
        term.check(Duration::ZERO)?;
        tokio::time::timeout(ANSWER, self.exchange(request)).await.map_err(|_| PushError::Deadline(ANSWER))?
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Reply, PushError> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| not_a_reply(status, &error.to_string()))?.to_bytes();
        serde_json::from_slice(&body).map_err(|_| not_a_reply(status, &String::from_utf8_lossy(&body)))
    }
}

fn not_a_reply(status: u16, text: &str) -> PushError {
    PushError::NotAReply { status, text: text.chars().take(200).collect() }
}
