//! HTTPRoutes and GRPCRoutes that want the same hostnames of one listener: only one kind of them can have a
//! hostname.
//!
//! Source: GRPCRoute.spec.hostnames: of two routes, one of each kind, whose hostnames intersect on a listener,
//! the older is accepted, then the one whose `namespace/name` sorts first. Each route looks at the older ones of
//! the other kind alone, so that running again those that look at a change comes to an end, always the same.
//! One that can't be served, or not even be read, is looked at all the same: what is wrong with it changes nothing
//! for the others.

use std::collections::{BTreeMap, BTreeSet};

use proxy_config::name::HostPattern;

use crate::snapshot::meta::{Kind, ObjectRef};

use super::graph::Key;
use super::routes::RouteView;

/// A listener: its holder and its name.
pub(super) type ListenerName = (ObjectRef, String);

/// Where a route stands among others: the older first.
type Rank = (i64, ObjectRef);

/// The HTTPRoutes and GRPCRoutes that each listener took, or would have, with the hostnames that they share with
/// it; an empty set stands for all that the listener serves.
#[derive(Debug, Default)]
pub(super) struct Rivals(BTreeMap<(ListenerName, Kind), BTreeMap<Rank, BTreeSet<HostPattern>>>);

impl Rivals {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Replaces what is known of a route; who has looked at it must look again.
    pub(super) fn replace(
        &mut self,
        route: &ObjectRef,
        old: Option<&RouteView>,
        new: Option<&RouteView>,
    ) -> Vec<Key> {
        let created = |view: Option<&RouteView>| view.map_or(0, |view| view.created);
        let (before, after) = (created(old), created(new));
        let none = BTreeMap::new();
        let (old, new) = (old.map_or(&none, |view| &view.hosts), new.map_or(&none, |view| &view.hosts));
        let mut keys = Vec::new();
        for listener in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            if before == after && old.get(listener) == new.get(listener) {
                continue;
            }
            let place = (listener.clone(), route.kind);
            let routes = self.0.entry(place.clone()).or_default();
            routes.remove(&(before, route.clone()));
            if let Some(hosts) = new.get(listener) {
                routes.insert((after, route.clone()), hosts.clone());
            }
            if routes.is_empty() {
                self.0.remove(&place);
            }
            keys.push(Key::Rivals(listener.clone(), route.kind));
        }
        keys
    }

    /// An older route of the other kind that has a hostname which a route wants of a listener.
    pub(super) fn older(
        &self,
        listener: &ListenerName,
        other: Kind,
        (created, route): (i64, &ObjectRef),
        wanted: &[HostPattern],
    ) -> Option<&ObjectRef> {
        let mine = (created, &route.name, route.kind);
        let is_older = |(since, rival): &Rank| (*since, &rival.name, rival.kind) < mine;
        let rivals = self.0.get(&(listener.clone(), other))?;
        let mut older = rivals.iter().filter(|(rank, _)| is_older(rank));
        older.find(|(_, hosts)| meets(hosts, wanted)).map(|((_, rival), _)| rival)
    }
}

/// Whether two sets of hostnames share one.
fn meets(hosts: &BTreeSet<HostPattern>, wanted: &[HostPattern]) -> bool {
    hosts.is_empty()
        || wanted.is_empty()
        || wanted.iter().any(|one| hosts.iter().any(|other| one.intersect(other).is_some()))
}

/// The kind of route that a kind must share no hostname with.
pub(super) fn rival_of(kind: Kind) -> Option<Kind> {
    match kind {
        Kind::HttpRoute => Some(Kind::GrpcRoute),
        Kind::GrpcRoute => Some(Kind::HttpRoute),
        _ => None,
    }
}
