//! Owns the connections to endpoints: idle ones per worker, a stash that workers share, and new ones.
//!
//! Called by the codecs, once per attempt. Knows nothing of what is said on a connection, only whether
//! it may be used again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::registry::Endpoint;

/// The idle connections that a process keeps to one endpoint.
pub const MAX_IDLE_PER_ENDPOINT: u32 = 32;

/// How long a connection may stay idle: shorter than what most servers allow, so that we close first.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long sent bytes may stay unacknowledged before the kernel gives a connection up.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(15);

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Connection {
    /// The stream.
    pub stream: TcpStream,
    /// Whether it has served a request before: it may be closed by now.
    pub reused: bool,
}

/// Idle connections to one endpoint that one worker left to the others.
#[derive(Debug, Default)]
pub struct Stash {
    streams: Mutex<Vec<(StdTcpStream, Instant)>>,
    /// All idle ones of the process, those that workers keep included.
    idle: AtomicU32,
}

impl Stash {
    fn put(&self, stream: StdTcpStream, now: Instant) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).push((stream, now));
    }

    fn take(&self) -> Option<StdTcpStream> {
        let taken = self.streams.lock().unwrap_or_else(PoisonError::into_inner).pop();
        taken.map(|(stream, _)| {
            self.idle.fetch_sub(1, Ordering::Relaxed);
            stream
        })
    }

    fn sweep(&self, oldest: Instant) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let before = streams.len();
        streams.retain(|(_, since)| *since > oldest);
        self.idle.fetch_sub((before - streams.len()) as u32, Ordering::Relaxed);
    }

    /// The idle connections of the process, those that workers keep included.
    pub fn idle(&self) -> u32 {
        self.idle.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Idle {
    endpoint: Arc<Endpoint>,
    /// Last in, first out: what was used last is the least likely to be closed.
    streams: Vec<(TcpStream, Instant)>,
}

/// The idle connections of one worker. An entry holds its endpoint, so the address of an endpoint names
/// it as long as the entry lives.
#[derive(Debug)]
pub struct Pool {
    idle: RefCell<HashMap<usize, Idle>>,
    /// What one worker keeps of an endpoint; what is beyond goes to the stash.
    keep: usize,
}

impl Pool {
    /// The pool of one of `workers` workers.
    pub fn new(workers: usize) -> Self {
        let keep = (MAX_IDLE_PER_ENDPOINT as usize / workers.max(1)).max(1);
        Self { idle: RefCell::default(), keep }
    }

    /// A connection that was used before and is not known to be closed.
    pub fn reuse(&self, endpoint: &Arc<Endpoint>) -> Option<Connection> {
        while let Some(stream) = self.take(endpoint) {
            if is_quiet(&stream) {
                return Some(Connection { stream, reused: true });
            }
        }
        while let Some(stream) = endpoint.stash().take() {
            let Ok(stream) = TcpStream::from_std(stream) else { continue };
            return Some(Connection { stream, reused: true });
        }
        None
    }

    fn take(&self, endpoint: &Arc<Endpoint>) -> Option<TcpStream> {
        let mut idle = self.idle.borrow_mut();
        let (stream, _) = idle.get_mut(&name(endpoint))?.streams.pop()?;
        endpoint.stash().idle.fetch_sub(1, Ordering::Relaxed);
        Some(stream)
    }

    /// Keeps a connection whose last exchange has ended cleanly.
    pub fn keep(&self, endpoint: &Arc<Endpoint>, stream: TcpStream, now: Instant) {
        let stash = endpoint.stash();
        if stash.idle.fetch_add(1, Ordering::Relaxed) >= MAX_IDLE_PER_ENDPOINT {
            stash.idle.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let entry = idle
            .entry(name(endpoint))
            .or_insert_with(|| Idle { endpoint: Arc::clone(endpoint), streams: Vec::new() });
        if entry.streams.len() < self.keep {
            entry.streams.push((stream, now));
            return;
        }
        match stream.into_std() {
            Ok(stream) => stash.put(stream, now),
            Err(_) => {
                stash.idle.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Closes what has been idle for too long or was closed by its endpoint.
    pub fn sweep(&self, now: Instant) {
        let Some(oldest) = now.checked_sub(IDLE_TIMEOUT) else { return };
        self.idle.borrow_mut().retain(|_, idle| {
            let before = idle.streams.len();
            idle.streams.retain(|(stream, since)| *since > oldest && is_quiet(stream));
            let closed = (before - idle.streams.len()) as u32;
            idle.endpoint.stash().idle.fetch_sub(closed, Ordering::Relaxed);
            idle.endpoint.stash().sweep(oldest);
            !idle.streams.is_empty()
        });
    }

    /// Closes all of them: the worker stops.
    pub fn clear(&self) {
        for (_, idle) in self.idle.borrow_mut().drain() {
            idle.endpoint.stash().idle.fetch_sub(idle.streams.len() as u32, Ordering::Relaxed);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.clear();
    }
}

fn name(endpoint: &Arc<Endpoint>) -> usize {
    Arc::as_ptr(endpoint) as usize
}

/// Whether nothing has arrived since the last exchange; an end or unasked bytes make a connection
/// useless. Reads what the runtime knows, without a system call.
fn is_quiet(stream: &TcpStream) -> bool {
    matches!(stream.poll_read_ready(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

/// A new connection.
///
/// # Errors
/// Where it can't be made, or not within [`CONNECT_TIMEOUT`].
pub async fn connect(endpoint: &Endpoint) -> io::Result<Connection> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint.address())).await??;
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT))?;
    Ok(Connection { stream, reused: false })
}
