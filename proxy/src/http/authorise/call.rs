//! Owns one exchange with a service that is asked: attempts at its endpoints, and the whole of its answer.
//!
//! Drives [`Exchange`], which decides, as the codecs do. Knows nothing of what is asked.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use proxy_config::backend::BackendProtocol;
use tokio::io::AsyncWrite;
use tracing::debug;

use super::Told;
use crate::http::attempts;
use crate::http::body::BodyReader;
use crate::http::exchange::{Exchange, Facts, Failure, Next, Received};
use crate::http::h1::buffer::{Buffers, ReadBuffer};
use crate::http::head::{Head, Response};
use crate::http::render::{Nominated, is_of_message};
use crate::http::respond::Reason;
use crate::http::validate::field::Known;
use crate::http::validate::framing::Framing;
use crate::http::validate::{Method, Version};
use crate::upstream::balance::Backend;
use crate::upstream::pool::Pool;
use crate::upstream::registry::Endpoint;
use crate::upstream::stream::Stream;

/// The most content of an answer that is read.
const MAX_CONTENT: usize = 256 << 10;

/// What a service has answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    /// Its fields, less those of the connection and of framing.
    pub(super) fields: Vec<Told>,
    /// Its content; `None` where that is more than is read.
    pub(super) content: Option<Vec<u8>>,
    /// What came behind it, as field lines.
    pub(super) trailers: Vec<u8>,
}

/// Sends a message and reads the answer. To ask twice does no harm, so another endpoint is asked wherever one
/// has not answered.
///
/// # Errors
/// The reason why the request that is asked about is refused.
pub(super) async fn call(
    backend: &Backend,
    protocol: BackendProtocol,
    (method, message): (Method, &[u8]),
    (pool, buffers): (&Pool, &Buffers),
) -> Result<Answer, Reason> {
    // Whatever the request would do, to ask about it does nothing: what matters of its method is whether the
    // answer has content.
    let method = if method == Method::Head { Method::Head } else { Method::Get };
    let facts = Facts { method, version: Version::Http11, has_content: false, upgrade: false, close: false };
    let mut exchange = Exchange::new(facts);
    let (mut failed, mut may_reuse): (Vec<Arc<Endpoint>>, bool) = (Vec::new(), true);
    loop {
        let endpoint = backend.pick(&failed).ok_or(Reason::AuthorisationFailed)?;
        exchange.attempt();
        let mut attempt = Attempt { exchange: &mut exchange, message, sent: 0, reused: false };
        let failure = match attempt.run(endpoint, (protocol, may_reuse), (pool, buffers)).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let reused = attempt.reused;
        debug!(backend = %backend.id, endpoint = %endpoint.address(), ?failure, reused, "no answer to a check");
        if exchange.upstream_failed(failure, reused, true) != Next::Retry {
            return Err(Reason::AuthorisationFailed);
        }
        may_reuse &= !reused;
        if !reused {
            failed.push(Arc::clone(endpoint));
        }
    }
}

struct Attempt<'a> {
    exchange: &'a mut Exchange,
    message: &'a [u8],
    sent: usize,
    reused: bool,
}

impl Attempt<'_> {
    async fn run(
        &mut self,
        endpoint: &Arc<Endpoint>,
        (protocol, may_reuse): (BackendProtocol, bool),
        (pool, buffers): (&Pool, &Buffers),
    ) -> Result<Answer, Failure> {
        let _in_flight = endpoint.enter().ok_or(Failure::EndpointFull)?;
        let at_hand = if may_reuse { pool.at_hand(endpoint, protocol) } else { None };
        let made = match at_hand {
            Some(made) => made,
            None => pool.open(endpoint, protocol).await?,
        };
        self.reused = made.reused;
        let (mut stream, mut buffer, mut head) = (made.stream, ReadBuffer::new(buffers), Head::default());
        let (response, framing) = self.head(&mut stream, &mut buffer, &mut head).await?;
        let fields = fields(&response, &head, &buffer.data()[..head.len()]);
        buffer.consume(head.len());
        let mut reader = BodyReader::new(framing);
        let content = content(&mut reader, &mut stream, &mut buffer).await?;
        self.exchange.response_begun();
        if reader.is_done() {
            self.exchange.response_received();
            self.exchange.response_sent();
        }
        if self.exchange.ending().keep_upstream && buffer.data().is_empty() {
            pool.keep(endpoint, stream, std::time::Instant::now());
        }
        Ok(Answer { status: response.status, fields, content, trailers: reader.trailers().to_vec() })
    }

    /// Sends the message and reads up to the head of the final response.
    async fn head(
        &mut self,
        stream: &mut Stream,
        buffer: &mut ReadBuffer<'_>,
        head: &mut Head,
    ) -> Result<(Response, Framing), Failure> {
        loop {
            head.reset();
            let length = poll_fn(|cx| {
                self.poll_send(cx, stream);
                attempts::poll_head(cx, (stream, buffer), head)
            });
            let length = length.await?;
            let response = head.response(&buffer.data()[..length]).map_err(|_| Failure::Malformed)?;
            match self.exchange.response_head(response.status, response.framing, response.close)? {
                Received::Final(framing) => return Ok((response, framing)),
                Received::Interim | Received::Ignored => buffer.consume(length),
                Received::Switched => return Err(Failure::Malformed),
            }
        }
    }

    /// Sends what can be sent. A service that takes no more of it may still answer.
    fn poll_send(&mut self, cx: &mut Context<'_>, stream: &mut Stream) {
        while self.sent < self.message.len() {
            match Pin::new(&mut *stream).poll_write(cx, &self.message[self.sent..]) {
                Poll::Ready(Ok(written @ 1..)) => {
                    self.sent += written;
                    self.exchange.sent();
                }
                Poll::Ready(_) => {
                    self.sent = self.message.len();
                    return self.exchange.request_refused();
                }
                Poll::Pending => return,
            }
            if self.sent == self.message.len() {
                self.exchange.request_sent();
            }
        }
        // A failure shows when the answer is read.
        let _ = Pin::new(stream).poll_flush(cx);
    }
}

fn fields(response: &Response, head: &Head, bytes: &[u8]) -> Vec<Told> {
    let all = head.fields(bytes);
    let nominated = Nominated::new(response.nominates, &all);
    let passes = |known: Known, name: &[u8]| is_of_message(known, false) && !nominated.names(name);
    let passing = head.fields(bytes).filter(|field| passes(field.known, field.name));
    passing.map(|field| Told { name: field.name.to_vec(), value: field.value.to_vec() }).collect()
}

/// Reads the content; `None` where it is too much.
async fn content(
    reader: &mut BodyReader,
    stream: &mut Stream,
    buffer: &mut ReadBuffer<'_>,
) -> Result<Option<Vec<u8>>, Failure> {
    let mut content = Vec::new();
    loop {
        buffer.take_content(reader, &mut content).map_err(|_| Failure::Malformed)?;
        if content.len() > MAX_CONTENT {
            return Ok(None);
        }
        if reader.is_done() {
            return Ok(Some(content));
        }
        match poll_fn(|cx| buffer.poll_fill(cx, stream)).await {
            Ok(1..) => {}
            Ok(_) if reader.ends_with_connection() => return Ok(Some(content)),
            _ => return Err(Failure::ended(false)),
        }
    }
}
