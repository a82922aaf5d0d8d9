//! Listening sockets: how they are bound, and the set of those that are open.
//!
//! Owns every listening socket. They are kept beside the tree, so a listener that is restarted goes on with
//! its socket and with what the kernel has queued on it. Called by the listeners. Refuses to know why an
//! address is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// How many connections the kernel may queue on a socket; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// A peer that acknowledges nothing for this long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// An idle connection is probed after this long, then every [`PROBE_EVERY`].
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// File descriptors that connections never get: listeners, administration, files.
const RESERVED_FILES: u64 = 256;

/// The open listening sockets.
#[derive(Debug, Default)]
pub struct Sockets(Mutex<BTreeMap<SocketAddr, TcpListener>>);

impl Sockets {
    /// A handle of the listening socket of an address; it is bound where it is not yet.
    ///
    /// # Errors
    /// What the kernel says: the address is in use, is not one of the host's, or needs a privilege.
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let mut open = self.lock();
        if let Some(socket) = open.get(&address) {
            return socket.try_clone();
        }
        let socket = bind(address)?;
        let handle = socket.try_clone()?;
        open.insert(address, socket);
        Ok(handle)
    }

    /// Closes all that are not in `wanted`; each ends for good when its accept loop has let go of it too.
    pub fn keep(&self, wanted: &BTreeSet<SocketAddr>) {
        self.lock().retain(|address, _| wanted.contains(address));
    }

    /// Closes one, likewise.
    pub fn close(&self, address: SocketAddr) {
        self.lock().remove(&address);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, TcpListener>> {
        // The map is whole after every step, so a panic elsewhere does not make it unusable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Sets what both legs of a proxied connection want: no delay of small segments, and an end to connections
/// whose other side is gone.
///
/// # Errors
/// What the kernel says of an option.
pub fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY))
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
    use super::*;

    #[test]
    fn a_socket_is_bound_once_and_closed_when_it_is_not_wanted() {
        let sockets = Sockets::default();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let first = sockets.listen(any).unwrap();
        let again = sockets.listen(any).unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(again.local_addr().unwrap(), address);
        assert!(first.local_addr().unwrap().ip().is_loopback());
        drop((first, again));
        std::net::TcpStream::connect(address).expect("the set holds the socket");
        sockets.keep(&BTreeSet::new());
        std::net::TcpStream::connect(address).expect_err("nobody holds it");
    }

    #[test]
    fn what_is_set_on_the_listening_socket_is_set_on_accepted_ones() {
        let sockets = Sockets::default();
        let socket = sockets.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(false).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        assert_eq!(SockRef::from(&accepted).tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }

    #[test]
    fn the_budget_of_connections_follows_the_limit_on_files() {
        assert_eq!(budget_of(0), 16);
        assert_eq!(budget_of(1024), 349);
        assert_eq!(budget_of(20_000), 8974);
        assert_eq!(budget_of(u64::MAX / 10), 1 << 20);
    }
}
