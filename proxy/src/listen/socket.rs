//! Listening sockets: how they are bound, and the set of those that are open.
//!
//! Owns every listening socket. They are kept beside the tree, so a listener that is restarted goes on with
//! its socket and with what the kernel has queued on it. Called by the listeners. Refuses to know why an
//! address is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};
use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tracing::debug;

/// How many connections the kernel may queue on a socket; it cuts this to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;
/// An idle connection is probed after this long, then every [`PROBE_EVERY`], so many times.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;
/// File descriptors that connections never get: listeners, administration, files.
const RESERVED_FILES: u64 = 256;

/// What a listener is bound for: both transports have ports of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Where a listener is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bind {
    /// For what.
    pub transport: Transport,
    /// The address and port.
    pub address: SocketAddr,
}

impl Bind {
    /// For connections.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { transport: Transport::Tcp, address }
    }

    /// For datagrams.
    pub fn udp(address: SocketAddr) -> Self {
        Self { transport: Transport::Udp, address }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Transport::Tcp => write!(f, "{}", self.address),
            Transport::Udp => write!(f, "{}/udp", self.address),
        }
    }
}

/// The listening sockets that are wanted and open.
#[derive(Debug, Default)]
pub struct Sockets(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    wanted: BTreeSet<SocketAddr>,
    open: BTreeMap<SocketAddr, TcpListener>,
    /// Got from the process before, and not wanted yet.
    inherited: BTreeMap<SocketAddr, TcpListener>,
    /// Another process may hold them too.
    are_shared: bool,
}

impl Sockets {
    /// A handle of the listening socket of an address; it is bound where it is not yet.
    ///
    /// # Errors
    /// What the kernel says: the address is in use, is not one of the host's, or needs a privilege.
    /// Also where the address is not wanted: a listener that is about to be stopped must not leave a
    /// socket behind on which nobody accepts.
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let mut state = self.lock();
        if !state.wanted.contains(&address) {
            return Err(io::Error::other("the address is not wanted any more"));
        }
        if let Some(socket) = state.open.get(&address) {
            return socket.try_clone();
        }
        let socket = match state.inherited.remove(&address) {
            Some(socket) => socket,
            None => bind(address)?,
        };
        let handle = socket.try_clone()?;
        state.open.insert(address, socket);
        Ok(handle)
    }

    /// Says which are wanted and closes all others; each ends for good when its accept loop has let go
    /// of it too.
    pub fn want(&self, wanted: &BTreeSet<SocketAddr>) {
        let mut state = self.lock();
        state.wanted.clone_from(wanted);
        state.open.retain(|address, _| wanted.contains(address));
    }

    /// Closes one, likewise.
    pub fn close(&self, address: SocketAddr) {
        self.lock().open.remove(&address);
    }

    /// Stops listening everywhere at once, whoever of this process still holds a handle: what is queued is
    /// reset, and the addresses are free for another. Sockets that another process may hold are closed only:
    /// what is queued is that one's.
    pub fn shut(&self) {
        let mut state = self.lock();
        state.wanted.clear();
        state.inherited.clear();
        let are_shared = state.are_shared;
        for socket in std::mem::take(&mut state.open).into_values() {
            if !are_shared {
                shut(&socket);
            }
        }
    }

    /// Takes sockets of the process before, until they are wanted. That one holds them too, and goes on with
    /// them if this process ends soon.
    pub fn inherit(&self, sockets: impl IntoIterator<Item = (SocketAddr, TcpListener)>) {
        let mut state = self.lock();
        state.are_shared = true;
        for (address, socket) in sockets {
            if !state.open.contains_key(&address) {
                state.inherited.insert(address, socket);
            }
        }
    }

    /// Closes what was inherited and is not wanted.
    pub fn forget_inherited(&self) {
        self.lock().inherited.clear();
    }

    /// Handles of all that are open, for another process.
    ///
    /// # Errors
    /// Where the system gives no more files.
    pub fn share(&self) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
        let mut state = self.lock();
        state.are_shared = true;
        state.open.iter().map(|(address, socket)| Ok((*address, socket.try_clone()?))).collect()
    }

    /// Whether another process may hold them too.
    pub fn are_shared(&self) -> bool {
        self.lock().are_shared
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every step, so a panic elsewhere does not make it unusable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops listening on a socket for all who hold a handle of it (shutdown(2) on a listening socket).
pub fn shut(socket: &TcpListener) {
    if let Err(error) = shutdown(socket, Shutdown::Both) {
        debug!(%error, "a listening socket was closed already");
    }
}

/// Binds exactly one address and port, never a wildcard. What is set here, accepted sockets inherit.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    tune(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sets what both legs of a proxied connection want: no delay of small segments, and an end to idle
/// connections whose other side is gone.
///
/// TCP_USER_TIMEOUT is not set: it ends a peer that acknowledges every probe and merely takes nothing for that
/// long, because whoever reads there pauses, and it takes the place of the number of keepalive probes. A peer
/// that is gone while something is on its way to it meets the idle limits of the codecs instead.
///
/// # Errors
/// What the kernel says of an option.
pub fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
    socket.set_tcp_keepalive(&probes)
}

/// How many connections fit the limit on open files: each takes one, its upstream one, and a tenth of
/// both is spare.
pub fn connection_budget() -> u32 {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    budget_of(files)
}

fn budget_of(files: u64) -> u32 {
    let budget = files.saturating_sub(RESERVED_FILES).saturating_mul(10) / 22;
    u32::try_from(budget.clamp(16, 1 << 20)).unwrap_or(1 << 20)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.8:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_socket_is_bound_once_and_closed_when_it_is_not_wanted() {
        let (sockets, address) = (Sockets::default(), free_address());
        sockets.want(&BTreeSet::from([address]));
        let first = sockets.listen(address).unwrap();
        let again = sockets.listen(address).unwrap();
        assert_eq!(first.local_addr().unwrap(), address);
        drop((first, again));
        TcpStream::connect(address).expect("the set holds the socket");
        sockets.want(&BTreeSet::new());
        TcpStream::connect(address).expect_err("nobody holds it");
        sockets.listen(address).expect_err("it is not wanted");
    }

    #[test]
    fn a_socket_that_is_shut_is_free_for_another_whoever_holds_it() {
        let (sockets, address) = (Sockets::default(), free_address());
        sockets.want(&BTreeSet::from([address]));
        let held = sockets.listen(address).unwrap();
        sockets.shut();
        TcpStream::connect(address).expect_err("nobody listens");
        let others = Sockets::default();
        others.want(&BTreeSet::from([address]));
        others.listen(address).expect("it is free");
        drop(held);
        TcpStream::connect(address).expect("the other one listens");
    }

    #[test]
    fn what_is_set_on_the_listening_socket_is_set_on_accepted_ones() {
        let (sockets, address) = (Sockets::default(), free_address());
        sockets.want(&BTreeSet::from([address]));
        let socket = sockets.listen(address).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        socket.set_nonblocking(false).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        check_tuned(&SockRef::from(&accepted));
    }

    #[track_caller]
    fn check_tuned(socket: &SockRef<'_>) {
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES);
        assert!(socket.tcp_user_timeout().unwrap().is_none_or(|timeout| timeout.is_zero()));
    }

    /// Writes until the peer, which reads nothing, has no more room; then waits until it reads on.
    fn outlasts_a_pause(tuned: impl Fn(&SockRef<'_>)) -> bool {
        let listener = TcpListener::bind("127.0.0.8:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut ours = listener.accept().unwrap().0;
        SockRef::from(&ours).set_send_buffer_size(16 << 10).unwrap();
        tuned(&SockRef::from(&ours));
        ours.set_nonblocking(true).unwrap();
        let mut sent = 0;
        for _ in 0..20 {
            while let Ok(count) = ours.write(&[0; 4096]) {
                sent += count;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // The window is 0 after that, and the kernel probes it several times meanwhile.
        std::thread::sleep(Duration::from_millis(2500));
        let mut read = vec![0; sent];
        peer.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        peer.read_exact(&mut read).is_ok() && ours.take_error().unwrap().is_none()
    }

    #[test]
    fn a_peer_that_pauses_is_not_taken_for_one_that_is_gone() {
        assert!(outlasts_a_pause(|socket| tune(socket).unwrap()));
        let timeout = Some(Duration::from_millis(500));
        assert!(
            !outlasts_a_pause(|socket| socket.set_tcp_user_timeout(timeout).unwrap()),
            "why it is not set"
        );
    }

    #[test]
    fn the_budget_of_connections_follows_the_limit_on_files() {
        assert_eq!(budget_of(0), 16);
        assert_eq!(budget_of(1024), 349);
        assert_eq!(budget_of(20_000), 8974);
        assert_eq!(budget_of(u64::MAX / 10), 1 << 20);
    }
}
