//! Watches one kind of object.
//!
//! Owns: the list and the watch of the kind.
//! Reads: the API server; the definitions in the stores, to wake up when a missing kind is installed.
//! Writes: its kind in the stores.
//! Rebuilt from: a list.

use std::pin::pin;
use std::time::Duration;

use actors_core::snapshot::meta::Kind;
use futures_util::StreamExt as _;
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use proxy_config::name::ObjectName;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use super::convert::{convert, reference};
use super::resource::Resource;
use super::stores::{Progress, Stores, Writer};
use crate::metrics::Metrics;
use crate::retry::Retry;
use crate::task::{Task, report};

/// A list that takes longer is begun again.
const LIST_DEADLINE: Duration = Duration::from_secs(60);
/// How often a missing kind is asked for, though its definition has not been seen to appear.
const RECHECK: Duration = Duration::from_secs(30);

/// What a watcher can be told.
#[derive(Debug)]
pub enum Msg {
    /// List again, whatever is known.
    Relist,
    /// The watch came to an end, which it never should.
    Ended,
}

supervisor::message_names!(Msg { Relist, Ended });

/// What a watcher needs.
#[derive(Clone)]
pub struct Args {
    /// The API server; answers begin within a bounded time.
    pub client: Client,
    /// What is watched.
    pub resource: Resource,
    /// Where it is written.
    pub stores: Stores,
    /// What is counted.
    pub metrics: Metrics,
}

/// What a watcher holds.
pub struct State {
    args: Args,
    _following: Task,
}

/// The watcher of one kind.
#[derive(Debug)]
pub struct Watch;

#[derive(Debug, Error)]
#[error("the watch of {0} ended")]
struct Ended(&'static str);

impl Actor for Watch {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let following = follow(&myself, &args);
        Ok(State { args, _following: following })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Relist => state._following = follow(&myself, &state.args),
            Msg::Ended => return Err(Ended(state.args.resource.plural()).into()),
        }
        Ok(())
    }
}

/// Begins with a list, in a task of its own; it takes the right to write from the one before.
fn follow(myself: &ActorRef<Msg>, args: &Args) -> Task {
    let args = args.clone();
    let follower = Follower {
        writer: args.stores.writer(args.resource.kind),
        resource: args.resource,
        stores: args.stores,
        client: args.client,
        metrics: args.metrics,
    };
    report(myself, async move {
        if follower.resource.metadata_only() {
            follower.run(follower.resource.metadata(&follower.client)).await;
        } else {
            follower.run(follower.resource.objects(&follower.client)).await;
        }
        Msg::Ended
    })
}

/// What is known as an object of a kind, whole or its metadata.
trait Raw: kube::Resource<DynamicType = kube::api::ApiResource> + Clone + DeserializeOwned {
    /// The object as JSON.
    fn into_raw(self) -> Value;
}

impl Raw for DynamicObject {
    fn into_raw(mut self) -> Value {
        self.metadata.managed_fields = None;
        let metadata = serde_json::to_value(&self.metadata).unwrap_or(Value::Null);
        if !self.data.is_object() {
            self.data = Value::Object(serde_json::Map::new());
        }
        self.data["metadata"] = metadata;
        self.data
    }
}

impl Raw for PartialObjectMeta<DynamicObject> {
    fn into_raw(mut self) -> Value {
        self.metadata.managed_fields = None;
        serde_json::json!({ "metadata": self.metadata })
    }
}

/// Why one pass over list and watch is over.
enum Over {
    /// The kind is not served.
    Missing,
    /// Something else: begin again.
    Failed,
}

struct Follower {
    resource: Resource,
    writer: Writer,
    stores: Stores,
    client: Client,
    metrics: Metrics,
}

impl Follower {
    async fn run<K: Raw + std::fmt::Debug + Send + 'static>(&self, api: Api<K>) {
        let mut retry = Retry::new();
        loop {
            match self.pass(api.clone(), &mut retry).await {
                Over::Missing if self.may_be_absent().await => {
                    tracing::info!(kind = %self.resource.kind, "the kind is not installed: waiting for it");
                    self.writer.absent();
                    self.until_present(&mut retry).await;
                }
                Over::Missing | Over::Failed => retry.wait().await,
            }
        }
    }

    /// One list and what is watched after it.
    async fn pass<K: Raw + std::fmt::Debug + Send + 'static>(&self, api: Api<K>, retry: &mut Retry) -> Over {
        let mut events = pin!(watcher(api, self.resource.watch_config()));
        let mut list = None;
        loop {
            let next = if list.is_some() {
                let Ok(next) = tokio::time::timeout(LIST_DEADLINE, events.next()).await else {
                    tracing::warn!(kind = %self.resource.kind, "the list takes too long: it is begun again");
                    return Over::Failed;
                };
                next
            } else {
                events.next().await
            };
            match next {
                Some(Ok(Event::Init)) => list = Some(Vec::new()),
                Some(Ok(Event::InitApply(object))) => {
                    if self.resource.takes(&object.name_any()) {
                        list.get_or_insert_default().push(self.convert(object));
                    }
                }
                Some(Ok(Event::InitDone)) => {
                    self.writer.replace(list.take().unwrap_or_default());
                    retry.reset();
                }
                Some(Ok(event)) => {
                    self.apply(event);
                    retry.reset();
                }
                Some(Err(error)) if self.is_missing(&error) => return Over::Missing,
                Some(Err(error)) => self.failed(&error, retry).await,
                None => return Over::Failed,
            }
        }
    }

    fn convert<K: Raw>(&self, object: K) -> super::stores::Observed {
        convert(&self.stores, self.resource.kind, &object.into_raw())
    }

    fn apply<K: Raw>(&self, event: Event<K>) {
        match event {
            Event::Apply(object) if self.resource.takes(&object.name_any()) => {
                self.writer.put(self.convert(object));
            }
            Event::Delete(object) => {
                self.writer.remove(&reference(self.resource.kind, &object.into_raw()));
            }
            _ => {}
        }
    }

    async fn failed(&self, error: &watcher::Error, retry: &mut Retry) {
        self.metrics.watch_failed(self.resource.plural());
        let cause = crate::retry::chain(error);
        tracing::warn!(kind = %self.resource.kind, cause, "the watch failed: it is taken up again");
        retry.wait().await;
    }

    fn is_missing(&self, error: &watcher::Error) -> bool {
        let status = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status,
            _ => return false,
        };
        self.resource.definition().is_some() && status.code == 404
    }

    /// An API server that is starting may answer 404 for what is installed: what has been seen is given
    /// up only once its definition is known to be gone.
    async fn may_be_absent(&self) -> bool {
        if self.stores.progress().get(&self.resource.kind) != Some(&Progress::Synced) {
            return true;
        }
        let Some(definition) = self.resource.definition() else { return false };
        let definitions = Resource::of(Kind::CustomResourceDefinition).metadata(&self.client);
        matches!(definitions.get_metadata_opt(&definition).await, Ok(None))
    }

    /// Waits until the kind's definition appears, or for the next time to ask.
    async fn until_present(&self, retry: &mut Retry) {
        let name = ObjectName::new("", self.resource.definition().unwrap_or_default());
        let mut changes = self.stores.changes();
        changes.borrow_and_update();
        if self.stores.partial().crds.contains_key(&name) {
            // Defined, but not served yet.
            return retry.wait().await;
        }
        retry.reset();
        let appears = async {
            while !self.stores.partial().crds.contains_key(&name) {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        // Either way the kind is asked for again.
        let _ = tokio::time::timeout(RECHECK, appears).await;
    }
}
