//! The `listen` thread and its accept loops.
//!
//! Owns the thread, made beside the tree, and what an accept loop does: bind (again and again, until it
//! can), accept, hand over; on a drain it takes what the kernel has queued and lets go of the socket.
//! Called by the listeners, which own one loop each. Refuses to know what a port serves.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::drain::Drain;
use super::handoff::{Accepted, Seats};
use super::socket::{BACKLOG, Bind, Sockets};
use crate::handover::turn::{Turn, Turns};
use crate::metrics::Metrics;
use crate::watchdog::Heart;

/// How often the busy time of the workers is read.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// The first pause after a failed bind; it doubles up to [`MAX_REBIND_PAUSE`].
pub const FIRST_REBIND_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
pub const MAX_REBIND_PAUSE: Duration = Duration::from_secs(5);
/// The pause where the system is short of something, such as open files.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// The pause while no worker is up.
const NO_WORKER_PAUSE: Duration = Duration::from_millis(5);

/// What became of each wanted bind.
pub type BindReport = BTreeMap<Bind, BindState>;

/// What became of one wanted bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindState {
    /// Connections are accepted.
    Bound,
    /// The kernel refuses it for this reason; it is tried again.
    Refused(Arc<str>),
}

/// Tells what became of a bind.
pub fn tell(report: &watch::Sender<BindReport>, bind: Bind, state: BindState) {
    report.send_if_modified(|report| report.insert(bind, state.clone()).as_ref() != Some(&state));
}

/// The thread that accepts. It ends when this is dropped.
#[derive(Debug)]
pub struct ListenThread {
    handle: Handle,
    _ends_when_dropped: oneshot::Sender<()>,
}

impl ListenThread {
    /// Starts the thread, which also reads the load of the workers.
    ///
    /// # Errors
    /// Where the system gives neither a thread nor an epoll instance.
    pub fn start(seats: Arc<Seats>, heart: Heart) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().thread_name("listen").build()?;
        let handle = runtime.handle().clone();
        let (ends_when_dropped, end) = oneshot::channel();
        std::thread::Builder::new().name("listen".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = end => {}
                    () = sample(&seats) => {}
                    () = heart.beat_on() => {}
                }
            });
        })?;
        Ok(Self { handle, _ends_when_dropped: ends_when_dropped })
    }

    /// Runs an accept loop.
    pub fn spawn(&self, accept_loop: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.handle.spawn(accept_loop)
    }
}

async fn sample(seats: &Seats) {
    let mut before = Instant::now();
    loop {
        sleep(SAMPLE_EVERY).await;
        let now = Instant::now();
        seats.sample(now - before);
        before = now;
    }
}

/// What an accept loop works with.
#[derive(Clone, Debug)]
pub struct Acceptor {
    /// The listening sockets.
    pub sockets: Arc<Sockets>,
    /// The workers.
    pub seats: Arc<Seats>,
    /// The switches and the limit on connections.
    pub drain: Arc<Drain>,
    /// Where refused connections are counted.
    pub metrics: Arc<Metrics>,
    /// Where the outcome of each bind is told.
    pub report: watch::Sender<BindReport>,
    /// Whether it is this process that accepts.
    pub turns: Turns,
}

impl Acceptor {
    /// Accepts on an address until the process drains, then waits to be dropped.
    pub async fn run(self, address: SocketAddr) {
        let mut accepting = self.drain.accepting();
        let mut pause = FIRST_REBIND_PAUSE;
        while *accepting.borrow_and_update() {
            match self.sockets.listen(address).and_then(watched) {
                Ok(socket) => {
                    info!(%address, "listening");
                    tell(&self.report, Bind::tcp(address), BindState::Bound);
                    pause = FIRST_REBIND_PAUSE;
                    self.accept(socket, address, &mut accepting).await;
                }
                Err(error) => {
                    warn!(%address, %error, ?pause, "can't bind");
                    let refused = BindState::Refused(error.to_string().into());
                    tell(&self.report, Bind::tcp(address), refused);
                    sleep(pause).await;
                    pause = (pause * 2).min(MAX_REBIND_PAUSE);
                }
            }
        }
        self.sockets.close(address);
        std::future::pending().await
    }

    async fn accept(
        &self,
        socket: AsyncFd<TcpListener>,
        local: SocketAddr,
        accepting: &mut watch::Receiver<bool>,
    ) {
        // In this order: at the end of a drain nothing of this process holds the socket any more.
        let (_accepting, socket) = (self.drain.accept_loop(), socket);
        let mut turn = self.turns.follow();
        let mut random = SmallRng::from_os_rng();
        loop {
            let is_ours = *turn.borrow_and_update() == Turn::Ours;
            let accepted = tokio::select! {
                biased;
                // First, or a flood of connections would keep a drain from its end.
                _ = accepting.wait_for(|accepting| !accepting) => break,
                _ = turn.changed() => continue,
                accepted = next(&socket), if is_ours => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.hand_over(stream, local, peer, random.next_u64()).await,
                Err(error) if is_of_one_connection(error) => {
                    debug!(%local, %error, "lost before it was accepted")
                }
                Err(error) => {
                    warn!(%local, %error, "can't accept");
                    sleep(SHORTAGE_PAUSE).await;
                }
            }
        }
        // The clients of what is queued believe that they are connected.
        for _ in 0..if self.turns.is_ours() { BACKLOG } else { 0 } {
            let Ok((stream, peer)) = try_accept(socket.get_ref()) else { break };
            self.hand_over(stream, local, peer, random.next_u64()).await;
        }
    }

    async fn hand_over(&self, stream: TcpStream, local: SocketAddr, peer: SocketAddr, random: u64) {
        let at = Instant::now();
        let admitted = match self.drain.admit(peer.ip()) {
            Ok(admitted) => admitted,
            Err(refused) => {
                self.metrics.turned_away(refused);
                debug!(%local, %peer, reason = refused.label(), "a connection is closed at once");
                return;
            }
        };
        let mut accepted = Accepted { stream, local, peer, at, admitted };
        while let Err(back) = self.seats.hand_over(accepted, random) {
            accepted = back;
            sleep(NO_WORKER_PAUSE).await;
        }
    }
}

/// Registers a listening socket with the runtime. tokio's own listener would register every accepted
/// socket here as well, only for the worker to register it again.
#[expect(
    deprecated,
    reason = "its successor is unsafe; an owned TcpListener is open for as long as it lives"
)]
fn watched(socket: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

async fn next(socket: &AsyncFd<TcpListener>) -> Result<(TcpStream, SocketAddr), Errno> {
    loop {
        let mut ready = socket.readable().await.map_err(|_| Errno::BADF)?;
        match try_accept(socket.get_ref()) {
            Err(Errno::WOULDBLOCK) => ready.clear_ready(),
            accepted => return accepted,
        }
    }
}

fn try_accept(socket: &TcpListener) -> Result<(TcpStream, SocketAddr), Errno> {
    let (stream, peer) = acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(Errno::CONNABORTED)?;
    Ok((TcpStream::from(stream), peer))
}

/// Whether an error of accept(2) is about the connection, not about the socket or the system.
fn is_of_one_connection(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNABORTED
            | Errno::PROTO
            | Errno::INTR
            | Errno::NETDOWN
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::PERM
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::Ordering::Relaxed;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::limits::Limits;
    use crate::listen::admission::Refused;
    use crate::listen::drain::DrainSettings;
    use crate::watchdog::{STALLED_AFTER, Watchdog};

    struct Rig {
        acceptor: Acceptor,
        thread: ListenThread,
    }

    impl Rig {
        fn new(workers: usize, limit: u32) -> Self {
            let seats = Arc::new(Seats::new(workers));
            let thread = ListenThread::start(seats.clone(), heart()).unwrap();
            let acceptor = Acceptor {
                sockets: Arc::default(),
                seats,
                drain: Arc::new(Drain::new(&Limits::new(limit))),
                metrics: Metrics::new(workers),
                report: watch::Sender::default(),
                turns: Turns::new(Turn::Ours),
            };
            Self { acceptor, thread }
        }

        async fn listen(&self, address: SocketAddr) -> JoinHandle<()> {
            self.acceptor.sockets.want(&[address].into());
            let accept_loop = self.thread.spawn(self.acceptor.clone().run(address));
            let mut report = self.acceptor.report.subscribe();
            report.wait_for(|report| report.contains_key(&Bind::tcp(address))).await.unwrap();
            accept_loop
        }
    }

    fn heart() -> Heart {
        Watchdog::start(["listen".to_owned()], STALLED_AFTER).unwrap().heart("listen")
    }

    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.7:0").unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn connections_spread_over_the_workers() {
        let rig = Rig::new(4, 1000);
        let metrics = Handle::current().metrics();
        let _inboxes: Vec<_> = rig.acceptor.seats.iter().map(|seat| seat.take(metrics.clone())).collect();
        let address = free_address();
        rig.listen(address).await;
        let mut clients = Vec::new();
        for _ in 0..80 {
            clients.push(tokio::net::TcpStream::connect(address).await.unwrap());
        }
        let count = || rig.acceptor.seats.iter().map(|seat| seat.load().connections()).collect::<Vec<_>>();
        while count().iter().sum::<u32>() < 80 {
            tokio::task::yield_now().await;
        }
        assert!(count().iter().all(|n| (14..=26).contains(n)), "{:?}", count());
    }

    #[tokio::test]
    async fn an_address_in_use_is_reported_and_bound_once_it_is_free() {
        let rig = Rig::new(1, 10);
        let other = TcpListener::bind("127.0.0.7:0").unwrap();
        let address = other.local_addr().unwrap();
        rig.listen(address).await;
        let mut report = rig.acceptor.report.subscribe();
        assert!(matches!(report.borrow()[&Bind::tcp(address)], BindState::Refused(_)));
        drop(other);
        report.wait_for(|report| report[&Bind::tcp(address)] == BindState::Bound).await.unwrap();
    }

    #[tokio::test]
    async fn a_new_accept_loop_goes_on_with_the_socket_and_its_queue() {
        let rig = Rig::new(1, 10);
        let address = free_address();
        let first = rig.listen(address).await;
        first.abort();
        let _ = first.await;
        let queued = tokio::net::TcpStream::connect(address).await.expect("the socket is still open");
        let seat = rig.acceptor.seats.iter().next().unwrap();
        let mut inbox = seat.take(Handle::current().metrics());
        rig.listen(address).await;
        let handed = inbox.recv().await.unwrap();
        assert_eq!(handed.peer, queued.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_connection_waits_for_a_worker_to_come_up() {
        let rig = Rig::new(1, 10);
        let address = free_address();
        rig.listen(address).await;
        let _client = tokio::net::TcpStream::connect(address).await.unwrap();
        let seat = rig.acceptor.seats.iter().next().unwrap();
        let mut inbox = seat.take(Handle::current().metrics());
        assert_eq!(inbox.recv().await.unwrap().local, address);
    }

    #[tokio::test]
    async fn what_is_beyond_the_limit_is_closed_at_once_and_counted_and_holds_nobody_up() {
        let rig = Rig::new(1, 2);
        let seat = rig.acceptor.seats.iter().next().unwrap();
        let mut inbox = seat.take(Handle::current().metrics());
        let address = free_address();
        rig.listen(address).await;
        let (_first, _second) = (connect(address).await, connect(address).await);
        let (one, _two) = (inbox.recv().await.unwrap(), inbox.recv().await.unwrap());
        assert_eq!(connect(address).await.read(&mut [0]).await.unwrap(), 0, "it is closed");
        let count = || rig.acceptor.metrics.turned_away[Refused::Full as usize].load(Relaxed);
        assert_eq!(count(), 1);
        drop(one);
        let _third = connect(address).await;
        assert!(inbox.recv().await.is_some());
        assert_eq!(count(), 1);
    }

    async fn connect(address: SocketAddr) -> tokio::net::TcpStream {
        tokio::net::TcpStream::connect(address).await.unwrap()
    }

    #[tokio::test]
    async fn a_drain_closes_the_socket_and_takes_what_was_queued() {
        let rig = Rig::new(1, 10);
        let address = free_address();
        let seat = rig.acceptor.seats.iter().next().unwrap();
        let mut inbox = seat.take(Handle::current().metrics());
        rig.listen(address).await;
        let mut client = std::net::TcpStream::connect(address).unwrap();
        let drain = rig.acceptor.drain.clone();
        let settings = DrainSettings { accept_for: Duration::ZERO, finish_within: Duration::from_secs(5) };
        let drained = tokio::spawn(async move { drain.run(settings).await });
        let worker = tokio::spawn(async move { while inbox.recv().await.is_some() {} });
        assert_eq!(drained.await.unwrap().cut, 0);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "it was accepted, then ended");
        while tokio::net::TcpStream::connect(address).await.is_ok() {}
        worker.abort();
    }
}
