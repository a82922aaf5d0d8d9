//! One worker: a thread that serves connections.
//!
//! Owns: its thread, with a runtime, a pool of upstream connections and every connection on it.
//! Reads: its seat (connections handed over), the table and word of what it lost, the switch of the drain.
//! Writes: its seat (load), metrics.
//! Rebuilt from: nothing. When it dies, what is under way on its connections has [`FINISH_WITHIN`], then
//! they are cut; others are not touched.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::{Address, Child, Shutdown, Strategy, branch, message_names, worker};
use thiserror::Error;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, debug_span, warn};

use super::connection;
use super::context::{Context, Shared};
use super::handoff::{Handed, Seat};
use crate::watchdog::{BEAT_EVERY, Heart, Watchdog};

/// How long the connections of a worker that is stopped get to finish what they do. A drain comes
/// before that and has its own, longer deadline.
const FINISH_WITHIN: Duration = Duration::from_millis(500);
/// How long a worker may take to stop; then it is left behind.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// How often a worker lets go of what has been idle for too long.
const TIDY_EVERY: Duration = crate::upstream::pool::RECENT;

/// What a worker is told.
#[derive(Debug)]
pub enum Msg {
    /// Its thread ended, which it never does by itself.
    Ended,
}

message_names!(Msg { Ended });

/// What a worker is started with.
pub struct Args {
    index: usize,
    seat: Arc<Seat>,
    shared: Arc<Shared>,
    watchdog: Arc<Watchdog>,
    myself: Address<Msg>,
}

struct State {
    /// Dropped, it stops the thread.
    stop: Option<DropGuard>,
    ended: Option<oneshot::Receiver<()>>,
}

/// The actor.
struct Worker;

/// The thread is gone.
#[derive(Debug, Error)]
#[error("the thread of the worker ended by a panic")]
struct ThreadEnded;

impl Actor for Worker {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        Ok(start(args)?)
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, _: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Ended => Err(ThreadEnded.into()),
        }
    }

    async fn post_stop(&self, _: ActorRef<Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.stop.take();
        if let Some(ended) = state.ended.take() {
            // Answered or dropped: the thread has ended.
            let _ = ended.await;
        }
        Ok(())
    }
}

/// The name of a worker: of its actor, its thread, and its heart.
pub fn name(index: usize) -> String {
    format!("worker-{index}")
}

/// The branch of the tree with one worker per seat.
pub fn workers(shared: &Arc<Shared>, watchdog: &Arc<Watchdog>) -> Child {
    let child = |(index, seat): (usize, &Arc<Seat>)| {
        let (seat, myself) = (seat.clone(), Address::new());
        let (shared, watchdog) = (shared.clone(), watchdog.clone());
        worker(&name(index), &myself.clone(), move || {
            let (seat, myself) = (seat.clone(), myself.clone());
            (Worker, Args { index, seat, shared: shared.clone(), watchdog: watchdog.clone(), myself })
        })
        .shutdown(Shutdown::Timeout(STOP_WITHIN))
    };
    let children = shared.seats.iter().enumerate().map(child).collect();
    branch("workers", Strategy::OneForOne, super::limit(), children)
}

fn start(args: Args) -> io::Result<State> {
    let Args { index, seat, shared, watchdog, myself } = args;
    let stop = CancellationToken::new();
    let (end, ended) = oneshot::channel();
    let guard = stop.clone().drop_guard();
    std::thread::Builder::new().name(name(index)).spawn(move || {
        let heart = watchdog.heart(&name(index));
        let result = catch_unwind(AssertUnwindSafe(|| run((index, &heart), &seat, &shared, stop.clone())));
        drop(heart);
        if let Ok(Err(error)) = &result {
            warn!(worker = index, %error, "can't start the runtime of a worker");
        }
        let _ = end.send(());
        if !stop.is_cancelled() {
            // Refused only where the worker is about to end anyway.
            let _ = myself.send(Msg::Ended);
        }
    })?;
    Ok(State { stop: Some(guard), ended: Some(ended) })
}

/// The life of the thread.
fn run(
    (index, heart): (usize, &Heart),
    seat: &Seat,
    shared: &Arc<Shared>,
    stop: CancellationToken,
) -> io::Result<()> {
    let runtime: LocalRuntime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let connections = seat.take(runtime.metrics());
    let context = Rc::new(Context::new(index, seat.load().clone(), shared));
    runtime.block_on(serve(context, connections, heart, stop));
    debug!(worker = index, "stopped");
    Ok(())
}

/// Serves a connection in a task of its own.
fn take(handed: Handed, context: &Rc<Context>, tasks: &TaskTracker) {
    let span =
        debug_span!("connection", worker = context.worker(), peer = %handed.peer, local = %handed.local);
    let connection = connection::serve(handed, context.clone()).instrument(span);
    tokio::task::spawn_local(tasks.track_future(connection));
}

async fn serve(
    context: Rc<Context>,
    mut connections: mpsc::UnboundedReceiver<Handed>,
    heart: &Heart,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let mut draining = context.shared().drain.draining();
    let mut lost = context.shared().lost.subscribe();
    let mut tidy = interval(TIDY_EVERY);
    let mut beat = interval(BEAT_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            // Its sender is kept beside the tree: it never ends.
            Ok(()) = lost.changed() => context.look_for_losses(),
            // What is rare comes first, or a flood of connections would starve it.
            _ = draining.wait_for(|draining| *draining), if !context.is_draining() => context.begin_drain(),
            _ = tidy.tick() => context.tidy(),
            _ = beat.tick() => heart.beat(),
            handed = connections.recv() => {
                let Some(handed) = handed else { break };
                take(handed, &context, &tasks);
            }
        }
    }
    connections.close();
    context.stop();
    // The clients of what was handed over already believe that they are connected.
    while let Some(handed) = connections.recv().await {
        take(handed, &context, &tasks);
    }
    tasks.close();
    // What has not finished by then is cut when the runtime is dropped.
    let _ = timeout(FINISH_WITHIN, tasks.wait()).await;
}
