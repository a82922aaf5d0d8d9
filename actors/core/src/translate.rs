//! From a snapshot to what proxies are told and what statuses say: pure, total, deterministic.
//!
//! The translator actor calls it with each new snapshot. It refuses to know how snapshots are made, how
//! units travel and how statuses are written.
//!
//! The work is cut into [`graph::Task`]s, one for each object and each question between objects. A task
//! sees the cluster through a [`reader::Reader`], which records what it looked at; a change runs again
//! exactly the tasks that looked at it, and those that looked at what these made differently:
//!
//! ```text
//! EdgeParameters, GatewayClass -> Class ──┐
//! Gateway -> Ask (of its pool) -> Pool ───┤
//! Gateway, Secret, ReferenceGrant -> Claims -> Port (shared by Gateways) -> Listeners -> GatewayStatus
//! ListenerSet ────────────────────────────────^                              │     ListenerSetStatus
//! routes, Namespace, Service, ReferenceGrant ────────────────────────────────┴> Route ──^ (counts)
//! BackendTLSPolicy, ConfigMap -> Policy -> Service -> Backend, EndpointSlice -> Endpoints
//!                                      └───> PolicyStatus (conflicts, Gateways of routes)
//! XBackendTrafficPolicy -> Traffic -> Backend, External, TrafficStatus
//! XBackend, Secret, ConfigMap, ReferenceGrant -> External (what routes name alone)
//! ```
//! What a kind of route has of its own is a file (`rules.rs`, `grpc.rs`, `l4.rs`); the rest is `routes.rs`
//! and `attach.rs`. A new filter is a line in `filters.rs`.

mod addresses;
mod attach;
mod authorities;
mod backends;
mod certificates;
mod claims;
mod classes;
mod conditions;
mod derived;
mod durations;
mod emission;
mod external;
pub mod features;
mod filters;
mod frontend;
mod gateway_status;
mod gateways;
mod grants;
mod graph;
mod grpc;
mod hostnames;
mod l4;
mod listener_sets;
mod listeners;
mod matches;
mod policies;
mod policy_status;
mod reader;
mod rivals;
mod routes;
mod rule_extras;
mod rules;
mod selectors;
mod set_status;
mod tasks;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::set::UnitSet;
use proxy_config::unit::EncodedUnit;

use crate::objects::Services;
use crate::observe::Malformed;
use crate::snapshot::Snapshot;
use crate::snapshot::cluster::GatewayService;
use crate::snapshot::meta::{Kind, ObjectRef};
use crate::status::DesiredStatus;
pub use addresses::range::Range;
use conditions::Fault;
use derived::{Derived, Result as Derivation};
use emission::Emission;
use graph::{Graph, Key, Task};
use reader::Reader;

/// What the translation needs to know besides the cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The controller name of the GatewayClasses that are ours.
    pub controller_name: String,
    /// Where addresses come from, where it is not for the class's EdgeParameters to say.
    pub addresses: AddressSource,
    /// Ports of a node's own addresses that belong to someone else.
    pub reserved_ports: Vec<ReservedPorts>,
}

impl Default for Settings {
    fn default() -> Self {
        let reserved = |first, last, owner: &str| ReservedPorts { first, last, owner: owner.into() };
        Self {
            controller_name: actors_api::edge::CONTROLLER_NAME.into(),
            addresses: AddressSource::Class,
            reserved_ports: vec![
                reserved(22, 22, "SSH"),
                reserved(9901, 9902, "the proxy's own administration"),
                reserved(10_250, 10_250, "the kubelet"),
                reserved(30_000, 32_767, "Services of type NodePort"),
            ],
        }
    }
}

/// Ports that no listener may take on a node's own addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedPorts {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// Whose they are, for messages.
    pub owner: String,
}

/// Where addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressSource {
    /// The provider that the class's EdgeParameters name.
    #[default]
    Class,
    /// Without a cluster: what a Gateway asks for is bound as written, or else this address.
    AsWritten {
        /// The address of a Gateway that asks for none.
        default: IpAddr,
    },
}

/// Something that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The field, for example `spec.rules[0].filters[1]`; empty: the object as a whole.
    pub field: String,
    /// The reason, as in conditions.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// Reason, field and message in one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.reason)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl Problem {
    fn of(field: &str, fault: &Fault) -> Self {
        Self { field: field.into(), reason: fault.reason, message: fault.message.clone() }
    }

    fn malformed(malformed: &Malformed) -> Self {
        Self {
            field: malformed.field.to_string(),
            reason: "Malformed",
            message: malformed.reason.to_string(),
        }
    }
}

/// What follows from a snapshot. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// The snapshot's generation.
    pub generation: u64,
    /// What proxies are told.
    pub units: UnitSet,
    /// What the statuses of our objects say, less what depends on the proxies' answers.
    pub statuses: OrdMap<ObjectRef, Arc<DesiredStatus>>,
    /// What is wrong, by object.
    pub problems: OrdMap<ObjectRef, Arc<Vec<Problem>>>,
    /// The Secrets and ConfigMaps that something accepted names and may name: no other one is read.
    pub wanted: OrdSet<ObjectRef>,
    /// Those of them that exist and are being read for the first time: that takes a moment, which is worth
    /// waiting for before anybody is told.
    pub unread: OrdSet<ObjectRef>,
    /// Listeners and backends that name one which could not be read: what a proxy holds of them stays until it
    /// is, and whatever `units` say of them is for proxies that hold nothing.
    pub waiting: OrdSet<UnitId>,
    /// The Services that our Gateways own.
    pub services: Services,
    /// When the certificate of each Secret that is served is valid. An expired one is served all the same: what
    /// clients make of it is theirs to decide.
    pub expiries: OrdMap<ObjectName, Validity>,
}

/// When a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: i64,
    /// The last second.
    pub until: i64,
}

/// Translates snapshots, recomputing only what depends on what changed.
#[derive(Debug)]
pub struct Translator {
    settings: Settings,
    seen: Snapshot,
    derived: Derived,
    graph: Graph,
    emitted: BTreeMap<Task, Emitted>,
    translation: Translation,
    /// How many tasks ran for the last snapshot.
    ran: usize,
}

/// What a task has said, by name, so that it can be taken back.
#[derive(Debug, Default, PartialEq, Eq)]
struct Emitted {
    object: Option<ObjectRef>,
    units: Vec<UnitId>,
    waiting: Vec<UnitId>,
    service: Option<ObjectName>,
}

/// Units to put or, where there is none, to delete, gathered over an update: a task that runs again has the
/// last word.
type Changes = BTreeMap<UnitId, Option<EncodedUnit>>;

impl Translator {
    /// A translator that has seen nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            seen: Snapshot::default(),
            derived: Derived::default(),
            graph: Graph::default(),
            emitted: BTreeMap::new(),
            translation: Translation::default(),
            ran: 0,
        }
    }

    /// What follows from a snapshot: the same as a new translator would say.
    pub fn update(&mut self, snapshot: &Snapshot) -> Translation {
        let mut queue = self.observe(snapshot);
        let mut changes = Changes::default();
        self.ran = 0;
        while let Some(task) = queue.pop_first() {
            self.ran += 1;
            let (reads, result, emission) = self.run(&task);
            let gone = tasks::subject(&task).is_some_and(|subject| !self.seen.contains(&subject));
            self.graph.record(&task, if gone { BTreeSet::new() } else { reads });
            let effects = self.derived.put(&task, result);
            queue.extend(effects.tasks);
            for key in effects.keys {
                queue.extend(self.graph.readers(&key));
            }
            self.say(task, emission, &mut changes);
        }
        let gone: Vec<_> =
            changes.iter().filter(|(_, unit)| unit.is_none()).map(|(id, _)| id.clone()).collect();
        self.translation.units.apply(changes.into_values().flatten(), gone);
        self.translation.generation = snapshot.generation;
        self.translation.clone()
    }

    /// How many tasks the last update ran.
    pub fn ran(&self) -> usize {
        self.ran
    }

    /// Whether nothing is remembered of any object.
    pub fn is_empty(&self) -> bool {
        self.emitted.is_empty() && self.graph.is_empty() && self.derived.is_empty()
    }

    /// The tasks that depend on what differs between this snapshot and the one before.
    fn observe(&mut self, snapshot: &Snapshot) -> BTreeSet<Task> {
        let old = std::mem::replace(&mut self.seen, snapshot.clone());
        let changed = old.differences(snapshot);
        // Nothing comes before it that could ask for it first.
        let mut queue = BTreeSet::from([Task::NodeAddresses]);
        for reference in changed {
            self.index_slice(&old, &reference);
            queue.insert(tasks::first_task(&reference));
            queue.extend(self.graph.readers(&tasks::wide_key(&reference)));
            queue.extend(self.graph.readers(&Key::Object(reference)));
        }
        queue
    }

    /// Keeps the index from Services to EndpointSlices.
    fn index_slice(&mut self, old: &Snapshot, reference: &ObjectRef) {
        if reference.kind != Kind::EndpointSlice {
            return;
        }
        let name = &reference.name;
        if let Some(service) = old.endpoint_slices.get(name).and_then(|slice| slice.service.as_ref()) {
            self.derived.forget_slice(service, name);
        }
        if let Some(service) = self.seen.endpoint_slices.get(name).and_then(|slice| slice.service.clone()) {
            self.derived.slices.entry(service).or_default().insert(name.clone());
        }
    }

    /// Runs a task. One that panics takes its object out of service, says so in its status, and stops
    /// nothing else.
    fn run(&self, task: &Task) -> (BTreeSet<Key>, Derivation, Emission) {
        let reader = Reader::new(&self.settings, &self.seen, &self.derived);
        let made = catch_unwind(AssertUnwindSafe(|| tasks::run(&reader, task)));
        let (result, emission) = made.unwrap_or_else(|_| tasks::panicked(&reader, task));
        (reader.into_reads(), result, emission)
    }

    /// Replaces what a task has said before.
    fn say(&mut self, task: Task, emission: Emission, changes: &mut Changes) {
        let old = self.emitted.remove(&task).unwrap_or_default();
        let object = emission.object.filter(|_| emission.status.is_some() || !emission.problems.is_empty());
        if let Some(gone) = old.object.filter(|known| object.as_ref() != Some(known)) {
            self.translation.statuses.remove(&gone);
            self.translation.problems.remove(&gone);
        }
        if let Some(object) = &object {
            set(&mut self.translation.statuses, object, emission.status);
            let problems = Some(emission.problems).filter(|problems| !problems.is_empty());
            set(&mut self.translation.problems, object, problems);
        }
        if let Task::Content(object) = &task {
            let reader = Reader::new(&self.settings, &self.seen, &self.derived);
            if reader.is_wanted(object) {
                self.translation.wanted.insert(object.clone());
            } else {
                self.translation.wanted.remove(object);
            }
            self.translation.unread.remove(object);
            if object.kind == Kind::Secret {
                self.translation.expiries.remove(&object.name);
            }
        }
        if let Some(object) = emission.unread {
            self.translation.unread.insert(object);
        }
        old.waiting.iter().for_each(|unit| drop(self.translation.waiting.remove(unit)));
        self.translation.waiting.extend(emission.waiting.iter().cloned());
        if let Some((name, validity)) = emission.expiry {
            self.translation.expiries.insert(name, validity);
        }
        let service = self.say_service(old.service, emission.service);
        let units: Vec<_> = emission.units.iter().map(|unit| unit.id.clone()).collect();
        let gone = old.units.into_iter().filter(|id| !units.contains(id));
        changes.extend(gone.map(|id| (id, None)));
        for unit in emission.units {
            if self.translation.units.get(&unit.id) == Some(&unit) {
                changes.remove(&unit.id);
            } else {
                changes.insert(unit.id.clone(), Some(unit));
            }
        }
        let emitted = Emitted { object, units, waiting: emission.waiting, service };
        if emitted != Emitted::default() {
            self.emitted.insert(task, emitted);
        }
    }

    /// Replaces the Service of a Gateway; its name.
    fn say_service(
        &mut self,
        old: Option<ObjectName>,
        new: Option<(ObjectName, GatewayService)>,
    ) -> Option<ObjectName> {
        let services = &mut self.translation.services;
        if let Some(gone) = old.filter(|old| new.as_ref().is_none_or(|(name, _)| name != old)) {
            services.remove(&gone);
        }
        let (name, service) = new?;
        if services.get(&name).is_none_or(|known| **known != service) {
            services.insert(name.clone(), Arc::new(service));
        }
        Some(name)
    }
}

/// Sets or removes a value; one that is equal stays as it is.
fn set<T: PartialEq>(map: &mut OrdMap<ObjectRef, Arc<T>>, object: &ObjectRef, value: Option<T>) {
    match value {
        None => drop(map.remove(object)),
        Some(value) if map.get(object).is_some_and(|known| **known == value) => {}
        Some(value) => drop(map.insert(object.clone(), Arc::new(value))),
    }
}
