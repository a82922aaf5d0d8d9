//! The push protocol: `POST /push` on a proxy's admin port, JSON both ways, over mutual TLS.
//!
//! A controller sends what leads from `base` to `root`. A proxy whose root is not `base` answers with
//! its bucket hashes and gets the buckets that differ, whole. Order is (term, generation): what is
//! older than what is in force is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::UnitId;
use crate::set::{RootHash, UnitSet};
use crate::unit::{ContentHash, EncodedUnit};

/// The version of this protocol. A proxy refuses one that it does not know and keeps its config.
pub const WIRE_VERSION: u32 = 1;

/// The largest push that a proxy reads, in bytes.
pub const MAX_PUSH_BYTES: usize = 64 << 20;

/// The place of a configuration in time: a later term, or in one term a later generation, is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// The leader's term.
    pub term: u64,
    /// The leader's count of configurations.
    pub generation: u64,
}

/// What a controller sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Push {
    /// [`WIRE_VERSION`].
    pub wire: u32,
    /// The identity of the proxy that is meant: its pod's uid or its name.
    pub proxy: String,
    /// Where it stands in time.
    pub version: Version,
    /// The root that the proxy must hold for `put` and `delete` to lead to `root`.
    pub base: RootHash,
    /// The root that results.
    pub root: RootHash,
    /// Buckets whose whole content is in `put`: what they hold besides is dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replace: Vec<u8>,
    /// Units to put.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub put: Vec<EncodedUnit>,
    /// Units to delete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<UnitId>,
    /// Units whose content the controller can't tell for now: what the proxy holds of them, and of those that
    /// they name, stays. `put` wins over it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<UnitId>,
    /// The W3C trace context of the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// What a proxy answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// The root is in force.
    Ack(Ack),
    /// The proxy holds another base; these are its buckets.
    NeedUnits(NeedUnits),
    /// Refused: the config before stays in force.
    Nack(Nack),
}

/// The root is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// Who answers.
    pub proxy: String,
    /// What is in force.
    pub version: Version,
    /// Its root.
    pub root: RootHash,
    /// The units of it that could not be used, by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<Broken>,
}

/// A unit that could not be used; it takes its specified failure, all others serve.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Broken {
    /// The unit.
    pub unit: UnitId,
    /// Why, for the object's status.
    pub reason: String,
}

/// The proxy holds another base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NeedUnits {
    /// Who answers.
    pub proxy: String,
    /// The root that it holds.
    pub root: RootHash,
    /// The hash of each of its buckets.
    pub buckets: Vec<ContentHash>,
    /// What it holds of the units that the push said to keep, and of those that they name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Kept>,
}

/// A unit that stays as the proxy holds it, though the controller can't tell its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The unit.
    pub id: UnitId,
    /// The hash of what the proxy holds of it.
    pub hash: ContentHash,
}

/// What a proxy that holds these units keeps for `keep`: those units, and what they can't be used without.
pub fn kept(units: &UnitSet, keep: &[UnitId]) -> Vec<Kept> {
    let mut found: BTreeMap<UnitId, ContentHash> = BTreeMap::new();
    let mut next = keep.to_vec();
    while let Some(id) = next.pop() {
        if let Some(unit) = units.get(&id).filter(|_| !found.contains_key(&id)) {
            found.insert(id, unit.hash);
            // One that can't be decoded is broken, and needs nothing.
            next.extend(unit.decode().map(|unit| unit.needs()).unwrap_or_default());
        }
    }
    found.into_iter().map(|(id, hash)| Kept { id, hash }).collect()
}

/// Refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nack {
    /// Who answers.
    pub proxy: String,
    /// What is in force.
    pub version: Version,
    /// Why.
    pub reason: NackReason,
}

/// Why a push is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NackReason {
    /// An older term or generation than what is in force.
    Stale,
    /// A wire version that this proxy does not know.
    UnknownWire,
    /// It is meant for another proxy.
    WrongProxy,
    /// It can't be read; the text says where.
    Malformed(String),
    /// A unit's bytes are not those that its hash names, or the result's root is not the one named.
    HashMismatch(String),
}

/// What a controller gives a proxy that has proved itself, as JSON: the answer to `POST /enrol`, whose
/// content is a certificate request (PKCS#10, PEM) and whose bearer token is the proxy's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrolled {
    /// The proxy's certificate chain, PEM.
    pub chain: String,
    /// The certificates of the authorities that it must trust, PEM.
    pub authorities: String,
}
