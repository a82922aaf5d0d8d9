//! Addresses as settings have them. Manifests of Pods write `$(HOST_IP):9902`, which has no brackets where the
//! address is one of IPv6: it is read all the same.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Where to bind: `192.0.2.1:80`, `[2001:db8::1]:80`, or without brackets `2001:db8::1:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bind(pub(crate) SocketAddr);

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = || {
            let (address, port) = text.rsplit_once(':')?;
            Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, port.parse().ok()?))
        };
        let read = text.parse().ok().or_else(bare);
        read.map(Self).ok_or_else(|| "must be ADDRESS:PORT, with an IP address".to_owned())
    }
}

/// Whom to ask: `controllers.example:80`, or an address and a port as in [`Bind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host(pub(crate) String);

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let split =
            text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        match split {
            Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => Ok(Self(format!("[{host}]:{port}"))),
            Some(_) => Ok(Self(text.to_owned())),
            None => Err("must be HOST:PORT".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_needs_no_brackets() {
        let check = |text: &str, want: Option<&str>| {
            let want = want.map(|want| Bind(want.parse().unwrap()));
            assert_eq!(text.parse::<Bind>().ok(), want, "{text}");
        };
        check("10.0.0.1:9902", Some("10.0.0.1:9902"));
        check("[::]:9902", Some("[::]:9902"));
        check("2001:db8::1:9902", Some("[2001:db8::1]:9902"));
        check("2001:db8:0:0:0:0:0:1:9902", Some("[2001:db8::1]:9902"));
        for bad in ["", "10.0.0.1", "10.0.0.1:", "10.0.0.1:70000", "localhost:80", ":80", "[::1:80"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port() {
        let check = |text: &str, want: Option<&str>| {
            assert_eq!(text.parse::<Host>().ok(), want.map(|want| Host(want.to_owned())), "{text}");
        };
        check("controllers.svc:9903", Some("controllers.svc:9903"));
        check("10.96.0.7:9903", Some("10.96.0.7:9903"));
        check("fd00::7:9903", Some("[fd00::7]:9903"));
        check("[fd00::7]:9903", Some("[fd00::7]:9903"));
        for bad in ["", "controllers.svc", ":9903", "controllers.svc:http"] {
            check(bad, None);
        }
    }
}
