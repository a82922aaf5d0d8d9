//! Routes of streams and datagrams, compiled: to which backend a connection or a session goes.

use std::sync::Arc;

use proxy_config::name::UnitId;

use super::host::{Host, Map, is_wildcard};
use super::slot::Slot;
use crate::metrics::streams::StreamMetrics;
use crate::upstream::balance::Shares;

/// A route of streams or datagrams. A connection holds it for as long as it lasts.
#[derive(Debug)]
pub struct L4Route {
    /// Its unit.
    pub id: UnitId,
    /// Where connections go; `Err`: nowhere, for this reason, and they are closed at once.
    pub targets: Box<[Result<Slot, Box<str>>]>,
    /// Chooses among `targets`, by index.
    pub shares: Shares,
    /// Whether the grant is missing that one of `targets` needs.
    pub lacks_grant: bool,
    /// Where connections are counted.
    pub metrics: Arc<StreamMetrics>,
}

impl L4Route {
    /// Where the next connection goes; `None`: nowhere.
    pub fn choose(&self) -> Option<Slot> {
        self.targets[self.shares.choose()?].as_ref().ok().copied()
    }
}

/// What a listener that knows nothing of HTTP serves, by server name; without TLS under the key of what
/// takes every name.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerNames {
    routes: Map<Arc<L4Route>>,
    wildcards: bool,
}

impl ServerNames {
    /// Gives a key to a route, unless another one has it.
    pub(super) fn offer(&mut self, key: &[u8], route: &Arc<L4Route>) {
        self.wildcards |= is_wildcard(key);
        self.routes.entry(key.into()).or_insert_with(|| Arc::clone(route));
    }

    /// The route under the most specific key that covers a name.
    pub(super) fn covering(&self, name: &Host) -> Option<&Arc<L4Route>> {
        name.keys(self.wildcards).find_map(|key| self.routes.get(key))
    }

    /// The keys with the route of each.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &UnitId)> {
        self.routes.iter().map(|(key, route)| (&**key, &route.id))
    }
}
