//! Owns what is known of every endpoint and backend beyond the life of a configuration.
//!
//! The table asks for an entry by key while it is compiled and holds it; a swap finds the same entry
//! again, with its count of requests in flight and its cursor. An entry that nothing points to any
//! more is swept. Knows nothing of routes.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proxy_config::backend::BackendVerification;
use proxy_config::name::UnitId;
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest as _, Sha256};

use super::h2::Multiplexed;
use super::pool::Stash;
use super::retries::RetryBudget;
use super::tls::{Authorities, Peer, PeerError, system_roots};
use crate::limits::REQUESTS_PER_ENDPOINT;
use crate::table::authority::Bundle;

/// What tells endpoints apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it must prove; `None`: it is reached in clear.
    pub tls: Option<Arc<Peer>>,
}

/// An endpoint, shared by all workers and all tables.
#[derive(Debug)]
pub struct Endpoint {
    key: EndpointKey,
    in_flight: AtomicU32,
    most_in_flight: u32,
    stash: Stash,
    multiplexed: Multiplexed,
    token: OnceLock<Box<str>>,
    /// Its means of TLS, with the sessions that it gave.
    tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    fn new(key: EndpointKey, most_in_flight: u32) -> Self {
        Self {
            tls: key.tls.as_ref().map(|peer| peer.config()),
            key,
            in_flight: AtomicU32::new(0),
            most_in_flight,
            stash: Stash::default(),
            multiplexed: Multiplexed::default(),
            token: OnceLock::new(),
        }
    }

    /// What it is known by.
    pub fn key(&self) -> &EndpointKey {
        &self.key
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.key.address
    }

    /// How a connection to it is made secure; `None`: not at all.
    pub(super) fn tls(&self) -> Option<(&Peer, &Arc<ClientConfig>)> {
        self.key.tls.as_deref().zip(self.tls.as_ref())
    }

    /// What clients carry of it: a digest of its address, the same in all proxies.
    pub fn token(&self) -> &str {
        self.token.get_or_init(|| {
            let digest = Sha256::digest(format!("portreeve session {}", self.key.address));
            URL_SAFE_NO_PAD.encode(&digest[..12]).into()
        })
    }

    /// The requests that are being served by it, over all workers.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it serves as many requests as it may.
    pub fn is_full(&self) -> bool {
        self.in_flight() >= self.most_in_flight
    }

    /// Counts a request as in flight until the guard is dropped; `None` where there are as many as may be.
    pub fn enter(self: &Arc<Self>) -> Option<InFlight> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        // One that is too many takes itself out again.
        let entered = InFlight { endpoint: Arc::clone(self) };
        (before < self.most_in_flight).then_some(entered)
    }

    /// The idle connections to it that workers have left to each other.
    pub fn stash(&self) -> &Stash {
        &self.stash
    }

    /// The connections of HTTP/2 to it.
    pub fn multiplexed(&self) -> &Multiplexed {
        &self.multiplexed
    }
}

/// A request in flight at an endpoint.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
}

impl InFlight {
    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a backend keeps from one configuration to the next.
#[derive(Debug, Default)]
pub struct BackendState {
    cursor: AtomicU64,
    retries: RetryBudget,
}

impl BackendState {
    /// The next place in turn.
    pub fn turn(&self) -> u64 {
        self.cursor.fetch_add(1, Ordering::Relaxed)
    }

    /// How many retries it gets.
    pub fn retries(&self) -> &RetryBudget {
        &self.retries
    }
}

/// All endpoints and backends that any table or exchange still points to.
#[derive(Debug)]
pub struct Registry {
    requests_per_endpoint: u32,
    endpoints: Mutex<HashMap<EndpointKey, Weak<Endpoint>>>,
    backends: Mutex<HashMap<UnitId, Weak<BackendState>>>,
    peers: Mutex<HashMap<[u8; 32], Weak<Peer>>>,
    system: OnceLock<Arc<RootCertStore>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new(REQUESTS_PER_ENDPOINT)
    }
}

impl Registry {
    /// An empty one, whose endpoints get at most so many requests at a time.
    pub fn new(requests_per_endpoint: u32) -> Self {
        Self {
            requests_per_endpoint,
            endpoints: Mutex::default(),
            backends: Mutex::default(),
            peers: Mutex::default(),
            system: OnceLock::new(),
        }
    }

    /// One whose system trusts these authorities.
    pub fn trusting(system: RootCertStore) -> Self {
        Self { system: Arc::new(system).into(), ..Self::default() }
    }

    /// The endpoint of a key: the one that is there, or a new one.
    pub fn endpoint(&self, key: EndpointKey) -> Arc<Endpoint> {
        entry(&self.endpoints, &key, || Endpoint::new(key.clone(), self.requests_per_endpoint))
    }

    /// The state of a backend: the one that is there, or a new one.
    pub fn backend(&self, id: &UnitId) -> Arc<BackendState> {
        entry(&self.backends, id, BackendState::default)
    }

    /// What endpoints must prove by a policy, under these bundles or, without any, those of the system.
    ///
    /// # Errors
    /// Where nothing could ever be verified by it.
    pub fn peer(
        &self,
        policy: &BackendVerification,
        bundles: Option<Vec<Arc<Bundle>>>,
    ) -> Result<Arc<Peer>, PeerError> {
        let authorities = match bundles {
            Some(bundles) => Authorities::Bundles(bundles),
            None => Authorities::System(Arc::clone(self.system.get_or_init(system_roots))),
        };
        let digest = Peer::digest_of(policy, &authorities);
        let known = lock(&self.peers).get(&digest).and_then(Weak::upgrade);
        match known {
            Some(peer) => Ok(peer),
            None => {
                let peer = Peer::compile(policy, &authorities)?;
                Ok(entry(&self.peers, &digest, || peer))
            }
        }
    }

    /// Forgets what nothing points to any more; called after a swap.
    pub fn sweep(&self) {
        lock(&self.endpoints).retain(|_, endpoint| endpoint.strong_count() > 0);
        lock(&self.backends).retain(|_, backend| backend.strong_count() > 0);
        lock(&self.peers).retain(|_, peer| peer.strong_count() > 0);
    }

    /// How many endpoints are remembered.
    pub fn endpoints(&self) -> usize {
        lock(&self.endpoints).len()
    }
}

fn entry<K: Clone + Eq + Hash, V>(
    map: &Mutex<HashMap<K, Weak<V>>>,
    key: &K,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    let mut map = lock(map);
    if let Some(found) = map.get(key).and_then(Weak::upgrade) {
        return found;
    }
    let made = Arc::new(make());
    map.insert(key.clone(), Arc::downgrade(&made));
    made
}

/// A panic while one of these maps was locked can't have left it half changed: every change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> EndpointKey {
        EndpointKey { address: SocketAddr::from(([127, 0, 0, 1], port)), tls: None }
    }

    #[test]
    fn a_second_table_finds_the_same_endpoint_with_its_count() {
        let registry = Registry::default();
        let old = registry.endpoint(key(1));
        let _request = old.enter().unwrap();
        let new = registry.endpoint(key(1));
        drop(old);
        assert_eq!(new.in_flight(), 1);
    }

    #[test]
    fn an_endpoint_is_entered_by_no_more_requests_than_it_may_serve() {
        let endpoint = Registry::new(2).endpoint(key(1));
        let mut requests: Vec<InFlight> = std::iter::from_fn(|| endpoint.enter()).collect();
        assert_eq!((requests.len(), endpoint.in_flight(), endpoint.is_full()), (2, 2, true));
        requests.pop();
        assert!(!endpoint.is_full());
        assert!(endpoint.enter().is_some());
    }

    #[test]
    fn a_backend_keeps_its_turn_over_a_swap() {
        let registry = Registry::default();
        let id = UnitId::backend(&proxy_config::name::ObjectName::new("shop", "cart"), 80);
        let old = registry.backend(&id);
        assert_eq!(old.turn(), 0);
        let new = registry.backend(&id);
        drop(old);
        assert_eq!(new.turn(), 1);
    }

    #[test]
    fn an_endpoint_is_swept_once_table_and_requests_are_gone() {
        let registry = Registry::default();
        let request = registry.endpoint(key(1)).enter().unwrap();
        registry.sweep();
        assert_eq!(registry.endpoints(), 1, "a request is still in flight");
        drop(request);
        registry.sweep();
        assert_eq!(registry.endpoints(), 0);
    }
}
