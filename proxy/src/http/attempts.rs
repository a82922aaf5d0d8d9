//! Owns what both codecs decide alike about the attempts at one request: which endpoint is next, whether a
//! pooled connection may be used, and how far an upstream's head has come.
//!
//! Called by `h1::forward` and `h2::forward`; what a failure becomes is decided by
//! [`exchange`](super::exchange). Refuses to know the client's protocol.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::exchange::Failure;
use super::h1::buffer::ReadBuffer;
use super::head::Head;
use crate::upstream::balance::Backend;
use crate::upstream::registry::Endpoint;
use crate::upstream::stream::Stream;

/// What the attempts so far have taught.
#[derive(Debug, Default)]
pub struct Attempts {
    failed: Vec<Arc<Endpoint>>,
    had_dead_connection: bool,
}

impl Attempts {
    /// The endpoint of the next attempt; one that has failed only where there is no other.
    pub fn pick<'b>(&self, backend: &'b Backend) -> Option<&'b Arc<Endpoint>> {
        backend.pick(&self.failed)
    }

    /// Whether a pooled connection may be used.
    pub fn may_reuse(&self) -> bool {
        !self.had_dead_connection
    }

    /// An attempt has failed and is repeated. `reused`: it was made over a pooled connection.
    pub fn failed(&mut self, endpoint: &Arc<Endpoint>, failure: Failure, reused: bool) {
        // Where one pooled connection is dead, the others may be: the next one is new.
        self.had_dead_connection |= reused;
        if !reused || failure == Failure::Unprocessed {
            self.failed.push(Arc::clone(endpoint));
        }
    }
}

/// Reads until the head of a response is in the buffer; its length.
///
/// # Errors
/// What the upstream failed by.
pub fn poll_head(
    cx: &mut Context<'_>,
    (stream, buffer): (&mut Stream, &mut ReadBuffer<'_>),
    head: &mut Head,
) -> Poll<Result<usize, Failure>> {
    loop {
        if !buffer.data().is_empty() {
            match head.parse(buffer.data()) {
                Ok(Some(length)) => return Poll::Ready(Ok(length)),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Err(Failure::Malformed)),
            }
        }
        match buffer.poll_fill(cx, stream) {
            Poll::Ready(Ok(read)) if read > 0 => {}
            Poll::Ready(_) => return Poll::Ready(Err(Failure::ended(stream.is_unprocessed()))),
            Poll::Pending => return Poll::Pending,
        }
    }
}
