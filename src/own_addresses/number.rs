//! The number of a run: the metric of its routes, by which they are told from those of other runs.
//!
//! Owns how runs on a node share the numbers: who has bound the abstract Unix socket of a number (unix(7)) has it, in the
//! network that the routes are of, until it ends in whatever way. There is no file that could outlive it. Refuses to know
//! what the number is for.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Far more than ever run on one node.
const MOST: u32 = 64;

/// A number that no other run on this node has as long as this value lives.
pub(super) struct Number {
    value: u32,
    _socket: UnixDatagram,
}

impl Number {
    /// Takes the smallest that is free.
    ///
    /// # Errors
    /// Where all are taken, and what the system says.
    pub(super) fn take() -> io::Result<Self> {
        for value in 1..=MOST {
            match bind(value) {
                Ok(socket) => return Ok(Self { value, _socket: socket }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("{MOST} of own-addresses run on this node already")))
    }

    /// It.
    pub(super) fn value(&self) -> u32 {
        self.value
    }
}

/// Whether a run has this number. Where that can't be said it is taken for one that has.
pub(super) fn is_held(value: u32) -> bool {
    bind(value).is_err()
}

fn bind(value: u32) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("portreeve-own-addresses/{value}"))?)
}
