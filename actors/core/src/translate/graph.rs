//! Which derivation read what: how a change finds exactly the work that depends on it.
//!
//! The translator records what each [`Task`] read and asks who must run again when a [`Key`] changes.
//! It refuses to know what the tasks compute.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proxy_config::listener::Bind;
use proxy_config::name::ObjectName;

use crate::snapshot::meta::{Kind, ObjectRef};

/// Something that a task reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// An object of the snapshot, there or not.
    Object(ObjectRef),
    /// All ReferenceGrants of a namespace.
    Grants(Arc<str>),
    /// All CustomResourceDefinitions.
    Crds,
    /// The addresses of the nodes that run a proxy.
    NodeAddresses,
    /// Which Gateways are default ones.
    DefaultGateways,
    /// What follows from a GatewayClass.
    Class(ObjectName),
    /// What a Gateway got from its pool.
    Allocation(ObjectName),
    /// The BackendTLSPolicies for a Service.
    Policies(ObjectName),
    /// The XBackendTrafficPolicies for a Service or XBackend.
    Traffic(ObjectRef),
    /// What a Gateway or ListenerSet claims.
    Claims(ObjectRef),
    /// Which of its listeners lose their port or hostname to another holder.
    Conflicts(ObjectRef),
    /// Its listeners as they end up.
    Listeners(ObjectRef),
    /// Its listeners as routes see them.
    Attachable(ObjectRef),
    /// The routes of a kind that a listener took.
    Rivals((ObjectRef, String), Kind),
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BackendPort {
    /// The Service.
    pub(super) service: ObjectName,
    /// The port.
    pub(super) port: u16,
    /// Whether it is of UDP.
    pub(super) udp: bool,
}

/// What the content of a Secret or ConfigMap is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// A certificate with its key.
    Certificate,
    /// A bundle of authorities.
    Authority,
    /// A certificate that nothing can use as things stand: a status says what is wrong, and no proxy is told.
    SeenCertificate,
    /// Authorities that nothing can use as things stand, likewise.
    SeenAuthority,
}

impl Role {
    /// The same content where nothing can use it.
    pub(super) fn seen(self) -> Self {
        match self {
            Self::Certificate | Self::SeenCertificate => Self::SeenCertificate,
            Self::Authority | Self::SeenAuthority => Self::SeenAuthority,
        }
    }
}

/// A piece of work. A task reads only what tasks that sort before it make, so that one pass in order
/// runs each at most once; but for HTTPRoutes and GRPCRoutes that want the same hostname (see `rivals`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// The addresses of the nodes.
    NodeAddresses,
    /// A GatewayClass.
    Class(ObjectName),
    /// What a Gateway asks of its pool.
    Ask(ObjectName),
    /// Who gets which address of the pools.
    Pool,
    /// A BackendTLSPolicy, seen alone.
    Policy(ObjectName),
    /// An XBackendTrafficPolicy, seen alone.
    Traffic(ObjectName),
    /// What a Gateway or ListenerSet claims, before others are looked at: Gateways sort first.
    Claims(ObjectRef),
    /// A port that several share: who gets what.
    Port(Bind),
    /// The listeners of a Gateway or ListenerSet.
    Listeners(ObjectRef),
    /// A route of any kind.
    Route(ObjectRef),
    /// An XBackend: what routes send to, and its status.
    External(ObjectName),
    /// The status of a BackendTLSPolicy.
    PolicyStatus(ObjectName),
    /// The status of an XBackendTrafficPolicy.
    TrafficStatus(ObjectName),
    /// The status of a ListenerSet.
    ListenerSetStatus(ObjectName),
    /// The status of a Gateway.
    GatewayStatus(ObjectName),
    /// A Secret or ConfigMap whose content is wanted.
    Content(ObjectRef),
    /// A Service's port that routes name.
    Backend(BackendPort),
    /// An EndpointSlice.
    Endpoints(ObjectName),
    /// An object that nothing else speaks about.
    Malformed(ObjectRef),
}

/// What each task read, both ways.
#[derive(Debug, Default)]
pub(super) struct Graph {
    reads: BTreeMap<Task, BTreeSet<Key>>,
    readers: BTreeMap<Key, BTreeSet<Task>>,
}

impl Graph {
    /// Replaces what a task read.
    pub(super) fn record(&mut self, task: &Task, reads: BTreeSet<Key>) {
        let old = self.reads.remove(task).unwrap_or_default();
        for key in old.difference(&reads) {
            if let Some(readers) = self.readers.get_mut(key) {
                readers.remove(task);
                if readers.is_empty() {
                    self.readers.remove(key);
                }
            }
        }
        for key in reads.difference(&old) {
            self.readers.entry(key.clone()).or_default().insert(task.clone());
        }
        if !reads.is_empty() {
            self.reads.insert(task.clone(), reads);
        }
    }

    /// The tasks that read a key when they last ran.
    pub(super) fn readers(&self, key: &Key) -> impl Iterator<Item = Task> {
        self.readers.get(key).into_iter().flatten().cloned()
    }

    /// Whether nobody is known to have read anything.
    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.readers.is_empty()
    }
}
