//! The tree as it stands: what GET /supervision shows.
//!
//! Owns a node per child, made with the tree so that it outlives instances. Written by supervisors,
//! read by whoever shows it. Refuses to be a source of decisions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::ActorCell;
use serde::Serialize;
use tokio::time::Instant;

use crate::cause::Cause;
use crate::machine::{Phase, Slot};
use crate::meter::{MailboxState, Meter};
use crate::spec::{Child, Gate, Intensity, Kind};

/// The whole tree, to be read at any time. A clone reads the same tree.
#[derive(Clone)]
pub struct LiveTree {
    pub(crate) root: Arc<LiveNode>,
}

impl LiveTree {
    /// The tree as it stands.
    #[must_use]
    pub fn snapshot(&self) -> NodeState {
        self.root.snapshot()
    }
}

impl std::fmt::Debug for LiveTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LiveTree({})", self.root.name)
    }
}

/// What a child is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChildState {
    /// On its way up.
    Starting,
    /// Up.
    Running,
    /// Waits to be restarted.
    Backoff,
    /// On its way down.
    Stopping,
    /// Down: not started yet, ended as it should, or waiting for a sibling.
    #[default]
    Stopped,
    /// Down because its gate is closed.
    Gated,
    /// Down for good after an error.
    Failed,
}

/// One node of the tree as it stands.
#[derive(Clone, Debug, Serialize)]
pub struct NodeState {
    /// Its name among its siblings.
    pub name: Arc<str>,
    /// `worker`, `branch` or `dynamic`.
    pub kind: &'static str,
    /// Of a branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Of a branch: restarts that it bears.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    /// Of a branch: the window of that limit, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<u64>,
    /// What it is doing.
    pub state: ChildState,
    /// For how much longer it waits, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_ms: Option<u64>,
    /// How often it was restarted, by itself or with its group.
    pub restarts: u64,
    /// Why it last ended when it should not have: the whole chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How long ago that was, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error_age_ms: Option<u64>,
    /// For how long this instance has been up, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Of a gated child that is open: the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Of a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<MailboxState>,
    /// Of a branch, in order of declaration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<NodeState>,
}

impl NodeState {
    /// The node at a path of names below this one.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&NodeState> {
        match path {
            [] => Some(self),
            [name, rest @ ..] => self.children.iter().find(|c| &*c.name == *name)?.at(rest),
        }
    }
}

/// A node that outlives the instances of its child.
pub(crate) struct LiveNode {
    name: Arc<str>,
    kind: &'static str,
    strategy: Option<String>,
    limit: Option<Intensity>,
    meter: Option<Arc<Meter>>,
    status: Mutex<Status>,
    children: Mutex<Vec<Arc<LiveNode>>>,
    /// For drills.
    instance: Mutex<Option<ActorCell>>,
}

/// Takes an instance out of its node when dropped.
pub(crate) struct Shown(Arc<LiveNode>);

impl Drop for Shown {
    fn drop(&mut self) {
        *lock(&self.0.instance) = None;
    }
}

#[derive(Clone, Debug, Default)]
struct Status {
    state: ChildState,
    due: Option<Instant>,
    /// Under this instance of its supervisor.
    restarts: u64,
    /// Under earlier ones.
    restarts_before: u64,
    last_error: Option<(Cause, Instant)>,
    up_since: Option<Instant>,
    epoch: Option<u64>,
}

impl LiveNode {
    /// The node of a child and of all that is declared below it.
    pub(crate) fn of(child: &Child) -> Arc<Self> {
        let (strategy, meter, children) = match &child.kind {
            Kind::Worker(launch) => (None, Some(launch.meter()), Vec::new()),
            Kind::Branch { strategy, children, .. } => {
                let children = children.iter().map(Self::of).collect();
                (Some(strategy.to_string()), None, children)
            }
            Kind::Dynamic { .. } => (None, None, Vec::new()),
        };
        Arc::new(Self {
            name: child.name.clone(),
            kind: child.kind_name(),
            strategy,
            limit: child.intensity(),
            meter,
            status: Mutex::default(),
            children: Mutex::new(children),
            instance: Mutex::default(),
        })
    }

    /// An instance is there, until what is answered is dropped.
    pub(crate) fn show(self: &Arc<Self>, instance: ActorCell) -> Shown {
        *lock(&self.instance) = Some(instance);
        Shown(self.clone())
    }

    /// The instance that is there just now.
    pub(crate) fn instance(&self) -> Option<ActorCell> {
        lock(&self.instance).clone()
    }

    /// Its name among its siblings.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The nodes below this one, in order.
    pub(crate) fn children(&self) -> Vec<Arc<LiveNode>> {
        lock(&self.children).clone()
    }

    /// The node of a declared child below this one.
    pub(crate) fn child(&self, name: &str) -> Option<Arc<LiveNode>> {
        lock(&self.children).iter().find(|c| &*c.name == name).cloned()
    }

    /// A dynamic child is declared; the list stays in order of names.
    pub(crate) fn adopt(&self, child: &Child) {
        let mut children = lock(&self.children);
        match children.binary_search_by(|c| c.name.cmp(&child.name)) {
            Ok(at) => {
                // Another declaration of the same name: its history stays, its mailbox may be another.
                let node = Self::of(child);
                *lock(&node.status) = lock(&children[at].status).clone();
                children[at] = node;
            }
            Err(at) => children.insert(at, Self::of(child)),
        }
    }

    /// A dynamic child is gone.
    pub(crate) fn keep_only(&self, wanted: impl Fn(&str) -> bool) {
        lock(&self.children).retain(|c| wanted(&c.name));
    }

    /// The supervisor says how a child stands.
    pub(crate) fn publish(&self, slot: &Slot, now: Instant) {
        let state = match slot.phase {
            Phase::Starting => ChildState::Starting,
            Phase::Up => ChildState::Running,
            Phase::Stopping => ChildState::Stopping,
            Phase::Down if slot.failed => ChildState::Failed,
            Phase::Down if slot.shut() => ChildState::Gated,
            Phase::Down if slot.wanted() && slot.waits(now) => ChildState::Backoff,
            Phase::Down => ChildState::Stopped,
        };
        let mut status = lock(&self.status);
        status.state = state;
        status.due = slot.due;
        status.restarts = slot.restarts;
        status.up_since = slot.up_since;
        // A restarted supervisor knows nothing of the last one's children; the tree does.
        if slot.last_error.is_some() {
            status.last_error.clone_from(&slot.last_error);
        }
        status.epoch = match slot.spec.gate {
            Some(Gate::Open(epoch)) => Some(epoch),
            Some(Gate::Closed) | None => None,
        };
    }

    /// The root has no supervisor that publishes it: it starts ...
    pub(crate) fn root_starts(&self) {
        lock(&self.status).state = ChildState::Starting;
    }

    /// ... it is up, unless it has ended already ...
    pub(crate) fn root_is_up(&self) {
        let mut status = lock(&self.status);
        if status.state == ChildState::Starting {
            status.state = ChildState::Running;
            status.up_since = Some(Instant::now());
        }
    }

    /// ... it ended, and nothing of the tree is left.
    pub(crate) fn root_ended(&self, why: Option<&Cause>) {
        self.settle_below();
        let mut status = lock(&self.status);
        status.state = if why.is_some() { ChildState::Failed } else { ChildState::Stopped };
        status.up_since = None;
        if let Some(cause) = why {
            status.last_error = Some((cause.clone(), Instant::now()));
        }
    }

    /// Nothing lives below this node any more. What was not stopped in order went with its supervisor.
    pub(crate) fn settle_below(&self) {
        let children = lock(&self.children).clone();
        for child in children {
            child.settle_below();
            let mut status = lock(&child.status);
            let down = match status.state {
                ChildState::Starting | ChildState::Running | ChildState::Stopping => {
                    status.last_error = Some((Cause::Orphaned, Instant::now()));
                    ChildState::Stopped
                }
                ChildState::Backoff => ChildState::Stopped,
                down => down,
            };
            status.state = down;
            status.restarts_before += std::mem::take(&mut status.restarts);
            status.due = None;
            status.up_since = None;
        }
    }

    fn snapshot(&self) -> NodeState {
        let status = lock(&self.status).clone();
        let children = lock(&self.children).clone();
        let ago = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let until = |due: Instant| u64::try_from(due.saturating_duration_since(Instant::now()).as_millis());
        let backoff = status.due.filter(|_| status.state == ChildState::Backoff);
        NodeState {
            name: self.name.clone(),
            kind: self.kind,
            strategy: self.strategy.clone(),
            max_restarts: self.limit.map(|l| l.restarts),
            within_ms: self.limit.and_then(|l| u64::try_from(l.within.as_millis()).ok()),
            state: status.state,
            backoff_ms: backoff.and_then(|due| until(due).ok()),
            restarts: status.restarts_before + status.restarts,
            last_error: status.last_error.as_ref().map(|(cause, _)| cause.chain()),
            last_error_age_ms: status.last_error.as_ref().map(|(_, at)| ago(*at)),
            age_ms: status.up_since.map(ago),
            epoch: status.epoch,
            mailbox: self.meter.as_ref().map(|m| m.state()),
            children: children.iter().map(|c| c.snapshot()).collect(),
        }
    }
}

/// Nothing panics while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
