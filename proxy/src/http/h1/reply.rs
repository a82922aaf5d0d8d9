//! Owns what the client gets of a forwarded request: the upstream's response, another protocol, or an
//! answer instead.
//!
//! The second half of [`Forwarding`]; knows nothing of attempts.

use std::future::poll_fn;
use std::task::{Context as TaskContext, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use super::buffer::ReadBuffer;
use super::forward::{Forwarding, Upstream};
use super::pump::{Pump, PumpError};
use super::{Outcome, rarely};
use crate::http::body::{BodyReader, BodyWriter};
use crate::http::exchange::{Failure, Next, Received};
use crate::http::head::{Head, Response};
use crate::http::render::{self, Persistence};
use crate::http::respond::Reason;
use crate::http::timers::Limit;
use crate::http::tunnel::{Side, tunnel};
use crate::http::validate::framing::Framing;
use crate::http::validate::{Method, Version};

impl<'c, S> Forwarding<'_, 'c, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Passes the response on, of which the head has been read.
    pub(super) async fn finish(
        &mut self,
        upstream: &mut Upstream<'c>,
        head: &Head,
        (response, received): (Response, Received),
        reply: &mut Vec<u8>,
    ) -> Outcome {
        let Received::Final(framing) = received else {
            return rarely(self.switch(upstream, head, &response, reply)).await;
        };
        let towards = self.render_response(head, (&response, framing), upstream, reply);
        upstream.buffer.consume(head.len());
        let mut receiving = Pump::new(BodyReader::new(framing), BodyWriter::new(towards), reply);
        if receiving.take(&mut upstream.buffer).is_err() && !receiving.is_begun() {
            drop(receiving);
            return rarely(self.fail(Failure::Malformed, reply)).await;
        }
        self.exchange.response_begun();
        if let Err(reason) = poll_fn(|cx| self.poll_response(cx, upstream, &mut receiving)).await {
            return Outcome { status: response.status, ..self.cut(reason) };
        }
        self.exchange.response_received();
        self.exchange.response_sent();
        Outcome { status: response.status, reason: None, keep: self.exchange.ending().keep_client }
    }

    /// The exchange is over: keeps the connection to the endpoint, if it can serve another one.
    pub(super) fn part(&self, upstream: Upstream<'c>) {
        if self.exchange.ending().keep_upstream && upstream.buffer.data().is_empty() {
            let context = self.connection.context;
            context.pool.keep(upstream.in_flight.endpoint(), upstream.stream, context.timers.now());
        }
    }

    /// Renders the head of the final response; returns the framing towards the client.
    fn render_response(
        &mut self,
        head: &Head,
        (response, framing): (&Response, Framing),
        upstream: &Upstream<'c>,
        reply: &mut Vec<u8>,
    ) -> Framing {
        let is_old = self.job.view.request.version == Version::Http10;
        let towards = match (framing, upstream.stream.length()) {
            // There is no place behind it for trailers.
            (Framing::Chunked, Some(length)) => Framing::Length(length),
            (Framing::Chunked | Framing::UntilClose, _) if is_old => Framing::UntilClose,
            (Framing::UntilClose, _) => Framing::Chunked,
            (framing, _) => framing,
        };
        let must_close = self.exchange.must_close_client()
            || towards == Framing::UntilClose
            || self.connection.is_ending();
        let persistence = match must_close {
            true => Persistence::Close,
            false if is_old => Persistence::KeepTold,
            false => Persistence::Keep,
        };
        if must_close {
            self.exchange.close_client();
        }
        reply.clear();
        let bytes = &upstream.buffer.data()[..head.len()];
        let edits = self.job.edits(upstream.in_flight.endpoint(), &self.connection.client);
        render::response(response, (head, bytes), &edits, towards, persistence, reply);
        towards
    }

    fn poll_response(
        &mut self,
        cx: &mut TaskContext<'_>,
        upstream: &mut Upstream<'c>,
        receiving: &mut Pump<'_>,
    ) -> Poll<Result<(), Reason>> {
        if self.poll_request(cx, &mut upstream.stream).is_err() {
            return Poll::Ready(Err(Reason::ClientGone));
        }
        let before = receiving.moved();
        let from = (&mut upstream.stream, &mut upstream.buffer);
        let polled = receiving.poll(cx, from, &mut self.connection.stream);
        if receiving.moved() != before {
            self.moved();
        }
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(PumpError::Write(_))) => Poll::Ready(Err(Reason::ClientGone)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Reason::ResponseCut)),
            Poll::Pending => self.poll_over(cx).map(|_| Err(Reason::ResponseCut)),
        }
    }

    /// The connection becomes what both sides agreed on.
    async fn switch(
        &mut self,
        upstream: &mut Upstream<'c>,
        head: &Head,
        response: &Response,
        reply: &mut Vec<u8>,
    ) -> Outcome {
        reply.clear();
        let length = head.len();
        let edits = self.job.edits(upstream.in_flight.endpoint(), &self.connection.client);
        render::switched(response, (head, &upstream.buffer.data()[..length]), &edits, reply);
        upstream.buffer.consume(length);
        let outcome = Outcome { status: 101, reason: None, keep: false };
        let connection = &mut *self.connection;
        if !connection.write(reply).await {
            return Outcome { reason: Some(Reason::ClientGone), ..outcome };
        }
        connection.timer.clear(Limit::Request);
        connection.timer.clear(Limit::Attempt);
        self.pace.stop(&connection.timer);
        let emptied = ReadBuffer::new(&connection.context.buffers);
        let buffer = std::mem::replace(&mut connection.buffer, emptied);
        let client = Side { stream: &mut connection.stream, buffer };
        let emptied = ReadBuffer::new(&connection.context.buffers);
        let buffer = std::mem::replace(&mut upstream.buffer, emptied);
        let upstream = Side { stream: &mut upstream.stream, buffer };
        let (job, context, whose) = (self.job, connection.context, &connection.client);
        tunnel(client, upstream, &connection.timer, || job.time_left(context, whose)).await;
        outcome
    }

    /// The upstream failed after its head was read and before anything was sent.
    async fn fail(&mut self, failure: Failure, reply: &mut Vec<u8>) -> Outcome {
        match self.exchange.upstream_failed(failure, false, false) {
            Next::Answer(reason) => self.answer(reason, reply).await,
            Next::Retry | Next::Cut => self.cut(Reason::ResponseCut),
        }
    }

    pub(super) async fn client_failed(&mut self, reason: Reason, reply: &mut Vec<u8>) -> Outcome {
        if reason == Reason::ClientGone || self.exchange.is_response_begun() {
            return self.cut(reason);
        }
        self.answer(reason, reply).await
    }

    /// Answers instead of the upstream.
    pub(super) async fn answer(&mut self, reason: Reason, reply: &mut Vec<u8>) -> Outcome {
        let request = self.job.view.request;
        let keep = !reason.closes() && self.connection.can_keep(request);
        self.connection.answer(reason, request.method == Method::Head, !keep, reply).await;
        Outcome::of(reason, keep && self.connection.discard(self.sending.reader()).await)
    }

    /// Leaves the response as it is: incomplete, which the client sees.
    pub(super) fn cut(&self, reason: Reason) -> Outcome {
        Outcome { status: reason.status(), reason: Some(reason), keep: false }
    }
}
