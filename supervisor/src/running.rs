//! The root of a tree: starting it, stopping it, learning why it ended.
//!
//! Called by the `main` of each process and by tests. Refuses to restart the root: a process whose
//! root gives up ends, and whatever started the process is the last supervisor.

use std::sync::{Arc, OnceLock};

use ractor::{Actor, ActorRef};
use tokio::sync::{oneshot, watch};

use crate::cause::Cause;
use crate::census::Census;
use crate::drill::Drill;
use crate::live::{LiveNode, LiveTree};
use crate::machine::Halt;
use crate::measured::start_failed;
use crate::spec::{Child, Kind};
use crate::supervisor::{Args, Msg, Supervisor};

/// Why a tree did not start. Nothing of it is left.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StartError {
    /// The root is a worker: put it into a branch.
    #[error("the root {0:?} is a worker: a worker needs a branch above it")]
    NotABranch(String),
    /// A child did not start; what had been started was stopped again.
    #[error("the tree {root:?} did not start")]
    Boot {
        /// Name of the root.
        root: String,
        /// Why.
        #[source]
        cause: Cause,
    },
}

/// Why a tree ended without having been asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tree {root:?} ended")]
pub struct Stopped {
    /// Name of the root.
    pub root: String,
    /// Why: the whole chain, down to the child that failed.
    #[source]
    pub cause: Cause,
}

/// A tree that has started. A clone is the same tree; dropping it stops nothing.
#[derive(Clone)]
pub struct Running {
    /// The tree as it stands.
    pub live: LiveTree,
    root: ActorRef<Msg>,
    end: watch::Receiver<Option<Result<(), Stopped>>>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Running({:?})", self.live)
    }
}

impl Running {
    /// Faults on purpose, for tests and for who tries out a process from within.
    #[must_use]
    pub fn drill(&self) -> Drill {
        Drill::new(self.live.root.clone())
    }

    /// Stops all children in reverse order, each by its own deadline, and returns when nothing is left.
    ///
    /// # Errors
    /// The tree had ended before, or ended in another way while it stopped.
    pub async fn stop(&self) -> Result<(), Stopped> {
        // A root that is gone has an end already.
        let _ = self.root.send_message(Msg::Shutdown);
        self.stopped().await
    }

    /// Returns when nothing of the tree is left.
    ///
    /// # Errors
    /// It was not asked to stop: its root gave up, with the whole cause, or was killed.
    pub async fn stopped(&self) -> Result<(), Stopped> {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ok(())),
            // Only a runtime that shuts down drops the task that says how the tree ended.
            Err(_) => Ok(()),
        }
    }
}

/// Starts a tree: all children in order, or none.
///
/// # Errors
/// [`StartError`] with the cause, when nothing is left of what had been started.
pub async fn run(root: Child) -> Result<Running, StartError> {
    let name = root.name().to_owned();
    if matches!(root.kind, Kind::Worker(_)) {
        return Err(StartError::NotABranch(name));
    }
    let live = LiveNode::of(&root);
    let (mut census, token) = Census::new(None, None);
    let (ready, when_ready) = oneshot::channel();
    let verdict: Arc<OnceLock<Halt>> = Arc::default();
    let args = Args { branch: root, live: live.clone(), token, ready, verdict: verdict.clone() };
    live.root_starts();
    let spawned = Actor::spawn(None, Supervisor, args).await;
    let (root, task) =
        spawned.map_err(|error| StartError::Boot { root: name.clone(), cause: start_failed(&error) })?;
    let shown = live.show(root.get_cell());
    let (ended, end) = watch::channel(None);
    let (node, root_name) = (live.clone(), name.clone());
    tokio::spawn(async move {
        // ractor's task never panics.
        let _ = task.await;
        drop(shown);
        census.empty().await;
        let result = match verdict.get() {
            Some(Halt::Shutdown) => Ok(()),
            Some(Halt::Boot(cause) | Halt::Escalated(cause)) => Err(cause.clone()),
            None => Err(Cause::Killed),
        };
        node.root_ended(result.as_ref().err());
        let root = root_name;
        ended.send_replace(Some(result.map_err(|cause| Stopped { root, cause })));
    });
    let running = Running { live: LiveTree { root: live.clone() }, root, end };
    match when_ready.await.unwrap_or(Err(Cause::Killed)) {
        Ok(()) => {
            live.root_is_up();
            Ok(running)
        }
        Err(cause) => {
            let _ = running.stopped().await;
            Err(StartError::Boot { root: name, cause })
        }
    }
}

/// The page that shows the live tree: one self-contained HTML document. It reads
/// `/supervision?format=json` of the server that it came from: `{ "tree": NodeState, "facts": { .. } }`.
#[must_use]
pub fn page() -> &'static str {
    include_str!("page.html")
}
