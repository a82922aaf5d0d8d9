//! Owns what the client gets of a forwarded request: the upstream's response, another protocol, or an
//! answer instead.
//!
//! The second half of [`Forwarding`]; knows nothing of attempts.

use std::future::poll_fn;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use h2::{Reason as Code, SendStream};

use super::connect::Tunnelled;
use super::content::{Receiving, Stopped};
use super::forward::{Forwarding, Upstream};
use super::render;
use super::stream::{Outcome, answer};
use crate::http::body::BodyReader;
use crate::http::exchange::{Failure, Next, Received};
use crate::http::h1::buffer::ReadBuffer;
use crate::http::head::{Head, Response};
use crate::http::respond::Reason;
use crate::http::timers::Limit;
use crate::http::tunnel::{Side, tunnel};
use crate::http::validate::framing::Framing;

impl<'a> Forwarding<'a> {
    /// Passes on a response, or another protocol.
    pub(super) async fn pass_on(
        &mut self,
        upstream: &mut Upstream<'a>,
        head: &Head,
        (response, received): (Response, Received),
    ) -> Outcome {
        match received {
            Received::Final(framing) => self.finish(upstream, (head, &response), framing).await,
            // On the heap: it is rare, and every stream would have room for it.
            _ => Box::pin(self.switch(upstream, head, &response)).await,
        }
    }

    /// Passes the response on, of which the head has been read.
    async fn finish(
        &mut self,
        upstream: &mut Upstream<'a>,
        (head, response): (&Head, &Response),
        framing: Framing,
    ) -> Outcome {
        let length = head.len();
        let bytes = &upstream.buffer.data()[..length];
        let edits = self.job.edits(upstream.in_flight.endpoint(), self.shared);
        let announced = upstream.stream.length().map_or(framing, Framing::Length);
        let sent = render::response(response, (head, bytes), &edits, announced);
        drop(edits);
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
            let passed = poll_fn(|cx| self.poll_response(cx, upstream, &mut receiving, &mut stream)).await;
            if let Err(reason) = passed {
                // The client must see that the response is incomplete.
                stream.send_reset(Code::INTERNAL_ERROR);
                return Outcome { status: response.status, reason: Some(reason) };
            }
        }
        self.exchange.response_received();
        self.exchange.response_sent();
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
            self.moved();
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
    async fn switch(&mut self, upstream: &mut Upstream<'a>, head: &Head, response: &Response) -> Outcome {
        let length = head.len();
        let bytes = &upstream.buffer.data()[..length];
        let edits = self.job.edits(upstream.in_flight.endpoint(), self.shared);
        let sent = render::connected(response, (head, bytes), &edits);
        drop(edits);
        upstream.buffer.consume(length);
        let Ok(to) = self.respond.send_response(sent, false) else {
            return Outcome::of(Reason::ClientGone);
        };
        self.timer.clear(Limit::Request);
        self.timer.clear(Limit::Attempt);
        self.pace.stop(&self.timer);
        let mut client = Tunnelled::new(self.sending.body(), to);
        let buffer = ReadBuffer::new(&self.shared.context.buffers);
        let client = Side { stream: &mut client, buffer };
        let emptied = ReadBuffer::new(&self.shared.context.buffers);
        let buffer = std::mem::replace(&mut upstream.buffer, emptied);
        let upstream = Side { stream: &mut upstream.stream, buffer };
        tunnel(client, upstream, &self.timer, || self.job.time_left(self.shared)).await;
        Outcome { status: 200, reason: None }
    }

    pub(super) fn client_failed(&mut self, reason: Reason) -> Outcome {
        if reason == Reason::ClientGone || self.exchange.is_response_begun() {
            self.respond.send_reset(Code::CANCEL);
            return Outcome::of(reason);
        }
        self.answer(reason)
    }

    /// Answers instead of the upstream.
    pub(super) fn answer(&mut self, reason: Reason) -> Outcome {
        answer(reason, Some(self.job.checked), self.respond);
        Outcome::of(reason)
    }
}
