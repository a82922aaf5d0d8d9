//! A range of addresses, as a pool names it: `192.0.2.0/26`.
//!
//! Owns its notation and its arithmetic. It refuses to know who gets which address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network: its first address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: IpAddr,
    prefix: u8,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl Range {
    /// Reads a range.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(first, prefix)| {
            Some(Self { first: first.parse().ok()?, prefix: prefix.parse().ok()? })
        });
        let range = parts.filter(|range| range.prefix <= range.bits());
        let range = range.ok_or_else(|| format!("`{text}` is not a range such as 192.0.2.0/26"))?;
        if !number(range.first).is_multiple_of(range.size()) {
            let network = range.at(number(range.first) - number(range.first) % range.size());
            return Err(format!("`{text}` does not begin at its network: write {network}/{}", range.prefix));
        }
        if range.first.is_multicast() || range.first.is_unspecified() {
            return Err(format!("`{text}` has no addresses that a listener can be bound to"));
        }
        Ok(range)
    }

    /// The range of one address alone.
    pub(super) fn of(address: IpAddr) -> Self {
        Self { first: address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Its first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// How many bits all of its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether an address is in it.
    pub(in crate::translate) fn contains(&self, address: IpAddr) -> bool {
        let offset = number(address).checked_sub(number(self.first));
        address.is_ipv4() == self.first.is_ipv4() && offset.is_some_and(|offset| offset < self.size())
    }

    /// How many addresses are given out unasked: not the first and the last one of an IPv4 network, which some
    /// machines take for the network and for all of its hosts.
    pub(super) fn assignable(&self) -> u128 {
        self.size() - 2 * u128::from(self.has_broadcast())
    }

    /// The one of them at an index below [`Range::assignable`].
    pub(super) fn nth(&self, index: u128) -> IpAddr {
        self.at(number(self.first) + u128::from(self.has_broadcast()) + index)
    }

    fn has_broadcast(&self) -> bool {
        self.first.is_ipv4() && self.prefix < 31
    }

    fn bits(&self) -> u8 {
        if self.first.is_ipv4() { 32 } else { 128 }
    }

    /// How many addresses it holds, at least 1; all addresses of IPv6 are one too many to count.
    fn size(&self) -> u128 {
        1_u128.checked_shl(u32::from(self.bits() - self.prefix)).unwrap_or(u128::MAX)
    }

    fn at(&self, number: u128) -> IpAddr {
        match self.first {
            IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_network_and_nothing_beside_it() {
        let range = Range::parse("192.0.2.64/26").unwrap();
        for (address, inside) in [
            ("192.0.2.63", false),
            ("192.0.2.64", true),
            ("192.0.2.127", true),
            ("192.0.2.128", false),
            ("::192.0.2.64", false),
        ] {
            assert_eq!(range.contains(address.parse().unwrap()), inside, "{address}");
        }
        let range = Range::parse("2001:db8::/126").unwrap();
        assert!(range.contains("2001:db8::3".parse().unwrap()));
        assert!(!range.contains("2001:db8::4".parse().unwrap()));
    }

    #[test]
    fn the_ends_of_an_ipv4_network_are_not_given_out_unasked() {
        let range = Range::parse("192.0.2.0/29").unwrap();
        assert_eq!((range.assignable(), range.nth(0), range.nth(5)), (6, ip("192.0.2.1"), ip("192.0.2.6")));
        let pair = Range::parse("192.0.2.2/31").unwrap();
        assert_eq!((pair.assignable(), pair.nth(0), pair.nth(1)), (2, ip("192.0.2.2"), ip("192.0.2.3")));
        let one = Range::parse("192.0.2.7/32").unwrap();
        assert_eq!((one.assignable(), one.nth(0)), (1, ip("192.0.2.7")));
        let six = Range::parse("2001:db8::/64").unwrap();
        assert_eq!((six.assignable(), six.nth(0)), (1 << 64, ip("2001:db8::")));
    }

    #[test]
    fn what_is_no_range_says_what_to_write() {
        for (text, hint) in [
            ("192.0.2.0", "192.0.2.0/26"),
            ("192.0.2.0/33", "192.0.2.0/26"),
            ("example.com/24", "192.0.2.0/26"),
            ("192.0.2.5/24", "write 192.0.2.0/24"),
            ("224.0.0.0/24", "can be bound"),
            ("0.0.0.0/0", "can be bound"),
            ("::/0", "can be bound"),
        ] {
            let error = Range::parse(text).unwrap_err();
            assert!(error.contains(hint), "{error}");
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
