//! What the tasks made, and the indexes between them.
//!
//! The translator puts results here and learns what that changes. It refuses to know how results are made.

mod indexes;
mod policies;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proxy_config::listener::Bind;
use proxy_config::name::ObjectName;

use crate::snapshot::meta::{Kind, ObjectRef};

use super::addresses::NodeAddresses;
use super::addresses::pool::{Allocation, Ask};
use super::claims::Claims;
use super::classes::ClassView;
use super::graph::{BackendPort, Key, Role, Task};
use super::listeners::{Conflict, Listeners};
use super::policies::PolicyView;
use super::rivals::Rivals;
use super::routes::RouteView;
use super::traffic::TrafficView;
use indexes::{count_down, differing, forget, parts, recount_pairs, reindex, replace};

/// By holder and listener: what is lost to another holder.
pub(super) type Losers = BTreeMap<ObjectRef, BTreeMap<String, Conflict>>;

/// A result that later tasks read.
#[derive(Debug)]
pub(super) enum Result {
    NodeAddresses(NodeAddresses),
    Class(Option<ClassView>),
    Ask(Option<Ask>),
    Pool(BTreeMap<ObjectName, Allocation>),
    Claims(Option<Box<Claims>>),
    Port(Losers),
    Listeners(Option<Listeners>),
    Route(Option<RouteView>),
    Policy(Option<PolicyView>),
    Traffic(Option<TrafficView>),
    /// What may be read for an XBackend.
    External(Option<BTreeSet<(ObjectRef, Role)>>),
    /// The Gateway that a ListenerSet is attached to.
    ListenerSet(Option<ObjectName>),
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
    pub(super) node_addresses: NodeAddresses,
    pub(super) classes: BTreeMap<ObjectName, Arc<ClassView>>,
    /// What Gateways ask of the pools.
    pub(super) asks: BTreeMap<ObjectName, Arc<Ask>>,
    /// What they got.
    pub(super) allocations: BTreeMap<ObjectName, Allocation>,
    pub(super) claims: BTreeMap<ObjectRef, Arc<Claims>>,
    pub(super) ports: BTreeMap<Bind, Losers>,
    pub(super) listeners: BTreeMap<ObjectRef, Arc<Listeners>>,
    pub(super) routes: BTreeMap<ObjectRef, Arc<RouteView>>,
    pub(super) policies: BTreeMap<ObjectName, Arc<PolicyView>>,
    /// The BackendTLSPolicies for each Service.
    pub(super) targeting: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    pub(super) traffic: BTreeMap<ObjectName, Arc<TrafficView>>,
    /// The XBackendTrafficPolicies for each Service and XBackend.
    pub(super) shaping: BTreeMap<ObjectRef, BTreeSet<ObjectName>>,
    /// What may be read for each XBackend.
    pub(super) externals: BTreeMap<ObjectName, Arc<BTreeSet<(ObjectRef, Role)>>>,
    /// How many routes lead to each XBackend, and do not only name it.
    pub(super) destinations: BTreeMap<ObjectName, u32>,
    /// How many routes lead from each Gateway to each Service and XBackend.
    pub(super) ancestors: BTreeMap<ObjectRef, BTreeMap<ObjectName, u32>>,
    /// The Gateways and ListenerSets that claim a port.
    pub(super) sharing: BTreeMap<Bind, BTreeSet<ObjectRef>>,
    /// How many routes each listener has.
    pub(super) attached: BTreeMap<ObjectRef, BTreeMap<String, u32>>,
    /// Gateways that take routes which ask for default Gateways.
    pub(super) defaults: BTreeSet<ObjectName>,
    /// The Gateway that each ListenerSet is attached to.
    pub(super) attached_sets: BTreeMap<ObjectName, ObjectName>,
    /// How many ListenerSets each Gateway has.
    pub(super) sets: BTreeMap<ObjectName, u32>,
    /// How many routes name each port of each Service.
    pub(super) backends: BTreeMap<ObjectName, BTreeMap<BackendPort, u32>>,
    /// The HTTPRoutes and GRPCRoutes of each listener.
    pub(super) rivals: Rivals,
    /// How many name each Secret and ConfigMap, and may, for what it holds.
    pub(super) wanted: BTreeMap<ObjectRef, BTreeMap<Role, u32>>,
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
                effects.tasks.push(Task::Claims(ObjectRef::new(Kind::Gateway, name.clone())));
            }
            (Task::Pool, Result::Pool(new)) => {
                let old = std::mem::replace(&mut self.allocations, new);
                effects.keys.extend(differing(&old, &self.allocations).map(Key::Allocation));
            }
            (Task::Claims(name), Result::Claims(claims)) => {
                self.put_claims(name, claims.map(|claims| *claims), &mut effects);
            }
            (Task::Port(port), Result::Port(losers)) => self.put_port(port, losers, &mut effects),
            (Task::Listeners(name), Result::Listeners(view)) => self.put_listeners(name, view, &mut effects),
            (Task::Route(route), Result::Route(view)) => self.put_route(route, view, &mut effects),
            (Task::Policy(name), Result::Policy(view)) => self.put_policy(name, view, &mut effects),
            (Task::Traffic(name), Result::Traffic(view)) => self.put_traffic(name, view, &mut effects),
            (Task::External(name), Result::External(wanted)) => self.put_external(name, wanted, &mut effects),
            (Task::ListenerSetStatus(name), Result::ListenerSet(attached)) => {
                self.put_set(name, attached, &mut effects);
            }
            _ => {}
        }
        effects
    }

    /// Takes an EndpointSlice out of the index of its Service.
    pub(super) fn forget_slice(&mut self, service: &ObjectName, slice: &ObjectName) {
        forget(&mut self.slices, service, slice);
    }

    /// Whether nothing is left of any object.
    pub(super) fn is_empty(&self) -> bool {
        let of_objects = self.classes.len() + self.claims.len() + self.listeners.len() + self.routes.len();
        let indexes = self.ports.len() + self.sharing.len() + self.attached.len() + self.backends.len();
        let sets = self.attached_sets.len() + self.sets.len() + self.defaults.len() + self.rivals.len();
        let pools = self.asks.len() + self.allocations.len();
        let shaping = self.traffic.len() + self.shaping.len();
        let paths = self.ancestors.len() + self.externals.len() + self.destinations.len();
        let policies = self.policies.len() + self.targeting.len() + shaping + paths;
        of_objects + indexes + sets + pools + policies + self.wanted.len() + self.slices.len() == 0
            && self.node_addresses.is_empty()
    }

    fn put_claims(&mut self, name: &ObjectRef, claims: Option<Claims>, effects: &mut Effects) {
        let Some((old, new)) = replace(&mut self.claims, name, claims) else { return };
        effects.keys.push(Key::Claims(name.clone()));
        let (before, after) = parts(&old, &new, Claims::ports);
        reindex(&mut self.sharing, name, &before, &after);
        effects.tasks.extend(before.union(&after).map(|port| Task::Port(*port)));
        let is_default = new.as_ref().is_some_and(|claims| claims.is_default);
        let changed = if is_default {
            self.defaults.insert(name.name.clone())
        } else {
            name.kind == Kind::Gateway && self.defaults.remove(&name.name)
        };
        effects.keys.extend(changed.then_some(Key::DefaultGateways));
        // A Gateway that is gone, or is ours no longer, still has results to take back.
        effects.tasks.push(Task::Listeners(name.clone()));
        let (before, after) = parts(&old, &new, Claims::wanted);
        self.count_wanted(&before, &after, effects);
    }

    fn count_wanted(
        &mut self,
        before: &BTreeSet<(ObjectRef, Role)>,
        after: &BTreeSet<(ObjectRef, Role)>,
        effects: &mut Effects,
    ) {
        recount_pairs(&mut self.wanted, before, after);
        let changed = before.symmetric_difference(after).map(|(object, _)| object.clone());
        effects.tasks.extend(changed.map(Task::Content));
    }

    fn put_port(&mut self, port: &Bind, losers: Losers, effects: &mut Effects) {
        let old = self.ports.remove(port).unwrap_or_default();
        effects.keys.extend(differing(&old, &losers).map(Key::Conflicts));
        if !losers.is_empty() {
            self.ports.insert(*port, losers);
        }
    }

    fn put_listeners(&mut self, holder: &ObjectRef, view: Option<Listeners>, effects: &mut Effects) {
        let Some((old, new)) = replace(&mut self.listeners, holder, view) else { return };
        effects.keys.push(Key::Listeners(holder.clone()));
        let attachable = |view: &Option<Arc<Listeners>>| view.as_ref().map(|view| view.attachable.clone());
        if attachable(&old) != attachable(&new) {
            effects.keys.push(Key::Attachable(holder.clone()));
        }
        effects.tasks.push(status_of(holder));
    }

    /// Counts a ListenerSet at the Gateway that it is attached to.
    fn put_set(&mut self, set: &ObjectName, attached: Option<ObjectName>, effects: &mut Effects) {
        let old = match &attached {
            Some(gateway) => self.attached_sets.insert(set.clone(), gateway.clone()),
            None => self.attached_sets.remove(set),
        };
        if old == attached {
            return;
        }
        for gateway in old.iter() {
            count_down(&mut self.sets, gateway);
        }
        for gateway in attached.iter() {
            *self.sets.entry(gateway.clone()).or_default() += 1;
        }
        effects.tasks.extend(old.into_iter().chain(attached).map(Task::GatewayStatus));
    }

    fn put_route(&mut self, name: &ObjectRef, view: Option<RouteView>, effects: &mut Effects) {
        let Some((old, new)) = replace(&mut self.routes, name, view) else { return };
        let (before, after) = parts(&old, &new, |view| view.attached.clone());
        recount_pairs(&mut self.attached, &before, &after);
        effects.tasks.extend(before.symmetric_difference(&after).map(|(holder, _)| status_of(holder)));
        let (before, after) = parts(&old, &new, |view| view.backends.clone());
        self.count_backends(&before, &after, effects);
        effects.keys.extend(self.rivals.replace(name, old.as_deref(), new.as_deref()));
        let (before, after) = parts(&old, &new, RouteView::paths);
        self.count_ancestors(&before, &after, effects);
        let (before, after) = parts(&old, &new, |view| view.destinations.clone());
        self.count_destinations(&before, &after, effects);
    }

    fn count_ancestors(
        &mut self,
        before: &BTreeSet<(ObjectRef, ObjectName)>,
        after: &BTreeSet<(ObjectRef, ObjectName)>,
        effects: &mut Effects,
    ) {
        recount_pairs(&mut self.ancestors, before, after);
        for (backend, _) in before.symmetric_difference(after) {
            if backend.kind == Kind::Backend {
                effects.tasks.push(Task::External(backend.name.clone()));
            } else {
                let policies = self.targeting.get(&backend.name).into_iter().flatten();
                effects.tasks.extend(policies.cloned().map(Task::PolicyStatus));
            }
            let policies = self.shaping.get(backend).into_iter().flatten();
            effects.tasks.extend(policies.cloned().map(Task::TrafficStatus));
        }
    }

    fn count_backends(
        &mut self,
        before: &BTreeSet<BackendPort>,
        after: &BTreeSet<BackendPort>,
        effects: &mut Effects,
    ) {
        for port in before.symmetric_difference(after) {
            let service = &port.service;
            let ports = self.backends.entry(service.clone()).or_default();
            let (was_known, port_was_known) = (!ports.is_empty(), ports.contains_key(port));
            if after.contains(port) {
                *ports.entry(port.clone()).or_default() += 1;
            } else {
                count_down(ports, port);
            }
            let (is_known, port_is_known) = (!ports.is_empty(), ports.contains_key(port));
            if !is_known {
                self.backends.remove(service);
            }
            if port_was_known != port_is_known {
                effects.tasks.push(Task::Backend(port.clone()));
            }
            if was_known != is_known {
                let slices = self.slices.get(service).into_iter().flatten();
                effects.tasks.extend(slices.cloned().map(Task::Endpoints));
            }
        }
    }
}

/// The task that makes the status of a holder of listeners.
fn status_of(ObjectRef { kind, name }: &ObjectRef) -> Task {
    match kind {
        Kind::ListenerSet => Task::ListenerSetStatus(name.clone()),
        _ => Task::GatewayStatus(name.clone()),
    }
}
