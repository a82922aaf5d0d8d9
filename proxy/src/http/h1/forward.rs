//! Owns an exchange with an endpoint: attempts, both directions of content, what failures become.
//!
//! Called by the connection with a request that is valid and routed. Drives
//! [`Exchange`](crate::http::exchange::Exchange), which decides; reads and writes, which it does not.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::buffer::ReadBuffer;
use super::job::Job;
use super::pump::{Pump, PumpError};
use super::{Connection, IDLE_TIMEOUT, Outcome, rarely, within};
use crate::http::attempts::{self, Attempts};
use crate::http::body::{BodyReader, BodyWriter};
use crate::http::exchange::{Exchange, Facts, Failure, Next, Received};
use crate::http::head::{Head, Response};
use crate::http::mirror::Sinks;
use crate::http::pace::Pace;
use crate::http::render;
use crate::http::respond::Reason;
use crate::http::timers::Limit;
use crate::http::validate::Upgrade;
use crate::http::validate::framing::Framing;
use crate::upstream::pool;
use crate::upstream::registry::{Endpoint, InFlight};
use crate::upstream::stream::Stream;

/// The connection to an endpoint during an attempt.
pub(super) struct Upstream<'c> {
    pub stream: Stream,
    pub buffer: ReadBuffer<'c>,
    reused: bool,
    pub in_flight: InFlight,
}

/// Why an attempt came to no response.
pub(super) enum Broken {
    /// The upstream failed.
    Upstream(Failure),
    /// The client did: it is answered, if that is still possible.
    Client(Reason),
}

/// The exchange and what it works on.
pub(super) struct Forwarding<'a, 'c, S> {
    pub connection: &'a mut Connection<'c, S>,
    pub job: &'a Job<'a>,
    pub exchange: Exchange,
    pub sending: Pump<'a>,
    /// All of the request is sent, or no more of it will be.
    is_sent: bool,
    pub pace: Pace,
    /// The client sends nothing more.
    has_client_ended: bool,
    /// The upstream lets us wait: the client is looked at meanwhile.
    is_waiting: bool,
}

/// Forwards a request and its response.
pub(super) async fn forward<S>(
    connection: &mut Connection<'_, S>,
    job: &Job<'_>,
    response: &mut Head,
    out: &mut Vec<u8>,
    reply: &mut Vec<u8>,
) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (request, content) = (&*job.target.request(job.view.request), job.target.content());
    let exchange = Exchange::new(Facts {
        method: request.method,
        version: request.version,
        has_content: content.is_none() && !matches!(request.framing, Framing::None | Framing::Length(0)),
        upgrade: request.upgrade != Upgrade::None,
        close: request.close,
    });
    render::request(
        request,
        job.view.head.fields(job.view.bytes),
        (job.target.filters(job.routed), job.routed.matched),
        (&connection.origin, job.target.protocol),
        out,
    );
    let mut sinks = Sinks::begin(
        &job.target.copied,
        request,
        job.view.head.fields(job.view.bytes),
        (job.target.filters_of_copies(job.routed), job.routed.matched),
        (&connection.origin, &connection.context.pool),
    );
    let writer = BodyWriter::new(request.framing);
    let sending = match content {
        None => Pump::new(BodyReader::new(request.framing), writer, out),
        Some(content) => {
            content.write(writer, out, &mut sinks);
            Pump::ended(out)
        }
    };
    let mut forwarding = Forwarding {
        connection,
        job,
        exchange,
        sending,
        is_sent: false,
        pace: Pace::default(),
        has_client_ended: false,
        is_waiting: false,
    };
    forwarding.sending.copy(sinks);
    let outcome = forwarding.run(response, reply).await;
    connection.timer.want_tick(false);
    outcome
}

impl<'c, S> Forwarding<'_, 'c, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    async fn run(&mut self, head: &mut Head, reply: &mut Vec<u8>) -> Outcome {
        if let Err(reason) = self.sending.take(&mut self.connection.buffer) {
            return rarely(self.answer(reason, reply)).await;
        }
        let job = self.job;
        if job.target.granted.is_none() {
            self.limit(Limit::Request, job.timeouts().request);
        }
        let mut attempts = Attempts::new(job.routed, &job.target.backend, job.target.bound());
        self.sending.keep(attempts.may_repeat());
        loop {
            let Some(endpoint) = attempts.pick(&job.target.backend) else {
                return rarely(self.answer(Reason::NoEndpoint, reply)).await;
            };
            self.limit(Limit::Attempt, self.job.timeouts().backend_request);
            self.exchange.attempt();
            let at_hand = if attempts.may_reuse() { self.at_hand(endpoint) } else { None };
            let connected = match at_hand {
                Some(upstream) => Ok(upstream),
                None => rarely(self.open(endpoint)).await,
            };
            let (ended, reused) = match connected {
                Ok(mut upstream) => match self.converse(&mut upstream, head, reply).await {
                    Ok(answered) => {
                        let replayable = self.sending.is_replayable();
                        match attempts.answered(endpoint, answered.0.status, replayable) {
                            Some(next) => (Ok(next), false),
                            None => {
                                let outcome = self.finish(&mut upstream, head, answered, reply).await;
                                self.part(upstream);
                                return outcome;
                            }
                        }
                    }
                    Err(Broken::Client(reason)) => {
                        return rarely(self.client_failed(reason, reply)).await;
                    }
                    Err(Broken::Upstream(failure)) => (Err(failure), upstream.reused),
                },
                Err(failure) => (Err(failure), false),
            };
            let how = (reused, self.sending.is_replayable());
            let next = ended.unwrap_or_else(|why| attempts.failed(&mut self.exchange, endpoint, why, how));
            if let Some(outcome) = rarely(self.go_on(next, reply)).await {
                return outcome;
            }
        }
    }

    /// Makes ready for another attempt, where there is to be one; else how the exchange ended.
    async fn go_on(&mut self, next: Result<Duration, Next>, reply: &mut Vec<u8>) -> Option<Outcome> {
        let paused = match next {
            Ok(pause) => self.pause(pause).await,
            Err(Next::Answer(reason)) => Err(reason),
            Err(Next::Retry | Next::Cut) => return Some(self.cut(Reason::ResponseCut)),
        };
        if let Err(reason) = paused {
            return Some(self.answer(reason, reply).await);
        }
        self.sending.rewind();
        self.is_sent = false;
        None
    }

    /// Waits between two attempts.
    async fn pause(&self, pause: Duration) -> Result<(), Reason> {
        let timer = &self.connection.timer;
        timer.clear(Limit::Attempt);
        if pause.is_zero() {
            return Ok(());
        }
        timer.set(Limit::Idle, IDLE_TIMEOUT.max(pause * 2));
        within(timer, tokio::time::sleep(pause)).await.map_err(|limit| match limit {
            Limit::Withdrawn => Reason::Withdrawn,
            Limit::Request => Reason::RequestTimeout,
            _ => Reason::UpstreamTimeout,
        })
    }

    fn limit(&self, limit: Limit, timeout: Option<Duration>) {
        if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) {
            self.connection.timer.set(limit, timeout);
        }
    }

    /// A connection that is there, where the endpoint takes a request.
    fn at_hand(&self, endpoint: &Arc<Endpoint>) -> Option<Upstream<'c>> {
        let in_flight = endpoint.enter()?;
        let made = self.connection.context.pool.at_hand(endpoint, self.job.target.protocol)?;
        Some(self.upstream(made, in_flight))
    }

    async fn open(&self, endpoint: &Arc<Endpoint>) -> Result<Upstream<'c>, Failure> {
        let in_flight = endpoint.enter().ok_or(Failure::EndpointFull)?;
        let opening = self.connection.context.pool.open(endpoint, self.job.target.protocol);
        match within(&self.connection.timer, opening).await {
            Ok(made) => Ok(self.upstream(made?, in_flight)),
            Err(limit) => Err(timed_out(limit)),
        }
    }

    fn upstream(&self, made: pool::Connection, in_flight: InFlight) -> Upstream<'c> {
        let buffer = ReadBuffer::new(&self.connection.context.buffers);
        Upstream { stream: made.stream, buffer, reused: made.reused, in_flight }
    }

    /// Sends the request and reads up to the head of the final response; interim ones are passed on.
    async fn converse(
        &mut self,
        upstream: &mut Upstream<'c>,
        head: &mut Head,
        reply: &mut Vec<u8>,
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
                    reply.clear();
                    render::interim(&response, (head, bytes), reply);
                    upstream.buffer.consume(length);
                    if !rarely(self.connection.write(reply)).await {
                        return Err(Broken::Client(Reason::ClientGone));
                    }
                }
                Received::Ignored => upstream.buffer.consume(length),
                received => return Ok((response, received)),
            }
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut TaskContext<'_>,
        upstream: &mut Upstream<'c>,
        head: &mut Head,
    ) -> Poll<Result<usize, Broken>> {
        self.poll_request(cx, &mut upstream.stream)?;
        match attempts::poll_head(cx, (&mut upstream.stream, &mut upstream.buffer), head) {
            Poll::Ready(read) => Poll::Ready(read.map_err(Broken::Upstream)),
            Poll::Pending => {
                self.poll_client(cx)?;
                self.poll_over(cx).map(|limit| Err(self.broken_by(limit)))
            }
        }
    }

    /// While the upstream is waited for, a client that resets its connection takes its request with it.
    /// One that has merely ended its side may still read the answer. What it sends meanwhile is its next
    /// request; no more than a buffer of it is read. Most upstreams answer before the next tick: until then
    /// the client is left alone, for to look at it costs as much as a tenth of what we do for a request.
    fn poll_client(&mut self, cx: &mut TaskContext<'_>) -> Result<(), Broken> {
        let Connection { stream, buffer, timer, .. } = &mut *self.connection;
        if !self.is_waiting {
            self.is_waiting = self.is_sent;
            timer.want_tick(self.is_sent);
            return Ok(());
        }
        while self.is_sent && !self.has_client_ended && !buffer.is_full() {
            match buffer.poll_fill(cx, stream) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => {
                    self.has_client_ended = true;
                    timer.set(Limit::Idle, IDLE_TIMEOUT);
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Err(Broken::Client(Reason::ClientGone)),
            }
        }
        Ok(())
    }

    /// Something has moved: how long nothing may counts from now on, unless the rule's own limits take its place.
    pub(super) fn moved(&self) {
        let timer = &self.connection.timer;
        match self.job.timeouts().replace_idle(self.is_sent) {
            true => timer.clear(Limit::Idle),
            false => timer.set(Limit::Idle, IDLE_TIMEOUT),
        }
    }

    /// Once the request is sent, a rule's own timeouts take the place of the proxy's.
    fn wait_for_response(&self) {
        let timeouts = self.job.timeouts();
        if timeouts.request.is_some() || timeouts.backend_request.is_some() {
            self.connection.timer.clear(Limit::Idle);
        }
    }

    /// What is over, if anything is.
    pub(super) fn poll_over(&self, cx: &TaskContext<'_>) -> Poll<Limit> {
        let Connection { timer, context, client, .. } = &*self.connection;
        timer.poll_over(cx, || self.job.time_left(context, client))
    }

    fn broken_by(&self, limit: Limit) -> Broken {
        match limit {
            Limit::Withdrawn => Broken::Client(Reason::Withdrawn),
            Limit::Body => Broken::Client(Reason::RequestBodyTimeout),
            Limit::Idle if !self.is_sent => Broken::Client(Reason::RequestBodyTimeout),
            limit => Broken::Upstream(timed_out(limit)),
        }
    }

    /// Moves what there is of the request. Where the upstream takes no more of it, it may still answer.
    pub(super) fn poll_request(
        &mut self,
        cx: &mut TaskContext<'_>,
        stream: &mut Stream,
    ) -> Result<(), Broken> {
        if self.is_sent { Ok(()) } else { self.poll_rest(cx, stream) }
    }

    fn poll_rest(&mut self, cx: &mut TaskContext<'_>, stream: &mut Stream) -> Result<(), Broken> {
        let before = self.sending.moved();
        let client = (&mut self.connection.stream, &mut self.connection.buffer);
        let polled = self.sending.poll(cx, client, stream);
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
                self.wait_for_response();
                self.exchange.request_sent();
            }
            Poll::Ready(Err(PumpError::Write(_))) => {
                self.is_sent = true;
                self.wait_for_response();
                self.exchange.request_refused();
            }
            Poll::Ready(Err(PumpError::Read(_))) => return Err(Broken::Client(Reason::ClientGone)),
            Poll::Ready(Err(PumpError::Malformed(reason))) => return Err(Broken::Client(reason)),
        }
        self.pace.stop(&self.connection.timer);
        Ok(())
    }

    /// More of the request is to come: times the client, unless it is the upstream that takes no more, or
    /// the client waits to be told that it may go on. Once there is a response, how long the rest of the
    /// request takes is between the two of them.
    fn keep_pace(&mut self) {
        let Connection { timer, context, .. } = &*self.connection;
        let may_wait = self.job.view.request.expects_continue && self.sending.is_replayable();
        if self.sending.is_blocked() || may_wait || self.exchange.is_response_begun() {
            self.pace.stop(timer);
        } else {
            self.pace.wait(self.sending.moved(), timer, &context.shared().limits);
        }
    }
}

fn timed_out(limit: Limit) -> Failure {
    match limit {
        Limit::Request | Limit::Withdrawn => Failure::RequestTimeout,
        _ => Failure::AttemptTimeout,
    }
}
