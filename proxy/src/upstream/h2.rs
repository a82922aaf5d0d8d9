//! Owns the connections to endpoints that speak HTTP/2, in clear or over TLS: at most [`MAX_CONNECTIONS`] to each, shared
//! by all workers.
//!
//! Called by [`pool`](super::pool) for an exchange, which gets a stand-in for a connection of HTTP/1: the
//! codecs of clients, the exchange machine and the edits are the same for both kinds of backend, and
//! [`translate`] is the one place that knows of the difference.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::task::spawn_local;
use tokio_util::task::AbortOnDropHandle;

use super::pool::{Connection, OpenError, Pool};
use super::registry::Endpoint;
use super::stream::{Aside, Exchange, Stream};
use super::tls::Inside;

mod keep;
mod translate;
mod websocket;

use keep::Counted;

/// Connections to one endpoint.
pub const MAX_CONNECTIONS: usize = 2;
/// Bytes of a response that an endpoint may send before they are taken.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same, over all streams of a connection.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Decoded fields of a response.
const MAX_FIELD_BYTES: u32 = 64 << 10;
/// Bytes between a codec and its translator, each way.
const BETWEEN: usize = 64 << 10;

/// A connection to an endpoint.
#[derive(Clone, Debug)]
struct Shared {
    sender: SendRequest<Bytes>,
    made: Instant,
    /// Cloned into each exchange: what counts them.
    exchanges: Arc<()>,
}

/// A connection that takes a stream.
struct Ready {
    sender: SendRequest<Bytes>,
    made: Instant,
    /// What requests say of the connection that they come on: RFC 9113 section 8.3.1.
    scheme: &'static str,
}

impl Shared {
    fn active(&self) -> usize {
        Arc::strong_count(&self.exchanges) - 1
    }
}

/// The connections to one endpoint. They end with the last that points to the endpoint.
#[derive(Debug, Default)]
pub struct Multiplexed {
    open: Mutex<Vec<Shared>>,
    /// Held by the one that dials, so that the others wait for its connection: how the last dial failed.
    dialling: tokio::sync::Mutex<Option<OpenError>>,
    /// Dials that failed.
    failures: AtomicU64,
}

impl Multiplexed {
    /// The connection with the fewest exchanges, counted as one more, unless another connection should
    /// be made.
    fn pick(&self) -> Option<Shared> {
        let open = self.open();
        let least = open.iter().min_by_key(|shared| shared.active())?;
        let has_room = least.active() < least.sender.current_max_send_streams();
        (has_room || open.len() >= MAX_CONNECTIONS).then(|| least.clone())
    }

    /// Forgets a connection that takes no more streams.
    fn forget(&self, exchanges: &Arc<()>) {
        self.open().retain(|shared| !Arc::ptr_eq(&shared.exchanges, exchanges));
    }

    /// Forgets a connection unless an exchange has been given it meanwhile.
    fn let_go(&self, exchanges: &Arc<()>) {
        // One is the list's, one the caller's.
        let is_idle = |shared: &Shared| Arc::strong_count(&shared.exchanges) <= 2;
        self.open().retain(|shared| !Arc::ptr_eq(&shared.exchanges, exchanges) || !is_idle(shared));
    }

    fn open(&self) -> MutexGuard<'_, Vec<Shared>> {
        // The list is whole after every step, so a panic elsewhere does not make it unusable.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A way to an endpoint for one exchange.
///
/// # Errors
/// Where no connection can be made.
pub(super) async fn open(endpoint: &Arc<Endpoint>, pool: &Pool) -> Result<Connection, OpenError> {
    let multiplexed = endpoint.multiplexed();
    loop {
        let (shared, reused) = match multiplexed.pick() {
            Some(shared) => (shared, true),
            None => dial(endpoint, pool).await?,
        };
        let Shared { sender, made, exchanges } = shared;
        // At once: whether it takes streams at all. One too many for now begins when another ends.
        match sender.ready().await {
            Ok(sender) => {
                let scheme = if endpoint.tls().is_some() { "https" } else { "http" };
                let stream = Stream::Exchange(translated(Ready { sender, made, scheme }, exchanges));
                return Ok(Connection { stream, reused });
            }
            // It has ended, or is about to: another one is picked or made.
            Err(_) if reused => multiplexed.forget(&exchanges),
            Err(error) => {
                multiplexed.forget(&exchanges);
                return Err(io::Error::other(error).into());
            }
        }
    }
}

fn translated(endpoint: Ready, counted: Arc<()>) -> Exchange {
    let (near, far) = tokio::io::duplex(BETWEEN);
    let aside = Arc::<Aside>::default();
    let told = aside.clone();
    let translator = AbortOnDropHandle::new(spawn_local(async move {
        translate::exchange(far, endpoint, &told).await;
        drop(counted);
    }));
    Exchange { stream: near, aside, translator }
}

/// A connection, and whether it was there before. All who wait for one dial share its outcome: an endpoint that
/// never answers would else be dialled by one after the other, and the last wait for all of them.
async fn dial(endpoint: &Arc<Endpoint>, pool: &Pool) -> Result<(Shared, bool), OpenError> {
    let multiplexed = endpoint.multiplexed();
    let failures = multiplexed.failures.load(Ordering::Acquire);
    let mut last_failure = multiplexed.dialling.lock().await;
    if let Some(shared) = multiplexed.pick() {
        return Ok((shared, true));
    }
    if let Some(failure) = &*last_failure
        && multiplexed.failures.load(Ordering::Acquire) != failures
    {
        return Err(failure.repeated());
    }
    match connect(endpoint, pool).await {
        Ok(shared) => Ok((shared, false)),
        Err(failure) => {
            *last_failure = Some(failure.repeated());
            multiplexed.failures.fetch_add(1, Ordering::Release);
            Err(failure)
        }
    }
}

async fn connect(endpoint: &Arc<Endpoint>, pool: &Pool) -> Result<Shared, OpenError> {
    let (stream, share) = pool.dial(endpoint, Some(Inside::Http2)).await?;
    let received = Rc::<Cell<u64>>::default();
    let stream = Counted::new(stream, received.clone());
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_FIELD_BYTES)
        .enable_push(false);
    let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
    let shared = Shared { sender, made: Instant::now(), exchanges: Arc::default() };
    // It lives on this worker; others send through it, and dial anew where the worker has ended.
    let counted = Arc::downgrade(&shared.exchanges);
    let driven = keep::drive(connection, received, Arc::downgrade(endpoint), counted);
    spawn_local(async move {
        driven.await;
        drop(share);
    });
    endpoint.multiplexed().open().push(shared.clone());
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::upstream::budget::Budget;
    use crate::upstream::pool::CONNECT_TIMEOUT;
    use crate::upstream::registry::{EndpointKey, Registry};

    /// A listener that answers no more connections, as its queue is full, with those that fill it.
    fn black_hole() -> (Socket, Vec<TcpStream>) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(1).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
        let queued: Vec<_> = (0..16).map_while(connect).collect();
        assert!(queued.len() < 16, "the queue is full");
        (listener, queued)
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_for_a_dial_share_its_failure_and_later_ones_dial_anew() {
        let (listener, _queued) = black_hole();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let endpoint = Registry::default().endpoint(EndpointKey { address, tls: None });
        let pool = Pool::new(1, Budget::new(10));
        let during = async {
            sleep(CONNECT_TIMEOUT / 2).await;
            open(&endpoint, &pool).await
        };
        let begun = Instant::now();
        let (first, second, third) = tokio::join!(open(&endpoint, &pool), open(&endpoint, &pool), during);
        assert!(begun.elapsed() < CONNECT_TIMEOUT * 3 / 2, "{:?}", begun.elapsed());
        for outcome in [first, second, third] {
            assert!(matches!(outcome, Err(OpenError::Connect(_))), "{outcome:?}");
        }
        let begun = Instant::now();
        assert!(matches!(open(&endpoint, &pool).await, Err(OpenError::Connect(_))));
        assert!(begun.elapsed() >= CONNECT_TIMEOUT, "{:?}", begun.elapsed());
    }
}
