//! Whether an address that DNS gave may be connected to.
//!
//! Pure but for one question to the kernel's routing table. Names are written by tenants, and what they resolve
//! to by whoever runs their zone: an address that means this node, its cloud's metadata or many hosts at once is
//! never dialled through one (DNS rebinding). Called by the resolver alone. Refuses to know names.
//! Source: RFC 6890, RFC 4291, RFC 6052, RFC 3056.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Why an address is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forbidden {
    /// It means this host: 127.0.0.0/8, ::1.
    Loopback,
    /// It means this link, where clouds answer with credentials: 169.254.0.0/16, fe80::/10, and fd00:ec2::/32, by
    /// which EC2 does over IPv6.
    LinkLocal,
    /// It means no host, which the kernel takes for this one: 0.0.0.0/8, ::.
    Unspecified,
    /// It means many hosts: 224.0.0.0/4, ff00::/8.
    Multicast,
    /// It means nothing yet, or everybody: 240.0.0.0/4.
    Reserved,
    /// It is an address of this node.
    OwnAddress,
}

impl Forbidden {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Loopback,
        Self::LinkLocal,
        Self::Unspecified,
        Self::Multicast,
        Self::Reserved,
        Self::OwnAddress,
    ];

    /// As the label `reason` of the metric names it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::LinkLocal => "link_local",
            Self::Unspecified => "unspecified",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
            Self::OwnAddress => "own_address",
        }
    }
}

/// What the address space says of an address. `may_loop`: loopback is allowed, for tests.
///
/// # Errors
/// Why it must not be dialled.
pub fn judge(address: IpAddr, may_loop: bool) -> Result<(), Forbidden> {
    let judged = match address {
        IpAddr::V4(address) => judge_v4(address),
        IpAddr::V6(address) => judge_v6(address),
    };
    match judged {
        Err(Forbidden::Loopback) if may_loop => Ok(()),
        other => other,
    }
}

fn judge_v4(address: Ipv4Addr) -> Result<(), Forbidden> {
    match address.octets() {
        [0, ..] => Err(Forbidden::Unspecified),
        [127, ..] => Err(Forbidden::Loopback),
        [169, 254, ..] => Err(Forbidden::LinkLocal),
        [224..=239, ..] => Err(Forbidden::Multicast),
        [240..=255, ..] => Err(Forbidden::Reserved),
        _ => Ok(()),
    }
}

fn judge_v6(address: Ipv6Addr) -> Result<(), Forbidden> {
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        judge_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Err(Forbidden::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Err(Forbidden::Loopback),
        // Mapped, compatible and translated IPv4: RFC 4291 2.5.5, RFC 6052 2.1, RFC 8215; and 6to4.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => inner(high, low),
        [0xfe80..=0xfebf, ..] | [0xfd00, 0xec2, ..] => Err(Forbidden::LinkLocal),
        [0xff00..=0xffff, ..] => Err(Forbidden::Multicast),
        _ => Ok(()),
    }
}

/// How the kernel would reach an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Over the network.
    Away,
    /// Not at all: the host has no route of that family.
    Nowhere,
    /// It is the host itself.
    Here,
}

/// Asks the kernel; nothing is sent.
pub fn path(to: IpAddr) -> Path {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(SocketAddr::new(to, DISCARD))?;
        Ok(socket.local_addr()?.ip())
    };
    match source() {
        // What is sent to an address of the host comes from that address, or from the first one beside it.
        Ok(source) if source == to || is_own(to) => Path::Here,
        Ok(_) => Path::Away,
        Err(_) => Path::Nowhere,
    }
}

/// Whether the host can bind it; `false` where it can bind anything (`net.ipv4.ip_nonlocal_bind`).
fn is_own(address: IpAddr) -> bool {
    let can_bind = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
    can_bind(address) && !can_bind(if address.is_ipv4() { NOBODYS_V4.into() } else { NOBODYS_V6.into() })
}

/// Addresses that no host has (RFC 5737, RFC 3849).
const NOBODYS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NOBODYS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Any port will do.
const DISCARD: u16 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(address: &str) -> Result<(), Forbidden> {
        judge(address.parse().unwrap(), false)
    }

    #[test]
    fn what_means_this_node_its_link_or_many_hosts_is_forbidden_in_every_disguise() {
        for (address, why) in [
            ("127.0.0.1", Forbidden::Loopback),
            ("127.255.255.254", Forbidden::Loopback),
            ("::1", Forbidden::Loopback),
            ("::ffff:127.0.0.1", Forbidden::Loopback),
            ("::127.0.0.1", Forbidden::Loopback),
            ("::ffff:0:127.0.0.1", Forbidden::Loopback),
            ("64:ff9b::127.0.0.1", Forbidden::Loopback),
            ("64:ff9b:1::127.0.0.1", Forbidden::Loopback),
            ("2002:7f00:1::1", Forbidden::Loopback),
            ("169.254.169.254", Forbidden::LinkLocal),
            ("::ffff:169.254.169.254", Forbidden::LinkLocal),
            ("64:ff9b::a9fe:a9fe", Forbidden::LinkLocal),
            ("2002:a9fe:a9fe::", Forbidden::LinkLocal),
            ("fe80::1", Forbidden::LinkLocal),
            ("febf::1", Forbidden::LinkLocal),
            ("fd00:ec2::254", Forbidden::LinkLocal),
            ("0.0.0.0", Forbidden::Unspecified),
            ("0.1.2.3", Forbidden::Unspecified),
            ("::", Forbidden::Unspecified),
            ("::ffff:0.0.0.0", Forbidden::Unspecified),
            ("224.0.0.1", Forbidden::Multicast),
            ("ff02::1", Forbidden::Multicast),
            ("240.0.0.1", Forbidden::Reserved),
            ("255.255.255.255", Forbidden::Reserved),
        ] {
            assert_eq!(judged(address), Err(why), "{address}");
        }
    }

    #[test]
    fn hosts_may_be_dialled_private_ones_among_them() {
        for address in [
            "192.0.2.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "128.0.0.1",
            "126.255.255.255",
            "223.255.255.255",
            "169.253.255.255",
            "2001:db8::1",
            "fd00:ec3::1",
            "fec0::1",
            "::ffff:192.0.2.1",
            "64:ff9b::192.0.2.1",
        ] {
            assert_eq!(judged(address), Ok(()), "{address}");
        }
    }

    #[test]
    fn loopback_alone_can_be_allowed() {
        assert_eq!(judge([127, 0, 0, 1].into(), true), Ok(()));
        assert_eq!(judge([169, 254, 169, 254].into(), true), Err(Forbidden::LinkLocal));
    }

    #[test]
    fn an_address_of_this_host_is_known_by_the_kernel() {
        assert_eq!(path([127, 0, 0, 1].into()), Path::Here);
        assert_eq!(path([127, 0, 0, 5].into()), Path::Here, "though what is sent there comes from another");
    }
}
