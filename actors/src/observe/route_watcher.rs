//! Joins what is known of the cluster into one snapshot.
//!
//! Owns: the count of snapshots, kept beside the tree.
//! Reads: the stores; whether this replica leads.
//! Writes: the newest snapshot.
//! Rebuilt from: the stores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actors_core::snapshot::Snapshot;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::Gate;
use tokio::sync::watch;

use super::gather;
use super::stores::Stores;
use crate::metrics::Metrics;
use crate::task::{Task, on_change};

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// Something in the stores has changed, or all is to be looked at again.
    Changed,
}

supervisor::message_names!(Msg { Changed });

/// What it needs.
#[derive(Clone, Debug)]
pub struct Args {
    /// What is known.
    pub stores: Stores,
    /// Counts the snapshots of the process, so that no restart goes back.
    pub generation: Arc<AtomicU64>,
    /// The newest snapshot; `None` until every kind has been listed.
    pub snapshot: watch::Sender<Option<Arc<Snapshot>>>,
    /// Counts the resyncs.
    pub resync: watch::Receiver<u64>,
    /// Open where this replica leads: there changes do not gather.
    pub gate: watch::Receiver<Gate>,
    /// What is counted.
    pub metrics: Metrics,
}

/// What it holds.
#[derive(Debug)]
pub struct State {
    args: Args,
    changes: watch::Receiver<u64>,
    waiting: Vec<Task>,
}

/// The join.
#[derive(Debug)]
pub struct RouteWatcher;

impl Actor for RouteWatcher {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let changes = args.stores.changes();
        let mut state = State { args, changes, waiting: Vec::new() };
        state.publish(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Changed => state.publish(&myself),
        }
        Ok(())
    }
}

impl State {
    fn publish(&mut self, myself: &ActorRef<Msg>) {
        self.changes.borrow_and_update();
        self.args.resync.borrow_and_update();
        // Counted before it is taken: who reads the count, and asks for a later one, gets none that was taken before.
        let generation = self.args.generation.fetch_add(1, Ordering::AcqRel) + 1;
        if let Some(mut snapshot) = self.args.stores.snapshot() {
            snapshot.generation = generation;
            self.args.metrics.snapshot(generation);
            tracing::debug!(generation, "a new snapshot");
            self.args.snapshot.send_replace(Some(Arc::new(snapshot)));
        }
        self.waiting = vec![
            gather::on_change(myself, &self.changes, &self.args.gate, || Msg::Changed),
            on_change(myself, &self.args.resync, || Msg::Changed),
        ];
    }
}
