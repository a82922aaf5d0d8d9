//! Owns the choice of a backend by weight, and of an endpoint of that backend.
//!
//! Pure but for the shared counters of the registry. Called once per attempt; knows nothing of HTTP.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use proxy_config::backend::BackendProtocol;
use proxy_config::name::UnitId;

use super::registry::{BackendState, Endpoint, EndpointKey, Registry};
use super::tls::{Peer, Shown};
use crate::http::session::Session;
use crate::table::traffic::Traffic;

/// A backend as a table knows it: which of its endpoints take requests now.
#[derive(Debug)]
pub struct Backend {
    /// The unit that it was compiled from.
    pub id: UnitId,
    /// What it speaks.
    pub protocol: BackendProtocol,
    /// What it keeps over swaps.
    pub state: Arc<BackendState>,
    /// The endpoints that are ready.
    pub ready: Vec<Arc<Endpoint>>,
    /// Those that are terminating but still serve: used where none is ready.
    pub fallback: Vec<Arc<Endpoint>>,
    /// Where both are found by what clients carry of them.
    pub tokens: Tokens,
    /// Whether it is reached over TLS, and how.
    pub reached: Reached,
    /// What holds for all traffic to it; `None` for most.
    pub traffic: Option<Arc<Traffic>>,
}

/// The places of a backend's endpoints by their tokens. Made when the first session asks: most backends have none, and
/// one that has thousands of endpoints is not searched for each request.
#[derive(Debug, Default)]
pub struct Tokens(OnceLock<HashMap<Box<str>, usize>>);

/// How a backend is reached.
#[derive(Debug)]
pub enum Reached {
    /// In clear.
    Plainly,
    /// Over TLS.
    Securely(Secured),
    /// Not at all: its policy for TLS can't be used.
    Never,
}

/// A backend over TLS, and what it is to Gateways that show a certificate to it.
#[derive(Debug)]
pub struct Secured {
    peer: Arc<Peer>,
    registry: Arc<Registry>,
    /// What it is shown is the same whichever Gateway a request comes by.
    is_apart: bool,
    /// By certificate, made when it is first asked for; one that is replaced is forgotten.
    showing: RwLock<Vec<(Weak<Shown>, Arc<Backend>)>>,
}

impl Secured {
    /// As `peer` says.
    pub fn new(peer: Arc<Peer>, registry: Arc<Registry>) -> Self {
        Self { peer, registry, is_apart: false, showing: RwLock::default() }
    }

    /// As `peer` says, which shows a certificate of its own or none: those of Gateways are not shown.
    pub fn apart_from_gateways(peer: Arc<Peer>, registry: Arc<Registry>) -> Self {
        Self { is_apart: true, ..Self::new(peer, registry) }
    }

    fn known(&self, shown: &Shown) -> Option<Arc<Backend>> {
        // The list is whole after every step, so a panic elsewhere does not make it unusable.
        let showing = self.showing.read().unwrap_or_else(PoisonError::into_inner);
        let is_same = |known: &Weak<Shown>| known.upgrade().is_some_and(|known| *known == *shown);
        showing.iter().find(|(known, _)| is_same(known)).map(|(_, backend)| Arc::clone(backend))
    }

    fn remember(&self, shown: &Arc<Shown>, backend: &Arc<Backend>) {
        let mut showing = self.showing.write().unwrap_or_else(PoisonError::into_inner);
        showing.retain(|(known, _)| known.strong_count() > 0);
        showing.push((Arc::downgrade(shown), Arc::clone(backend)));
    }
}

impl Backend {
    /// Its sessions.
    pub fn session(&self) -> Option<&Session> {
        self.traffic.as_ref()?.session.as_ref()
    }

    /// The endpoint with a token, among those that are ready and those that stand in for them.
    pub fn bound_to(&self, token: &str) -> Option<&Arc<Endpoint>> {
        let mut all = self.ready.iter().chain(&self.fallback);
        let places = self.tokens.0.get_or_init(|| {
            let places = all.clone().enumerate();
            places.map(|(place, endpoint)| (endpoint.token().into(), place)).collect()
        });
        all.nth(*places.get(token)?)
    }

    /// Whether no request can be sent to it.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.reached, Reached::Never)
    }

    /// Whether it is reached over TLS.
    pub fn is_secure(&self) -> bool {
        matches!(self.reached, Reached::Securely(_))
    }

    /// What it is to a Gateway that shows a certificate: the same endpoints, over connections of their own.
    #[inline]
    pub fn seen_with<'b>(self: &'b Arc<Self>, shown: Option<&Arc<Shown>>) -> Cow<'b, Arc<Self>> {
        let (Reached::Securely(secured), Some(shown)) = (&self.reached, shown) else {
            return Cow::Borrowed(self);
        };
        if secured.is_apart {
            return Cow::Borrowed(self);
        }
        Cow::Owned(secured.known(shown).unwrap_or_else(|| {
            let made = Arc::new(self.showing(secured, shown));
            secured.remember(shown, &made);
            made
        }))
    }

    fn showing(&self, secured: &Secured, shown: &Shown) -> Self {
        let peer = Arc::new(secured.peer.showing(shown));
        let endpoints = |of: &[Arc<Endpoint>]| {
            let key = |address| EndpointKey { address, tls: Some(Arc::clone(&peer)) };
            of.iter().map(|endpoint| secured.registry.endpoint(key(endpoint.address()))).collect()
        };
        Self {
            id: self.id.clone(),
            protocol: self.protocol,
            state: Arc::clone(&self.state),
            ready: endpoints(&self.ready),
            fallback: endpoints(&self.fallback),
            tokens: Tokens::default(),
            reached: Reached::Securely(Secured::new(Arc::clone(&peer), Arc::clone(&secured.registry))),
            traffic: self.traffic.clone(),
        }
    }

    /// An endpoint for a request: of two neighbours in turn the one with less in flight.
    ///
    /// The turn makes an idle backend go round exactly; the comparison moves load away from an endpoint
    /// that is slow. One in `avoid` (where an attempt has failed) is taken only where there is no other, one
    /// that serves as many as it may only where all do.
    #[inline]
    pub fn pick(&self, avoid: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
        let endpoints = if self.ready.is_empty() { &self.fallback } else { &self.ready };
        let count = match &endpoints[..] {
            [] => return None,
            [only] => return Some(only),
            several => several.len(),
        };
        let start = usize::try_from(self.state.turn() % count as u64).unwrap_or(0);
        let avoided = |endpoint: &&Arc<Endpoint>| avoid.iter().any(|other| Arc::ptr_eq(other, endpoint));
        let mut in_turn = endpoints[start..].iter().chain(&endpoints[..start]).filter(|e| !avoided(e));
        let Some(first) = in_turn.next() else {
            return Some(&endpoints[start]);
        };
        let second = in_turn.next().filter(|second| second.in_flight() < first.in_flight());
        let less = second.unwrap_or(first);
        let with_room = if less.is_full() { in_turn.find(|endpoint| !endpoint.is_full()) } else { None };
        Some(with_room.unwrap_or(less))
    }
}

/// Shares of requests: over any `total` consecutive choices each item is taken exactly `weight` times,
/// spread evenly.
#[derive(Debug)]
pub struct Shares {
    /// The sum of all weights up to and with each item.
    ends: Box<[u64]>,
    stride: u64,
    turn: AtomicU64,
}

impl Shares {
    /// The shares of items with these weights.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut total = 0;
        let ends: Box<[u64]> = weights
            .into_iter()
            .map(|weight| {
                total += u64::from(weight);
                total
            })
            .collect();
        Self { stride: stride(total), ends, turn: AtomicU64::new(0) }
    }

    /// The next item; `None` where all weights are 0.
    pub fn choose(&self) -> Option<usize> {
        let total = *self.ends.last()?;
        if total == 0 {
            return None;
        }
        if self.ends.len() == 1 {
            return Some(0);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % total;
        let place = u128::from(turn) * u128::from(self.stride) % u128::from(total);
        Some(self.ends.partition_point(|end| u128::from(*end) <= place))
    }
}

/// A step through 0..total that meets every place once (it shares no divisor with `total`) and whose
/// consecutive places lie far apart (it is near the golden ratio of it).
fn stride(total: u64) -> u64 {
    let golden = (u128::from(total) * 618_034 / 1_000_000) as u64;
    (golden.max(1)..).find(|step| gcd(*step, total) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;
    use proxy_config::name::ObjectName;

    use super::*;

    fn backend(registry: &Registry, ready: &[u16], fallback: &[u16]) -> Backend {
        let id = UnitId::backend(&ObjectName::new("shop", "cart"), 80);
        let endpoints = |ports: &[u16]| {
            let key =
                |port: &u16| EndpointKey { address: SocketAddr::from(([127, 0, 0, 1], *port)), tls: None };
            ports.iter().map(|port| registry.endpoint(key(port))).collect()
        };
        Backend {
            state: registry.backend(&id),
            id,
            protocol: BackendProtocol::Http1,
            ready: endpoints(ready),
            fallback: endpoints(fallback),
            tokens: Tokens::default(),
            reached: Reached::Plainly,
            traffic: None,
        }
    }

    fn port(endpoint: Option<&Arc<Endpoint>>) -> u16 {
        endpoint.unwrap().address().port()
    }

    proptest! {
        #[test]
        fn shares_are_exact_over_each_round(weights in prop::collection::vec(0..50u32, 1..6)) {
            let total: u32 = weights.iter().sum();
            let shares = Shares::new(weights.iter().copied());
            for _ in 0..2 {
                let mut counts = vec![0; weights.len()];
                for _ in 0..total {
                    counts[shares.choose().unwrap()] += 1;
                }
                prop_assert_eq!(&counts, &weights);
            }
            prop_assert_eq!(shares.choose().is_none(), total == 0);
        }
    }

    #[test]
    fn shares_are_near_the_weights_early_on() {
        let shares = Shares::new([900_000, 100_000]);
        let small = (0..100).filter(|_| shares.choose() == Some(1)).count();
        assert!((8..=12).contains(&small), "{small} of 100 went to the tenth");
    }

    #[test]
    fn idle_endpoints_are_taken_in_turn() {
        let registry = Registry::default();
        let backend = backend(&registry, &[1, 2, 3], &[]);
        let taken: Vec<u16> = (0..6).map(|_| port(backend.pick(&[]))).collect();
        assert_eq!(taken, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn a_busy_endpoint_is_passed_over() {
        let registry = Registry::default();
        let backend = backend(&registry, &[1, 2], &[]);
        let _busy = backend.ready[0].enter().unwrap();
        assert_eq!(port(backend.pick(&[])), 2);
        assert_eq!(port(backend.pick(&[])), 2);
    }

    #[test]
    fn an_endpoint_that_is_full_is_passed_over_while_there_is_another() {
        let registry = Registry::new(1);
        let backend = backend(&registry, &[1, 2, 3], &[]);
        let _full = [0, 1].map(|full| backend.ready[full].enter().unwrap());
        assert!((0..6).all(|_| port(backend.pick(&[])) == 3));
        let _all = backend.ready[2].enter().unwrap();
        assert!(backend.pick(&[]).is_some());
    }

    #[test]
    fn terminating_endpoints_serve_only_where_none_is_ready() {
        let registry = Registry::default();
        assert_eq!(port(backend(&registry, &[1], &[2]).pick(&[])), 1);
        assert_eq!(port(backend(&registry, &[], &[2]).pick(&[])), 2);
        assert!(backend(&registry, &[], &[]).pick(&[]).is_none());
    }

    #[test]
    fn an_endpoint_is_found_by_what_clients_carry_of_it() {
        let registry = Registry::default();
        let (all, gone) = (backend(&registry, &[1, 2], &[3]), backend(&registry, &[4], &[]));
        for endpoint in all.ready.iter().chain(&all.fallback) {
            assert!(Arc::ptr_eq(all.bound_to(endpoint.token()).unwrap(), endpoint));
        }
        assert!(all.bound_to(gone.ready[0].token()).is_none());
    }

    #[test]
    fn an_endpoint_that_failed_is_avoided_while_there_is_another() {
        let registry = Registry::default();
        let two = backend(&registry, &[1, 2], &[]);
        let failed = [Arc::clone(&two.ready[0])];
        assert!((0..4).all(|_| port(two.pick(&failed)) == 2));
        let one = backend(&registry, &[1], &[]);
        assert_eq!(port(one.pick(&failed)), 1);
    }
}
