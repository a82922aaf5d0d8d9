//! Owns a client's HTTP/2 connection: its streams, its limits, its end.
//!
//! Called by a worker for each connection, and lives on its thread as one task: the frames and every
//! stream on it. Frames are the `h2` crate's; what a request may be, where it goes and what its failures
//! become is decided where HTTP/1 has it decided. Refuses to know any of that.
//! Source: RFC 9113.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::Reason as Code;
use h2::server::{Builder, Connection as Frames};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::h1::HEAD_TIMEOUT;
use super::render::Origin;
use super::timers::Timer;
use crate::listen::context::{Client, Context};

mod authorise;
mod connect;
mod content;
mod forward;
mod life;
mod render;
mod reply;
mod request;
mod stream;
mod wire;

use life::{End, Life};
use wire::{Seen, Wire};

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
/// The same of all requests that are under way on a connection.
const MAX_HEADS: usize = 512 << 10;
/// Content of requests that is held to be shown to services that authorise them, likewise.
const MAX_SHOWN: usize = 1 << 20;
/// Timers that an idle connection keeps for the streams to come.
const MAX_SPARE_TIMERS: usize = 16;
/// Resets that the client makes us send, over the life of a connection (CVE-2025-8671).
const MAX_OWN_RESETS: usize = 64;
/// Resets that the client sends within [`RESET_WINDOW`] (CVE-2023-44487).
const MAX_RESETS: usize = 100;
/// The time in which [`MAX_RESETS`] are borne.
const RESET_WINDOW: Duration = Duration::from_secs(10);

/// Serves a client's connection until it ends.
pub async fn serve<S>(mut stream: S, client: Client, context: &Context)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let seen = Seen::default();
    let wire = Wire::new(&mut stream, &seen);
    let Some(frames) = handshake(wire, &client).await else { return };
    run(frames, &Shared::new(client, context, &seen)).await;
    life::linger(&mut stream, &context.timers.timer()).await;
}

async fn handshake<W>(wire: W, client: &Client) -> Option<Frames<W, Bytes>>
where
    W: AsyncRead + AsyncWrite + Unpin,
{
    let peer = client.peer;
    match timeout_at(client.accepted + HEAD_TIMEOUT, builder().handshake(wire)).await {
        Ok(Ok(frames)) => return Some(frames),
        Ok(Err(error)) => debug!(%peer, %error, "no preface of HTTP/2"),
        Err(_) => debug!(%peer, "the preface of HTTP/2 took too long"),
    }
    None
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
    seen: &'c Seen,
    /// Decoded fields of the requests that are under way.
    heads: Cell<usize>,
    /// Content of theirs that is held to be shown to services.
    shown: Cell<usize>,
    /// The timers of streams that are over.
    timers: RefCell<Vec<Timer>>,
}

impl<'c> Shared<'c> {
    fn new(client: Client, context: &'c Context, seen: &'c Seen) -> Self {
        let origin = Origin::new(client.peer.ip(), client.secure);
        let (heads, shown, timers) = (Cell::new(0), Cell::new(0), RefCell::default());
        Self { client, origin, context, resets: Resets::default(), seen, heads, shown, timers }
    }

    /// A timer with no deadline, for a stream.
    fn timer(&self) -> Timer {
        self.timers.borrow_mut().pop().unwrap_or_else(|| self.context.timers.timer())
    }

    /// Takes the timer of a stream that is over.
    fn give_back(&self, timer: Timer) {
        let mut timers = self.timers.borrow_mut();
        if timers.len() < MAX_SPARE_TIMERS {
            timer.reset();
            timers.push(timer);
        }
    }
}

/// A request's share of what all requests of its connection may hold, while it is under way.
struct Share<'s> {
    total: &'s Cell<usize>,
    size: Cell<usize>,
}

impl<'s> Share<'s> {
    fn of(total: &'s Cell<usize>) -> Self {
        Self { total, size: Cell::new(0) }
    }

    fn of_head(total: &'s Cell<usize>, fields: &HeaderMap) -> Self {
        let share = Self::of(total);
        share.grow(fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum());
        share
    }

    fn grow(&self, by: usize) {
        self.size.update(|size| size + by);
        self.total.update(|total| total + by);
    }

    /// Whether all shares together are at most so much.
    fn is_within(&self, most: usize) -> bool {
        self.total.get() <= most
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.total.update(|total| total - self.size.get());
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
async fn run<W>(mut frames: Frames<W, Bytes>, shared: &Shared<'_>)
where
    W: AsyncRead + AsyncWrite + Unpin,
{
    let mut streams = FuturesUnordered::new();
    let mut life = Life::new(shared, frames.ping_pong());
    poll_fn(|cx| {
        loop {
            // Streams first: what they send goes out with the frames below.
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {}
            match frames.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    // On the heap before it is handed over: what is handed over is moved three times.
                    streams.push(Box::pin(stream::serve(request, respond, shared)));
                    life.begin_stream();
                }
                Poll::Ready(Some(Err(error))) => {
                    debug!(peer = %shared.client.peer, %error, "an HTTP/2 connection broke");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => match life.poll(cx, !streams.is_empty()) {
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

#[cfg(test)]
mod tests;
