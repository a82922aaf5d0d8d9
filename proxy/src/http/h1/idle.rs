//! Between two exchanges: waiting for a client that may say more, and for how long.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use crate::http::standing;
use crate::http::timers::Limit;

/// How long a connection may stay idle, between exchanges or in one.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection stays idle once the proxy drains. Its client may be sending just now, and would not know
/// whether the request was done: it is answered, and told by that answer that the connection ends.
pub(super) const LAST_CALL: Duration = Duration::from_secs(3);

impl<S> Connection<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Waits for the first byte of a request.
    pub(super) async fn wait(&mut self) -> bool {
        if !self.is_first {
            self.timer.set(Limit::Idle, IDLE_TIMEOUT);
        }
        let Self { stream, buffer, context, timer, is_first, client, .. } = self;
        let time_left = || context.time_left(|table| standing::of_connection(table, client));
        let mut is_last_call = false;
        poll_fn(|cx| {
            if let Poll::Ready(read) = buffer.poll_fill(cx, stream) {
                return Poll::Ready(read.is_ok_and(|read| read > 0));
            }
            if !*is_first && context.is_draining() && !is_last_call {
                is_last_call = true;
                timer.set(Limit::Idle, LAST_CALL);
            }
            match timer.poll_over(cx, time_left) {
                Poll::Pending if !*is_first && (timer.is_withdrawn() || context.is_stopping()) => {
                    Poll::Ready(false)
                }
                over => over.map(|_| false),
            }
        })
        .await
    }
}
