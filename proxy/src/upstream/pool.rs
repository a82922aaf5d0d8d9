//! Owns the connections to endpoints: idle ones per worker, a stash that workers share, and new ones.
//!
//! Called by the codecs, once per attempt. Knows nothing of what is said on a connection, only whether
//! it may be used again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proxy_config::backend::BackendProtocol;
use rapidhash::fast::GlobalState;
use tokio::net::TcpStream;
use tracing::debug;

use super::budget::{Budget, Share};
use super::h2;
use super::link::Link;
use super::registry::Endpoint;
use super::stream::Stream;
use super::tls::Inside;
use crate::listen::socket::tune;
use crate::tcp::Tcp;

/// The idle connections that a process keeps to one endpoint beside those that were in use lately: one half
/// for its workers, one half in the stash.
pub const MAX_IDLE_PER_ENDPOINT: usize = 32;

/// What a worker has used within this time it keeps, however many they are: it needs so many at a time, and
/// would have to make again at once what it closed.
pub const RECENT: Duration = Duration::from_secs(5);

/// How long a connection may stay idle: shorter than what most servers allow, so that we close first.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Connection {
    /// The stream.
    pub stream: Stream,
    /// Whether it has served a request before: it may be closed by now.
    pub reused: bool,
}

/// Why there is no way to an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its own fault, or the network's.
    #[error("the endpoint can't be connected to")]
    Connect(#[from] io::Error),
    /// It does not prove what it must, or speaks no TLS that we do.
    #[error("the endpoint can't be spoken with over TLS")]
    Tls(#[source] io::Error),
    /// Ours.
    #[error("there are as many connections to endpoints as may be: raise the limit on open files")]
    Exhausted,
}

impl OpenError {
    /// The same, for another who waited for the same connection.
    pub(super) fn repeated(&self) -> Self {
        let same = |error: &io::Error| io::Error::from(error.kind());
        match self {
            Self::Connect(error) => Self::Connect(same(error)),
            Self::Tls(error) => Self::Tls(same(error)),
            Self::Exhausted => Self::Exhausted,
        }
    }
}

/// A connection that is made, and the right to it.
type Held = (Link, Share);

/// Idle connections to one endpoint that one worker left to the others.
#[derive(Debug, Default)]
pub struct Stash {
    streams: Mutex<Vec<(StdTcpStream, Share, Instant)>>,
}

impl Stash {
    /// Leaves a connection to the others, unless there are as many as may be.
    fn leave(&self, (link, share): Held, since: Instant) {
        let mut streams = self.streams();
        if streams.len() < MAX_IDLE_PER_ENDPOINT / 2
            && let Some(stream) = link.into_std()
        {
            streams.push((stream, share, since));
        }
    }

    #[inline]
    fn take(&self) -> Option<(StdTcpStream, Share)> {
        let (stream, share, _) = self.streams().pop()?;
        Some((stream, share))
    }

    /// Closes what has been idle for too long; whether nothing is left.
    fn sweep(&self, oldest: Instant) -> bool {
        let mut streams = self.streams();
        streams.retain(|(_, _, since)| *since > oldest);
        streams.is_empty()
    }

    fn streams(&self) -> MutexGuard<'_, Vec<(StdTcpStream, Share, Instant)>> {
        // The list is whole after every step, so a panic elsewhere does not make it unusable.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Idle {
    endpoint: Arc<Endpoint>,
    /// Last in, first out: what was used last is the least likely to be closed.
    streams: Vec<(Held, Instant)>,
}

impl Idle {
    /// Leaves to the others what is beyond `keep` and was not in use lately. What can't be left to them has
    /// the room of both.
    fn shrink(&mut self, keep: usize, now: Instant) {
        let can_move = self.streams.first().is_some_and(|((link, _), _)| link.can_move());
        let keep = if can_move { keep } else { keep * 2 };
        // What was used longest ago lies first.
        let unused =
            self.streams.partition_point(|(_, since)| now.saturating_duration_since(*since) >= RECENT);
        let beyond = self.streams.len().saturating_sub(keep).min(unused);
        for (held, since) in self.streams.drain(..beyond) {
            self.endpoint.stash().leave(held, since);
        }
    }
}

/// The idle connections of one worker. An entry holds its endpoint, so the address of an endpoint names
/// it as long as the entry lives.
#[derive(Debug)]
pub struct Pool {
    idle: RefCell<HashMap<usize, Idle, GlobalState>>,
    /// What one worker keeps of an endpoint; what is beyond and was not in use lately goes to the stash.
    keep: usize,
    budget: Arc<Budget>,
}

impl Pool {
    /// The pool of one of `workers` workers, which share a budget.
    pub fn new(workers: usize, budget: Arc<Budget>) -> Self {
        let keep = (MAX_IDLE_PER_ENDPOINT / 2 / workers.max(1)).max(1);
        Self { idle: RefCell::default(), keep, budget }
    }

    /// A connection that was used before. One that its endpoint has ended, or on which it says something
    /// unasked, is useless.
    #[inline]
    fn reuse(&self, endpoint: &Arc<Endpoint>) -> Option<Held> {
        while let Some((mut link, share)) = self.take(endpoint) {
            if link.is_quiet() {
                return Some((link, share));
            }
        }
        while let Some((stream, share)) = endpoint.stash().take() {
            // This worker's runtime knows nothing of it yet: the kernel is asked.
            let is_quiet =
                matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            if let (true, Ok(stream)) = (is_quiet, TcpStream::from_std(stream)) {
                return Some((Link::Plain(stream.into()), share));
            }
        }
        None
    }

    fn take(&self, endpoint: &Arc<Endpoint>) -> Option<Held> {
        let mut idle = self.idle.borrow_mut();
        let (held, _) = idle.get_mut(&name(endpoint))?.streams.pop()?;
        Some(held)
    }

    /// A way to an endpoint that is at hand: a connection that was used before.
    #[inline]
    pub fn at_hand(&self, endpoint: &Arc<Endpoint>, protocol: BackendProtocol) -> Option<Connection> {
        if protocol == BackendProtocol::H2c {
            return None;
        }
        let (link, share) = self.reuse(endpoint)?;
        Some(Connection { stream: Stream::Connection(link, share), reused: true })
    }

    /// A new way to an endpoint.
    ///
    /// # Errors
    /// Where it can't be made, not within [`CONNECT_TIMEOUT`], or where there are too many already. Where the
    /// endpoint must speak TLS and prove who it is, and does not.
    pub async fn open(
        &self,
        endpoint: &Arc<Endpoint>,
        protocol: BackendProtocol,
    ) -> Result<Connection, OpenError> {
        if protocol == BackendProtocol::H2c {
            return h2::open(endpoint, self).await;
        }
        let (link, share) = self.dial(endpoint, Some(Inside::Http1)).await?;
        Ok(Connection { stream: Stream::Connection(link, share), reused: false })
    }

    /// A new connection for a stream that is not HTTP: it is never used again. `passthrough`: what is said on
    /// it is TLS already, and TLS of ours has no place there.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn connect(&self, endpoint: &Endpoint, passthrough: bool) -> Result<Stream, OpenError> {
        let inside = (!passthrough).then_some(Inside::Stream);
        let (link, share) = self.dial(endpoint, inside).await?;
        Ok(Stream::Connection(link, share))
    }

    /// A new connection, over TLS where the endpoint wants it; `None` inside: whatever it wants. Where there
    /// are as many as may be, an idle one of this worker makes room.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) async fn dial(&self, endpoint: &Endpoint, inside: Option<Inside>) -> Result<Held, OpenError> {
        let share = self.budget.take().or_else(|| {
            self.give_one_up();
            self.budget.take()
        });
        let share = share.ok_or(OpenError::Exhausted)?;
        let stream = dial(endpoint).await?;
        let link = match endpoint.tls().zip(inside) {
            None => Link::Plain(stream),
            Some(((peer, config), inside)) => {
                // On the heap: every connection of a client has room for what stands here.
                let secured = Box::pin(peer.handshake(config, stream, inside)).await;
                let secured = secured.inspect_err(|error| {
                    debug!(endpoint = %endpoint.address(), ?peer, %error, "no TLS with an endpoint");
                });
                Link::Secured(secured.map_err(OpenError::Tls)?)
            }
        };
        Ok((link, share))
    }

    /// Closes an idle connection, to whichever endpoint.
    fn give_one_up(&self) {
        for idle in self.idle.borrow_mut().values_mut() {
            if idle.endpoint.stash().take().is_some() {
                return;
            }
            if !idle.streams.is_empty() {
                idle.streams.remove(0);
                return;
            }
        }
    }

    /// Keeps a connection whose last exchange has ended cleanly; what served one exchange alone ends.
    #[inline]
    pub fn keep(&self, endpoint: &Arc<Endpoint>, stream: Stream, now: Instant) {
        if let Stream::Connection(link, share) = stream
            && !self.budget.is_scarce()
        {
            self.keep_connection(endpoint, (link, share), now);
        }
    }

    #[inline]
    fn keep_connection(&self, endpoint: &Arc<Endpoint>, held: Held, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let entry = idle
            .entry(name(endpoint))
            .or_insert_with(|| Idle { endpoint: Arc::clone(endpoint), streams: Vec::new() });
        entry.streams.push((held, now));
    }

    /// Closes what has been idle for too long or was closed by its endpoint, and leaves to the other workers
    /// what this one has needed for a while and does not any more.
    pub fn sweep(&self, now: Instant) {
        let Some(oldest) = now.checked_sub(IDLE_TIMEOUT) else { return };
        self.idle.borrow_mut().retain(|_, idle| {
            idle.streams.retain_mut(|((link, _), since)| *since > oldest && link.is_quiet());
            idle.shrink(self.keep, now);
            // Whoever has put into a stash remembers its endpoint until that is empty.
            let is_stash_empty = idle.endpoint.stash().sweep(oldest);
            !(idle.streams.is_empty() && is_stash_empty)
        });
    }
}

fn name(endpoint: &Arc<Endpoint>) -> usize {
    Arc::as_ptr(endpoint) as usize
}

/// A new connection.
///
/// # Errors
/// Where it can't be made, or not within [`CONNECT_TIMEOUT`].
async fn dial(endpoint: &Endpoint) -> io::Result<Tcp> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint.address())).await??;
    tune(&socket2::SockRef::from(&stream))?;
    Ok(stream.into())
}

#[cfg(test)]
mod tests;
