//! Hosts: which names can cover a host, most specific first, and the map from names to what is served.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use proxy_config::name::HostPattern;
use rapidhash::fast::{GlobalState, SeedableState};

use super::path::Paths;

/// The longest name that DNS allows (RFC 1035 section 2.3.4): no pattern covers a longer host.
const MAX_HOST: usize = 253;

/// A request's host, in lower case and without a final dot.
pub(super) struct Host<'a>(Cow<'a, [u8]>);

impl<'a> Host<'a> {
    /// The host; `None` for what no pattern can cover.
    pub(super) fn new(sent: &'a [u8]) -> Option<Self> {
        let sent = sent.strip_suffix(b".").unwrap_or(sent);
        if sent.first() == Some(&b'.') || sent.len() > MAX_HOST {
            return None;
        }
        let is_lower = !sent.iter().any(u8::is_ascii_uppercase);
        Some(Self(if is_lower { Cow::Borrowed(sent) } else { Cow::Owned(sent.to_ascii_lowercase()) }))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The keys that cover this host, most specific first: the name itself, each wildcard as its
    /// suffix from the first dot on (where there is any wildcard at all), and the key of what takes
    /// every host.
    pub(super) fn keys(&self, wildcards: bool) -> impl Iterator<Item = &[u8]> {
        let host = self.as_bytes();
        let dots = memchr::memchr_iter(b'.', if wildcards { host } else { b"" });
        let own = (!host.is_empty()).then_some(host);
        own.into_iter().chain(dots.map(move |dot| &host[dot..])).chain([&b""[..]])
    }
}

/// The key of a pattern: `shop.example.com`, `.example.com` for `*.example.com`, empty for every host.
pub(super) fn key(pattern: Option<&HostPattern>) -> &str {
    pattern.map_or("", |pattern| pattern.suffix().unwrap_or(pattern.as_str()))
}

pub(super) fn is_wildcard(key: &[u8]) -> bool {
    key.first() == Some(&b'.')
}

pub(super) type Map<V> = std::collections::HashMap<Box<[u8]>, V, GlobalState>;

/// The listeners of a port by their hostnames: a place for each host key.
#[derive(Debug, Default)]
pub(super) struct Hostnames {
    /// All but the empty key.
    places: Map<usize>,
    /// What takes every host: mostly asked for last, and often alone.
    every: Option<usize>,
    wildcards: bool,
}

impl Hostnames {
    pub(super) fn get(&self, key: &[u8]) -> Option<usize> {
        if key.is_empty() { self.every } else { self.places.get(key).copied() }
    }

    pub(super) fn insert(&mut self, key: &[u8], place: usize) {
        self.wildcards |= is_wildcard(key);
        if key.is_empty() {
            self.every = Some(place);
        } else {
            self.places.insert(key.into(), place);
        }
    }

    /// The place under the most specific key that covers a host.
    #[inline]
    pub(super) fn covering(&self, host: &Host<'_>) -> Option<usize> {
        if self.places.is_empty() {
            return self.every;
        }
        host.keys(self.wildcards).find_map(|key| self.get(key))
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], usize)> {
        let named = self.places.iter().map(|(key, place)| (&**key, *place));
        named.chain(self.every.map(|place| (&b""[..], place)))
    }
}

const SHARDS: usize = 256;

/// What listeners serve under the host keys of each shard.
type Shards = Arc<[Arc<Map<Arc<Paths>>>; SHARDS]>;

/// What a listener serves, by host key. Tables share all of it, and after a change all shards but one.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    shards: Shards,
    /// What is served under the empty key, which is in no shard.
    every: Option<Arc<Paths>>,
    /// How many keys are in shards.
    named: usize,
    /// How many keys are wildcards: mostly none, and then none is looked up.
    wildcards: usize,
}

impl Default for Hosts {
    fn default() -> Self {
        static EMPTY: LazyLock<Shards> = LazyLock::new(|| {
            let empty = Arc::default();
            Arc::new(std::array::from_fn(|_| Arc::clone(&empty)))
        });
        Self { shards: Arc::clone(&EMPTY), every: None, named: 0, wildcards: 0 }
    }
}

/// The same for every table and process, so that a key stays in its shard.
fn shard_of(key: &[u8]) -> usize {
    usize::from(SeedableState::fixed().hash_one(key).to_le_bytes()[0])
}

impl Hosts {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<Paths>> {
        if key.is_empty() {
            return self.every.as_ref();
        }
        self.shards[shard_of(key)].get(key)
    }

    /// What is served under the keys that cover a host, most specific first.
    pub(super) fn covering(&self, host: &Host<'_>) -> impl Iterator<Item = &Arc<Paths>> {
        host.keys(self.wildcards > 0).filter_map(|key| self.get(key))
    }

    /// What is found in what is served under the keys that cover a host, most specific first.
    pub(super) fn find<T>(&self, host: &Host<'_>, find: impl Fn(&Paths) -> Option<T>) -> Option<T> {
        if self.named == 0 {
            return self.every.as_deref().and_then(find);
        }
        self.covering(host).find_map(|paths| find(paths))
    }

    /// Puts what is served under a key; `None` takes it out.
    pub(super) fn set(&mut self, key: &[u8], paths: Option<Arc<Paths>>) {
        if key.is_empty() {
            self.every = paths;
            return;
        }
        let shard = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard_of(key)]);
        let is_there = paths.is_some();
        let was_there = match paths {
            Some(paths) => shard.insert(key.into(), paths),
            None => shard.remove(key),
        };
        let change = |count: usize| count + usize::from(is_there) - usize::from(was_there.is_some());
        self.named = change(self.named);
        if is_wildcard(key) {
            self.wildcards = change(self.wildcards);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<Paths>)> {
        let named = self.shards.iter().flat_map(|shard| shard.iter()).map(|(key, paths)| (&**key, paths));
        named.chain(self.every.as_ref().map(|paths| (&b""[..], paths)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, want: &[&str]) {
        let host = Host::new(host.as_bytes()).unwrap();
        let keys: Vec<&str> = host.keys(true).map(|key| std::str::from_utf8(key).unwrap()).collect();
        assert_eq!(keys, want);
    }

    #[test]
    fn keys_come_most_specific_first() {
        check("A.b.Example.com.", &["a.b.example.com", ".b.example.com", ".example.com", ".com", ""]);
        check("localhost", &["localhost", ""]);
        check("", &[""]);
    }

    #[test]
    fn a_host_that_no_name_can_cover_is_none() {
        assert!(Host::new(&[b'a'; 254]).is_none());
        assert!(Host::new(b".example.com").is_none(), "it would read as a wildcard");
    }
}
