//! Makes the Service that each Gateway owns, which carries the labels and annotations of its infrastructure.
//!
//! Owns: which changes have been made since the Services were last seen.
//! Reads: the newest translation; the Services that stand, as watched.
//! Writes: Services by server-side apply; a Gateway's end takes its own along by ownership.
//! Rebuilt from: comparing what is wanted with what stands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actors_core::objects::{Change, Plan};
use actors_core::snapshot::cluster::{GatewayService, Service};
use actors_core::snapshot::meta::{GATEWAY_GROUP, Kind};
use actors_core::translate::Translation;
use futures_util::StreamExt as _;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use proxy_config::name::ObjectName;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::observe::resource::Resource;
use crate::observe::stores::Stores;
use crate::observe::translator::Newest;
use crate::push::proxy_client::NotLeading;
use crate::retry::{Retry, chain};
use crate::task::{Task, on_change, report};
use crate::term::{Leadership, Term};

/// How long one request may take; the term must run for as long.
const DEADLINE: Duration = Duration::from_secs(2);
/// How many are made at once.
const AT_ONCE: usize = 4;
/// Who changes them, in managed fields.
const MANAGER: &str = "portreeve";

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// What is wanted, or what stands, may have changed.
    Changed,
    /// These changes were tried.
    Tried(Vec<Tried>),
}

supervisor::message_names!(Msg { Changed, Tried });

/// A change that was tried.
#[derive(Debug)]
pub struct Tried {
    name: ObjectName,
    seen: Seen,
    failed: Option<String>,
}

/// What a change was made from: the same is not tried twice unless it failed.
type Seen = (Change, Option<Arc<Service>>);

/// What it needs.
#[derive(Clone)]
pub struct Args {
    /// The API server.
    pub client: Client,
    /// What is known.
    pub stores: Stores,
    /// The newest translation.
    pub translation: watch::Receiver<Newest>,
    /// Whether this process leads.
    pub leadership: watch::Receiver<Option<Leadership>>,
}

/// What it holds.
pub struct State {
    args: Args,
    term: Term,
    changes: watch::Receiver<u64>,
    plan: Plan,
    done: BTreeMap<ObjectName, Seen>,
    retry: Retry,
    waiting: Vec<Task>,
}

/// The actor.
#[derive(Debug)]
pub struct GatewayObjects;

impl Actor for GatewayObjects {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let term = Term::current(&args.leadership).ok_or(NotLeading)?;
        let changes = args.stores.changes();
        myself.send_message(Msg::Changed)?;
        let (plan, done, retry) = (Plan::default(), BTreeMap::new(), Retry::new());
        Ok(State { args, term, changes, plan, done, retry, waiting: Vec::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Changed => state.compare(&myself),
            Msg::Tried(tried) => state.take(&myself, tried),
        }
        Ok(())
    }
}

impl State {
    /// Begins to change what differs, or waits until something may.
    fn compare(&mut self, myself: &ActorRef<Msg>) {
        self.changes.borrow_and_update();
        let translation = self.args.translation.borrow_and_update().clone();
        let todo = translation.map(|translation| self.todo(&translation)).unwrap_or_default();
        if todo.is_empty() {
            self.retry.reset();
            return self.wait(myself);
        }
        let (client, term) = (self.args.client.clone(), self.term.clone());
        self.waiting = vec![report(myself, async move {
            let tries =
                todo.into_iter().map(|(name, seen)| attempt(client.clone(), term.clone(), name, seen));
            Msg::Tried(futures_util::stream::iter(tries).buffer_unordered(AT_ONCE).collect().await)
        })];
    }

    fn todo(&mut self, translation: &Translation) -> Vec<(ObjectName, Seen)> {
        let held = self.args.stores.partial();
        let planned = self.plan.update(&translation.services, &held.services);
        self.done.retain(|name, _| planned.contains_key(name));
        let seen = |name: &ObjectName| held.services.get(name).cloned();
        let todo = planned.iter().map(|(name, change)| (name.clone(), (change.clone(), seen(name))));
        todo.filter(|(name, seen)| self.done.get(name) != Some(seen)).collect()
    }

    fn take(&mut self, myself: &ActorRef<Msg>, tried: Vec<Tried>) {
        let mut failed = false;
        for Tried { name, seen, failed: reason } in tried {
            match reason {
                None => drop(self.done.insert(name, seen)),
                Some(reason) => {
                    tracing::warn!(service = %name, reason, "a Gateway's Service can't be written: it is tried again");
                    failed = true;
                }
            }
        }
        if !failed {
            return self.compare(myself);
        }
        let delay = self.retry.delay();
        self.waiting = vec![report(myself, async move {
            tokio::time::sleep(delay).await;
            Msg::Changed
        })];
    }

    fn wait(&mut self, myself: &ActorRef<Msg>) {
        self.waiting = vec![
            on_change(myself, &self.changes, || Msg::Changed),
            on_change(myself, &self.args.translation, || Msg::Changed),
        ];
    }
}

async fn attempt(client: Client, term: Term, name: ObjectName, seen: Seen) -> Tried {
    let resource = Resource::of(Kind::Service).api_resource();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &name.namespace, &resource);
    let failed = if term.check(DEADLINE).is_err() {
        Some("the term is over, or ends too soon".to_owned())
    } else {
        match tokio::time::timeout(DEADLINE, change(&api, &name, &seen)).await {
            Ok(result) => result.err().as_ref().map(|error| chain(error)),
            Err(_) => Some(format!("no answer within {DEADLINE:?}")),
        }
    };
    Tried { name, seen, failed }
}

async fn change(api: &Api<DynamicObject>, name: &ObjectName, (change, standing): &Seen) -> kube::Result<()> {
    let result = match change {
        Change::Apply(service) => {
            let params = PatchParams::apply(MANAGER).force();
            api.patch(&name.name, &params, &Patch::Apply(body(name, service))).await.map(drop)
        }
        Change::Delete => {
            let uid = standing.as_ref().map(|service| service.meta.uid.to_string());
            let preconditions = Some(Preconditions { uid, resource_version: None });
            let params = DeleteParams { preconditions, ..DeleteParams::default() };
            api.delete(&name.name, &params).await.map(drop)
        }
    };
    match result {
        // It is gone, as it should be, or its Gateway's namespace is.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

/// A headless Service without endpoints of its own: it is there to be found.
fn body(name: &ObjectName, service: &GatewayService) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": &*name.name,
            "namespace": &*name.namespace,
            "labels": service.labels,
            "annotations": service.annotations,
            "ownerReferences": [{
                "apiVersion": format!("{GATEWAY_GROUP}/v1"),
                "kind": "Gateway",
                "name": &*service.gateway,
                "uid": &*service.owner,
            }],
        },
        "spec": { "clusterIP": "None" },
    })
}
