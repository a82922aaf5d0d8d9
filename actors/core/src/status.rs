//! Statuses: what the translation says of an object ([`DesiredStatus`]), what the proxies' answers add
//! ([`fleet`]), how that is merged into the status that stands ([`merge`]), and what of it is to be told ([`news`]).
//!
//! The status writer calls it. It refuses to know how statuses are read and written.

pub mod fleet;
pub mod merge;
pub mod news;

use std::sync::Arc;

use proxy_config::name::{ObjectName, UnitId};

use crate::snapshot::http_route::ParentRef;
use crate::snapshot::meta::Meta;

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known.
    Unknown,
    /// As it stands in the object, as long as that is about the same generation; else not known. The
    /// answers of the proxies are on their way.
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

impl DesiredStatus {
    /// The status of the object that the metadata is of.
    pub fn new(meta: &Meta, content: StatusContent) -> Self {
        Self { observed_generation: meta.generation, uid: meta.uid.clone(), content }
    }
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
    /// Of a ListenerSet.
    ListenerSet(GatewayStatus),
    /// Of a policy.
    Policy {
        /// The controller's name, which marks our entries.
        controller: Arc<str>,
        /// One entry for each Gateway that it works for.
        ancestors: Vec<AncestorStatus>,
    },
    /// Of an XBackend.
    Backend {
        /// The controller's name, which marks our entries.
        controller: Arc<str>,
        /// One entry for each Gateway from which routes lead to it.
        parents: Vec<AncestorStatus>,
    },
    /// Of a route.
    Route {
        /// The controller's name, which marks our entries.
        controller: Arc<str>,
        /// One entry for each parent of ours.
        parents: Vec<ParentStatus>,
    },
}

/// What the status of a Gateway or a ListenerSet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// Of a Gateway its addresses: (type, value).
    pub addresses: Vec<(&'static str, String)>,
    /// Of a Gateway how many ListenerSets are attached.
    pub attached_sets: u32,
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

/// What the status of a policy or an XBackend says for one Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AncestorStatus {
    /// The Gateway.
    pub gateway: ObjectName,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// What the status of a route says for one parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    /// The parent, as the route names it.
    pub parent: ParentRef,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}
