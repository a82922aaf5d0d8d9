//! Statuses: what the translation and the proxies' answers say of an object, and how that is merged
//! into the status that stands.
//!
//! The status writer calls it. It refuses to know how statuses are read and written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use jiff::Timestamp;
use proxy_config::name::UnitId;
use proxy_config::set::UnitSet;
use serde_json::Value;

use crate::snapshot::http_route::ParentRef;
use crate::snapshot::meta::ObjectRef;
use crate::translate::Translation;

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known.
    Unknown,
    /// As it stands in the object, for now: not known after a failover.
    Keep,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub kind: &'static str,
    /// Its status.
    pub status: ConditionStatus,
    /// The reason, one word.
    pub reason: &'static str,
    /// What a person should know.
    pub message: String,
}

/// What the status of an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredStatus {
    /// The generation that it is about.
    pub observed_generation: i64,
    /// The uid of the object that it is about.
    pub uid: Arc<str>,
    /// What it says.
    pub content: StatusContent,
}

/// What the status of an object of a kind says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusContent {
    /// Of a GatewayClass.
    GatewayClass {
        /// Its conditions.
        conditions: Vec<Condition>,
        /// The features that are supported, sorted.
        supported_features: Vec<&'static str>,
    },
    /// Of a Gateway.
    Gateway(GatewayStatus),
    /// Of a route.
    Route {
        /// The controller's name, which marks our entries.
        controller: Arc<str>,
        /// One entry for each parent of ours.
        parents: Vec<ParentStatus>,
    },
}

/// What the status of a Gateway says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// Its addresses: (type, value).
    pub addresses: Vec<(&'static str, String)>,
    /// Its listeners, in their order in the spec.
    pub listeners: Vec<ListenerStatus>,
}

/// What the status of a listener says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// The kinds of route that it takes: (group, kind).
    pub supported_kinds: Vec<(&'static str, &'static str)>,
    /// How many routes are attached.
    pub attached_routes: u32,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// The units that must be in force for it to be Programmed; empty: it is not served.
    pub units: Vec<UnitId>,
}

/// What the status of a route says for one parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    /// The parent, as the route names it.
    pub parent: ParentRef,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// The proxies and what they have answered.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// By name, as messages show it.
    pub proxies: BTreeMap<String, ProxyState>,
    /// For how long this process has led.
    pub led_for: Duration,
}

/// A proxy and what it has answered.
#[derive(Clone, Debug)]
pub struct ProxyState {
    /// Whether it is ready; one that is not is left out.
    pub ready: bool,
    /// Whether it has not answered for 10 s; it is left out and named.
    pub silent: bool,
    /// What it has acked; `None`: not known.
    pub acked: Option<Acked>,
}

/// What a proxy has acked.
#[derive(Clone, Debug, Default)]
pub struct Acked {
    /// The units that it holds.
    pub units: UnitSet,
    /// Those of them that it could not use, with its reason.
    pub broken: BTreeMap<UnitId, String>,
}

/// Adds what depends on the proxies: Programmed of Gateways and listeners, broken routes.
pub fn finalise(translation: &Translation, fleet: &Fleet) -> OrdMap<ObjectRef, Arc<DesiredStatus>> {
    let _ = fleet;
    translation.statuses.clone()
}

/// The `status` to write, made from the one that stands; `None` where nothing would change.
///
/// lastTransitionTime moves only where a status flips, entries of other controllers stay.
pub fn merge_status(desired: &DesiredStatus, current: &Value, now: Timestamp) -> Option<Value> {
    let _ = (desired, current, now);
    None
}
