//! Owns: what is known of the cluster, beside the tree: no restart of an actor loses it.
//! Called by the watchers, which write one kind each, and by the actors that join and translate.
//! Refuses to know: where objects come from (an API server, or files) and what follows from them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use actors_core::observe::Malformed;
use actors_core::snapshot::cluster::{ConfigMap, ConfigMapContent, Secret, SecretContent};
use actors_core::snapshot::meta::{Kind, ObjectRef};
use actors_core::snapshot::{Object, Snapshot};
use proxy_config::name::ObjectName;
use tokio::sync::watch;

mod content;

pub use content::Content;

/// What a watcher has seen of one object.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Which object.
    pub reference: ObjectRef,
    /// Which version of it.
    pub version: ObjectVersion,
    /// Which generation of its spec; 0 for kinds without one.
    pub generation: i64,
    /// Its status as JSON, of the kinds whose status we write.
    pub status: Option<Arc<str>>,
    /// What is used of it, or why it can't be read.
    pub object: Result<Object, Malformed>,
}

/// A version of an object: another uid under the same name is another object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectVersion {
    /// The uid.
    pub uid: Arc<str>,
    /// The resourceVersion.
    pub resource_version: Arc<str>,
}

/// How far a kind is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Not listed yet: nothing may be published.
    #[default]
    Waiting,
    /// Its definition is not installed: there is none of it.
    Absent,
    /// Listed, and watched since.
    Synced,
}

/// What is known of the cluster. Clones share it.
#[derive(Clone, Debug)]
pub struct Stores {
    held: Arc<Mutex<Held>>,
    changes: watch::Sender<u64>,
    statuses: watch::Sender<u64>,
    unread: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Held {
    snapshot: Snapshot,
    kinds: BTreeMap<Kind, KindState>,
    versions: HashMap<ObjectRef, Known>,
    /// Objects whose status has changed since the status writer last asked.
    touched: Noted,
    /// Secrets and ConfigMaps whose version has changed since their reader last asked.
    unread: Noted,
    /// Of those that were asked for, the version that the API server was last asked for, and gave or did not.
    answered: HashMap<ObjectRef, ObjectVersion>,
}

/// Objects that somebody is to look at.
#[derive(Debug, Default)]
struct Noted {
    objects: BTreeSet<ObjectRef>,
    /// How often one was noted: whoever looks at them is told when that grows.
    count: u64,
}

impl Noted {
    fn note(&mut self, object: ObjectRef) {
        self.objects.insert(object);
        self.count += 1;
    }
}

#[derive(Debug, Default)]
struct KindState {
    progress: Progress,
    /// Counts the writers: those before the newest are refused.
    writers: u64,
}

#[derive(Clone, Debug)]
struct Known {
    version: ObjectVersion,
    generation: i64,
    status: Option<Arc<str>>,
}

impl Stores {
    /// Nothing is known yet of these kinds; other kinds are taken to be absent.
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let kinds = kinds.into_iter().map(|kind| (kind, KindState::default())).collect();
        let held = Held { kinds, ..Held::default() };
        Self {
            held: Arc::new(Mutex::new(held)),
            changes: watch::Sender::new(0),
            statuses: watch::Sender::new(0),
            unread: watch::Sender::new(0),
        }
    }

    /// The right to write a kind; whoever had it before is refused from now on.
    pub fn writer(&self, kind: Kind) -> Writer {
        let mut held = self.lock();
        let state = held.kinds.entry(kind).or_default();
        state.writers += 1;
        Writer { kind, number: state.writers, stores: self.clone() }
    }

    /// Counts changes of anything that is used.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Counts changes of statuses.
    pub fn status_changes(&self) -> watch::Receiver<u64> {
        self.statuses.subscribe()
    }

    /// Counts changes of the versions of Secrets and ConfigMaps, of which only metadata is watched.
    pub fn unread_changes(&self) -> watch::Receiver<u64> {
        self.unread.subscribe()
    }

    /// All that is known; `None` until every present kind has been listed.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let held = self.lock();
        let ready = held.kinds.values().all(|state| state.progress != Progress::Waiting);
        ready.then(|| held.snapshot.clone())
    }

    /// What is known so far, listed or not.
    pub fn partial(&self) -> Snapshot {
        self.lock().snapshot.clone()
    }

    /// How far each kind is known.
    pub fn progress(&self) -> BTreeMap<Kind, Progress> {
        self.lock().kinds.iter().map(|(kind, state)| (*kind, state.progress)).collect()
    }

    /// The version that is held of an object.
    pub fn version(&self, reference: &ObjectRef) -> Option<ObjectVersion> {
        self.lock().versions.get(reference).map(|known| known.version.clone())
    }

    /// Those of these objects that are held in another version by now, or no more.
    pub fn outdated<'a>(
        &self,
        seen: impl Iterator<Item = (&'a ObjectRef, &'a ObjectVersion)>,
    ) -> Vec<&'a ObjectRef> {
        let held = self.lock();
        let is_held = |object: &ObjectRef, version: &ObjectVersion| {
            held.versions.get(object).is_some_and(|known| known.version == *version)
        };
        seen.filter(|(object, version)| !is_held(object, version)).map(|(object, _)| object).collect()
    }

    /// The versions that are held of a kind.
    pub fn versions(&self, kind: Kind) -> BTreeMap<ObjectName, ObjectVersion> {
        let held = self.lock();
        let of_kind = held.versions.iter().filter(|(reference, _)| reference.kind == kind);
        of_kind.map(|(reference, known)| (reference.name.clone(), known.version.clone())).collect()
    }

    /// The version, the generation and the status that are held of an object.
    pub fn status(&self, reference: &ObjectRef) -> Option<(ObjectVersion, i64, Option<Arc<str>>)> {
        let held = self.lock();
        let known = held.versions.get(reference)?;
        Some((known.version.clone(), known.generation, known.status.clone()))
    }

    /// The objects whose status has changed since this was last asked.
    pub fn take_touched(&self) -> BTreeSet<ObjectRef> {
        std::mem::take(&mut self.lock().touched.objects)
    }

    /// The Secrets and ConfigMaps whose version has changed since this was last asked.
    pub fn take_unread(&self) -> BTreeSet<ObjectRef> {
        std::mem::take(&mut self.lock().unread.objects)
    }

    /// Notes that one was asked for and what is held of it stays.
    pub fn answered(&self, reference: &ObjectRef, version: &ObjectVersion) {
        let mut held = self.lock();
        if held.versions.get(reference).is_some_and(|known| known.version == *version) {
            held.answered.insert(reference.clone(), version.clone());
        }
    }

    /// One of these objects that is there in a version whose reading has not ended.
    pub fn unanswered<'a>(&self, mut objects: impl Iterator<Item = &'a ObjectRef>) -> Option<&'a ObjectRef> {
        let held = self.lock();
        objects.find(|object| {
            let known = held.versions.get(*object);
            known.is_some_and(|known| held.answered.get(*object) != Some(&known.version))
        })
    }

    /// Whether exactly this version was found malformed: it is not read again.
    pub fn is_quarantined(&self, reference: &ObjectRef, version: &ObjectVersion) -> Option<Arc<Malformed>> {
        let held = self.lock();
        let malformed = held.snapshot.malformed.get(reference)?;
        let same = held.versions.get(reference).is_some_and(|known| known.version == *version);
        same.then(|| malformed.clone())
    }

    /// Puts what was read of a Secret or ConfigMap, if it is still that version; whether it was.
    pub fn put_content(&self, reference: &ObjectRef, version: &ObjectVersion, content: Content) -> bool {
        let mut held = self.lock();
        if held.versions.get(reference).is_none_or(|known| known.version != *version) {
            return false;
        }
        if content.is_unread() {
            held.answered.remove(reference);
        } else {
            held.answered.insert(reference.clone(), version.clone());
        }
        let (secrets, maps) = (&held.snapshot.secrets, &held.snapshot.config_maps);
        let object = match content {
            Content::Secret(content) => secrets
                .get(&reference.name)
                .map(|secret| Object::Secret(Arc::new(Secret { meta: secret.meta.clone(), content }))),
            Content::ConfigMap(content) => maps
                .get(&reference.name)
                .map(|map| Object::ConfigMap(Arc::new(ConfigMap { meta: map.meta.clone(), content }))),
        };
        let Some(object) = object else { return false };
        let changed = held.snapshot.put(Ok(object));
        drop(held);
        self.tell(changed);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Every change is complete before a panic could come: what a panicking holder left is whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, changed: bool) {
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
    }
}

/// The right to write one kind.
#[derive(Debug)]
pub struct Writer {
    kind: Kind,
    number: u64,
    stores: Stores,
}

impl Writer {
    /// Puts one object.
    pub fn put(&self, observed: Observed) {
        self.change(|held| held.put(observed));
    }

    /// Removes one object.
    pub fn remove(&self, reference: &ObjectRef) {
        self.change(|held| held.remove(reference));
    }

    /// Puts a whole list at once: what is not in it is gone.
    pub fn replace(&self, list: Vec<Observed>) {
        let kind = self.kind;
        self.change(|held| {
            let listed: BTreeSet<_> = list.iter().map(|observed| observed.reference.clone()).collect();
            let gone = held.versions.keys().filter(|known| known.kind == kind && !listed.contains(known));
            let mut changed = false;
            for reference in gone.cloned().collect::<Vec<_>>() {
                changed |= held.remove(&reference);
            }
            for observed in list {
                changed |= held.put(observed);
            }
            held.arrive(kind, Progress::Synced) || changed
        });
    }

    /// There is none: the kind's definition is not installed.
    pub fn absent(&self) {
        let kind = self.kind;
        self.change(|held| {
            let known = held.versions.keys().filter(|known| known.kind == kind).cloned();
            for reference in known.collect::<Vec<_>>() {
                held.remove(&reference);
            }
            held.arrive(kind, Progress::Absent)
        });
    }

    fn change(&self, change: impl FnOnce(&mut Held) -> bool) {
        let mut held = self.stores.lock();
        if held.kinds.get(&self.kind).is_none_or(|state| state.writers != self.number) {
            return;
        }
        let (statuses, unread) = (held.touched.count, held.unread.count);
        let changed = change(&mut held);
        let (touched, unread) = (held.touched.count != statuses, held.unread.count != unread);
        drop(held);
        self.stores.tell(changed);
        if touched {
            self.stores.statuses.send_modify(|count| *count += 1);
        }
        if unread {
            self.stores.unread.send_modify(|count| *count += 1);
        }
    }
}

impl Held {
    fn put(&mut self, observed: Observed) -> bool {
        let Observed { reference, version, generation, status, object } = observed;
        let known = Known { version, generation, status };
        let before = self.versions.insert(reference.clone(), known.clone());
        if known.status.is_some() && before.as_ref().is_none_or(|before| before.status != known.status) {
            self.touched.note(reference.clone());
        }
        let same = before.as_ref().is_some_and(|before| before.version.uid == known.version.uid);
        let object = object.map(|object| if same { self.keep_content(object) } else { object });
        // Their content changes with their version alone, as far as is known without reading it.
        let unread = matches!(reference.kind, Kind::Secret | Kind::ConfigMap)
            && before.is_none_or(|before| before.version != known.version);
        if unread {
            self.unread.note(reference);
        }
        self.snapshot.put(object)
    }

    /// A Secret or ConfigMap goes on with the content that was read until the new one is: a change of its
    /// metadata must not take a certificate out of use.
    fn keep_content(&self, object: Object) -> Object {
        match object {
            Object::Secret(secret) if secret.content == SecretContent::NotRead => {
                let held = self.snapshot.secrets.get(&secret.meta.name);
                Object::Secret(held.map_or(secret.clone(), |held| {
                    Arc::new(Secret { meta: secret.meta.clone(), content: held.content.clone() })
                }))
            }
            Object::ConfigMap(map) if map.content == ConfigMapContent::NotRead => {
                let held = self.snapshot.config_maps.get(&map.meta.name);
                Object::ConfigMap(held.map_or(map.clone(), |held| {
                    Arc::new(ConfigMap { meta: map.meta.clone(), content: held.content.clone() })
                }))
            }
            other => other,
        }
    }

    fn remove(&mut self, reference: &ObjectRef) -> bool {
        self.versions.remove(reference);
        self.touched.objects.remove(reference);
        self.unread.objects.remove(reference);
        self.answered.remove(reference);
        self.snapshot.remove(reference)
    }

    fn arrive(&mut self, kind: Kind, progress: Progress) -> bool {
        let state = self.kinds.entry(kind).or_default();
        std::mem::replace(&mut state.progress, progress) != progress
    }
}

#[cfg(test)]
mod tests;
