//! Which names are wanted and what is known of them: beside the tree, so that no restart forgets an answer.
//!
//! Written by the config store (what is wanted, what the process before knew) and by the resolver (answers);
//! read by both. Refuses to know how a name is resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

/// A name in lower case, without a final dot.
pub type Hostname = Arc<str>;

/// The addresses of each name that has been asked for at least once; none where there are none, or where nothing
/// was ever answered.
pub type Known = BTreeMap<Hostname, Arc<[IpAddr]>>;

/// Names that are resolved; those beyond, in the order of the alphabet, have no addresses.
pub const MAX_NAMES: usize = 1000;
/// The longest name in text. Source: RFC 1035 section 2.3.4.
const LONGEST: usize = 253;
/// The longest label.
const LONGEST_LABEL: usize = 63;

/// Why a text is no name that is resolved.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HostnameError {
    /// It is an address.
    #[error("`{0}` is an address: name a host")]
    Address(String),
    /// It is of this cluster, where references and grants decide.
    #[error("`{0}` is within a cluster: refer to its Service")]
    Cluster(String),
    /// DNS has no such names.
    #[error("`{0}` is no name of a host")]
    Malformed(String),
}

/// The name that a text stands for.
///
/// # Errors
/// Where it is an address, a name within a cluster, or no name of a host.
pub fn hostname(text: &str) -> Result<Hostname, HostnameError> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        inner && !label.is_empty() && label.len() <= LONGEST_LABEL
    };
    if name.parse::<IpAddr>().is_ok() {
        Err(HostnameError::Address(text.to_owned()))
    } else if name.ends_with(".cluster.local") {
        Err(HostnameError::Cluster(text.to_owned()))
    } else if name.len() <= LONGEST && name.split('.').all(is_label) {
        Ok(name.into())
    } else {
        Err(HostnameError::Malformed(text.to_owned()))
    }
}

/// The names; a clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Names {
    wanted: watch::Sender<Arc<BTreeSet<Hostname>>>,
    known: watch::Sender<Arc<Known>>,
}

impl Names {
    /// Says which names are wanted from now on.
    pub fn want(&self, wanted: BTreeSet<Hostname>) {
        self.wanted.send_if_modified(|before| {
            let differs = **before != wanted;
            if differs {
                *before = wanted.into();
            }
            differs
        });
    }

    /// The wanted names, whenever they change.
    pub fn wanted(&self) -> watch::Receiver<Arc<BTreeSet<Hostname>>> {
        self.wanted.subscribe()
    }

    /// What is known, whenever it changes.
    pub fn known(&self) -> watch::Receiver<Arc<Known>> {
        self.known.subscribe()
    }

    /// Whether each wanted name that is resolved has been asked for, or was known before.
    pub fn are_known(&self) -> bool {
        let (wanted, known) = (self.wanted.borrow(), self.known.borrow());
        wanted.iter().take(MAX_NAMES).all(|name| known.contains_key(name))
    }

    /// Notes the addresses of a name.
    pub(super) fn learn(&self, name: &Hostname, addresses: Arc<[IpAddr]>) {
        self.known.send_if_modified(|known| {
            let differs = known.get(name) != Some(&addresses);
            if differs {
                Arc::make_mut(known).insert(name.clone(), addresses);
            }
            differs
        });
    }

    /// Takes on what the process before knew, as far as it is wanted and nothing is known here.
    pub fn inherit(&self, before: Known) {
        let wanted = self.wanted.borrow().clone();
        self.known.send_if_modified(|known| {
            let is_news = |name: &Hostname| {
                wanted.contains(name) && known.get(name).is_none_or(|addresses| addresses.is_empty())
            };
            let news: Vec<_> = before.into_iter().filter(|(name, _)| is_news(name)).collect();
            let is_any = !news.is_empty();
            if is_any {
                Arc::make_mut(known).extend(news);
            }
            is_any
        });
    }

    /// Forgets what nobody wants.
    pub(super) fn forget_unwanted(&self) {
        let wanted = self.wanted.borrow().clone();
        self.known.send_if_modified(|known| {
            let has_more = known.keys().any(|name| !wanted.contains(name));
            if has_more {
                Arc::make_mut(known).retain(|name, _| wanted.contains(name));
            }
            has_more
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_from_addresses_and_from_what_dns_can_not_hold() {
        assert_eq!(&*hostname("API.Example.com.").unwrap(), "api.example.com");
        for address in ["169.254.169.254", "::1", "127.0.0.1."] {
            assert!(matches!(hostname(address), Err(HostnameError::Address(_))), "{address}");
        }
        assert!(matches!(hostname("cart.shop.svc.Cluster.local."), Err(HostnameError::Cluster(_))));
        for text in ["", ".", "a..b", "a b", "é.example", &"a".repeat(64), &"a.".repeat(130)] {
            assert!(matches!(hostname(text), Err(HostnameError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn what_was_known_before_stands_where_nothing_newer_does() {
        let names = Names::default();
        let (here, there): (Arc<[IpAddr]>, Arc<[IpAddr]>) =
            ([[192, 0, 2, 1].into()].into(), [[192, 0, 2, 2].into()].into());
        names.want(["a", "b", "c"].map(Hostname::from).into());
        names.learn(&"a".into(), here.clone());
        names.learn(&"b".into(), Arc::default());
        assert!(!names.are_known());
        names.inherit(["a", "b", "c", "d"].map(|name| (name.into(), there.clone())).into());
        let expected = [("a", here), ("b", there.clone()), ("c", there)];
        assert_eq!(**names.known().borrow(), expected.map(|(name, of)| (name.into(), of)).into());
        assert!(names.are_known());
        names.want(["a"].map(Hostname::from).into());
        names.forget_unwanted();
        assert_eq!(names.known().borrow().len(), 1);
    }
}
