//! Proxies as this process knows them: by name and address, or with an identity that it issued itself.

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

/// An identity that was issued in this process, as its proxy takes it.
#[cfg(feature = "demo")]
pub(crate) fn held(issued: actors::push::identity::Identity) -> proxy::admin::identity::TlsSource {
    let identity = proxy::admin::identity::Identity {
        authorities: issued.authorities.into(),
        chain: issued.chain.into(),
        key: issued.key,
    };
    let (_, identity) = tokio::sync::watch::channel(std::sync::Arc::new(identity));
    proxy::admin::identity::TlsSource::Held(identity)
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
