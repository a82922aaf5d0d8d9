//! The pool against real sockets on loopback.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::upstream::registry::{EndpointKey, Registry};

struct Server {
    listener: TcpListener,
    endpoint: Arc<Endpoint>,
    budget: Arc<Budget>,
}

impl Pool {
    /// How many connections this worker keeps.
    fn kept(&self) -> usize {
        self.idle.borrow().values().map(|idle| idle.streams.len()).sum()
    }
}

impl Server {
    async fn new() -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Registry::default().endpoint(EndpointKey { address, tls: None });
        Self { listener, endpoint, budget: Budget::new(1000) }
    }

    /// The pool of one of so many workers.
    fn pool(&self, workers: usize) -> Pool {
        Pool::new(workers, self.budget.clone())
    }

    /// A connection to it, and its side of that.
    async fn connected(&self) -> (Held, TcpStream) {
        let ours = dial(&self.endpoint).await.unwrap();
        ((Link::Plain(ours), self.budget.take().unwrap()), self.listener.accept().await.unwrap().0)
    }

    /// One of which the runtime knows that nothing has come on it.
    async fn connected_and_known(&self) -> (Held, TcpStream) {
        let (ours, theirs) = self.connected().await;
        ours.0.socket().writable().await.unwrap();
        (ours, theirs)
    }
}

fn port(connection: Option<Held>) -> u16 {
    connection.unwrap().0.socket().local_addr().unwrap().port()
}

#[tokio::test]
async fn what_was_used_last_is_used_first() {
    let server = Server::new().await;
    let pool = server.pool(1);
    let ((one, _theirs), (two, _also)) = (server.connected().await, server.connected().await);
    let ports = [&one, &two].map(|(stream, _)| stream.socket().local_addr().unwrap().port());
    pool.keep_connection(&server.endpoint, one, Instant::now());
    pool.keep_connection(&server.endpoint, two, Instant::now());
    assert_eq!(port(pool.reuse(&server.endpoint)), ports[1]);
    assert_eq!(port(pool.reuse(&server.endpoint)), ports[0]);
    assert!(pool.reuse(&server.endpoint).is_none());
}

#[tokio::test]
async fn a_worker_leaves_what_is_beyond_its_share_and_not_needed_to_the_others() {
    let server = Server::new().await;
    let (mine, theirs) = (server.pool(32), server.pool(32));
    let ((one, _a), (two, _b)) = (server.connected().await, server.connected().await);
    let first = one.0.socket().local_addr().unwrap().port();
    let begun = Instant::now();
    mine.keep_connection(&server.endpoint, one, begun);
    mine.keep_connection(&server.endpoint, two, begun);
    mine.sweep(begun + RECENT / 2);
    assert!(theirs.reuse(&server.endpoint).is_none());
    mine.sweep(begun + RECENT);
    assert_eq!(port(theirs.reuse(&server.endpoint)), first);
    assert!(theirs.reuse(&server.endpoint).is_none());
    assert!(mine.reuse(&server.endpoint).is_some());
}

#[tokio::test]
async fn what_its_endpoint_closed_or_wrote_to_unasked_is_not_used_again() {
    let server = Server::new().await;
    let pool = server.pool(1);
    for stashed in [false, true] {
        let pool = if stashed { &server.pool(32) } else { &pool };
        let mut kept = Vec::new();
        for _ in 0..3 {
            let (ours, theirs) = server.connected_and_known().await;
            pool.keep_connection(&server.endpoint, ours, Instant::now());
            kept.push(theirs);
        }
        pool.sweep(Instant::now() + RECENT);
        assert_eq!(pool.kept(), if stashed { 1 } else { 3 });
        // The one that is used last lives: in the stash, where there is one.
        let alive = kept.remove(usize::from(stashed));
        let alive = alive.peer_addr().unwrap().port();
        drop(kept.pop());
        kept[0].write_all(b"HTTP/1.1 408 ").await.unwrap();
        // The runtime hears of both from the kernel.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(port(pool.reuse(&server.endpoint)), alive);
        assert!(pool.reuse(&server.endpoint).is_none());
        assert_eq!(server.budget.open(), 0);
    }
}

#[tokio::test]
async fn a_process_keeps_no_more_than_the_cap_and_nothing_for_too_long() {
    let server = Server::new().await;
    let pools = [server.pool(2), server.pool(2)];
    let mut theirs = Vec::new();
    let mut now = Instant::now();
    for turn in 0..80 {
        let held = server.connected_and_known().await;
        pools[turn % 2].keep_connection(&server.endpoint, held.0, now);
        theirs.push(held.1);
    }
    now += RECENT;
    pools.iter().for_each(|pool| pool.sweep(now));
    assert_eq!(server.budget.open() as usize, MAX_IDLE_PER_ENDPOINT);
    for pool in pools {
        pool.sweep(now + IDLE_TIMEOUT);
    }
    assert_eq!(server.budget.open(), 0);
}

#[tokio::test]
async fn what_was_needed_lately_is_kept_beyond_the_cap_until_it_is_not_needed() {
    let server = Server::new().await;
    let pool = server.pool(2);
    let begun = Instant::now();
    let mut theirs = Vec::new();
    for _ in 0..60 {
        let (ours, their) = server.connected_and_known().await;
        pool.keep_connection(&server.endpoint, ours, begun);
        theirs.push(their);
    }
    pool.sweep(begun + RECENT / 2);
    assert_eq!(pool.kept(), 60);
    let again: Vec<Held> = (0..20).map(|_| pool.take(&server.endpoint).unwrap()).collect();
    for held in again {
        pool.keep_connection(&server.endpoint, held, begun + RECENT);
    }
    pool.sweep(begun + RECENT);
    // What was not used again is left to the others, as far as there is room.
    assert_eq!((pool.kept(), server.budget.open()), (20, 20 + 16));
    pool.sweep(begun + RECENT * 2);
    assert_eq!((pool.kept(), server.budget.open()), (8, 8 + 16));
}

#[tokio::test]
async fn a_refused_connection_is_an_error_at_once() {
    let server = Server::new().await;
    drop(server.listener);
    assert_eq!(dial(&server.endpoint).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn what_lies_in_a_stash_ends_too_when_its_time_is_over_and_nobody_asks_for_it() {
    let server = Server::new().await;
    let pool = server.pool(32);
    let begun = Instant::now();
    let (one, mut theirs) = server.connected_and_known().await;
    let (two, _other) = server.connected_and_known().await;
    pool.keep_connection(&server.endpoint, one, begun);
    pool.keep_connection(&server.endpoint, two, begun + Duration::from_secs(10));
    pool.sweep(begun + RECENT);
    assert_eq!((pool.kept(), server.budget.open()), (1, 2));
    pool.sweep(begun + IDLE_TIMEOUT + Duration::from_secs(1));
    assert_eq!((pool.kept(), server.budget.open()), (1, 1));
    assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0, "it is closed");
    pool.sweep(begun + IDLE_TIMEOUT + Duration::from_secs(11));
    assert_eq!(server.budget.open(), 0);
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_a_new_one() {
    let (server, other) = (Server::new().await, Server::new().await);
    for workers in [1, 32] {
        let pool = Pool::new(workers, Budget::new(2));
        for _ in 0..2 {
            let held = pool.dial(&server.endpoint, None).await.unwrap();
            held.0.socket().writable().await.unwrap();
            pool.keep_connection(&server.endpoint, held, Instant::now());
        }
        pool.sweep(Instant::now() + RECENT);
        assert_eq!((pool.kept(), pool.budget.open()), (if workers == 1 { 2 } else { 1 }, 2));
        let _two = (
            pool.dial(&other.endpoint, None).await.unwrap(),
            pool.dial(&other.endpoint, None).await.unwrap(),
        );
        assert!(matches!(pool.dial(&other.endpoint, None).await, Err(OpenError::Exhausted)));
        assert_eq!(pool.budget.open(), 2);
    }
}
