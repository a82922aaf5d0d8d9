//! Faults on purpose: actors of a live tree that panic, fail or are killed because somebody says so.
//!
//! Made from a tree that runs ([`Running::drill`](crate::Running::drill)), so only who started the tree can
//! make one: tests, and whoever tries out a process from within. Nothing that serves a socket is given one.
//! Felt by `measured` (workers) and `supervisor` (branches). Refuses to know what is restarted, and when.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::live::LiveNode;

/// How an actor is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It panics, once it has handled its present message.
    Panic,
    /// It returns an error, once it has handled its present message.
    Error,
    /// It is killed, in the middle of what it does.
    Kill,
}

/// Why nothing was struck.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrillError {
    /// The tree has no such actor: a path is the names from below the root on.
    #[error("the tree has no actor {0:?}: see Drill::paths for those that it has")]
    Unknown(String),
    /// There is no instance just now: wait until it is up.
    #[error("{0:?} is not up just now: wait until it is")]
    Down(String),
}

/// Strikes actors of one tree, by path.
#[derive(Clone)]
pub struct Drill {
    root: Arc<LiveNode>,
}

impl std::fmt::Debug for Drill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Drill")
    }
}

impl Drill {
    pub(crate) fn new(root: Arc<LiveNode>) -> Self {
        Self { root }
    }

    /// Every actor that has an instance just now, branches before what is below them. Without the root,
    /// whose end is the end of the tree.
    #[must_use]
    pub fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        collect(&self.root, &mut Vec::new(), &mut paths);
        paths
    }

    /// Strikes the instance at a path of names below the root. Returns as soon as it must feel it, which
    /// is before it has ended.
    ///
    /// # Errors
    /// [`DrillError`] names the path where there is nothing to strike.
    pub async fn strike(&self, path: &[impl AsRef<str>], fault: Fault) -> Result<(), DrillError> {
        let shown = || path.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/");
        let mut node = self.root.clone();
        for name in path {
            node = node.child(name.as_ref()).ok_or_else(|| DrillError::Unknown(shown()))?;
        }
        let cell = node.instance().ok_or_else(|| DrillError::Down(shown()))?;
        if fault == Fault::Kill {
            cell.kill();
            return Ok(());
        }
        // A failure below it is the one thing besides its messages that every actor is told.
        match Actor::spawn_linked(None, Messenger, fault, cell).await {
            Ok((_, told)) => {
                // ractor's task never panics.
                let _ = told.await;
                Ok(())
            }
            Err(_) => Err(DrillError::Down(shown())),
        }
    }
}

fn collect(node: &LiveNode, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    for child in node.children() {
        path.push(child.name().to_owned());
        if child.instance().is_some() {
            paths.push(path.clone());
        }
        collect(&child, path, paths);
        path.pop();
    }
}

/// Tells the actor that it is linked to of a fault: it fails with it.
struct Messenger;

/// The fault on its way.
#[derive(Debug, thiserror::Error)]
#[error("a drill")]
struct Struck(Fault);

/// What an actor that was struck by an error ends with.
#[derive(Debug, thiserror::Error)]
#[error("an error on purpose")]
struct OnPurpose;

impl Actor for Messenger {
    type Msg = ();
    type State = Fault;
    type Arguments = Fault;

    async fn pre_start(&self, _: ActorRef<()>, fault: Fault) -> Result<Fault, ActorProcessingErr> {
        Ok(fault)
    }

    async fn post_start(&self, _: ActorRef<()>, fault: &mut Fault) -> Result<(), ActorProcessingErr> {
        Err(Box::new(Struck(*fault)))
    }
}

/// Called by every actor with every event from below it: one that is struck ends here.
///
/// # Errors
/// The error on purpose.
///
/// # Panics
/// On purpose.
pub(crate) fn feel(event: &SupervisionEvent) -> Result<(), ActorProcessingErr> {
    let SupervisionEvent::ActorFailed(_, error) = event else { return Ok(()) };
    match error.downcast_ref::<Struck>() {
        None => Ok(()),
        Some(Struck(Fault::Error)) => Err(Box::new(OnPurpose)),
        // Not by `panic!`: what happens on purpose need not print where.
        Some(Struck(_)) => std::panic::resume_unwind(Box::new("a panic on purpose".to_owned())),
    }
}
