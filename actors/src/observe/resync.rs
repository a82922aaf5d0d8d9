//! Says when all is looked at again though nothing has changed: every interval, and when somebody asks.
//!
//! Changes never wait for it. It is there for what no event tells of: a fault of our own, and what others change
//! where nobody watches. Whoever keeps something in step with the world subscribes.
//!
//! Owns: the interval.
//! Reads: nothing.
//! Writes: the count of resyncs.
//! Rebuilt from: nothing; a restart begins the interval anew.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::task::{Task, report};

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// The interval is over.
    Due,
}

supervisor::message_names!(Msg { Due });

/// What it needs.
#[derive(Clone, Debug)]
pub struct Args {
    /// How long after the last resync the next one is.
    pub every: Duration,
    /// Counts the resyncs.
    pub resync: watch::Sender<u64>,
}

/// What it holds.
#[derive(Debug)]
pub struct State {
    args: Args,
    waiting: Task,
}

/// The actor.
#[derive(Debug)]
pub struct Resync;

impl Actor for Resync {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let waiting = wait(&myself, &args);
        Ok(State { args, waiting })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Due => state.resync(&myself),
        }
        Ok(())
    }
}

impl State {
    fn resync(&mut self, myself: &ActorRef<Msg>) {
        ask(&self.args.resync);
        self.waiting = wait(myself, &self.args);
    }
}

/// Asks for a resync now.
pub fn ask(resync: &watch::Sender<u64>) {
    resync.send_modify(|count| *count += 1);
}

/// One that somebody asked for in between puts the next one off.
fn wait(myself: &ActorRef<Msg>, args: &Args) -> Task {
    let (every, mut asked) = (args.every, args.resync.subscribe());
    report(myself, async move {
        while let Ok(Ok(())) = tokio::time::timeout(every, asked.changed()).await {}
        Msg::Due
    })
}
