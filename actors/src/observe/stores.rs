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

/// What was read of a Secret or ConfigMap.
#[derive(Clone, Debug)]
pub enum Content {
    /// Of a Secret.
    Secret(SecretContent),
    /// Of a ConfigMap.
    ConfigMap(ConfigMapContent),
}

impl Content {
    /// Nothing, of an object of this kind.
    pub fn unread(kind: Kind) -> Self {
        match kind {
            Kind::ConfigMap => Self::ConfigMap(ConfigMapContent::NotRead),
            _ => Self::Secret(SecretContent::NotRead),
        }
    }

    /// Nothing that could be used, for this reason.
    pub fn wrong(kind: Kind, reason: String) -> Self {
        match kind {
            Kind::ConfigMap => Self::ConfigMap(ConfigMapContent::Other(reason)),
            _ => Self::Secret(SecretContent::Other(reason)),
        }
    }

    /// It may not be read, for this reason.
    pub fn refused(kind: Kind, reason: String) -> Self {
        Self::wrong(kind, format!("a {kind} that can't be read ({reason})"))
    }

    /// It could not be read yet, for this reason.
    pub fn unavailable(kind: Kind, reason: String) -> Self {
        match kind {
            Kind::ConfigMap => Self::ConfigMap(ConfigMapContent::Unavailable(reason)),
            _ => Self::Secret(SecretContent::Unavailable(reason)),
        }
    }
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
}

#[derive(Debug, Default)]
struct Held {
    snapshot: Snapshot,
    kinds: BTreeMap<Kind, KindState>,
    versions: HashMap<ObjectRef, Known>,
    /// Objects whose status has changed since the status writer last asked.
    touched: BTreeSet<ObjectRef>,
    /// Secrets and ConfigMaps whose version has changed since their reader last asked.
    unread: BTreeSet<ObjectRef>,
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
        std::mem::take(&mut self.lock().touched)
    }

    /// The Secrets and ConfigMaps whose version has changed since this was last asked.
    pub fn take_unread(&self) -> BTreeSet<ObjectRef> {
        std::mem::take(&mut self.lock().unread)
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
        let statuses = held.touched.len();
        let changed = change(&mut held);
        let touched = held.touched.len() != statuses;
        drop(held);
        self.stores.tell(changed);
        if touched {
            self.stores.statuses.send_modify(|count| *count += 1);
        }
    }
}

impl Held {
    fn put(&mut self, observed: Observed) -> bool {
        let Observed { reference, version, generation, status, object } = observed;
        let known = Known { version, generation, status };
        let before = self.versions.insert(reference.clone(), known.clone());
        if known.status.is_some() && before.as_ref().is_none_or(|before| before.status != known.status) {
            self.touched.insert(reference.clone());
        }
        let same = before.as_ref().is_some_and(|before| before.version.uid == known.version.uid);
        let object = object.map(|object| if same { self.keep_content(object) } else { object });
        // Their content changes with their version alone, as far as is known without reading it.
        let unread = matches!(reference.kind, Kind::Secret | Kind::ConfigMap)
            && before.is_none_or(|before| before.version != known.version);
        if unread {
            self.unread.insert(reference);
        }
        self.snapshot.put(object) || unread
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
        self.touched.remove(reference);
        self.unread.remove(reference);
        self.snapshot.remove(reference)
    }

    fn arrive(&mut self, kind: Kind, progress: Progress) -> bool {
        let state = self.kinds.entry(kind).or_default();
        std::mem::replace(&mut state.progress, progress) != progress
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::observe::convert::convert;

    fn namespace(name: &str, version: &str, label: &str) -> Observed {
        let raw = json!({"metadata": {
            "name": name, "uid": format!("uid-{name}"), "resourceVersion": version, "labels": {"l": label},
        }});
        convert(&Stores::new([]), Kind::Namespace, &raw)
    }

    fn secret(version: &str) -> Observed {
        let raw = json!({"type": "kubernetes.io/tls", "metadata": {
            "name": "s", "namespace": "ns", "uid": "u", "resourceVersion": version,
        }});
        convert(&Stores::new([]), Kind::Secret, &raw)
    }

    fn content(stores: &Stores) -> SecretContent {
        stores.snapshot().unwrap().secrets.values().next().unwrap().content.clone()
    }

    #[test]
    fn nothing_is_shown_before_every_kind_has_been_listed() {
        let stores = Stores::new([Kind::Namespace, Kind::Gateway]);
        stores.writer(Kind::Namespace).replace(vec![namespace("a", "1", "x")]);
        assert!(stores.snapshot().is_none());
        stores.writer(Kind::Gateway).absent();
        assert_eq!(stores.snapshot().unwrap().namespaces.len(), 1);
    }

    #[test]
    fn a_list_replaces_what_was_there() {
        let stores = Stores::new([Kind::Namespace]);
        let writer = stores.writer(Kind::Namespace);
        writer.replace(vec![namespace("a", "1", "x"), namespace("b", "2", "x")]);
        writer.replace(vec![namespace("b", "2", "x"), namespace("c", "3", "x")]);
        let names: Vec<_> = stores.snapshot().unwrap().namespaces.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["b", "c"]);
    }

    #[test]
    fn an_echo_dirties_nothing_but_its_version_is_known() {
        let stores = Stores::new([Kind::Namespace]);
        let writer = stores.writer(Kind::Namespace);
        writer.replace(vec![namespace("a", "1", "x")]);
        let mut changes = stores.changes();
        changes.borrow_and_update();
        writer.put(namespace("a", "2", "x"));
        assert!(!changes.has_changed().unwrap());
        let versions = stores.versions(Kind::Namespace);
        assert_eq!(&*versions.values().next().unwrap().resource_version, "2");
        writer.put(namespace("a", "3", "y"));
        assert!(changes.has_changed().unwrap());
    }

    #[test]
    fn a_writer_that_was_replaced_is_refused() {
        let stores = Stores::new([Kind::Namespace]);
        let old = stores.writer(Kind::Namespace);
        let new = stores.writer(Kind::Namespace);
        new.replace(vec![namespace("a", "1", "x")]);
        old.replace(vec![]);
        assert_eq!(stores.snapshot().unwrap().namespaces.len(), 1);
    }

    #[test]
    fn a_secret_keeps_its_content_until_the_new_one_is_read() {
        let stores = Stores::new([Kind::Secret]);
        let writer = stores.writer(Kind::Secret);
        writer.replace(vec![secret("1")]);
        assert_eq!(content(&stores), SecretContent::NotRead);
        let reference = ObjectRef::new(Kind::Secret, ObjectName::new("ns", "s"));
        let read = |text: &str| SecretContent::Tls { chain: text.into(), key: text.into(), authority: None };
        let version =
            |number: &str| ObjectVersion { uid: "u".into(), resource_version: number.to_owned().into() };
        stores.put_content(&reference, &version("1"), Content::Secret(read("one")));
        assert_eq!(content(&stores), read("one"));
        writer.put(secret("2"));
        assert_eq!(content(&stores), read("one"));
        stores.put_content(&reference, &version("1"), Content::Secret(read("late")));
        assert_eq!(content(&stores), read("one"), "the answer about an older version is dropped");
        stores.put_content(&reference, &version("2"), Content::Secret(read("two")));
        assert_eq!(content(&stores), read("two"));
    }

    #[test]
    fn only_what_has_another_version_is_to_be_read() {
        let stores = Stores::new([Kind::Secret]);
        let writer = stores.writer(Kind::Secret);
        let reference = ObjectRef::new(Kind::Secret, ObjectName::new("ns", "s"));
        writer.replace(vec![secret("1")]);
        assert_eq!(stores.take_unread(), BTreeSet::from([reference.clone()]));
        writer.put(secret("1"));
        writer.put(namespace("a", "1", "x"));
        assert_eq!(stores.take_unread(), BTreeSet::new());
        writer.put(secret("2"));
        assert_eq!(stores.take_unread(), BTreeSet::from([reference]));
    }

    #[test]
    fn what_is_held_in_another_version_or_no_more_is_outdated() {
        let stores = Stores::new([Kind::Namespace]);
        let writer = stores.writer(Kind::Namespace);
        writer.replace(vec![namespace("a", "1", "x"), namespace("b", "2", "x"), namespace("c", "3", "x")]);
        let versions = stores.versions(Kind::Namespace).into_iter();
        let seen: Vec<_> =
            versions.map(|(name, version)| (ObjectRef::new(Kind::Namespace, name), version)).collect();
        let outdated = || stores.outdated(seen.iter().map(|(object, version)| (object, version)));
        assert!(outdated().is_empty());
        writer.put(namespace("b", "4", "x"));
        writer.remove(&seen[2].0);
        assert_eq!(outdated(), [&seen[1].0, &seen[2].0]);
    }
}
