//! Routes of streams and datagrams: for each listener, which of them has which server name.
//!
//! Of routes that want the same name the oldest has it, then the one whose `namespace/name` sorts first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proxy_config::l4::L4Route as L4RouteUnit;
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::route::Target;

use super::backends::BackendStage;
use super::{Dirty, leave};
use crate::metrics::Metrics;
use crate::table::host::key;
use crate::table::l4::{L4Route, ServerNames};
use crate::upstream::balance::Shares;

#[derive(Debug)]
pub(super) struct L4Stage {
    metrics: Arc<Metrics>,
    routes: BTreeMap<UnitId, Entry>,
    by_listener: BTreeMap<UnitId, BTreeSet<UnitId>>,
    dirty: Dirty<UnitId>,
    /// A route is gone, or lost a listener, a name or a backend.
    has_lost: bool,
}

#[derive(Debug)]
struct Entry {
    created: i64,
    name: ObjectName,
    route: Arc<L4Route>,
    /// Listeners and host keys.
    places: BTreeSet<(UnitId, Box<str>)>,
    /// The backends that it holds slots of.
    backends: Vec<UnitId>,
}

impl Entry {
    /// Whether it has a place or a backend that another version of it has not.
    fn has_more_than(&self, other: &Self) -> bool {
        !self.places.is_subset(&other.places) || self.backends.iter().any(|id| !other.backends.contains(id))
    }

    /// The lesser has the name.
    fn rank(&self) -> (i64, &ObjectName) {
        (self.created, &self.name)
    }
}

impl L4Stage {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            routes: BTreeMap::new(),
            by_listener: BTreeMap::new(),
            dirty: Dirty::new(),
            has_lost: false,
        }
    }

    /// Whether something has gone since this was last asked.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    pub(super) fn put(&mut self, id: &UnitId, unit: Option<&L4RouteUnit>, backends: &mut BackendStage) {
        // The new one takes its slots before the old one gives its own back, so that they stay.
        let new = unit.map(|unit| self.compile(id, unit, backends));
        if let Some(old) = self.routes.remove(id) {
            self.has_lost |= new.as_ref().is_none_or(|new| old.has_more_than(new));
            old.backends.iter().for_each(|backend| backends.release(backend));
            for (listener, _) in old.places {
                leave(&mut self.by_listener, &listener, id);
                self.dirty.insert(listener);
            }
        }
        if let Some(new) = new {
            for (listener, _) in &new.places {
                self.by_listener.entry(listener.clone()).or_default().insert(id.clone());
                self.dirty.insert(listener.clone());
            }
            self.routes.insert(id.clone(), new);
        }
    }

    fn compile(&self, id: &UnitId, unit: &L4RouteUnit, backends: &mut BackendStage) -> Entry {
        let mut held = Vec::new();
        let targets = unit.backends.iter().map(|backend| match &backend.target {
            Target::Backend(id) => {
                held.push(id.clone());
                Ok(backends.acquire(id))
            }
            Target::Invalid(reason) | Target::NotPermitted(reason) => Err(reason.as_str().into()),
        });
        let route = L4Route {
            id: id.clone(),
            targets: targets.collect(),
            shares: Shares::new(unit.backends.iter().map(|backend| backend.weight)),
            lacks_grant: unit.backends.iter().any(|each| matches!(each.target, Target::NotPermitted(_))),
            metrics: self.metrics.streams.of(id),
        };
        Entry {
            created: unit.created,
            name: unit.name.clone(),
            route: Arc::new(route),
            places: places(unit),
            backends: held,
        }
    }

    /// The listeners whose routes changed.
    pub(super) fn rebuild(&mut self) -> Dirty<UnitId> {
        std::mem::take(&mut self.dirty)
    }

    /// What a listener serves.
    pub(super) fn names(&self, listener: &UnitId) -> ServerNames {
        let ids = self.by_listener.get(listener).into_iter().flatten();
        let mut entries: Vec<&Entry> = ids.map(|id| &self.routes[id]).collect();
        entries.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let mut names = ServerNames::default();
        for entry in entries {
            for (_, key) in entry.places.iter().filter(|(of, _)| of == listener) {
                names.offer(key.as_bytes(), &entry.route);
            }
        }
        names
    }
}

fn places(unit: &L4RouteUnit) -> BTreeSet<(UnitId, Box<str>)> {
    let mut places = BTreeSet::new();
    for attachment in &unit.attachments {
        let listener = || attachment.listener.clone();
        if attachment.hostnames.is_empty() {
            places.insert((listener(), key(None).into()));
        }
        places.extend(attachment.hostnames.iter().map(|name| (listener(), key(Some(name)).into())));
    }
    places
}
