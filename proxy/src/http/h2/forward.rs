//! Owns an exchange of a stream with an endpoint that speaks HTTP/1: attempts, the request's content, what
//! failures become.
//!
//! Drives [`Exchange`], which decides, as the codec of HTTP/1 does; reads and writes, which it does not.

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;

use super::content::{Sending, Stopped};
use super::request::Checked;
use super::stream::Outcome;
use super::{Shared, render};
use crate::http::attempts::{self, Attempts};
use crate::http::body::BodyWriter;
use crate::http::exchange::{Exchange, Facts, Failure, Next, Received};
use crate::http::filters::HeaderEdits;
use crate::http::h1::IDLE_TIMEOUT;
use crate::http::h1::buffer::{ReadBuffer, Scratch};
use crate::http::head::{Head, Response};
use crate::http::mirror::Sinks;
use crate::http::pace::Pace;
use crate::http::plan::Target;
use crate::http::respond::Reason;
use crate::http::standing;
use crate::http::timers::{Limit, Timer};
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
    /// What it has been timed by so far.
    pub(super) timer: Option<Timer>,
}

impl Job<'_> {
    /// For how long the exchange may go on.
    pub(super) fn time_left(&self, shared: &Shared<'_>) -> Option<Duration> {
        let (host, exchange) = (self.checked.request.authority.host, (self.routed, self.target.share));
        shared.context.time_left(|table| standing::of_exchange(table, &shared.client, exchange, host))
    }

    /// How the response is edited.
    pub(super) fn edits(&self, endpoint: &Arc<Endpoint>, shared: &Shared<'_>) -> Cow<'_, HeaderEdits> {
        self.target.edits(self.routed, endpoint, shared.client.secure)
    }
}

/// The connection to an endpoint during an attempt.
pub(super) struct Upstream<'c> {
    pub(super) stream: Stream,
    pub(super) buffer: ReadBuffer<'c>,
    reused: bool,
    pub(super) in_flight: InFlight,
}

/// Why an attempt came to no response.
pub(super) enum Broken {
    /// The upstream failed.
    Upstream(Failure),
    /// The client did.
    Client(Reason),
}

/// The exchange and what it works on.
pub(super) struct Forwarding<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) job: Job<'a>,
    pub(super) respond: &'a mut SendResponse<Bytes>,
    pub(super) exchange: Exchange,
    pub(super) sending: Sending<'a>,
    pub(super) timer: Timer,
    /// All of the request is sent, or no more of it will be.
    is_sent: bool,
    pub(super) pace: Pace,
}

/// Forwards a request and its response.
pub(super) async fn forward(
    mut job: Job<'_>,
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
        has_content: job.target.content().is_none() && !body.is_end_stream(),
        upgrade: request.upgrade != Upgrade::None,
        close: false,
    });
    let timer = job.timer.take().unwrap_or_else(|| {
        let timer = shared.timer();
        limit(&timer, Limit::Request, job.routed.rule().timeouts.request);
        timer
    });
    let sending = sending(&job, body, shared, out);
    let mut forwarding =
        Forwarding { shared, job, respond, exchange, sending, timer, is_sent: false, pace: Pace::default() };
    let outcome = forwarding.run(response).await;
    shared.give_back(forwarding.timer);
    buffers.give_back_scratch(scratch);
    outcome
}

/// Renders the request; its content follows as it comes, unless it has been read already.
fn sending<'o>(job: &Job<'_>, body: RecvStream, shared: &Shared<'_>, out: &'o mut Vec<u8>) -> Sending<'o> {
    let (request, content) = (&*job.target.request(&job.checked.request), job.target.content());
    let fields = job.checked.fields.iter().copied();
    let edits = (job.target.filters(job.routed), job.routed.matched);
    let to = (&shared.origin, job.target.protocol);
    crate::http::render::request(request, fields.clone(), edits, to, out);
    let mut sinks = Sinks::begin(
        &job.target.copied,
        request,
        fields,
        (job.target.filters_of_copies(job.routed), job.routed.matched),
        (&shared.origin, &shared.context.pool),
    );
    let writer = BodyWriter::new(request.framing);
    if let Some(content) = content {
        content.write(writer, out, &mut sinks);
    }
    // The content of an extended CONNECT is what the tunnel carries. What comes in chunks is whole once their
    // end is written, however early the stream has ended.
    let has_ended = body.is_end_stream() && request.framing != Framing::Chunked;
    let is_whole = content.is_some() || has_ended || request.upgrade != Upgrade::None;
    let mut sending = Sending::new(body, writer, is_whole, out);
    sending.copy(sinks);
    sending
}

/// Sets a limit, where the rule has one.
pub(super) fn limit(timer: &Timer, limit: Limit, timeout: Option<Duration>) {
    if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) {
        timer.set(limit, timeout);
    }
}

impl<'a> Forwarding<'a> {
    async fn run(&mut self, head: &mut Head) -> Outcome {
        let timeouts = self.job.routed.rule().timeouts;
        self.moved();
        let backend = Arc::clone(&self.job.target.backend);
        let bound = self.job.target.bound().cloned();
        let mut attempts = Attempts::new(self.job.routed, &backend, bound.as_ref());
        self.sending.keep(attempts.may_repeat());
        loop {
            let Some(endpoint) = attempts.pick(&backend) else {
                return self.answer(Reason::NoEndpoint);
            };
            limit(&self.timer, Limit::Attempt, timeouts.backend_request);
            self.exchange.attempt();
            let (ended, reused) = match self.connect(endpoint, attempts.may_reuse()).await {
                Ok(mut upstream) => match self.converse(&mut upstream, head).await {
                    Ok(answered) => {
                        let replayable = self.sending.is_replayable();
                        match attempts.answered(endpoint, answered.0.status, replayable) {
                            Some(next) => (Ok(next), false),
                            None => {
                                let outcome = self.pass_on(&mut upstream, head, answered).await;
                                self.part(upstream);
                                return outcome;
                            }
                        }
                    }
                    Err(Broken::Client(reason)) => return self.client_failed(reason),
                    Err(Broken::Upstream(failure)) => (Err(failure), upstream.reused),
                },
                Err(Broken::Upstream(failure)) => (Err(failure), false),
                Err(Broken::Client(reason)) => return self.client_failed(reason),
            };
            let how = (reused, self.sending.is_replayable());
            let next = ended.unwrap_or_else(|why| attempts.failed(&mut self.exchange, endpoint, why, how));
            match next {
                Ok(pause) => {
                    if let Err(reason) = Box::pin(self.pause(pause)).await {
                        return self.client_failed(reason);
                    }
                }
                Err(Next::Answer(reason)) => return self.answer(reason),
                Err(Next::Retry | Next::Cut) => return Outcome::of(Reason::ResponseCut),
            }
            self.sending.rewind();
            self.is_sent = false;
        }
    }

    /// Waits between two attempts.
    async fn pause(&mut self, pause: Duration) -> Result<(), Reason> {
        self.timer.clear(Limit::Attempt);
        if pause.is_zero() {
            return Ok(());
        }
        self.timer.set(Limit::Idle, IDLE_TIMEOUT.max(pause * 2));
        let mut sleep = std::pin::pin!(tokio::time::sleep(pause));
        poll_fn(|cx| match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => self.poll_over(cx).map(|broken| {
                Err(match broken {
                    Broken::Client(reason) => reason,
                    Broken::Upstream(Failure::RequestTimeout) => Reason::RequestTimeout,
                    Broken::Upstream(_) => Reason::UpstreamTimeout,
                })
            }),
        })
        .await
    }

    async fn connect(&mut self, endpoint: &Arc<Endpoint>, may_reuse: bool) -> Result<Upstream<'a>, Broken> {
        let context = self.shared.context;
        let in_flight = endpoint.enter().ok_or(Broken::Upstream(Failure::EndpointFull))?;
        let protocol = self.job.target.protocol;
        let at_hand = if may_reuse { context.pool.at_hand(endpoint, protocol) } else { None };
        let made = match at_hand {
            Some(made) => made,
            None => {
                // On the heap: it is rare, and every stream would have room for it.
                let mut opening = Box::pin(context.pool.open(endpoint, protocol));
                poll_fn(|cx| match opening.as_mut().poll(cx) {
                    Poll::Ready(made) => Poll::Ready(made.map_err(|error| Broken::Upstream(error.into()))),
                    Poll::Pending => self.poll_over(cx).map(Err),
                })
                .await?
            }
        };
        let buffer = ReadBuffer::new(&context.buffers);
        Ok(Upstream { stream: made.stream, buffer, reused: made.reused, in_flight })
    }

    /// The exchange is over: keeps the connection to the endpoint, if it can serve another one.
    fn part(&self, upstream: Upstream<'a>) {
        if self.exchange.ending().keep_upstream && upstream.buffer.data().is_empty() {
            let context = self.shared.context;
            context.pool.keep(upstream.in_flight.endpoint(), upstream.stream, context.timers.now());
        }
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
    pub(super) fn poll_request(
        &mut self,
        cx: &mut TaskContext<'_>,
        stream: &mut Stream,
    ) -> Result<(), Broken> {
        if self.is_sent {
            return Ok(());
        }
        let before = self.sending.moved();
        let polled = self.sending.poll(cx, stream);
        if self.sending.moved() != before {
            self.exchange.sent();
            self.moved();
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
        self.wait_for_response();
        Ok(())
    }

    /// Something has moved: how long nothing may counts from now on, unless the rule's own limits take its place.
    pub(super) fn moved(&self) {
        match self.job.routed.rule().timeouts.replace_idle(self.is_sent) {
            true => self.timer.clear(Limit::Idle),
            false => self.timer.set(Limit::Idle, IDLE_TIMEOUT),
        }
    }

    /// Once the request is sent, a rule's own timeouts take the place of the proxy's.
    fn wait_for_response(&self) {
        let timeouts = self.job.routed.rule().timeouts;
        if timeouts.request.is_some() || timeouts.backend_request.is_some() {
            self.timer.clear(Limit::Idle);
        }
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
}
