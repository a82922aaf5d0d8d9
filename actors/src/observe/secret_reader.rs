//! Reads the Secrets that something accepted names, and no others.
//!
//! Owns: which version of which Secret has been read.
//! Reads: which Secrets are wanted; their versions in the stores; the API server.
//! Writes: the content of Secrets in the stores.
//! Rebuilt from: reading again.

use std::collections::BTreeMap;
use std::time::Duration;

use actors_core::observe::observe;
use actors_core::snapshot::Object;
use actors_core::snapshot::cluster::SecretContent;
use actors_core::snapshot::meta::{Kind, ObjectRef};
use futures_util::StreamExt as _;
use imbl::OrdSet;
use kube::Client;
use kube::api::{Api, DynamicObject};
use proxy_config::name::ObjectName;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use super::resource::Resource;
use super::stores::{ObjectVersion, Stores};
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
    /// Which Secrets are wanted, or which there are, may have changed.
    Changed,
    /// These were read.
    Read(Vec<Answer>),
    /// It is time to try again what could not be read.
    Again,
}

supervisor::message_names!(Msg { Changed, Read, Again });

/// What reading a Secret gave.
#[derive(Debug)]
pub struct Answer {
    name: ObjectName,
    /// The version that was asked for.
    version: ObjectVersion,
    content: Result<SecretContent, Failure>,
}

/// Why a Secret could not be read.
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
    /// The Secrets that are wanted.
    pub wanted: watch::Receiver<OrdSet<ObjectName>>,
}

/// What it holds.
pub struct State {
    args: Args,
    changes: watch::Receiver<u64>,
    read: BTreeMap<ObjectName, ObjectVersion>,
    /// The last one that was asked for.
    asked: Option<ObjectName>,
    /// What could not be read, and waits to be tried again.
    failed: BTreeMap<ObjectName, ObjectVersion>,
    retry: Retry,
    again: Option<Task>,
    waiting: Vec<Task>,
    reading: bool,
}

/// The actor.
#[derive(Debug)]
pub struct SecretReader;

impl Actor for SecretReader {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let changes = args.stores.changes();
        let mut state = State {
            args,
            changes,
            read: BTreeMap::new(),
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
        self.forget(&wanted);
        // It goes on after the last one: those that always fail are not to keep the others from their turn.
        let is_next = |name: &&ObjectName| self.asked.as_ref().is_none_or(|asked| *name > asked);
        let order = wanted.iter().filter(is_next).chain(wanted.iter().filter(|name| !is_next(name)));
        let missing: Vec<_> = order.filter_map(|name| self.missing(name)).take(ROUND).collect();
        if missing.is_empty() {
            if self.failed.is_empty() {
                self.retry.reset();
            }
            self.waiting = vec![
                on_change(myself, &self.changes, || Msg::Changed),
                on_change(myself, &self.args.wanted, || Msg::Changed),
            ];
            return;
        }
        self.reading = true;
        self.asked = missing.last().map(|(name, _)| name.clone());
        let client = self.args.client.clone();
        self.waiting = vec![report(myself, async move {
            let reads = missing.into_iter().map(|(name, version)| read(client.clone(), name, version));
            Msg::Read(futures_util::stream::iter(reads).buffer_unordered(AT_ONCE).collect().await)
        })];
    }

    /// What is wanted no longer is not kept.
    fn forget(&mut self, wanted: &OrdSet<ObjectName>) {
        self.failed.retain(|name, _| wanted.contains(name));
        let stores = &self.args.stores;
        self.read.retain(|name, version| {
            let keep = wanted.contains(name);
            if !keep {
                stores.put_secret(name, version, SecretContent::NotRead);
            }
            keep
        });
    }

    /// The version of a Secret that exists, has not been read, and is not to be left alone for now.
    fn missing(&self, name: &ObjectName) -> Option<(ObjectName, ObjectVersion)> {
        let version = self.args.stores.version(&ObjectRef::new(Kind::Secret, name.clone()))?;
        let known = self.read.get(name) == Some(&version) || self.failed.get(name) == Some(&version);
        (!known).then(|| (name.clone(), version))
    }

    fn take(&mut self, myself: &ActorRef<Msg>, answers: Vec<Answer>) {
        self.reading = false;
        let silence = answers.iter().any(|answer| matches!(answer.content, Err(Failure::Silence(_))));
        for Answer { name, version, content } in answers {
            match content {
                Ok(content) => {
                    if self.args.stores.put_secret(&name, &version, content) {
                        self.read.insert(name, version);
                    }
                }
                Err(failure) => self.fail(name, version, failure),
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
        for name in self.args.wanted.borrow().iter() {
            let unread =
                held.secrets.get(name).is_some_and(|secret| secret.content == SecretContent::NotRead);
            if let Some((name, version)) = self.missing(name).filter(|_| unread) {
                let reason = "the API server has not answered about others".to_owned();
                self.args.stores.put_secret(&name, &version, SecretContent::Unavailable(reason));
            }
        }
    }

    /// Only a refusal says something of a Secret, and not even that takes a certificate out of use:
    /// if its Secret is gone, the watch will say so. Of one that was never read nothing is known: what
    /// needs it stays as it is, and nothing else waits for it.
    fn fail(&mut self, name: ObjectName, version: ObjectVersion, failure: Failure) {
        let (Failure::Refused(reason) | Failure::Unknown(reason) | Failure::Silence(reason)) = &failure;
        tracing::warn!(secret = %name, reason, "a Secret can't be read: it is tried again");
        let held = self.args.stores.partial();
        let before = held.secrets.get(&name).map(|secret| &secret.content);
        let known = match failure {
            Failure::Refused(_) if matches!(before, Some(SecretContent::Tls { .. })) => None,
            Failure::Refused(reason) => {
                Some(SecretContent::Other(format!("a Secret that can't be read ({reason})")))
            }
            Failure::Unknown(reason) | Failure::Silence(reason) => {
                let never_read = matches!(before, Some(SecretContent::NotRead));
                never_read.then_some(SecretContent::Unavailable(reason))
            }
        };
        if let Some(content) = known {
            self.args.stores.put_secret(&name, &version, content);
        }
        self.failed.insert(name, version);
    }

    fn again(&mut self, myself: &ActorRef<Msg>) {
        self.again = None;
        self.failed.clear();
        self.consider(myself);
    }
}

async fn read(client: Client, name: ObjectName, version: ObjectVersion) -> Answer {
    let resource = Resource::of(Kind::Secret).api_resource();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &name.namespace, &resource);
    let content = match tokio::time::timeout(DEADLINE, api.get(&name.name)).await {
        Ok(Ok(secret)) => content(&secret).map_err(Failure::Unknown),
        Ok(Err(error)) if is_refusal(&error) => Err(Failure::Refused(chain(&error))),
        Ok(Err(error)) => Err(Failure::Unknown(chain(&error))),
        Err(_) => Err(Failure::Silence(format!("no answer within {DEADLINE:?}"))),
    };
    Answer { name, version, content }
}

fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 403 | 404))
}

fn content(secret: &DynamicObject) -> Result<SecretContent, String> {
    let mut raw = secret.data.clone();
    raw["metadata"] = serde_json::to_value(&secret.metadata).map_err(|error| error.to_string())?;
    match observe(Kind::Secret, &raw) {
        Ok(Object::Secret(secret)) => Ok(secret.content.clone()),
        Ok(_) => Err("it is not a Secret".to_owned()),
        // What is wrong with it is for the status of whoever names it.
        Err(malformed) => Ok(SecretContent::Other(malformed.message())),
    }
}
