//! The life of one instance of one child: start, stop by its deadline, awaited end.
//!
//! One task per instance, owned by the supervisor's state, so that it dies with it; what it reports
//! carries the instance's number. Called by `supervisor`. Refuses to decide anything.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorRef};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::cause::Cause;
use crate::census::{Census, Token};
use crate::live::{LiveNode, Shown};
use crate::machine::Instance;
use crate::measured::{Launched, start_failed};
use crate::spec::{Child, Kind, Shutdown};
use crate::supervisor::{self, Supervisor};

/// The supervisor's hold on an instance.
pub(crate) struct Keeper {
    stop: Option<oneshot::Sender<()>>,
    _task: AbortOnDropHandle<()>,
}

impl Keeper {
    /// Stops the instance, or its start.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // A keeper that is gone has reported the end already.
            let _ = stop.send(());
        }
    }
}

/// What a keeper reports at the end of its instance.
pub(crate) struct Report {
    /// The actor, if there was one: the supervisor knows from ractor how it ended.
    pub(crate) actor: Option<ActorId>,
    pub(crate) how: How,
}

/// How an instance ended, as far as its keeper knows.
pub(crate) enum How {
    /// It never got up.
    NotStarted(Cause),
    /// It was up and is gone.
    Gone,
    /// It did not stop by its deadline and was killed.
    Overdue(Duration),
}

/// What a keeper needs.
pub(crate) struct Post {
    pub(crate) child: Child,
    pub(crate) instance: Instance,
    pub(crate) supervisor: ActorRef<supervisor::Msg>,
    pub(crate) live: Arc<LiveNode>,
    pub(crate) token: Token,
}

/// Starts an instance and keeps it.
pub(crate) fn keep(post: Post) -> Keeper {
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let supervisor = post.supervisor.clone();
        let instance = post.instance;
        let live = post.live.clone();
        let report = life(post, stopped).await;
        live.settle_below();
        let _ = supervisor.send_message(supervisor::Msg::Ended { instance, report });
    });
    Keeper { stop: Some(stop), _task: AbortOnDropHandle::new(task) }
}

async fn life(post: Post, mut stop: oneshot::Receiver<()>) -> Report {
    let (mut census, token) = Census::new(Some(post.token.clone()), post.child.count.clone());
    let limit = post.child.start_timeout.map(|d| (d, Instant::now() + d));
    let started = {
        let starting = Running::start(&post, token);
        tokio::select! {
            biased;
            _ = &mut stop => Err(Cause::Cancelled),
            started = by(limit, starting) => started,
        }
    };
    let mut running = match started {
        Ok(running) => running,
        Err(cause) => {
            census.empty().await;
            return Report { actor: None, how: How::NotStarted(cause) };
        }
    };
    let actor = Some(running.cell.get_id());
    let ready = tokio::select! {
        biased;
        _ = &mut stop => Err(Cause::Cancelled),
        ready = by(limit, running.ready()) => ready,
    };
    if let Err(cause) = ready {
        running.stop(post.child.shutdown, &mut census).await;
        return Report { actor, how: How::NotStarted(cause) };
    }
    let up = supervisor::Msg::Started { instance: post.instance };
    let _ = post.supervisor.send_message(up);
    let overdue = tokio::select! {
        biased;
        () = running.end(&mut census) => None,
        _ = &mut stop => running.stop(post.child.shutdown, &mut census).await,
    };
    let how = overdue.map_or(How::Gone, How::Overdue);
    Report { actor, how }
}

/// Waits for a part of the start, at most until its limit.
async fn by<T>(
    limit: Option<(Duration, Instant)>,
    part: impl Future<Output = Result<T, Cause>>,
) -> Result<T, Cause> {
    match limit {
        None => part.await,
        Some((within, deadline)) => match timeout_at(deadline, part).await {
            Ok(result) => result,
            Err(_) => Err(Cause::StartTimeout(within)),
        },
    }
}

/// An instance that runs. Dropping it kills it: that is what happens when its supervisor is killed.
struct Running {
    cell: ActorCell,
    task: JoinHandle<()>,
    /// Takes a worker out of its address.
    registration: Option<Box<dyn Send>>,
    /// Takes it out of the live tree.
    _shown: Shown,
    /// A branch's own start: all its children.
    ready: Option<oneshot::Receiver<Result<(), Cause>>>,
    branch: bool,
}

impl Running {
    async fn start(post: &Post, token: Token) -> Result<Self, Cause> {
        let parent = post.supervisor.get_cell();
        if let Kind::Worker(launch) = &post.child.kind {
            let Launched { cell, task, registration } = launch.launch(parent, token).await?;
            let (_shown, registration) = (post.live.show(cell.clone()), Some(registration));
            return Ok(Self { cell, task, registration, _shown, ready: None, branch: false });
        }
        let (ready, when_ready) = oneshot::channel();
        let args = supervisor::Args {
            branch: post.child.clone(),
            live: post.live.clone(),
            token,
            ready,
            verdict: Arc::default(),
        };
        let (actor, task) = Actor::spawn_linked(None, Supervisor, args, parent)
            .await
            .map_err(|error| start_failed(&error))?;
        let (cell, ready) = (actor.get_cell(), Some(when_ready));
        let _shown = post.live.show(cell.clone());
        Ok(Self { cell, task, registration: None, _shown, ready, branch: true })
    }

    /// Returns when a branch has started its children; a worker is ready as soon as it runs.
    async fn ready(&mut self) -> Result<(), Cause> {
        match self.ready.take() {
            None => Ok(()),
            Some(ready) => ready.await.unwrap_or(Err(Cause::Killed)),
        }
    }

    /// Stops it; `Some` says that it had to be killed at its deadline.
    async fn stop(&mut self, how: Shutdown, census: &mut Census) -> Option<Duration> {
        if how == Shutdown::Kill {
            self.cell.kill();
            self.end(census).await;
            return None;
        }
        if self.branch {
            let _ = self.cell.send_message(supervisor::Msg::Shutdown);
        } else {
            self.cell.stop(None);
        }
        let Shutdown::Timeout(within) = how else {
            self.end(census).await;
            return None;
        };
        if timeout(within, self.end(census)).await.is_ok() {
            return None;
        }
        self.cell.kill();
        self.end(census).await;
        Some(within)
    }

    /// Returns when nothing of it is left.
    async fn end(&mut self, census: &mut Census) {
        if !self.task.is_finished() {
            // ractor's task never panics; a cancelled one has ended as well.
            let _ = (&mut self.task).await;
        }
        self.registration = None;
        census.empty().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cell.kill();
    }
}
