//! Owns a connection that has become another protocol: bytes, both ways, until both sides have ended.
//!
//! Called after 101 (Switching Protocols), and for streams that never were HTTP. Knows nothing of what is
//! spoken.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::h1::buffer::ReadBuffer;
use super::timers::{Limit, Timer};

/// A tunnel in which nothing moves for this long is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// One side: its connection, and what was read from it and not yet passed on.
pub struct Side<'s, 'b, S> {
    /// The connection.
    pub stream: &'s mut S,
    /// What was read from it.
    pub buffer: ReadBuffer<'b>,
}

/// How far one direction has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Open,
    /// The sender has ended; the receiver is being told.
    Ending,
    Ended,
}

/// How many bytes went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// From the client to the upstream.
    pub sent: u64,
    /// From the upstream to the client.
    pub received: u64,
}

/// Passes bytes both ways until both directions have ended, one of them fails, nothing moves for
/// [`IDLE_TIMEOUT`], or the time that is left is over, once something was taken away.
pub async fn tunnel<A, B>(
    mut client: Side<'_, '_, A>,
    mut upstream: Side<'_, '_, B>,
    timer: &Timer,
    time_left: impl Fn() -> Option<Duration>,
) -> Moved
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Direction::Open, Direction::Open);
    let mut moved = Moved::default();
    timer.set(Limit::Idle, IDLE_TIMEOUT);
    poll_fn(|cx| {
        let before = moved;
        let sent = poll_direction(
            cx,
            &mut up,
            (client.stream, &mut client.buffer),
            upstream.stream,
            &mut moved.sent,
        );
        let received = poll_direction(
            cx,
            &mut down,
            (upstream.stream, &mut upstream.buffer),
            client.stream,
            &mut moved.received,
        );
        match (sent, received) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            _ => {}
        }
        if moved != before {
            timer.set(Limit::Idle, IDLE_TIMEOUT);
        }
        timer.poll_over(cx, &time_left).map(|_| ())
    })
    .await;
    timer.clear(Limit::Idle);
    moved
}

fn poll_direction<R, W>(
    cx: &mut Context<'_>,
    direction: &mut Direction,
    (from, buffer): (&mut R, &mut ReadBuffer<'_>),
    to: &mut W,
    moved: &mut u64,
) -> Poll<io::Result<()>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        while !buffer.data().is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, buffer.data()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            buffer.consume(written);
            *moved += written as u64;
        }
        match direction {
            Direction::Open => {
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                if ready!(buffer.poll_fill(cx, from))? == 0 {
                    *direction = Direction::Ending;
                }
            }
            Direction::Ending => {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                *direction = Direction::Ended;
            }
            Direction::Ended => return Poll::Ready(Ok(())),
        }
    }
}
