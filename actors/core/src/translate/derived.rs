//! What the tasks made, and the indexes between them.
//!
//! The translator puts results here and learns what that changes. It refuses to know how results are made.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use proxy_config::listener::Bind;
use proxy_config::name::ObjectName;

use super::addresses::pool::{Allocation, Ask};
use super::classes::ClassView;
use super::gateways::Claims;
use super::graph::{Key, Task};
use super::listeners::{Conflict, Listeners};
use super::routes::RouteView;

/// By Gateway and listener: what is lost to another Gateway.
pub(super) type Losers = BTreeMap<ObjectName, BTreeMap<String, Conflict>>;

/// A result that later tasks read.
#[derive(Debug)]
pub(super) enum Result {
    NodeAddresses(Vec<IpAddr>),
    Class(Option<ClassView>),
    Ask(Option<Ask>),
    Pool(BTreeMap<ObjectName, Allocation>),
    Claims(Option<Claims>),
    Port(Losers),
    Listeners(Option<Listeners>),
    Route(Option<RouteView>),
    /// Only units, statuses and problems.
    Nothing,
}

/// What must run again.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// What has changed, for whoever read it.
    pub(super) keys: Vec<Key>,
    /// Tasks that follow from indexes.
    pub(super) tasks: Vec<Task>,
}

/// What the tasks made.
#[derive(Debug, Default)]
pub(super) struct Derived {
    pub(super) node_addresses: Vec<IpAddr>,
    pub(super) classes: BTreeMap<ObjectName, Arc<ClassView>>,
    /// What Gateways ask of the pools.
    pub(super) asks: BTreeMap<ObjectName, Arc<Ask>>,
    /// What they got.
    pub(super) allocations: BTreeMap<ObjectName, Allocation>,
    pub(super) claims: BTreeMap<ObjectName, Arc<Claims>>,
    pub(super) ports: BTreeMap<Bind, Losers>,
    pub(super) listeners: BTreeMap<ObjectName, Arc<Listeners>>,
    pub(super) routes: BTreeMap<ObjectName, Arc<RouteView>>,
    /// The Gateways that claim a port.
    pub(super) sharing: BTreeMap<Bind, BTreeSet<ObjectName>>,
    /// How many routes each listener has.
    pub(super) attached: BTreeMap<ObjectName, BTreeMap<String, u32>>,
    /// How many routes name each port of each Service.
    pub(super) backends: BTreeMap<ObjectName, BTreeMap<u16, u32>>,
    /// How many Gateways name each Secret and may.
    pub(super) wanted: BTreeMap<ObjectName, u32>,
    /// The EndpointSlices of each Service.
    pub(super) slices: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
}

impl Derived {
    /// Puts the result of a task.
    pub(super) fn put(&mut self, task: &Task, result: Result) -> Effects {
        let mut effects = Effects::default();
        match (task, result) {
            (Task::NodeAddresses, Result::NodeAddresses(new)) if self.node_addresses != new => {
                self.node_addresses = new;
                effects.keys.push(Key::NodeAddresses);
            }
            (Task::Class(name), Result::Class(view)) => {
                let changed = replace(&mut self.classes, name, view);
                effects.keys.extend(changed.map(|_| Key::Class(name.clone())));
            }
            (Task::Ask(name), Result::Ask(ask)) => {
                let changed = replace(&mut self.asks, name, ask);
                effects.tasks.extend(changed.map(|_| Task::Pool));
                effects.tasks.push(Task::Claims(name.clone()));
            }
            (Task::Pool, Result::Pool(new)) => {
                let old = std::mem::replace(&mut self.allocations, new);
                effects.keys.extend(differing(&old, &self.allocations).map(Key::Allocation));
            }
            (Task::Claims(name), Result::Claims(claims)) => self.put_claims(name, claims, &mut effects),
            (Task::Port(port), Result::Port(losers)) => self.put_port(port, losers, &mut effects),
            (Task::Listeners(name), Result::Listeners(view)) => self.put_listeners(name, view, &mut effects),
            (Task::HttpRoute(name), Result::Route(view)) => self.put_route(name, view, &mut effects),
            _ => {}
        }
        effects
    }

    /// Whether nothing is left of any object.
    pub(super) fn is_empty(&self) -> bool {
        let of_objects = self.classes.len() + self.claims.len() + self.listeners.len() + self.routes.len();
        let of_pools = self.asks.len() + self.allocations.len();
        let indexes =
            of_pools + self.ports.len() + self.sharing.len() + self.attached.len() + self.backends.len();
        of_objects + indexes + self.wanted.len() + self.slices.len() + self.node_addresses.len() == 0
    }

    fn put_claims(&mut self, name: &ObjectName, claims: Option<Claims>, effects: &mut Effects) {
        let Some((old, new)) = replace(&mut self.claims, name, claims) else { return };
        effects.keys.push(Key::Claims(name.clone()));
        let ports =
            |claims: &Option<Arc<Claims>>| claims.as_ref().map(|claims| claims.ports()).unwrap_or_default();
        let (before, after) = (ports(&old), ports(&new));
        for port in before.difference(&after) {
            forget(&mut self.sharing, port, name);
        }
        for port in after.difference(&before) {
            self.sharing.entry(*port).or_default().insert(name.clone());
        }
        effects.tasks.extend(before.union(&after).map(|port| Task::Port(*port)));
        // A Gateway that is gone, or is ours no longer, still has results to take back.
        effects.tasks.push(Task::Listeners(name.clone()));
        let secrets =
            |claims: &Option<Arc<Claims>>| claims.as_ref().map(|claims| claims.secrets()).unwrap_or_default();
        let (before, after) = (secrets(&old), secrets(&new));
        for secret in before.difference(&after) {
            count_down(&mut self.wanted, secret);
        }
        for secret in after.difference(&before) {
            *self.wanted.entry(secret.clone()).or_default() += 1;
        }
        effects.tasks.extend(before.symmetric_difference(&after).cloned().map(Task::Secret));
    }

    fn put_port(&mut self, port: &Bind, losers: Losers, effects: &mut Effects) {
        let old = self.ports.remove(port).unwrap_or_default();
        effects.keys.extend(differing(&old, &losers).map(Key::Conflicts));
        if !losers.is_empty() {
            self.ports.insert(*port, losers);
        }
    }

    fn put_listeners(&mut self, name: &ObjectName, view: Option<Listeners>, effects: &mut Effects) {
        let Some((old, new)) = replace(&mut self.listeners, name, view) else { return };
        effects.keys.push(Key::Listeners(name.clone()));
        let attachable = |view: &Option<Arc<Listeners>>| view.as_ref().map(|view| view.attachable.clone());
        if attachable(&old) != attachable(&new) {
            effects.keys.push(Key::Attachable(name.clone()));
        }
        effects.tasks.push(Task::GatewayStatus(name.clone()));
    }

    fn put_route(&mut self, name: &ObjectName, view: Option<RouteView>, effects: &mut Effects) {
        let Some((old, new)) = replace(&mut self.routes, name, view) else { return };
        let attached = |view: &Option<Arc<RouteView>>| {
            view.as_ref().map(|view| view.attached.clone()).unwrap_or_default()
        };
        let (before, after) = (attached(&old), attached(&new));
        for (gateway, listener) in before.difference(&after) {
            let counts = self.attached.entry(gateway.clone()).or_default();
            count_down(counts, listener);
            if counts.is_empty() {
                self.attached.remove(gateway);
            }
        }
        for (gateway, listener) in after.difference(&before) {
            *self.attached.entry(gateway.clone()).or_default().entry(listener.clone()).or_default() += 1;
        }
        let gateways = before.symmetric_difference(&after).map(|(gateway, _)| gateway.clone());
        effects.tasks.extend(gateways.map(Task::GatewayStatus));
        let backends = |view: &Option<Arc<RouteView>>| {
            view.as_ref().map(|view| view.backends.clone()).unwrap_or_default()
        };
        self.count_backends(&backends(&old), &backends(&new), effects);
    }

    fn count_backends(
        &mut self,
        before: &BTreeSet<(ObjectName, u16)>,
        after: &BTreeSet<(ObjectName, u16)>,
        effects: &mut Effects,
    ) {
        for (service, port) in before.symmetric_difference(after) {
            let ports = self.backends.entry(service.clone()).or_default();
            let (was_known, port_was_known) = (!ports.is_empty(), ports.contains_key(port));
            if after.contains(&(service.clone(), *port)) {
                *ports.entry(*port).or_default() += 1;
            } else {
                count_down(ports, port);
            }
            let (is_known, port_is_known) = (!ports.is_empty(), ports.contains_key(port));
            if !is_known {
                self.backends.remove(service);
            }
            if port_was_known != port_is_known {
                effects.tasks.push(Task::Backend(service.clone(), *port));
            }
            if was_known != is_known {
                let slices = self.slices.get(service).into_iter().flatten();
                effects.tasks.extend(slices.cloned().map(Task::Endpoints));
            }
        }
    }
}

/// The keys whose values differ, there or not.
fn differing<'a, K: Ord + Clone, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = K> + use<'a, K, V> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).cloned()
}

type Replaced<T> = Option<(Option<Arc<T>>, Option<Arc<T>>)>;

/// Replaces a value; the old and the new one, where they differ.
fn replace<T: PartialEq>(
    map: &mut BTreeMap<ObjectName, Arc<T>>,
    name: &ObjectName,
    new: Option<T>,
) -> Replaced<T> {
    let old = map.get(name).cloned();
    if old.as_deref() == new.as_ref() {
        return None;
    }
    let new = new.map(Arc::new);
    match &new {
        Some(new) => map.insert(name.clone(), new.clone()),
        None => map.remove(name),
    };
    Some((old, new))
}

fn count_down<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Takes a member out of an index.
pub(super) fn forget<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, member: &V) {
    if let Some(members) = index.get_mut(key) {
        members.remove(member);
        if members.is_empty() {
            index.remove(key);
        }
    }
}
