//! What of the datagrams passes from one process of the node to the next: the sockets, and the sessions.
//!
//! Kept beside the tree. Relays put their socket in while they receive on it, and their sessions once it is
//! not this process's turn any more; the hand-over takes both out, and puts in what it got from the process
//! before. Refuses to know how it travels.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long relays may take to let go.
const PAUSED_WITHIN: Duration = Duration::from_secs(1);

/// A session as it passes.
#[derive(Debug)]
pub struct Passing<Socket> {
    /// The client.
    pub peer: SocketAddr,
    /// The endpoint that it was given.
    pub endpoint: SocketAddr,
    /// The socket that stands for the client there.
    pub socket: Socket,
}

/// The sessions of relays that receive nothing just now, by their address.
type Paused = BTreeMap<SocketAddr, Vec<Passing<Arc<UdpSocket>>>>;

/// What passes.
#[derive(Debug, Default)]
pub struct Handed {
    state: Mutex<State>,
    paused: watch::Sender<Paused>,
}

#[derive(Debug, Default)]
struct State {
    receiving: BTreeMap<SocketAddr, Arc<UdpSocket>>,
    inherited: BTreeMap<SocketAddr, StdSocket>,
    sessions: BTreeMap<SocketAddr, Vec<Passing<StdSocket>>>,
}

impl Handed {
    /// Says that a relay receives on a socket, until the guard is dropped.
    pub(super) fn receiving(self: &Arc<Self>, local: SocketAddr, socket: &Arc<UdpSocket>) -> Receiving {
        self.lock().receiving.insert(local, socket.clone());
        Receiving { handed: self.clone(), local }
    }

    /// Says which sessions a relay has that receives nothing any more.
    pub(super) fn pause(&self, local: SocketAddr, sessions: Vec<Passing<Arc<UdpSocket>>>) {
        self.paused.send_modify(|paused| drop(paused.insert(local, sessions)));
    }

    /// The relay goes on.
    pub(super) fn resume(&self, local: SocketAddr) {
        self.paused.send_if_modified(|paused| paused.remove(&local).is_some());
    }

    /// The socket of an address, if the process before had one.
    pub(super) fn inherited(&self, local: SocketAddr) -> Option<StdSocket> {
        self.lock().inherited.remove(&local)
    }

    /// The sessions of an address that the process before had.
    pub(super) fn sessions(&self, local: SocketAddr) -> Vec<Passing<StdSocket>> {
        self.lock().sessions.remove(&local).unwrap_or_default()
    }

    /// Takes sockets of the process before, until they are wanted.
    pub fn inherit(&self, sockets: impl IntoIterator<Item = (SocketAddr, StdSocket)>) {
        let mut state = self.lock();
        for (local, socket) in sockets {
            if !state.receiving.contains_key(&local) {
                state.inherited.insert(local, socket);
            }
        }
    }

    /// Takes a session of the process before.
    pub fn inherit_session(&self, local: SocketAddr, session: Passing<StdSocket>) {
        self.lock().sessions.entry(local).or_default().push(session);
    }

    /// Closes what was inherited and is not wanted.
    pub fn forget_inherited(&self) {
        let State { receiving, inherited, sessions } = &mut *self.lock();
        inherited.clear();
        // A relay may be about to take its own.
        sessions.retain(|local, _| receiving.contains_key(local));
    }

    /// Handles of all sockets that are received on, for another process.
    ///
    /// # Errors
    /// Where the system gives no more files.
    pub fn share(&self) -> io::Result<Vec<(SocketAddr, StdSocket)>> {
        let state = self.lock();
        let handle = |socket: &UdpSocket| socket.as_fd().try_clone_to_owned().map(StdSocket::from);
        state.receiving.iter().map(|(local, socket)| Ok((*local, handle(socket)?))).collect()
    }

    /// Every session with where its client sends to, once the relays have let go, which they do when it is
    /// not this process's turn any more. One that does not in time keeps its own.
    pub async fn paused(&self) -> Vec<(SocketAddr, Passing<StdSocket>)> {
        let mut changes = self.paused.subscribe();
        let all = |paused: &Paused| self.lock().receiving.keys().all(|local| paused.contains_key(local));
        // The sender is part of this.
        let _ = timeout(PAUSED_WITHIN, changes.wait_for(all)).await;
        let paused = self.paused.borrow();
        let sessions = paused.iter().flat_map(|(local, sessions)| sessions.iter().map(|one| (*local, one)));
        let handle = |(local, session): (SocketAddr, &Passing<Arc<UdpSocket>>)| {
            let socket = session.socket.as_fd().try_clone_to_owned().ok()?.into();
            Some((local, Passing { peer: session.peer, endpoint: session.endpoint, socket }))
        };
        sessions.filter_map(handle).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every step, so a panic elsewhere does not make it unusable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A relay that receives.
pub(super) struct Receiving {
    handed: Arc<Handed>,
    local: SocketAddr,
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.handed.lock().receiving.remove(&self.local);
        self.handed.resume(self.local);
    }
}
