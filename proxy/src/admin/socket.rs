//! A listening socket of the admin actor, which outlives its restarts and ends with the process's turn.
//!
//! Owns the socket until another process has it for good. Made beside the tree; the admin actor accepts on it, the
//! giver passes it on. Refuses to know who is served.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::listen::socket::shut;

/// The socket, while it is this process's too.
#[derive(Debug)]
pub struct AdminSocket {
    address: SocketAddr,
    socket: Mutex<Option<TcpListener>>,
}

impl AdminSocket {
    /// Owns it from now on.
    ///
    /// # Errors
    /// What the system says of its address.
    pub fn new(socket: TcpListener) -> io::Result<Self> {
        Ok(Self { address: socket.local_addr()?, socket: Mutex::new(Some(socket)) })
    }

    /// Where it listens, or did.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle of it; `None` once it was given up.
    ///
    /// # Errors
    /// Where the system gives no more files.
    pub fn handle(&self) -> io::Result<Option<TcpListener>> {
        self.lock().as_ref().map(TcpListener::try_clone).transpose()
    }

    /// Leaves it to the process that holds it too: without that one its address is free.
    pub fn give_up(&self) {
        *self.lock() = None;
    }

    /// Stops listening, whoever holds a handle.
    pub fn shut(&self) {
        if let Some(socket) = self.lock().take() {
            shut(&socket);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<TcpListener>> {
        // It is there or not: a panic elsewhere leaves nothing half done.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
