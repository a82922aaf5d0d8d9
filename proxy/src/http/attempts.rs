//! Owns what both codecs decide alike about the attempts at one request: which endpoint is next, whether a
//! pooled connection may be used, and how far an upstream's head has come.
//!
//! Called by `h1::forward` and `h2::forward`; what a failure becomes is decided by
//! [`exchange`](super::exchange). Refuses to know the client's protocol.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tracing::debug;

use super::exchange::{Exchange, Failure, Next};
use super::h1::buffer::ReadBuffer;
use super::head::Head;
use super::respond::Reason;
use super::retry::{Again, Retries};
use crate::table::route::Routed;
use crate::upstream::balance::Backend;
use crate::upstream::registry::Endpoint;
use crate::upstream::stream::Stream;

/// What the attempts so far have taught.
#[derive(Debug)]
pub struct Attempts<'a> {
    failed: Vec<Arc<Endpoint>>,
    had_dead_connection: bool,
    retries: Retries<'a>,
    /// The endpoint of the request's session.
    bound: Option<&'a Arc<Endpoint>>,
}

impl<'a> Attempts<'a> {
    /// The attempts at a request that goes to this backend, in a session at this endpoint.
    #[inline]
    pub fn new(routed: &'a Routed, backend: &'a Backend, bound: Option<&'a Arc<Endpoint>>) -> Self {
        let retries = Retries::new(routed, backend);
        Self { failed: Vec::new(), had_dead_connection: false, retries, bound }
    }

    /// Whether the rule has requests sent again: then what is sent must be kept.
    pub fn may_repeat(&self) -> bool {
        self.retries.are_possible()
    }

    /// The endpoint of the next attempt; one that has failed only where there is no other.
    #[inline]
    pub fn pick(&self, backend: &'a Backend) -> Option<&'a Arc<Endpoint>> {
        match self.bound {
            Some(bound) if !self.failed.iter().any(|failed| Arc::ptr_eq(failed, bound)) => Some(bound),
            _ => backend.pick(&self.failed),
        }
    }

    /// Whether a pooled connection may be used.
    pub fn may_reuse(&self) -> bool {
        !self.had_dead_connection
    }

    /// A response has this status: how long to wait for another attempt, or for what reason to answer
    /// instead; `None`: it is passed on.
    #[inline]
    pub fn answered(
        &mut self,
        endpoint: &Arc<Endpoint>,
        status: u16,
        replayable: bool,
    ) -> Option<Result<Duration, Next>> {
        match self.retries.after_status(status, replayable)? {
            Again::After(pause) => {
                self.failed.push(Arc::clone(endpoint));
                Some(Ok(pause))
            }
            Again::Refused => Some(Err(Next::Answer(Reason::RetriesExhausted))),
        }
    }

    /// An attempt has come to no response: how long to wait for another one. `reused`: it was made over a
    /// pooled connection; `replayable`: nothing of the request's content has left our hands.
    ///
    /// # Errors
    /// What is to be done instead of another attempt.
    pub fn failed(
        &mut self,
        exchange: &mut Exchange,
        endpoint: &Arc<Endpoint>,
        failure: Failure,
        (reused, replayable): (bool, bool),
    ) -> Result<Duration, Next> {
        let pause = match exchange.upstream_failed(failure, reused, replayable) {
            Next::Retry => Duration::ZERO,
            Next::Answer(reason) => match self.retries.after_failure(failure, replayable) {
                Some(Again::After(pause)) => pause,
                Some(Again::Refused) => return Err(Next::Answer(Reason::RetriesExhausted)),
                None => return Err(Next::Answer(reason)),
            },
            Next::Cut => return Err(Next::Cut),
        };
        // Where one pooled connection is dead, the others may be: the next one is new.
        self.had_dead_connection |= reused;
        if !reused || failure == Failure::Unprocessed {
            self.failed.push(Arc::clone(endpoint));
        }
        debug!(endpoint = %endpoint.address(), ?failure, reused, "attempt failed");
        Ok(pause)
    }
}

/// Reads until the head of a response is in the buffer; its length.
///
/// # Errors
/// What the upstream failed by.
#[inline]
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
