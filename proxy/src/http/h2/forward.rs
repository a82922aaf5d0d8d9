//! Owns an exchange of a stream with an endpoint that speaks HTTP/1: attempts, both directions of
//! content, what failures become.
//!
//! Drives [`Exchange`], which decides, as the codec of HTTP/1 does; reads and writes, which it does not.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as Code, RecvStream, SendStream};
use tracing::debug;

use super::connect::Tunnelled;
use super::content::{Receiving, Sending, Stopped};
use super::request::Checked;
use super::stream::{Outcome, answer};
use super::{Shared, render};
use crate::http::attempts::{self, Attempts};
use crate::http::body::{BodyReader, BodyWriter};
use crate::http::exchange::{Exchange, Facts, Failure, Next, Received};
use crate::http::filters::{Filters, HeaderEdits};
use crate::http::h1::IDLE_TIMEOUT;
use crate::http::h1::buffer::{ReadBuffer, Scratch};
use crate::http::head::{Head, Response};
use crate::http::pace::Pace;
use crate::http::plan::Target;
use crate::http::respond::Reason;
use crate::http::standing;
use crate::http::timers::{Limit, Timer};
use crate::http::tunnel::{Side, tunnel};
use crate::http::validate::Upgrade;
use crate::http::validate::field::FieldRef;
use crate::http::validate::framing::Framing;
use crate::table::route::Routed;
use crate::upstream::registry::{Endpoint, InFlight};
use crate::upstream::stream::Stream;

/// A request on its way to a backend.
pub(super) struct Job<'a> {
    /// The request.
    pub(super) checked: &'a Checked<'a>,
    /// The route that takes it.
    pub(super) routed: &'a Routed,
    /// Where it goes.
    pub(super) target: Target,
}

impl Job<'_> {
    /// For how long the exchange may go on.
    fn time_left(&self, shared: &Shared<'_>) -> Option<Duration> {
        let (host, exchange) = (self.checked.request.authority.host, (self.routed, self.target.share));
        shared.context.time_left(|table| standing::of_exchange(table, &shared.client, exchange, host))
    }

    /// How the response is edited.
    fn edits(&self) -> &HeaderEdits {
        self.target.edits(self.routed)
    }

    fn filters(&self) -> &Filters {
        &self.routed.rule().backends[self.target.share].filters
    }
}

/// The connection to an endpoint during an attempt.
struct Upstream<'c> {
    stream: Stream,
    buffer: ReadBuffer<'c>,
    reused: bool,
    in_flight: InFlight,
}

/// Why an attempt came to no response.
enum Broken {
    /// The upstream failed.
    Upstream(Failure),
    /// The client did.
    Client(Reason),
}

/// The exchange and what it works on.
struct Forwarding<'a> {
    shared: &'a Shared<'a>,
    job: Job<'a>,
    respond: &'a mut SendResponse<Bytes>,
    exchange: Exchange,
    sending: Sending<'a>,
    timer: Timer,
    /// All of the request is sent, or no more of it will be.
    is_sent: bool,
    pace: Pace,
}

/// Forwards a request and its response.
pub(super) async fn forward(
    job: Job<'_>,
    body: RecvStream,
    respond: &mut SendResponse<Bytes>,
    shared: &Shared<'_>,
) -> Outcome {
    let buffers = &shared.context.buffers;
    let mut scratch = buffers.scratch();
    let Scratch { response, out, .. } = &mut *scratch;
    let request = &job.checked.request;
    let exchange = Exchange::new(Facts {
        method: request.method,
        version: request.version,
        has_content: !body.is_end_stream(),
        upgrade: request.upgrade != Upgrade::None,
        close: false,
    });
    let edits = (job.filters(), job.routed.matched);
    crate::http::render::request(request, job.checked.fields.iter().copied(), edits, &shared.origin, out);
    // The content of an extended CONNECT is what the tunnel carries.
    let is_whole = body.is_end_stream() || request.upgrade != Upgrade::None;
    let sending = Sending::new(body, BodyWriter::new(request.framing), is_whole, out);
    let timer = shared.context.timers.timer();
    let forwarding =
        Forwarding { shared, job, respond, exchange, sending, timer, is_sent: false, pace: Pace::default() };
    let outcome = forwarding.run(response).await;
    buffers.give_back_scratch(scratch);
    outcome
}

impl<'a> Forwarding<'a> {
    async fn run(mut self, head: &mut Head) -> Outcome {
        let timeouts = self.job.routed.rule().timeouts;
        if let Some(timeout) = timeouts.request.filter(|timeout| !timeout.is_zero()) {
            self.timer.set(Limit::Request, timeout);
        }
        self.timer.set(Limit::Idle, IDLE_TIMEOUT);
        let mut attempts = Attempts::default();
        loop {
            let Some(endpoint) = attempts.pick(&self.job.target.backend).map(Arc::clone) else {
                return self.answer(Reason::NoEndpoint);
            };
            if let Some(timeout) = timeouts.backend_request.filter(|timeout| !timeout.is_zero()) {
                self.timer.set(Limit::Attempt, timeout);
            }
            self.exchange.attempt();
            let (failure, reused) = match self.connect(&endpoint, attempts.may_reuse()).await {
                Ok(mut upstream) => match self.converse(&mut upstream, head).await {
                    Ok((response, Received::Final(framing))) => {
                        return self.finish(upstream, (head, &response), framing).await;
                    }
                    Ok((response, _)) => return self.switch(upstream, head, &response).await,
                    Err(Broken::Client(reason)) => return self.client_failed(reason),
                    Err(Broken::Upstream(failure)) => (failure, upstream.reused),
                },
                Err(Broken::Upstream(failure)) => (failure, false),
                Err(Broken::Client(reason)) => return self.client_failed(reason),
            };
            debug!(endpoint = %endpoint.address(), ?failure, reused, "attempt failed");
            match self.exchange.upstream_failed(failure, reused, self.sending.is_replayable()) {
                Next::Retry => {
                    self.sending.rewind();
                    self.is_sent = false;
                    attempts.failed(&endpoint, failure, reused);
                }
                Next::Answer(reason) => return self.answer(reason),
                Next::Cut => return Outcome::of(Reason::ResponseCut),
            }
        }
    }

    async fn connect(&mut self, endpoint: &Arc<Endpoint>, may_reuse: bool) -> Result<Upstream<'a>, Broken> {
        let context = self.shared.context;
        let in_flight = endpoint.enter().ok_or(Broken::Upstream(Failure::EndpointFull))?;
        let protocol = self.job.target.protocol;
        let mut opening = std::pin::pin!(context.pool.open(endpoint, protocol, may_reuse));
        let made = poll_fn(|cx| match opening.as_mut().poll(cx) {
            Poll::Ready(made) => Poll::Ready(made.map_err(|error| Broken::Upstream(error.into()))),
            Poll::Pending => self.poll_over(cx).map(Err),
        })
        .await?;
        let buffer = ReadBuffer::new(&context.buffers);
        Ok(Upstream { stream: made.stream, buffer, reused: made.reused, in_flight })
    }

    /// Whether the client has gone or time is over.
    fn poll_over(&mut self, cx: &mut TaskContext<'_>) -> Poll<Broken> {
        if self.respond.poll_reset(cx).is_ready() {
            return Poll::Ready(Broken::Client(Reason::ClientGone));
        }
        self.timer.poll_over(cx, || self.job.time_left(self.shared)).map(|limit| match limit {
            Limit::Withdrawn => Broken::Client(Reason::Withdrawn),
            Limit::Body => Broken::Client(Reason::RequestBodyTimeout),
            Limit::Idle if !self.is_sent => Broken::Client(Reason::RequestBodyTimeout),
            Limit::Request => Broken::Upstream(Failure::RequestTimeout),
            _ => Broken::Upstream(Failure::AttemptTimeout),
        })
    }

    /// Sends the request and reads up to the head of the final response; interim ones are passed on.
    async fn converse(
        &mut self,
        upstream: &mut Upstream<'a>,
        head: &mut Head,
    ) -> Result<(Response, Received), Broken> {
        loop {
            head.reset();
            let length = poll_fn(|cx| self.poll_head(cx, upstream, head)).await?;
            let malformed = |_| Broken::Upstream(Failure::Malformed);
            let bytes = &upstream.buffer.data()[..length];
            let response = head.response(bytes).map_err(malformed)?;
            let received = self.exchange.response_head(response.status, response.framing, response.close);
            match received.map_err(Broken::Upstream)? {
                Received::Interim => {
                    let interim = render::interim(&response, (head, bytes), |_| true);
                    let sent = self.respond.send_informational(interim);
                    sent.map_err(|_| Broken::Client(Reason::ClientGone))?;
                    upstream.buffer.consume(length);
                }
                Received::Ignored => upstream.buffer.consume(length),
                received => return Ok((response, received)),
            }
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut TaskContext<'_>,
        upstream: &mut Upstream<'a>,
        head: &mut Head,
    ) -> Poll<Result<usize, Broken>> {
        self.poll_request(cx, &mut upstream.stream)?;
        match attempts::poll_head(cx, (&mut upstream.stream, &mut upstream.buffer), head) {
            Poll::Ready(read) => Poll::Ready(read.map_err(Broken::Upstream)),
            Poll::Pending => self.poll_over(cx).map(Err),
        }
    }

    /// Moves what there is of the request. Where the upstream takes no more of it, it may still answer.
    fn poll_request(&mut self, cx: &mut TaskContext<'_>, stream: &mut Stream) -> Result<(), Broken> {
        if self.is_sent {
            return Ok(());
        }
        let before = self.sending.moved();
        let polled = self.sending.poll(cx, stream);
        if self.sending.moved() != before {
            self.exchange.sent();
            self.timer.set(Limit::Idle, IDLE_TIMEOUT);
        }
        if self.sending.is_ended() {
            self.exchange.request_received();
        }
        match polled {
            Poll::Pending => {
                self.keep_pace();
                return Ok(());
            }
            Poll::Ready(Ok(())) => {
                self.is_sent = true;
                self.exchange.request_sent();
            }
            Poll::Ready(Err(Stopped::Client(reason))) => return Err(Broken::Client(reason)),
            Poll::Ready(Err(Stopped::Upstream | Stopped::Malformed)) => {
                self.is_sent = true;
                self.exchange.request_refused();
            }
        }
        self.pace.stop(&self.timer);
        Ok(())
    }

    /// As HTTP/1 does; the messages of a gRPC stream come whenever there are any.
    fn keep_pace(&mut self) {
        let Checked { request, fields } = self.job.checked;
        let is_grpc = |field: &FieldRef<'_>| {
            field.name.eq_ignore_ascii_case(b"content-type") && field.value.starts_with(b"application/grpc")
        };
        let may_wait = request.expects_continue && self.sending.is_replayable();
        let is_its_turn = !self.sending.is_blocked() && !may_wait && !self.exchange.is_response_begun();
        if is_its_turn && !fields.iter().any(is_grpc) {
            self.pace.wait(self.sending.moved(), &self.timer, &self.shared.context.shared().limits);
        } else {
            self.pace.stop(&self.timer);
        }
    }

    /// Passes the response on, of which the head has been read.
    async fn finish(
        mut self,
        mut upstream: Upstream<'a>,
        (head, response): (&Head, &Response),
        framing: Framing,
    ) -> Outcome {
        let length = head.len();
        let bytes = &upstream.buffer.data()[..length];
        let sent = render::response(response, (head, bytes), self.job.edits(), framing);
        upstream.buffer.consume(length);
        let mut receiving = Receiving::new(BodyReader::new(framing));
        if receiving.take(&mut upstream.buffer).is_err() {
            return match self.exchange.upstream_failed(Failure::Malformed, false, false) {
                Next::Answer(reason) => self.answer(reason),
                Next::Retry | Next::Cut => Outcome::of(Reason::ResponseCut),
            };
        }
        self.exchange.response_begun();
        let is_over = receiving.is_empty();
        let Ok(mut stream) = self.respond.send_response(sent, is_over) else {
            return Outcome::of(Reason::ClientGone);
        };
        if !is_over {
            let passed =
                poll_fn(|cx| self.poll_response(cx, &mut upstream, &mut receiving, &mut stream)).await;
            if let Err(reason) = passed {
                // The client must see that the response is incomplete.
                stream.send_reset(Code::INTERNAL_ERROR);
                return Outcome { status: response.status, reason: Some(reason) };
            }
        }
        self.exchange.response_received();
        self.exchange.response_sent();
        if self.exchange.ending().keep_upstream && upstream.buffer.data().is_empty() {
            let context = self.shared.context;
            context.pool.keep(upstream.in_flight.endpoint(), upstream.stream, context.timers.now());
        }
        Outcome { status: response.status, reason: None }
    }

    fn poll_response(
        &mut self,
        cx: &mut TaskContext<'_>,
        upstream: &mut Upstream<'a>,
        receiving: &mut Receiving,
        to: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), Reason>> {
        if self.poll_request(cx, &mut upstream.stream).is_err() {
            return Poll::Ready(Err(Reason::ClientGone));
        }
        let before = receiving.moved();
        let polled = receiving.poll(cx, (&mut upstream.stream, &mut upstream.buffer), to);
        if receiving.moved() != before {
            self.timer.set(Limit::Idle, IDLE_TIMEOUT);
        }
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(Stopped::Client(reason))) => Poll::Ready(Err(reason)),
            Poll::Ready(Err(Stopped::Upstream | Stopped::Malformed)) => Poll::Ready(Err(Reason::ResponseCut)),
            Poll::Pending if to.poll_reset(cx).is_ready() => Poll::Ready(Err(Reason::ClientGone)),
            Poll::Pending => {
                let over = self.timer.poll_over(cx, || self.job.time_left(self.shared));
                over.map(|_| Err(Reason::ResponseCut))
            }
        }
    }

    /// The stream becomes what both sides agreed on (RFC 8441).
    async fn switch(mut self, mut upstream: Upstream<'a>, head: &Head, response: &Response) -> Outcome {
        let length = head.len();
        let bytes = &upstream.buffer.data()[..length];
        let sent = render::connected(response, (head, bytes), self.job.edits());
        upstream.buffer.consume(length);
        let Ok(to) = self.respond.send_response(sent, false) else {
            return Outcome::of(Reason::ClientGone);
        };
        self.timer.clear(Limit::Request);
        self.timer.clear(Limit::Attempt);
        self.pace.stop(&self.timer);
        let mut client = Tunnelled::new(self.sending.into_body(), to);
        let buffer = ReadBuffer::new(&self.shared.context.buffers);
        let client = Side { stream: &mut client, buffer };
        let upstream = Side { stream: &mut upstream.stream, buffer: upstream.buffer };
        tunnel(client, upstream, &self.timer, || self.job.time_left(self.shared)).await;
        Outcome { status: 200, reason: None }
    }

    fn client_failed(self, reason: Reason) -> Outcome {
        if reason == Reason::ClientGone || self.exchange.is_response_begun() {
            self.respond.send_reset(Code::CANCEL);
            return Outcome::of(reason);
        }
        self.answer(reason)
    }

    /// Answers instead of the upstream.
    fn answer(self, reason: Reason) -> Outcome {
        answer(reason, Some(self.job.checked), self.respond);
        Outcome::of(reason)
    }
}
