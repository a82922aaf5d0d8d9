//! Owns a client's HTTP/2 connection: its streams, its limits, its end.
//!
//! Called by a worker for each connection, and lives on its thread as one task: the frames and every
//! stream on it. Frames are the `h2` crate's; what a request may be, where it goes and what its failures
//! become is decided where HTTP/1 has it decided. Refuses to know any of that.
//! Source: RFC 9113.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::Reason as Code;
use h2::server::{Builder, Connection as Frames};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::h1::{HEAD_TIMEOUT, IDLE_TIMEOUT};
use super::render::Origin;
use super::standing;
use super::timers::{Limit, Timer};
use crate::listen::context::{Client, Context};

mod connect;
mod content;
mod forward;
mod render;
mod request;
mod stream;

/// Streams of one connection at a time.
const MAX_STREAMS: u32 = 100;
/// Bytes that a client may send on one stream before they are taken.
const STREAM_WINDOW: u32 = 64 << 10;
/// Bytes that it may send on all of them: no upload starves the others.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of a response that wait for the client, per stream.
const SEND_BUFFER: usize = 64 << 10;
/// Decoded fields of a request, each with the 32 bytes that RFC 9113 section 6.5.2 adds.
const MAX_FIELD_BYTES: u32 = 32 << 10;
/// Resets that the client makes us send, over the life of a connection (CVE-2025-8671).
const MAX_OWN_RESETS: usize = 64;
/// Resets that the client sends within [`RESET_WINDOW`] (CVE-2023-44487).
const MAX_RESETS: usize = 100;
/// The time in which [`MAX_RESETS`] are borne.
const RESET_WINDOW: Duration = Duration::from_secs(10);

/// How long an idle connection that is to end may take to say that it has seen that.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves a client's connection until it ends.
pub async fn serve<S>(stream: S, client: Client, context: &Context)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let peer = client.peer;
    let handshake = builder().handshake::<_, Bytes>(stream);
    match timeout_at(client.accepted + HEAD_TIMEOUT, handshake).await {
        Ok(Ok(frames)) => {
            run(frames, &Shared::new(client, context)).await;
        }
        Ok(Err(error)) => debug!(%peer, %error, "no preface of HTTP/2"),
        Err(_) => debug!(%peer, "the preface of HTTP/2 took too long"),
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_FIELD_BYTES)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(MAX_OWN_RESETS))
        .max_pending_accept_reset_streams(MAX_STREAMS as usize)
        .enable_connect_protocol();
    builder
}

/// What the streams of a connection share.
struct Shared<'c> {
    client: Client,
    origin: Origin,
    context: &'c Context,
    resets: Resets,
}

impl<'c> Shared<'c> {
    fn new(client: Client, context: &'c Context) -> Self {
        let origin = Origin::new(client.peer.ip(), client.secure);
        Self { client, origin, context, resets: Resets::default() }
    }
}

/// When the client has reset streams, lately.
#[derive(Debug, Default)]
struct Resets(RefCell<VecDeque<Instant>>);

impl Resets {
    fn count(&self) {
        let mut times = self.0.borrow_mut();
        times.push_back(Instant::now());
        while times.front().is_some_and(|time| time.elapsed() > RESET_WINDOW) {
            times.pop_front();
        }
    }

    fn are_too_many(&self) -> bool {
        self.0.borrow().len() > MAX_RESETS
    }
}

/// Polls the frames and every stream on them until the connection has ended.
async fn run<S>(mut frames: Frames<S, Bytes>, shared: &Shared<'_>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut streams = FuturesUnordered::new();
    let mut life = Life::new(shared);
    poll_fn(|cx| {
        loop {
            // Streams first: what they send goes out with the frames below.
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {}
            match frames.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    streams.push(stream::serve(request, respond, shared));
                }
                Poll::Ready(Some(Err(error))) => {
                    debug!(peer = %shared.client.peer, %error, "an HTTP/2 connection broke");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => match life.poll(cx, streams.is_empty()) {
                    Poll::Ready(End::Now) => return Poll::Ready(()),
                    Poll::Ready(End::AfterStreams) => frames.graceful_shutdown(),
                    Poll::Ready(End::Abruptly) => frames.abrupt_shutdown(Code::ENHANCE_YOUR_CALM),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    })
    .await;
}

/// How a connection is to end.
enum End {
    /// It is left as it is.
    Now,
    /// GOAWAY in two steps: streams that are open, or on their way, are served.
    AfterStreams,
    /// GOAWAY, and nothing more is served.
    Abruptly,
}

/// Decides when a connection is to end.
struct Life<'s> {
    shared: &'s Shared<'s>,
    timer: Timer,
    was_busy: bool,
    is_ending: bool,
}

impl<'s> Life<'s> {
    fn new(shared: &'s Shared<'s>) -> Self {
        let timer = shared.context.timers.timer();
        timer.set(Limit::Idle, HEAD_TIMEOUT.saturating_sub(shared.client.accepted.elapsed()));
        timer.ask();
        Self { shared, timer, was_busy: false, is_ending: false }
    }

    fn poll(&mut self, cx: &TaskContext<'_>, is_idle: bool) -> Poll<End> {
        if !self.is_ending {
            if self.shared.resets.are_too_many() {
                self.end();
                return Poll::Ready(End::Abruptly);
            }
            if self.shared.context.is_draining() {
                self.end();
                return Poll::Ready(End::AfterStreams);
            }
        }
        if is_idle && self.was_busy {
            self.timer.set(Limit::Idle, if self.is_ending { FAREWELL } else { IDLE_TIMEOUT });
        } else if !is_idle {
            self.timer.clear(Limit::Idle);
        }
        self.was_busy = !is_idle;
        let Shared { client, context, .. } = self.shared;
        let time_left = || context.time_left(|table| standing::of_connection(table, client));
        match self.timer.poll_over(cx, time_left) {
            Poll::Ready(_) if self.is_ending => Poll::Ready(End::Now),
            Poll::Pending if self.is_ending || !self.timer.is_withdrawn() => Poll::Pending,
            _ => {
                self.end();
                Poll::Ready(End::AfterStreams)
            }
        }
    }

    fn end(&mut self) {
        self.is_ending = true;
        self.timer.set(Limit::Idle, FAREWELL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn resets_are_counted_over_a_sliding_window() {
        let resets = Resets::default();
        for _ in 0..MAX_RESETS {
            resets.count();
        }
        assert!(!resets.are_too_many());
        tokio::time::sleep(RESET_WINDOW / 2).await;
        resets.count();
        assert!(resets.are_too_many());
        tokio::time::sleep(RESET_WINDOW / 2 + Duration::from_millis(1)).await;
        resets.count();
        assert!(!resets.are_too_many());
    }
}
