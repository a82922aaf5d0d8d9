//! Reads manifests from files instead of a cluster: `portreeve standalone`.
//!
//! Owns: what each file last held; which version of each object was last accepted.
//! Reads: files and folders of YAML, looked at twice a second.
//! Writes: every kind in the stores; what is wrong with the files.
//! Rebuilt from: the files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actors_core::snapshot::meta::{Kind, ObjectRef};
use futures_util::future::BoxFuture;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::convert::{convert, reference};
use super::stores::{Stores, Writer};
use crate::task::{Task, report};

pub mod manifest;

use manifest::{Document, Fault, Scan};

/// How often files are looked at: by their contents, since neither times nor notifications can be relied
/// on with mounts and with editors that replace files.
const LOOK: Duration = Duration::from_millis(500);

/// Says of an object what an API server would: the object with its defaults, or why it is refused, with
/// the field.
pub type Admit = Arc<dyn Fn(Value) -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// It is time to look at the files.
    Due,
    /// What looking gave.
    Read(Box<Memory>, Option<Reading>),
}

supervisor::message_names!(Msg { Due, Read });

/// What it needs.
#[derive(Clone)]
pub struct Args {
    /// Files, and folders whose files ending in `.yaml`, `.yml` or `.json` are read.
    pub paths: Vec<PathBuf>,
    /// What an API server would say of an object.
    pub admit: Admit,
    /// Where objects are written.
    pub stores: Stores,
    /// What is wrong with the files.
    pub faults: watch::Sender<Arc<Vec<Fault>>>,
}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Args").field("paths", &self.paths).finish_non_exhaustive()
    }
}

/// What it holds.
#[derive(Debug)]
pub struct State {
    args: Args,
    writers: BTreeMap<Kind, Writer>,
    /// `None` while the files are looked at.
    memory: Option<Box<Memory>>,
    waiting: Option<Task>,
}

/// What the files held when they were last read.
#[derive(Debug, Default)]
pub struct Memory {
    contents: Option<[u8; 32]>,
    documents: BTreeMap<PathBuf, Vec<Document>>,
    accepted: BTreeMap<ObjectRef, Accepted>,
}

/// An object as it was last accepted.
#[derive(Debug)]
struct Accepted {
    written: Value,
    generation: u64,
    object: Value,
}

/// What the files hold.
#[derive(Debug, Default)]
pub struct Reading {
    objects: BTreeMap<ObjectRef, Value>,
    faults: Vec<Fault>,
}

/// The actor.
#[derive(Debug)]
pub struct Files;

impl Actor for Files {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Proxy);
        let writers = kinds.map(|kind| (kind, args.stores.writer(kind))).collect();
        let mut state = State { args, writers, memory: Some(Box::default()), waiting: None };
        state.look(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Due => state.look(&myself),
            Msg::Read(memory, reading) => state.take(&myself, memory, reading),
        }
        Ok(())
    }
}

impl State {
    fn look(&mut self, myself: &ActorRef<Msg>) {
        let (args, mut memory) = (self.args.clone(), self.memory.take().unwrap_or_default());
        self.waiting = Some(report(myself, async move {
            let reading = memory.read(&args).await;
            Msg::Read(memory, reading)
        }));
    }

    fn take(&mut self, myself: &ActorRef<Msg>, memory: Box<Memory>, reading: Option<Reading>) {
        if let Some(reading) = reading {
            self.write(reading);
        }
        self.memory = Some(memory);
        self.waiting = Some(report(myself, async {
            tokio::time::sleep(LOOK).await;
            Msg::Due
        }));
    }

    fn write(&self, Reading { objects, mut faults }: Reading) {
        for (kind, writer) in &self.writers {
            let of_kind = objects.iter().filter(|(object, _)| object.kind == *kind);
            let list: Vec<_> = of_kind.map(|(_, object)| convert(&self.args.stores, *kind, object)).collect();
            faults.extend(list.iter().filter_map(|observed| {
                let malformed = observed.object.as_ref().err()?;
                Some(Fault::of_object(&observed.reference, malformed.message()))
            }));
            writer.replace(list);
        }
        for fault in &faults {
            tracing::warn!(%fault, "a manifest is left out");
        }
        tracing::info!(objects = objects.len(), faults = faults.len(), "read the files");
        self.args.faults.send_replace(Arc::new(faults));
    }
}

impl Memory {
    /// What the files hold; `None` where nothing has changed.
    async fn read(&mut self, args: &Args) -> Option<Reading> {
        let paths = args.paths.clone();
        let scan = tokio::task::spawn_blocking(move || Scan::new(&paths)).await.ok()?;
        let mut contents = Sha256::new();
        for (path, text) in &scan.texts {
            contents.update(path.as_os_str().as_encoded_bytes());
            contents.update([0]);
            contents.update(text.as_bytes());
            contents.update([0]);
        }
        scan.faults.iter().for_each(|fault| contents.update(fault.to_string()));
        let contents = contents.finalize().into();
        if self.contents.replace(contents) == Some(contents) {
            return None;
        }
        let mut reading = Reading { faults: scan.faults.clone(), ..Reading::default() };
        for (path, text) in &scan.texts {
            match manifest::parse(path, text) {
                Ok((documents, mut faults)) => {
                    reading.faults.append(&mut faults);
                    self.documents.insert(path.clone(), documents);
                }
                // As when it is being written: what it held before goes on.
                Err(fault) => reading.faults.push(fault),
            }
        }
        self.documents.retain(|path, _| scan.has(path));
        self.admit(args, &mut reading).await;
        Some(reading)
    }

    /// What is refused stays as it was last accepted.
    async fn admit(&mut self, args: &Args, reading: &mut Reading) {
        let mut before = std::mem::take(&mut self.accepted);
        for (path, documents) in &self.documents {
            for document in documents {
                let object = reference(document.kind, &document.object);
                if reading.objects.contains_key(&object) {
                    let reason = "stands in more than one place: the first one is taken".to_owned();
                    reading.faults.push(Fault::new(path, &object, reason));
                    continue;
                }
                let old = before.remove(&object);
                let accepted = match old {
                    Some(old) if old.written == document.object => Some(old),
                    old => match (args.admit)(document.object.clone()).await {
                        Ok(admitted) => Some(Accepted::new(document, admitted, old.as_ref())),
                        Err(reason) => {
                            reading.faults.push(Fault::new(path, &object, reason));
                            old
                        }
                    },
                };
                if let Some(accepted) = accepted {
                    reading.objects.insert(object.clone(), accepted.object.clone());
                    self.accepted.insert(object, accepted);
                }
            }
        }
    }
}

impl Accepted {
    /// An object as a cluster would hold it: its version is its content, its generation counts changes.
    fn new(document: &Document, admitted: Value, before: Option<&Self>) -> Self {
        let generation = before.map_or(1, |before| before.generation + 1);
        let mut object = admitted;
        let hash = Sha256::digest(object.to_string());
        let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let uid = reference(document.kind, &document.object).to_string();
        object["metadata"]["uid"] = uid.into();
        object["metadata"]["resourceVersion"] = hash.into();
        object["metadata"]["generation"] = generation.into();
        Self { written: document.object.clone(), generation, object }
    }
}

#[cfg(test)]
mod tests;
