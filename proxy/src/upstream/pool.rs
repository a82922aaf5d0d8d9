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

use proxy_config::backend::BackendProtocol;
use rapidhash::fast::GlobalState;
use tokio::net::TcpStream;

use super::h2;
use super::registry::Endpoint;
use super::stream::Stream;

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
    pub stream: Stream,
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
    idle: RefCell<HashMap<usize, Idle, GlobalState>>,
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
    fn reuse(&self, endpoint: &Arc<Endpoint>) -> Option<TcpStream> {
        while let Some(stream) = self.take(endpoint) {
            if is_quiet(&stream) {
                return Some(stream);
            }
        }
        while let Some(stream) = endpoint.stash().take() {
            // This worker's runtime knows nothing of it yet: the kernel is asked.
            let is_quiet =
                matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            if let (true, Ok(stream)) = (is_quiet, TcpStream::from_std(stream)) {
                return Some(stream);
            }
        }
        None
    }

    fn take(&self, endpoint: &Arc<Endpoint>) -> Option<TcpStream> {
        let mut idle = self.idle.borrow_mut();
        let (stream, _) = idle.get_mut(&name(endpoint))?.streams.pop()?;
        endpoint.stash().idle.fetch_sub(1, Ordering::Relaxed);
        Some(stream)
    }

    /// A way to an endpoint: one that was used before, if that may be, or a new one.
    ///
    /// # Errors
    /// Where it can't be made, or not within [`CONNECT_TIMEOUT`].
    pub async fn open(
        &self,
        endpoint: &Arc<Endpoint>,
        protocol: BackendProtocol,
        may_reuse: bool,
    ) -> io::Result<Connection> {
        if protocol == BackendProtocol::H2c {
            return h2::open(endpoint).await;
        }
        let pooled = if may_reuse { self.reuse(endpoint) } else { None };
        let reused = pooled.is_some();
        let stream = match pooled {
            Some(pooled) => pooled,
            None => dial(endpoint).await?,
        };
        Ok(Connection { stream: Stream::Connection(stream), reused })
    }

    /// Keeps a connection whose last exchange has ended cleanly; what served one exchange alone ends.
    pub fn keep(&self, endpoint: &Arc<Endpoint>, stream: Stream, now: Instant) {
        if let Stream::Connection(stream) = stream {
            self.keep_connection(endpoint, stream, now);
        }
    }

    fn keep_connection(&self, endpoint: &Arc<Endpoint>, stream: TcpStream, now: Instant) {
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
pub(super) async fn dial(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint.address())).await??;
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream::registry::{EndpointKey, Registry};

    struct Server {
        listener: TcpListener,
        endpoint: Arc<Endpoint>,
    }

    impl Server {
        async fn new() -> Self {
            let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
            let address = listener.local_addr().unwrap();
            let endpoint = Registry::default().endpoint(EndpointKey { address, tls: None });
            Self { listener, endpoint }
        }

        /// A connection to it, and its side of that.
        async fn connected(&self) -> (TcpStream, TcpStream) {
            let ours = dial(&self.endpoint).await.unwrap();
            (ours, self.listener.accept().await.unwrap().0)
        }
    }

    fn port(connection: Option<TcpStream>) -> u16 {
        connection.unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn what_was_used_last_is_used_first() {
        let (server, pool) = (Server::new().await, Pool::new(1));
        let ((one, _theirs), (two, _also)) = (server.connected().await, server.connected().await);
        let ports = [&one, &two].map(|stream| stream.local_addr().unwrap().port());
        pool.keep_connection(&server.endpoint, one, Instant::now());
        pool.keep_connection(&server.endpoint, two, Instant::now());
        assert_eq!(server.endpoint.stash().idle(), 2);
        assert_eq!(port(pool.reuse(&server.endpoint)), ports[1]);
        assert_eq!(port(pool.reuse(&server.endpoint)), ports[0]);
        assert!(pool.reuse(&server.endpoint).is_none());
        assert_eq!(server.endpoint.stash().idle(), 0);
    }

    #[tokio::test]
    async fn a_worker_leaves_what_is_beyond_its_share_to_the_others() {
        let (server, mine, theirs) = (Server::new().await, Pool::new(32), Pool::new(32));
        let ((one, _a), (two, _b)) = (server.connected().await, server.connected().await);
        let second = two.local_addr().unwrap().port();
        mine.keep_connection(&server.endpoint, one, Instant::now());
        mine.keep_connection(&server.endpoint, two, Instant::now());
        assert_eq!(port(theirs.reuse(&server.endpoint)), second);
        assert!(theirs.reuse(&server.endpoint).is_none());
        assert!(mine.reuse(&server.endpoint).is_some());
    }

    #[tokio::test]
    async fn what_its_endpoint_closed_or_wrote_to_unasked_is_not_used_again() {
        let (server, pool) = (Server::new().await, Pool::new(1));
        for stashed in [false, true] {
            let pool = if stashed { &Pool::new(32) } else { &pool };
            let mut kept = Vec::new();
            for _ in 0..3 {
                let (ours, theirs) = server.connected().await;
                ours.writable().await.unwrap();
                pool.keep_connection(&server.endpoint, ours, Instant::now());
                kept.push(theirs);
            }
            drop(kept.pop());
            kept[1].write_all(b"HTTP/1.1 408 ").await.unwrap();
            let alive = kept[0].peer_addr().unwrap().port();
            // The runtime hears of both from the kernel.
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(port(pool.reuse(&server.endpoint)), alive);
            assert!(pool.reuse(&server.endpoint).is_none());
            assert_eq!(server.endpoint.stash().idle(), 0);
        }
    }

    #[tokio::test]
    async fn a_process_keeps_no_more_than_the_cap_and_nothing_for_too_long() {
        let (server, pools) = (Server::new().await, [Pool::new(2), Pool::new(2)]);
        let mut theirs = Vec::new();
        for turn in 0..40 {
            let (ours, their) = server.connected().await;
            pools[turn % 2].keep_connection(&server.endpoint, ours, Instant::now());
            theirs.push(their);
        }
        assert_eq!(server.endpoint.stash().idle(), MAX_IDLE_PER_ENDPOINT);
        pools[0].sweep(Instant::now() + IDLE_TIMEOUT + Duration::from_secs(1));
        pools[1].clear();
        assert_eq!(server.endpoint.stash().idle(), 0);
    }

    #[tokio::test]
    async fn a_refused_connection_is_an_error_at_once() {
        let server = Server::new().await;
        drop(server.listener);
        assert_eq!(dial(&server.endpoint).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
