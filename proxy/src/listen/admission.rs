//! Admission: which connections are let in.
//!
//! Owns the limit on open connections and each client address's share of it. Asked by the accept loops,
//! which close what is refused at once: one that waited for room would keep its listener, and all clients
//! behind it, waiting too. Refuses to know what is spoken.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::Limits;

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are as many as may be.
    Full,
    /// Its client has as many as one may have.
    ClientFull,
    /// Its listener has as many sessions of datagrams as one may have.
    SessionsFull,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Full, Self::ClientFull, Self::SessionsFull];

    /// The reason as metrics name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "limit",
            Self::ClientFull => "client_limit",
            Self::SessionsFull => "session_limit",
        }
    }
}

/// The limits on connections, and those that are open.
#[derive(Debug)]
pub(super) struct Admission {
    limit: u32,
    per_client: u32,
    open: AtomicU32,
    clients: Mutex<HashMap<IpAddr, u32>>,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            limit: limits.connections,
            per_client: limits.connections_per_client,
            open: AtomicU32::new(0),
            clients: Mutex::default(),
        })
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> u32 {
        self.open.load(Acquire)
    }

    /// Lets a connection in, until [`Self::end`].
    pub(super) fn begin(&self, peer: IpAddr) -> Result<(), Refused> {
        if self.open.fetch_add(1, AcqRel) >= self.limit {
            self.open.fetch_sub(1, AcqRel);
            return Err(Refused::Full);
        }
        let mut clients = self.clients();
        let count = clients.entry(client(peer)).or_default();
        if *count >= self.per_client {
            self.open.fetch_sub(1, AcqRel);
            return Err(Refused::ClientFull);
        }
        *count += 1;
        Ok(())
    }

    /// A connection that was let in has ended; whether it was the last one.
    pub(super) fn end(&self, peer: IpAddr) -> bool {
        let mut clients = self.clients();
        if let Some(count) = clients.get_mut(&client(peer)) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&client(peer));
            }
        }
        self.open.fetch_sub(1, AcqRel) == 1
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        // The counts are whole after every step, so a panic elsewhere does not make them unusable.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom an address stands for: of IPv6 the /64, for one client has all of it (RFC 6177).
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections: u32, per_client: u32) -> Arc<Admission> {
        Admission::new(&Limits { connections_per_client: per_client, ..Limits::new(connections) })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn no_more_are_let_in_than_may_be_open() {
        let admission = admission(2, 2);
        let (one, two, three) = (ip("192.0.2.1"), ip("192.0.2.2"), ip("192.0.2.3"));
        assert_eq!((admission.begin(one), admission.begin(two)), (Ok(()), Ok(())));
        assert_eq!(admission.begin(three), Err(Refused::Full));
        assert!(!admission.end(one));
        assert_eq!(admission.begin(three), Ok(()));
        assert!(!admission.end(two));
        assert!(admission.end(three), "it was the last one");
        assert_eq!((admission.open(), admission.clients().len()), (0, 0));
    }

    #[test]
    fn one_client_takes_no_more_than_its_share_whatever_its_addresses() {
        let admission = admission(10, 2);
        assert_eq!(admission.begin(ip("192.0.2.1")), Ok(()));
        assert_eq!(admission.begin(ip("192.0.2.1")), Ok(()));
        assert_eq!(admission.begin(ip("192.0.2.1")), Err(Refused::ClientFull));
        assert_eq!(admission.begin(ip("192.0.2.2")), Ok(()));
        assert_eq!(admission.begin(ip("2001:db8::1")), Ok(()));
        assert_eq!(admission.begin(ip("2001:db8::ffff:0:0:1")), Ok(()));
        assert_eq!(admission.begin(ip("2001:db8::2")), Err(Refused::ClientFull));
        assert_eq!(admission.begin(ip("2001:db8:0:1::1")), Ok(()));
        assert_eq!(admission.open(), 6, "who was refused does not count");
        admission.end(ip("192.0.2.1"));
        assert_eq!(admission.begin(ip("192.0.2.1")), Ok(()));
    }
}
