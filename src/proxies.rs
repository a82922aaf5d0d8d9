//! A proxy as a person names it: `NAME=HOST:PORT`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// A proxy outside of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its identity.
    pub(crate) name: String,
    /// Where it takes pushes.
    pub(crate) address: SocketAddr,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((name, host)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err("must be NAME=HOST:PORT".to_owned());
        };
        let mut addresses = host.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
        let address = addresses.next().ok_or_else(|| format!("{host} has no address"))?;
        Ok(Self { name: name.to_owned(), address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_name_with_an_address() {
        let address = "127.0.0.2:9901".parse().unwrap();
        assert_eq!("a=127.0.0.2:9901".parse(), Ok(Named { name: "a".to_owned(), address }));
        for wrong in ["127.0.0.2:9901", "=127.0.0.2:9901", "a=127.0.0.2"] {
            assert!(wrong.parse::<Named>().is_err(), "{wrong}");
        }
    }
}
