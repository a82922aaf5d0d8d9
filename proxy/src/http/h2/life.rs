//! Owns when a client's connection is to end, and that it ends without a loss.
//!
//! Decides only; [`run`](super::run) carries it out. A connection ends when it has been idle, when the
//! worker drains, when its listener is gone, when it is old, when the client floods it, when the client is gone without a word. What has
//! been handed to the `h2` crate is not yet sent: until it is, the connection is not idle.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::Shared;
use crate::http::h1::{HEAD_TIMEOUT, IDLE_TIMEOUT};
use crate::http::standing;
use crate::http::timers::{Limit, Timer};

/// How long an idle connection that is to end may take to say that it has seen that.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long bytes may wait for a client that takes none.
const STUCK: Duration = Duration::from_secs(30);
/// How long nothing may be heard of a client that has requests under way before it is asked to answer.
const SILENCE: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const PONG: Duration = Duration::from_secs(30);
/// How old a connection gets; up to a tenth is added, so that not all end at once.
const AGE: Duration = Duration::from_secs(3600);

/// How long a client may go on without a word after we ended our side.
const LINGER: Duration = Duration::from_secs(2);
/// How long it may go on at all.
const LINGER_IN_ALL: Duration = Duration::from_secs(30);
/// Bytes that are read past meanwhile.
const MAX_LINGERING: usize = 1 << 20;

/// How a connection is to end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is left as it is.
    Now,
    /// GOAWAY in two steps: streams that are open, or on their way, are served.
    AfterStreams,
    /// GOAWAY, and nothing more is served.
    Abruptly,
}

/// What keeps a connection from being idle.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    None,
    /// Bytes that are to be sent, at this count of those that have been.
    Sending(u64),
    Streams,
}

/// Decides when a connection is to end.
pub(super) struct Life<'s> {
    shared: &'s Shared<'s>,
    timer: Timer,
    work: Work,
    is_ending: bool,
    /// No request has come yet. Such a client may have sent one without knowing of a drain: it is served.
    is_fresh: bool,
    ping: Option<PingPong>,
    /// How much had come when it was last looked at.
    heard: u64,
    is_asked: bool,
}

impl<'s> Life<'s> {
    pub(super) fn new(shared: &'s Shared<'s>, ping: Option<PingPong>) -> Self {
        let timer = shared.context.timers.timer();
        timer.set(Limit::Idle, HEAD_TIMEOUT.saturating_sub(shared.client.accepted.elapsed()));
        timer.ask();
        timer.set(Limit::Silence, SILENCE);
        timer.set(Limit::Age, AGE + AGE.mul_f64(rand::random_range(0.0..0.1)));
        Self {
            shared,
            timer,
            work: Work::None,
            is_ending: false,
            is_fresh: true,
            ping,
            heard: 0,
            is_asked: false,
        }
    }

    /// A request has come; it may be over before the next look.
    pub(super) fn begin_stream(&mut self) {
        self.is_fresh = false;
        self.look_at_work(Work::Streams);
    }

    /// Whether the connection is to end. Called after everything has been polled.
    pub(super) fn poll(&mut self, cx: &Context<'_>, has_streams: bool) -> Poll<End> {
        let Shared { resets, seen, context, client, .. } = self.shared;
        if !self.is_ending {
            if resets.are_too_many() || seen.is_flooded() {
                return self.end(End::Abruptly);
            }
            if context.is_draining() && !self.is_fresh {
                return self.end(End::AfterStreams);
            }
        } else if seen.is_flooded() {
            return Poll::Ready(End::Now);
        }
        self.look_at_work(match seen.is_stuck() {
            _ if has_streams => Work::Streams,
            true => Work::Sending(seen.written()),
            false => Work::None,
        });
        let time_left = || context.time_left(|table| standing::of_connection(table, client));
        loop {
            match self.timer.poll_over(cx, time_left) {
                Poll::Ready(Limit::Silence) if !self.is_silent() => {}
                Poll::Ready(Limit::Silence) => return Poll::Ready(End::Now),
                Poll::Ready(_) if self.is_ending => return Poll::Ready(End::Now),
                Poll::Pending if self.is_ending || !self.timer.is_withdrawn() => return Poll::Pending,
                _ => return self.end(End::AfterStreams),
            }
        }
    }

    fn look_at_work(&mut self, work: Work) {
        if work == self.work {
            return;
        }
        match work {
            Work::Streams => self.timer.clear(Limit::Idle),
            Work::Sending(_) => self.timer.set(Limit::Idle, STUCK),
            Work::None => self.timer.set(Limit::Idle, if self.is_ending { FAREWELL } else { IDLE_TIMEOUT }),
        }
        self.work = work;
    }

    fn end(&mut self, how: End) -> Poll<End> {
        self.is_ending = true;
        self.timer.clear(Limit::Age);
        self.timer.set(Limit::Idle, FAREWELL);
        // It is looked at anew what there is to be done.
        self.work = Work::None;
        Poll::Ready(how)
    }

    /// Whether a client that was asked to answer has not. While nothing is under way it is not asked: the
    /// connection is about to end for its idleness.
    fn is_silent(&mut self) -> bool {
        let received = self.shared.seen.received();
        if received == self.heard && self.is_asked {
            return true;
        }
        self.is_asked = received == self.heard && self.work == Work::Streams && self.ask().is_some();
        self.heard = received;
        self.timer.set(Limit::Silence, if self.is_asked { PONG } else { SILENCE });
        false
    }

    fn ask(&mut self) -> Option<()> {
        let ping = self.ping.as_mut()?;
        // The answer to the last one is taken note of, or no other could be sent; what wakes us is the timer.
        let _ = ping.poll_pong(&mut Context::from_waker(std::task::Waker::noop()));
        ping.send_ping(Ping::opaque()).ok()
    }
}

/// Ends our side and reads past what the client still sends: closing with bytes unread, or before they have
/// come, would reset the connection, and the client might never see what it was sent last.
pub(super) async fn linger<S>(stream: &mut S, timer: &Timer)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timer.set(Limit::Idle, LINGER);
    timer.set(Limit::Age, LINGER_IN_ALL);
    let read_past = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let (mut left, mut bytes) = (MAX_LINGERING, [0; 4096]);
        while left > 0 {
            let mut into = ReadBuf::new(&mut bytes);
            match poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut into)).await {
                Ok(()) if !into.filled().is_empty() => left = left.saturating_sub(into.filled().len()),
                _ => return,
            }
            timer.set(Limit::Idle, LINGER);
        }
    };
    let mut read_past = std::pin::pin!(read_past);
    poll_fn(|cx| match read_past.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        // Over by then or not: the connection ends.
        Poll::Pending => timer.poll_expired(cx).map(|_| ()),
    })
    .await;
}
