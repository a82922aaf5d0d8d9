//! Reads the Secrets and ConfigMaps that something accepted names, and no others.
//!
//! Owns: which version of which one has been read.
//! Reads: which are wanted; their versions in the stores; whether this replica leads; the API server.
//! Writes: their content in the stores.
//! Rebuilt from: reading again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actors_core::observe::observe;
use actors_core::snapshot::cluster::{ConfigMapContent, SecretContent};
use actors_core::snapshot::meta::{Kind, ObjectRef};
use actors_core::snapshot::{Object, Snapshot};
use futures_util::StreamExt as _;
use imbl::OrdSet;
use imbl::ordset::DiffItem;
use kube::Client;
use kube::api::{Api, DynamicObject, GetParams};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::Gate;
use tokio::sync::watch;

use super::gather;
use super::resource::Resource;
use super::stores::{Content, ObjectVersion, Stores};
use crate::retry::{Retry, chain};
use crate::task::{Task, on_change, report};

/// How long one read may take; what names the Secret waits until a read has succeeded or was refused.
const DEADLINE: Duration = Duration::from_secs(2);
/// How many are read at once.
const AT_ONCE: usize = 8;
/// How many are read before what was read is used, so that silence holds up nobody for long.
const ROUND: usize = 32;

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// What is wanted, or what there is, may have changed.
    Changed,
    /// These were read.
    Read(Vec<Answer>),
    /// It is time to try again what could not be read.
    Again,
}

supervisor::message_names!(Msg { Changed, Read, Again });

/// What reading one gave.
#[derive(Debug)]
pub struct Answer {
    object: ObjectRef,
    /// The version that was asked for.
    version: ObjectVersion,
    content: Result<Content, Failure>,
}

/// Why one could not be read.
#[derive(Debug)]
enum Failure {
    /// The API server says no: it may not be read, or is not there.
    Refused(String),
    /// Nothing is known of what it holds: a broken connection, a server in trouble.
    Unknown(String),
    /// The same, and it took long: there was no answer in time.
    Silence(String),
}

/// What it needs.
#[derive(Clone)]
pub struct Args {
    /// The API server.
    pub client: Client,
    /// What is known.
    pub stores: Stores,
    /// The Secrets and ConfigMaps that are wanted.
    pub wanted: watch::Receiver<OrdSet<ObjectRef>>,
    /// Open where this replica leads: there what has changed is read at once.
    pub gate: watch::Receiver<Gate>,
}

/// What it holds.
pub struct State {
    args: Args,
    changes: watch::Receiver<u64>,
    read: BTreeMap<ObjectRef, ObjectVersion>,
    /// What was wanted when it last looked.
    wanted: OrdSet<ObjectRef>,
    /// What is wanted and may have to be read: what has changed, and not all that there is.
    doubtful: BTreeSet<ObjectRef>,
    /// The last one that was asked for.
    asked: Option<ObjectRef>,
    /// What could not be read, and waits to be tried again.
    failed: BTreeMap<ObjectRef, ObjectVersion>,
    retry: Retry,
    again: Option<Task>,
    waiting: Vec<Task>,
    reading: bool,
}

/// The actor.
#[derive(Debug)]
pub struct ContentReader;

impl Actor for ContentReader {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let changes = args.stores.unread_changes();
        let mut state = State {
            args,
            changes,
            read: BTreeMap::new(),
            wanted: OrdSet::new(),
            doubtful: BTreeSet::new(),
            asked: None,
            failed: BTreeMap::new(),
            retry: Retry::new(),
            again: None,
            waiting: Vec::new(),
            reading: false,
        };
        state.consider(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Changed => state.consider(&myself),
            Msg::Read(answers) => state.take(&myself, answers),
            Msg::Again => state.again(&myself),
        }
        Ok(())
    }
}

impl State {
    /// Begins to read what is wanted and not yet read, unless a read is under way.
    fn consider(&mut self, myself: &ActorRef<Msg>) {
        if self.reading {
            return;
        }
        self.changes.borrow_and_update();
        let wanted = self.args.wanted.borrow_and_update().clone();
        self.want(wanted);
        let missing = self.next();
        if missing.is_empty() {
            if self.failed.is_empty() {
                self.retry.reset();
            }
            self.waiting = vec![
                gather::on_change(myself, &self.changes, &self.args.gate, || Msg::Changed),
                on_change(myself, &self.args.wanted, || Msg::Changed),
            ];
            return;
        }
        self.reading = true;
        self.asked = missing.last().map(|(object, _)| object.clone());
        let client = self.args.client.clone();
        self.waiting = vec![report(myself, async move {
            let reads = missing.into_iter().map(|(object, version)| read(client.clone(), object, version));
            Msg::Read(futures_util::stream::iter(reads).buffer_unordered(AT_ONCE).collect().await)
        })];
    }

    /// Takes what is wanted: what is so no longer is not kept, what is so newly or has changed is looked at.
    fn want(&mut self, wanted: OrdSet<ObjectRef>) {
        let before = std::mem::replace(&mut self.wanted, wanted);
        for change in before.diff(&self.wanted) {
            match change {
                DiffItem::Add(object) => {
                    self.doubtful.insert(object.clone());
                }
                DiffItem::Remove(object) => {
                    self.doubtful.remove(object);
                    self.failed.remove(object);
                    if let Some(version) = self.read.remove(object) {
                        self.args.stores.put_content(object, &version, Content::unread(object.kind));
                    }
                }
            }
        }
        let changed = self.args.stores.take_unread().into_iter();
        self.doubtful.extend(changed.filter(|object| self.wanted.contains(object)));
    }

    /// The next ones to read. It goes on after the last one: those that always fail are not to keep the others
    /// from their turn.
    fn next(&mut self) -> Vec<(ObjectRef, ObjectVersion)> {
        let mut missing: Vec<_> = self.doubtful.iter().filter_map(|object| self.missing(object)).collect();
        self.doubtful = missing.iter().map(|(object, _)| object.clone()).collect();
        let done = missing.partition_point(|(object, _)| Some(object) <= self.asked.as_ref());
        missing.rotate_left(done);
        missing.truncate(ROUND);
        missing
    }

    /// The version of one that exists, has not been read, and is not to be left alone for now.
    fn missing(&self, object: &ObjectRef) -> Option<(ObjectRef, ObjectVersion)> {
        let version = self.args.stores.version(object)?;
        let known = self.read.get(object) == Some(&version) || self.failed.get(object) == Some(&version);
        (!known).then(|| (object.clone(), version))
    }

    fn take(&mut self, myself: &ActorRef<Msg>, answers: Vec<Answer>) {
        self.reading = false;
        let silence = answers.iter().any(|answer| matches!(answer.content, Err(Failure::Silence(_))));
        for Answer { object, version, content } in answers {
            match content {
                Ok(content) => {
                    if self.args.stores.put_content(&object, &version, content) {
                        self.read.insert(object, version);
                    }
                }
                Err(failure) => self.fail(object, version, failure),
            }
        }
        if silence {
            self.wait_for_none();
        }
        if !self.failed.is_empty() && self.again.is_none() {
            let delay = self.retry.delay();
            self.again = Some(report(myself, async move {
                tokio::time::sleep(delay).await;
                Msg::Again
            }));
        }
        self.consider(myself);
    }

    /// The API server is silent: those that have not been asked for yet are not waited for either.
    fn wait_for_none(&self) {
        let held = self.args.stores.partial();
        for object in self.args.wanted.borrow().iter() {
            let unread = is_read(&held, object) == Some(false);
            if let Some((object, version)) = self.missing(object).filter(|_| unread) {
                let reason = "the API server has not answered about others".to_owned();
                let content = Content::unavailable(object.kind, reason);
                self.args.stores.put_content(&object, &version, content);
            }
        }
    }

    /// Only a refusal says something of what is there, and not even that takes a certificate or a bundle out of
    /// use: if it is gone, the watch will say so. Of one that was never read nothing is known: what needs it
    /// stays as it is, and nothing else waits for it.
    fn fail(&mut self, object: ObjectRef, version: ObjectVersion, failure: Failure) {
        let (Failure::Refused(reason) | Failure::Unknown(reason) | Failure::Silence(reason)) = &failure;
        tracing::warn!(%object, reason, "what is wanted can't be read: it is tried again");
        let held = self.args.stores.partial();
        let known = match failure {
            Failure::Refused(_) if serves(&held, &object) => None,
            Failure::Refused(reason) => Some(Content::refused(object.kind, reason)),
            Failure::Unknown(reason) | Failure::Silence(reason) => {
                let never_read = is_read(&held, &object) == Some(false);
                never_read.then(|| Content::unavailable(object.kind, reason))
            }
        };
        match known {
            Some(content) => _ = self.args.stores.put_content(&object, &version, content),
            None => self.args.stores.answered(&object, &version),
        }
        self.failed.insert(object, version);
    }

    fn again(&mut self, myself: &ActorRef<Msg>) {
        self.again = None;
        self.doubtful.extend(std::mem::take(&mut self.failed).into_keys());
        self.consider(myself);
    }
}

/// Whether an object has been read, or its reading has been given up for now; `None` where it is not there.
fn is_read(held: &Snapshot, object: &ObjectRef) -> Option<bool> {
    Some(match object.kind {
        Kind::ConfigMap => held.config_maps.get(&object.name)?.content != ConfigMapContent::NotRead,
        _ => held.secrets.get(&object.name)?.content != SecretContent::NotRead,
    })
}

/// Whether what is held of an object can be used.
fn serves(held: &Snapshot, object: &ObjectRef) -> bool {
    let (secret, map) = (held.secrets.get(&object.name), held.config_maps.get(&object.name));
    match object.kind {
        Kind::ConfigMap => map.is_some_and(|map| matches!(map.content, ConfigMapContent::Authority(_))),
        _ => secret.is_some_and(|secret| matches!(secret.content, SecretContent::Tls { .. })),
    }
}

async fn read(client: Client, object: ObjectRef, version: ObjectVersion) -> Answer {
    let resource = Resource::of(object.kind).api_resource();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &object.name.namespace, &resource);
    // No older than what the watch has shown, which the API server knows without a read of its storage.
    let least = GetParams::at(&version.resource_version);
    let content = match tokio::time::timeout(DEADLINE, api.get_with(&object.name.name, &least)).await {
        Ok(Ok(found)) => content(object.kind, &found).map_err(Failure::Unknown),
        Ok(Err(error)) if is_refusal(&error) => Err(Failure::Refused(chain(&error))),
        Ok(Err(error)) => Err(Failure::Unknown(chain(&error))),
        Err(_) => Err(Failure::Silence(format!("no answer within {DEADLINE:?}"))),
    };
    Answer { object, version, content }
}

fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 403 | 404))
}

fn content(kind: Kind, found: &DynamicObject) -> Result<Content, String> {
    let mut raw = found.data.clone();
    raw["metadata"] = serde_json::to_value(&found.metadata).map_err(|error| error.to_string())?;
    // What is whole says its kind; of what is not, only the metadata is known.
    raw["kind"] = kind.as_str().into();
    match observe(kind, &raw) {
        Ok(Object::Secret(secret)) => Ok(Content::Secret(secret.content.clone())),
        Ok(Object::ConfigMap(map)) => Ok(Content::ConfigMap(map.content.clone())),
        Ok(other) => Err(format!("it is not a {kind} but a {}", other.kind())),
        // What is wrong with it is for the status of whoever names it.
        Err(malformed) => Ok(Content::wrong(kind, malformed.message())),
    }
}
