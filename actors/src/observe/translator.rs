//! Translates each snapshot, beside the runtime's threads.
//!
//! Owns: the translator's memory of what it has translated.
//! Reads: the newest snapshot.
//! Writes: the newest translation, and which Secrets and ConfigMaps are wanted.
//! Rebuilt from: the snapshot.

use std::sync::Arc;

use actors_core::snapshot::Snapshot;
use actors_core::snapshot::meta::ObjectRef;
use actors_core::translate::{Settings, Translation, Translator as Core};
use imbl::OrdSet;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::task::{Task, on_change};

/// The newest translation.
pub type Newest = Option<Arc<Translation>>;

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// There is a new snapshot.
    Changed,
}

supervisor::message_names!(Msg { Changed });

/// What it needs.
#[derive(Clone, Debug)]
pub struct Args {
    /// What the translation needs to know besides the cluster.
    pub settings: Settings,
    /// The newest snapshot.
    pub snapshot: watch::Receiver<Option<Arc<Snapshot>>>,
    /// The newest translation.
    pub translation: watch::Sender<Newest>,
    /// The Secrets and ConfigMaps that are to be read.
    pub wanted: watch::Sender<OrdSet<ObjectRef>>,
    /// What is counted.
    pub metrics: Metrics,
}

/// What it holds.
#[derive(Debug)]
pub struct State {
    args: Args,
    /// `None` only while it works.
    core: Option<Core>,
    waiting: Option<Task>,
}

/// The actor.
#[derive(Debug)]
pub struct Translator;

impl Actor for Translator {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let core = Some(Core::new(args.settings.clone()));
        myself.send_message(Msg::Changed)?;
        Ok(State { args, core, waiting: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Changed => state.translate(&myself).await,
        }
    }
}

impl State {
    async fn translate(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        let snapshot = self.args.snapshot.borrow_and_update().clone();
        if let Some(snapshot) = snapshot {
            let began = Instant::now();
            let mut core = self.core.take().unwrap_or_else(|| Core::new(self.args.settings.clone()));
            let span = tracing::info_span!("translate", generation = snapshot.generation);
            let work = move || {
                let translation = span.in_scope(|| core.update(&snapshot));
                (core, translation)
            };
            // A panic in there ends this actor; the one that follows begins without its memory.
            let (core, translation) = tokio::task::spawn_blocking(work).await?;
            self.core = Some(core);
            self.args.metrics.translated(began.elapsed(), translation.problems.len());
            self.publish(translation);
        }
        self.waiting = Some(on_change(myself, &self.args.snapshot, || Msg::Changed));
        Ok(())
    }

    /// While a Secret that is wanted is being read for the first time, what stands goes on: nobody need be
    /// told what is true for the time of one read. One that can't be read holds up what needs it alone.
    fn publish(&self, translation: Translation) {
        self.args.wanted.send_if_modified(|wanted| {
            let changed = *wanted != translation.wanted;
            wanted.clone_from(&translation.wanted);
            changed
        });
        if translation.unread.is_empty() {
            self.args.translation.send_replace(Some(Arc::new(translation)));
        } else {
            let unread = translation.unread.len();
            tracing::debug!(generation = translation.generation, unread, "waiting for Secrets to be read");
        }
    }
}
