//! Tells of trouble, and of its end, by Events of the objects concerned.
//!
//! One for each change of a condition's reason, ten a second at most; the same again within six minutes counts up
//! the Event that there is. They are for people: what can't be told is dropped, the status says it all the same.
//! It needs `create` and `patch` of `events` in the group `events.k8s.io`, in all namespaces.
//!
//! Owns: what waits to be told.
//! Reads: whether this process leads.
//! Writes: Events.
//! Rebuilt from: nothing; what waited is lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actors_core::snapshot::meta::ObjectRef;
use actors_core::status::news::News;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::push::proxy_client::NotLeading;
use crate::retry::chain;
use crate::task::{Task, report};
use crate::term::{Leadership, Term};

/// The least time between two Events.
const APART: Duration = Duration::from_millis(100);
/// How long writing one may take; the term must run for as long.
const DEADLINE: Duration = Duration::from_secs(2);
/// How many may wait: beyond that the oldest are dropped.
const WAITING: usize = 256;
/// How many bytes of a note an Event takes.
const NOTE: usize = 1024;
/// How many bytes of an object's name are left room for in the name of its Event.
const NAME: usize = 200;

/// What is told of one object.
#[derive(Debug)]
pub struct Told {
    /// The object.
    pub object: ObjectRef,
    /// Its uid.
    pub uid: Arc<str>,
    /// What there is to tell.
    pub news: News,
}

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// There is something to tell.
    Tell(Vec<Told>),
    /// An Event was written, or not; the next may go.
    Done(&'static str),
}

supervisor::message_names!(Msg { Tell, Done });

/// What it needs.
#[derive(Clone)]
pub struct Args {
    /// The API server.
    pub client: Client,
    /// The controller's name, as Events say who reports.
    pub controller_name: Arc<str>,
    /// How this process is called.
    pub name: Arc<str>,
    /// Whether this process leads.
    pub leadership: watch::Receiver<Option<Leadership>>,
    /// What is counted.
    pub metrics: Metrics,
}

/// What it holds.
pub struct State {
    term: Term,
    recorder: Recorder,
    metrics: Metrics,
    waiting: VecDeque<Told>,
    telling: Option<Task>,
}

/// The actor.
#[derive(Debug)]
pub struct EventWriter;

impl Actor for EventWriter {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let term = Term::current(&args.leadership).ok_or(NotLeading)?;
        let reporter =
            Reporter { controller: args.controller_name.to_string(), instance: Some(args.name.to_string()) };
        let recorder = Recorder::new(args.client, reporter);
        Ok(State { term, recorder, metrics: args.metrics, waiting: VecDeque::new(), telling: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Tell(told) => state.queue(&myself, told),
            Msg::Done(outcome) => state.done(&myself, outcome),
        }
        Ok(())
    }
}

impl State {
    fn queue(&mut self, myself: &ActorRef<Msg>, told: Vec<Told>) {
        self.waiting.extend(told);
        while self.waiting.len() > WAITING {
            self.waiting.pop_front();
            self.metrics.event_written("dropped");
        }
        self.next(myself);
    }

    fn done(&mut self, myself: &ActorRef<Msg>, outcome: &'static str) {
        self.telling = None;
        self.metrics.event_written(outcome);
        self.next(myself);
    }

    fn next(&mut self, myself: &ActorRef<Msg>) {
        if self.telling.is_some() {
            return;
        }
        let Some(told) = self.waiting.pop_front() else { return };
        let (recorder, term) = (self.recorder.clone(), self.term.clone());
        self.telling = Some(report(myself, async move {
            let outcome = tell(&recorder, &term, told).await;
            tokio::time::sleep(APART).await;
            Msg::Done(outcome)
        }));
    }
}

/// Writes one Event; how that ended, as metrics name it.
async fn tell(recorder: &Recorder, term: &Term, told: Told) -> &'static str {
    if term.check(DEADLINE).is_err() {
        return "expired";
    }
    let (event, reference) = event(&told);
    match tokio::time::timeout(DEADLINE, recorder.publish(&event, &reference)).await {
        Ok(Ok(())) => "written",
        Ok(Err(error)) => {
            tracing::warn!(object = %told.object, error = chain(&error), "an Event can't be written: it is dropped");
            "failed"
        }
        Err(_) => "failed",
    }
}

fn event(Told { object, uid, news }: &Told) -> (Event, ObjectReference) {
    let group = object.kind.group();
    let api_version = [group, object.kind.version()].into_iter().filter(|part| !part.is_empty());
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let reference = ObjectReference {
        api_version: Some(api_version.collect::<Vec<_>>().join("/")),
        kind: some(object.kind.as_str()),
        // The Event is named after it, and a name has a longest.
        name: some(&object.name.name[..object.name.name.floor_char_boundary(NAME)]),
        namespace: some(&object.name.namespace),
        uid: some(uid),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: if news.trouble { EventType::Warning } else { EventType::Normal },
        reason: news.reason.clone(),
        note: some(&news.note[..news.note.floor_char_boundary(NOTE)]),
        action: "Translate".to_owned(),
        secondary: None,
    };
    (event, reference)
}
