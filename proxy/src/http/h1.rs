//! Owns a client's HTTP/1 connection: one exchange after the other.
//!
//! Called by a worker for each connection, and lives on its thread. Reads a head, has it validated and
//! routed, and answers: by itself, or by [`forward`]. Refuses to know how a request is matched and how an
//! endpoint is chosen.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tracing::debug;

use super::body::BodyReader;
use super::head::Head;
use super::plan::{self, Extra, Plan, Planned};
use super::render::Origin;
use super::respond::{self, Reason};
use super::timers::{Limit, Timer};
use super::validate::framing::Framing;
use super::validate::{self, Method, Request};
use crate::listen::context::{Client, Context};
use crate::table::route::Routed;

mod authorise;
pub mod buffer;
mod forward;
mod idle;
mod job;
pub mod pump;
mod reply;
mod view;

use buffer::{ReadBuffer, Scratch};
pub use idle::IDLE_TIMEOUT;
use view::View;

/// How long a client may take from its first byte (of a new connection: from its accept) to the end of
/// the head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What is read of a request after it was refused, so that the client gets to read the answer.
const MAX_LINGERING: usize = 256 << 10;

/// The most content of a request that is read past so that its connection can go on.
const MAX_DISCARDED: usize = 64 << 10;

/// How long reading after a refusal may take.
const LINGER: Duration = Duration::from_secs(1);

/// Serves a client's connection until it ends.
pub async fn serve<S>(stream: S, client: Client, context: &Context)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Connection::new(stream, client, context);
    while connection.serve_one().await {}
    connection.timer.clear(Limit::Idle);
    // The other side may be gone already.
    let _ = connection.stream.shutdown().await;
}

/// A client's connection.
struct Connection<'c, S> {
    stream: S,
    buffer: ReadBuffer<'c>,
    client: Client,
    origin: Origin,
    context: &'c Context,
    timer: Timer,
    is_first: bool,
}

/// How an exchange went.
#[derive(Clone, Copy)]
struct Outcome {
    /// The status that the client got, or would have.
    status: u16,
    /// Why it was not the upstream's answer in full.
    reason: Option<Reason>,
    /// Whether the connection can serve another exchange.
    keep: bool,
}

impl Outcome {
    fn of(reason: Reason, keep: bool) -> Self {
        Self { status: reason.status(), reason: Some(reason), keep }
    }
}

/// Why no head was read.
enum NoHead {
    /// The client has ended, idles for too long, or is asked to.
    Ended,
    /// What it sent is refused.
    Refused(Reason),
}

/// What rarely happens, on the heap and out of the way: the task of each connection has room for all that it
/// may wait for, and all that it does between two waits lies in one function, which is fetched again after
/// each system call.
#[cold]
fn rarely<F: Future>(future: F) -> Pin<Box<F>> {
    Box::pin(future)
}

/// Waits for a future, or until a deadline of the connection is over.
async fn within<F: Future>(timer: &Timer, future: F) -> Result<F::Output, Limit> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => timer.poll_expired(cx).map(Err),
    })
    .await
}

impl<'c, S> Connection<'c, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn new(stream: S, client: Client, context: &'c Context) -> Self {
        let timer = context.timers.timer();
        timer.set(Limit::Idle, HEAD_TIMEOUT.saturating_sub(client.accepted.elapsed()));
        timer.ask();
        Self {
            stream,
            buffer: ReadBuffer::new(&context.buffers),
            origin: Origin::new(client.peer.ip(), client.secure),
            client,
            context,
            timer,
            is_first: true,
        }
    }

    /// Serves one exchange; whether there can be another one.
    async fn serve_one(&mut self) -> bool {
        if self.buffer.data().is_empty() && !self.wait().await {
            return false;
        }
        let begun = Instant::now();
        let mut scratch = self.context.buffers.scratch();
        let outcome = match self.read_head(&mut scratch).await {
            Ok(()) => self.exchange(&mut scratch, begun).await,
            Err(NoHead::Ended) => false,
            Err(NoHead::Refused(reason)) => rarely(self.refuse_unread(reason, &mut scratch.out)).await,
        };
        self.context.buffers.give_back_scratch(scratch);
        self.is_first = false;
        outcome
    }

    /// Reads a head and freezes it.
    async fn read_head(&mut self, scratch: &mut Scratch) -> Result<(), NoHead> {
        if !self.is_first {
            self.timer.set(Limit::Idle, HEAD_TIMEOUT);
        }
        let Self { stream, buffer, timer, .. } = self;
        loop {
            if let Some(length) = scratch.head.parse(buffer.data()).map_err(NoHead::Refused)? {
                scratch.bytes.extend_from_slice(&buffer.data()[..length]);
                buffer.consume(length);
                return Ok(());
            }
            let read = within(timer, poll_fn(|cx| buffer.poll_fill(cx, stream))).await;
            match read {
                Ok(Ok(read)) if read > 0 => {}
                Ok(_) => return Err(NoHead::Ended),
                Err(_) => return Err(NoHead::Refused(Reason::RequestHeadTimeout)),
            }
        }
    }

    async fn exchange(&mut self, scratch: &mut Scratch, begun: Instant) -> bool {
        let _active = self.context.metrics().active();
        let Scratch { bytes, head, response, out, reply } = scratch;
        self.timer.set(Limit::Idle, IDLE_TIMEOUT);
        let line = head.request_line(bytes);
        // Matched by reference, here and below: what is taken apart by value is copied at every step.
        let valid = line.and_then(|line| validate::request(line, head.fields(bytes)));
        let request = match &valid {
            Ok(request) => request,
            Err(reason) => return rarely(self.refuse_unread(*reason, out)).await,
        };
        let view = View { request, head, bytes };
        let (outcome, routed) = match self.context.table(|table| plan::plan(table, &view, &self.client)) {
            Planned::Unrouted(reason) => (rarely(self.refuse(reason, request, out)).await, None),
            Planned::Routed(routed, asking, plan) => {
                let planned = match asking {
                    None => Ok(plan),
                    // Boxed: connections on which nobody is asked have no room for it.
                    Some(asking) => rarely(self.authorise((&asking, plan), view, &routed, out)).await,
                };
                let outcome = match &planned {
                    Ok(plan) => self.follow(plan, view, &routed, (response, out, reply)).await,
                    Err(outcome) => *outcome,
                };
                (outcome, Some(routed))
            }
        };
        self.timer.clear(Limit::Request);
        self.timer.clear(Limit::Attempt);
        // It may still run where the exchange failed before all of the content had come.
        self.timer.clear(Limit::Body);
        self.record(&outcome, routed.as_ref(), begun);
        match outcome.reason {
            Some(Reason::ClientGone | Reason::ResponseCut) => return false,
            _ if !outcome.keep => rarely(self.linger()).await,
            _ => {}
        }
        outcome.keep
    }

    async fn follow(
        &mut self,
        plan: &Plan,
        view: View<'_>,
        routed: &Routed,
        (response, out, reply): (&mut Head, &mut Vec<u8>, &mut Vec<u8>),
    ) -> Outcome {
        match plan {
            Plan::Answer(reason) => rarely(self.refuse(*reason, view.request, out)).await,
            Plan::Preflight(edits) => {
                let head = |close, out: &mut Vec<u8>| respond::preflight(edits, close, out);
                rarely(self.reply(respond::PREFLIGHT, head, view.request, out)).await
            }
            Plan::Redirect(share, extra) => {
                rarely(self.redirect(routed, (*share, extra), view.request, out)).await
            }
            Plan::Forward(target) => {
                let job = job::Job { view, routed, target };
                forward::forward(self, &job, response, out, reply).await
            }
        }
    }

    fn record(&self, outcome: &Outcome, routed: Option<&Routed>, begun: Instant) {
        let reason = outcome.reason.map(Reason::label);
        let route = routed.map(|routed| routed.route.id.as_str());
        debug!(status = outcome.status, reason, route, peer = %self.client.peer, "served");
        if let Some(reason) = outcome.reason {
            self.context.metrics().refused(reason);
        }
        if let Some(routed) = routed {
            routed.route.metrics.record(self.context.worker(), outcome.status, begun.elapsed());
        }
    }

    /// Answers what is no valid request, and ends the connection; whether another exchange can follow.
    async fn refuse_unread(&mut self, reason: Reason, out: &mut Vec<u8>) -> bool {
        self.context.metrics().refused(reason);
        self.answer(reason, false, true, out).await;
        self.linger().await;
        false
    }

    /// Answers a valid request; the connection goes on if all of the request is here.
    async fn refuse(&mut self, reason: Reason, request: &Request<'_>, out: &mut Vec<u8>) -> Outcome {
        let keep = self.can_keep(request) && !reason.closes();
        self.answer(reason, request.method == Method::Head, !keep, out).await;
        Outcome::of(reason, keep && self.discard(&mut BodyReader::new(request.framing)).await)
    }

    async fn redirect(
        &mut self,
        routed: &Routed,
        (share, extra): (Option<usize>, &Extra),
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Some(redirect) = &routed.filters(share).redirect else {
            return self.refuse(Reason::InvalidRule, request, out).await;
        };
        let redirected = super::filters::redirect::Redirected {
            tls: self.client.secure,
            host: request.authority.host,
            port: self.client.local.port(),
            path: &request.path,
            query: request.query,
            matched: routed.matched,
        };
        let edits = plan::edits(routed, share, extra);
        let location = |out: &mut Vec<u8>| redirect.location(&redirected, out);
        let head = |close, out: &mut Vec<u8>| {
            respond::redirect(redirect.status, location, edits, close, out);
        };
        self.reply(redirect.status, head, request, out).await
    }

    /// Answers as the route says, with a head that `head` appends; the connection goes on if all of the
    /// request is here.
    async fn reply(
        &mut self,
        status: u16,
        head: impl FnOnce(bool, &mut Vec<u8>),
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let keep = self.can_keep(request);
        head(!keep, out);
        let sent = self.write(out).await;
        let keep = keep && sent && self.discard(&mut BodyReader::new(request.framing)).await;
        Outcome { status, reason: None, keep }
    }

    /// Whether the connection can go on after an answer that is not the upstream's: what is left of the
    /// request will come, and is little enough to be read past.
    fn can_keep(&self, request: &Request<'_>) -> bool {
        let is_little = match request.framing {
            Framing::Length(length) => length <= MAX_DISCARDED as u64,
            Framing::None | Framing::Chunked => true,
            Framing::UntilClose => false,
        };
        is_little && !request.expects_continue && !request.close && !self.is_ending()
    }

    /// Whether no exchange follows the one that goes on.
    fn is_ending(&self) -> bool {
        self.context.is_draining() || self.timer.is_withdrawn()
    }

    /// Reads past the content of a request that was answered; whether that came to an end.
    async fn discard(&mut self, content: &mut BodyReader) -> bool {
        let Self { stream, buffer, timer, .. } = self;
        let mut left = MAX_DISCARDED;
        loop {
            while let Ok(step) = content.read(buffer.data())
                && step.consumed > 0
            {
                buffer.consume(step.consumed);
                left = left.saturating_sub(step.consumed);
            }
            if content.is_done() {
                return true;
            }
            if left == 0 || !buffer.data().is_empty() {
                return false;
            }
            match within(timer, poll_fn(|cx| buffer.poll_fill(cx, stream))).await {
                Ok(Ok(read)) if read > 0 => {}
                _ => return false,
            }
        }
    }

    async fn answer(&mut self, reason: Reason, to_head: bool, close: bool, out: &mut Vec<u8>) {
        out.clear();
        respond::answer(reason, to_head, close, out);
        self.write(out).await;
    }

    async fn write(&mut self, bytes: &[u8]) -> bool {
        let Self { stream, timer, .. } = self;
        let write = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        matches!(within(timer, write).await, Ok(Ok(())))
    }

    /// Ends our side and reads past what the client still sends: closing with bytes unread would reset
    /// the connection, and the client might never see the answer.
    async fn linger(&mut self) {
        self.timer.set(Limit::Idle, LINGER);
        let Self { stream, buffer, timer, .. } = self;
        let read_past = async {
            if stream.shutdown().await.is_err() {
                return;
            }
            let mut left = MAX_LINGERING;
            while left > 0 {
                let unused = buffer.data().len();
                buffer.consume(unused);
                match poll_fn(|cx| buffer.poll_fill(cx, stream)).await {
                    Ok(read) if read > 0 => left = left.saturating_sub(read),
                    _ => return,
                }
            }
        };
        // Over by then or not: the connection ends.
        let _ = within(timer, read_past).await;
    }
}

#[cfg(test)]
pub(in crate::http) mod tests;
