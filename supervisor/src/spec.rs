//! The tree as data: children, strategies, limits.
//!
//! Owns the vocabulary that a `tree.rs` is written in, and its rendering. Called by the `tree.rs` of
//! each process. Refuses to know what happens at run time.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::address::{Address, MessageName};
use crate::measured::{Factory, Launch};

/// What happens to the siblings when a child is restarted (Erlang/OTP, `supervisor`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Only the child that ended is restarted.
    OneForOne,
    /// All children are stopped in reverse order, then started in order.
    OneForAll,
    /// The children declared after the one that ended are stopped in reverse order, then started with it in order.
    RestForOne,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneForOne => "one-for-one",
            Self::OneForAll => "one-for-all",
            Self::RestForOne => "rest-for-one",
        })
    }
}

/// How many restarts a branch bears before it fails itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts that are borne; one more within the window escalates.
    pub restarts: u32,
    /// The length of the sliding window; a restart exactly this long ago still counts (as in OTP).
    pub within: Duration,
}

impl Intensity {
    /// At most `restarts` within `within`.
    #[must_use]
    pub const fn new(restarts: u32, within: Duration) -> Self {
        Self { restarts, within }
    }
}

/// When a child that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    Permanent,
    /// Only after an abnormal end: an error, a panic, a kill.
    Transient,
    /// Never.
    Temporary,
}

/// How long a child may take to stop before it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Killed at once, and awaited.
    Kill,
    /// Asked to stop; killed and awaited after this time.
    Timeout(Duration),
    /// Asked to stop and awaited for as long as it takes: right for branches, whose children have deadlines.
    Infinity,
}

/// How long to wait before a restart: exponential, with jitter, forgotten after a stable time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Before the first restart.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// The part of the wait that is random, 0.0 to 1.0: the wait is drawn from `[(1 - jitter) * d, d]`.
    pub jitter: f64,
    /// An instance that was up for this long makes earlier failures forgotten.
    pub reset_after: Duration,
}

impl Backoff {
    /// The wait before restart number `attempt` (1 is the first); `sample` in `[0, 1)` is the random part.
    #[must_use]
    pub fn delay(&self, attempt: u32, sample: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let whole = self.initial.saturating_mul(1 << doublings).min(self.max);
        whole.mul_f64(1.0 - self.jitter.clamp(0.0, 1.0) * sample.clamp(0.0, 1.0))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(10),
            jitter: 0.2,
            reset_after: Duration::from_secs(60),
        }
    }
}

/// Whether a gated child may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Stopped, or being stopped.
    #[default]
    Closed,
    /// Running. The number is an epoch: a new one is a stop, then a start.
    Open(u64),
}

/// A node of the tree as data: a worker, or a branch with children.
#[derive(Clone)]
pub struct Child {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) start_timeout: Option<Duration>,
    pub(crate) backoff: Backoff,
    pub(crate) gate: Option<watch::Receiver<Gate>>,
    pub(crate) revision: u64,
    pub(crate) never_escalates: bool,
    pub(crate) count: Option<watch::Sender<usize>>,
}

/// The children that a dynamic branch should have, by name.
pub(crate) type Desired = watch::Receiver<Arc<BTreeMap<String, Child>>>;

/// What a node is.
#[derive(Clone)]
pub(crate) enum Kind {
    Worker(Arc<dyn Launch>),
    Branch { strategy: Strategy, intensity: Intensity, children: Arc<[Child]> },
    Dynamic { intensity: Intensity, desired: Desired },
}

/// A branch: children that are started in order, stopped in reverse, and restarted by `strategy`.
///
/// # Panics
/// When two children have the same name: a mistake of the program.
#[must_use]
pub fn branch(name: &str, strategy: Strategy, intensity: Intensity, children: Vec<Child>) -> Child {
    let mut names: Vec<_> = children.iter().map(|c| c.name.clone()).collect();
    names.sort();
    names.dedup();
    assert!(names.len() == children.len(), "two children of {name:?} have the same name");
    let children = children.into();
    Child::new(name, Kind::Branch { strategy, intensity, children })
}

/// An actor. `factory` makes it and its arguments anew for each (re)start; each start registers in `address`.
#[must_use]
pub fn worker<A>(
    name: &str,
    address: &Address<A::Msg>,
    factory: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
) -> Child
where
    A: ractor::Actor,
    A::Msg: MessageName,
{
    let launch = Factory::new(address.clone(), factory);
    let mut child = Child::new(name, Kind::Worker(Arc::new(launch)));
    child.shutdown = Shutdown::Timeout(Duration::from_secs(5));
    child.start_timeout = Some(Duration::from_secs(10));
    child
}

/// A branch whose children are declared at run time: the wanted ones by name travel on `desired`, a
/// channel made beside the tree. What is new is started, what is gone is stopped (and awaited), what
/// has another [`Child::revision`] is stopped, then started. Children are independent of each other:
/// they start and stop concurrently, a failed start is a failure with backoff, and one that ends is
/// restarted alone.
#[must_use]
pub fn dynamic(name: &str, intensity: Intensity, desired: Desired) -> Child {
    Child::new(name, Kind::Dynamic { intensity, desired })
}

impl Child {
    fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            restart: Restart::Permanent,
            shutdown: Shutdown::Infinity,
            start_timeout: None,
            backoff: Backoff::default(),
            gate: None,
            revision: 0,
            never_escalates: false,
            count: None,
        }
    }

    /// When to start it again. Default: permanent.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// How long it may take to stop. Default: 5 s for workers, as long as it takes for branches.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// How long it may take to start. Default: 10 s for workers, the sum of its children for branches.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = Some(timeout);
        self
    }

    /// How long to wait before restarts.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Runs only while the gate is open. A gate that is open at the start of the branch is part of
    /// its all-or-nothing start; one that opens later is not.
    #[must_use]
    pub fn gated(mut self, gate: watch::Receiver<Gate>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// For children of a [`dynamic`] branch: another revision is a stop, then a start.
    #[must_use]
    pub fn revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// For branches: instead of failing when there are too many restarts, wait the longest backoff of the
    /// child before the next. Its start never fails either: a child that does not start is retried.
    #[must_use]
    pub fn never_escalates(mut self) -> Self {
        self.never_escalates = true;
        self
    }

    /// Counts the instances that exist: one more from before a start, one less when nothing is left of
    /// it and of all below. Several children may share a count.
    #[must_use]
    pub fn counted(mut self, count: watch::Sender<usize>) -> Self {
        self.count = Some(count);
        self
    }

    /// The name among its siblings.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What kind of node this is, in words: `worker`, a strategy, or `dynamic`.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Worker(_) => "worker",
            Kind::Branch { .. } => "branch",
            Kind::Dynamic { .. } => "dynamic",
        }
    }

    /// The branch's limit; none for a worker.
    pub(crate) fn intensity(&self) -> Option<Intensity> {
        match &self.kind {
            Kind::Worker(_) => None,
            Kind::Branch { intensity, .. } | Kind::Dynamic { intensity, .. } => Some(*intensity),
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Child({} {})", self.kind_name(), self.name)
    }
}

/// The tree as text, one line per node: name, kind or strategy, limits. For snapshot tests and docs.
#[must_use]
pub fn render(root: &Child) -> String {
    let mut text = String::new();
    line(&mut text, root);
    children(&mut text, root, "");
    text
}

fn children(text: &mut String, parent: &Child, indent: &str) {
    let Kind::Branch { children: list, .. } = &parent.kind else {
        return;
    };
    for (i, child) in list.iter().enumerate() {
        let last = i + 1 == list.len();
        text.push_str(indent);
        text.push_str(if last { "└── " } else { "├── " });
        line(text, child);
        let deeper = format!("{indent}{}", if last { "    " } else { "│   " });
        children(text, child, &deeper);
    }
}

fn line(text: &mut String, child: &Child) {
    text.push_str(&child.name);
    let mut notes = Vec::new();
    match &child.kind {
        Kind::Worker(_) => {}
        Kind::Branch { strategy, .. } => notes.push(strategy.to_string()),
        Kind::Dynamic { .. } => notes.push("dynamic".to_owned()),
    }
    if child.gate.is_some() {
        notes.push("gated".to_owned());
    }
    match child.restart {
        Restart::Permanent => {}
        Restart::Transient => notes.push("transient".to_owned()),
        Restart::Temporary => notes.push("temporary".to_owned()),
    }
    if let Some(limit) = child.intensity() {
        notes.push(format!("{} restarts in {:?}", limit.restarts, limit.within));
    }
    if child.never_escalates {
        notes.push("never escalates".to_owned());
    }
    match child.shutdown {
        Shutdown::Kill => notes.push("killed at once".to_owned()),
        Shutdown::Timeout(within) => notes.push(format!("stops in {within:?}")),
        Shutdown::Infinity => {}
    }
    if !notes.is_empty() {
        let _ = write!(text, " ({})", notes.join(", "));
    }
    text.push('\n');
}
