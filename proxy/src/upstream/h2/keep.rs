//! Owns the life of a connection to an endpoint that speaks HTTP/2: it is driven, kept while it is of use, and
//! given up where the endpoint is silent.
//!
//! One task per connection, on the worker that made it. Knows nothing of what is said on it.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, interval};
use tracing::debug;

use super::super::registry::Endpoint;

/// How often a connection is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long nothing may be heard of an endpoint that has requests before it is asked to answer.
const SILENCE: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const PONG: Duration = Duration::from_secs(10);
/// How long it is not asked again where it has said nothing but that it is there: servers of gRPC end
/// connections on which they are asked more often.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// How long a connection without requests is kept.
const IDLE: Duration = Duration::from_secs(60);

/// A stream whose received bytes are counted.
pub(super) struct Counted<S> {
    stream: S,
    received: Rc<Cell<u64>>,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S, received: Rc<Cell<u64>>) -> Self {
        Self { stream, received }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        self.received.set(self.received.get() + (into.filled().len() - before) as u64);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Drives a connection until it ends. `exchanges` are counted by those who hold it besides the list of the
/// endpoint.
pub(super) async fn drive<S>(
    mut connection: Connection<Counted<S>, Bytes>,
    received: Rc<Cell<u64>>,
    endpoint: Weak<Endpoint>,
    exchanges: Weak<()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut watch = Watch::new(Instant::now());
    let mut ping = connection.ping_pong();
    let mut look = interval(LOOK_EVERY);
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    debug!(%error, "a connection of HTTP/2 broke");
                }
                return;
            }
            _ = look.tick() => match watch.look(received.get(), exchanges.strong_count() > 1, Instant::now()) {
                Verdict::Keep => {}
                Verdict::Ask => ask(ping.as_mut()),
                Verdict::LetGo => {
                    // The last that could begin a stream on it goes with its place in the list: it ends.
                    if let (Some(endpoint), Some(exchanges)) = (endpoint.upgrade(), exchanges.upgrade()) {
                        endpoint.multiplexed().let_go(&exchanges);
                    }
                }
                Verdict::GiveUp => {
                    debug!("an endpoint of HTTP/2 is silent");
                    if let (Some(endpoint), Some(exchanges)) = (endpoint.upgrade(), exchanges.upgrade()) {
                        endpoint.multiplexed().forget(&exchanges);
                    }
                    return;
                }
            },
        }
    }
}

fn ask(ping: Option<&mut PingPong>) {
    let Some(ping) = ping else { return };
    // The answer to the last one is taken note of, or no other could be sent.
    let _ = ping.poll_pong(&mut Context::from_waker(std::task::Waker::noop()));
    let _ = ping.send_ping(Ping::opaque());
}

/// What is to be done with a connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// A PING is due.
    Ask,
    /// It is of no use any more.
    LetGo,
    /// There is nobody on the other side.
    GiveUp,
}

/// What was heard of an endpoint, and when.
#[derive(Debug)]
struct Watch {
    received: u64,
    /// When something was last heard, or the first request after a pause had begun.
    heard: Instant,
    /// When it last had a request.
    used: Instant,
    asked: Option<Instant>,
    /// Before that, an endpoint that says nothing else is not asked again.
    not_before: Instant,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self { received: 0, heard: now, used: now, asked: None, not_before: now }
    }

    fn look(&mut self, received: u64, is_used: bool, now: Instant) -> Verdict {
        if received != self.received {
            self.received = received;
            self.heard = now;
            self.not_before = match self.asked.take() {
                Some(asked) => asked + ASK_AGAIN,
                None => now,
            };
        }
        if !is_used {
            self.heard = now;
            self.asked = None;
            return if now - self.used >= IDLE { Verdict::LetGo } else { Verdict::Keep };
        }
        self.used = now;
        match self.asked {
            Some(asked) if now - asked >= PONG => Verdict::GiveUp,
            None if now - self.heard >= SILENCE && now >= self.not_before => {
                self.asked = Some(now);
                Verdict::Ask
            }
            _ => Verdict::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done at each look, where these bytes have been received by then.
    fn looks(received: impl IntoIterator<Item = u64>, is_used: bool) -> Vec<Verdict> {
        let begun = Instant::now();
        let mut watch = Watch::new(begun);
        let look = |(number, received)| watch.look(received, is_used, begun + LOOK_EVERY * number);
        (1..).zip(received).map(look).collect()
    }

    fn count(verdicts: &[Verdict], verdict: &Verdict) -> usize {
        verdicts.iter().filter(|other| *other == verdict).count()
    }

    #[test]
    fn an_endpoint_that_is_silent_with_requests_is_asked_and_given_up_where_it_does_not_answer() {
        use Verdict::{Ask, GiveUp, Keep};
        assert_eq!(looks([1; 5], true), [Keep, Keep, Ask, Keep, GiveUp]);
    }

    #[test]
    fn one_that_answers_is_not_asked_again_for_minutes_unless_it_has_said_more() {
        let quiet = looks([1, 1, 1].into_iter().chain([2; 62]), true);
        assert_eq!(count(&quiet, &Verdict::Ask), 2);
        assert_eq!(quiet[2], Verdict::Ask);
        assert_eq!(quiet[62], Verdict::Ask);
        let talks = looks([1, 1, 1, 2, 3, 3, 3], true);
        assert_eq!(count(&talks, &Verdict::Ask), 2);
    }

    #[test]
    fn a_connection_without_requests_is_let_go_and_never_asked() {
        let idle = looks([1; 13], false);
        assert_eq!(idle[11], Verdict::LetGo);
        assert_eq!(count(&idle, &Verdict::Keep), 11);
    }
}
