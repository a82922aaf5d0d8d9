//! The node's routes of the table `local` that carry our mark, over a netlink socket: read, added, taken away.
//!
//! Owns the layout of the messages (rtnetlink(7), linux/rtnetlink.h). It refuses to know what the routes are for.

use std::fmt;
use std::io;
use std::net::IpAddr;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

/// How routes of ours are marked (`ip route show proto 117`): whose they are if nobody of us runs any more. Numbers below
/// 16 are the kernel's, and those of other programs are in /etc/iproute2/rt_protos.
const PROTOCOL: u8 = 117;

/// The kernel sends at most 32 KiB at a time.
const BUFFER: usize = 64 * 1024;
const HEADER: usize = 16;
const ROUTE: usize = 12;

// linux/netlink.h
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
// linux/rtnetlink.h
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const ATTRIBUTE_DESTINATION: u16 = 1;
const ATTRIBUTE_DEVICE: u16 = 4;
const ATTRIBUTE_METRIC: u16 = 6;
const TABLE_LOCAL: u8 = 255;
const SCOPE_HOST: u8 = 254;
const KIND_LOCAL: u8 = 2;

/// Where a route leads to: all addresses that begin as this one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// The first address.
    pub(super) address: IpAddr,
    /// How many bits are the same.
    pub(super) prefix: u8,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// One of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Where it leads to.
    pub(super) destination: Destination,
    /// Tells routes to the same place apart.
    pub(super) metric: u32,
}

/// The routes, as the kernel has them.
pub(super) struct Routes {
    socket: OwnedFd,
    loopback: u32,
    sequence: u32,
}

impl Routes {
    /// Opens them.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        // Any kind of socket can be asked for the number of a device.
        let any = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Self { socket, loopback: name_to_index(any, "lo")?, sequence: 0 })
    }

    /// Those of ours.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn ours(&mut self) -> io::Result<Vec<Route>> {
        let mut ours = Vec::new();
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            let mut body = [0; ROUTE];
            body[0] = number(family);
            self.ask(GET_ROUTE, DUMP, &body, |route| ours.extend(read(route)))?;
        }
        Ok(ours)
    }

    /// Adds one, and says whether it is new.
    ///
    /// # Errors
    /// What the kernel says; `EPERM` without the right to change the network.
    pub(super) fn add(&mut self, route: &Route) -> io::Result<bool> {
        let body = write(route, self.loopback);
        match self.ask(NEW_ROUTE, ACK | CREATE | EXCLUSIVE, &body, |_| ()) {
            Ok(()) => Ok(true),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::EXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes one of ours away.
    ///
    /// # Errors
    /// What the kernel says; `ESRCH` where it is not there.
    pub(super) fn remove(&mut self, route: &Route) -> io::Result<()> {
        let body = write(route, self.loopback);
        self.ask(DELETE_ROUTE, ACK, &body, |_| ())
    }

    /// Sends one message, and hands each answer's body to `take` until the last one has come.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        sendto(&self.socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let (length, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some((kind, body, after)) = split(rest) {
                match kind {
                    ERROR => return outcome(body),
                    DONE => return Ok(()),
                    _ => take(body),
                }
                rest = after;
            }
        }
    }
}

/// The first message's kind and body, and what follows it.
fn split(messages: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*messages.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*messages.get(4..)?.first_chunk()?);
    let body = messages.get(HEADER..length)?;
    Some((kind, body, messages.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// What an acknowledgement says: a negative errno, or 0.
fn outcome(body: &[u8]) -> io::Result<()> {
    let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

fn number(family: AddressFamily) -> u8 {
    u8::try_from(family.as_raw()).unwrap_or_default()
}

/// The body of a message about a route of ours.
fn write(route: &Route, loopback: u32) -> Vec<u8> {
    let to = &route.destination;
    let (family, address) = match to.address {
        IpAddr::V4(address) => (AddressFamily::INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AddressFamily::INET6, address.octets().to_vec()),
    };
    let mut body = vec![number(family), to.prefix, 0, 0, TABLE_LOCAL, PROTOCOL, SCOPE_HOST, KIND_LOCAL];
    body.extend([0; 4]);
    for (kind, value) in [
        (ATTRIBUTE_DESTINATION, &address[..]),
        (ATTRIBUTE_DEVICE, &loopback.to_ne_bytes()[..]),
        (ATTRIBUTE_METRIC, &route.metric.to_ne_bytes()[..]),
    ] {
        // Addresses and numbers need no padding.
        body.extend(u16::try_from(4 + value.len()).unwrap_or_default().to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
    }
    body
}

/// A route, if it is one of ours.
fn read(route: &[u8]) -> Option<Route> {
    let &[_, prefix, _, _, TABLE_LOCAL, PROTOCOL, _, KIND_LOCAL, ..] = route else { return None };
    let mut rest = route.get(ROUTE..)?;
    // What has no metric has 0.
    let (mut address, mut metric) = (None, 0);
    while let Some(length) = rest.first_chunk().map(|length| usize::from(u16::from_ne_bytes(*length))) {
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        match kind {
            ATTRIBUTE_DESTINATION => {
                let four = <[u8; 4]>::try_from(value).map(IpAddr::from);
                address = four.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok();
            }
            ATTRIBUTE_METRIC => metric = u32::from_ne_bytes(value.try_into().ok()?),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Route { destination: Destination { address: address?, prefix }, metric })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(address: &str, prefix: u8) -> Route {
        Route { destination: Destination { address: address.parse().unwrap(), prefix }, metric: 7 }
    }

    #[test]
    fn a_route_of_ours_is_known_again() {
        for route in [to("192.0.2.64", 26), to("2001:db8::", 64)] {
            assert_eq!(read(&write(&route, 1)), Some(route));
        }
    }

    #[test]
    fn routes_of_others_are_none_of_ours() {
        let ours = write(&to("192.0.2.0", 24), 1);
        // Its table, who made it, its kind.
        for (index, other) in [(4, 254), (5, 2), (7, 1)] {
            let mut route = ours.clone();
            route[index] = other;
            assert_eq!(read(&route), None, "{route:?}");
        }
    }

    #[test]
    fn what_is_cut_short_is_none() {
        let route = write(&to("192.0.2.0", 24), 1);
        for length in 0..20 {
            assert_eq!(read(&route[..length]), None);
        }
        assert!(split(&[20, 0, 0, 0, 24, 0]).is_none());
    }
}
