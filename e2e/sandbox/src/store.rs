//! Every object, one counter of revisions, and the history that lists and watches read.
//!
//! Owns: the objects by resource and key, and the log of changes back to the last compaction. Called by the API under one lock.
//! It refuses to know kinds, admission and HTTP: what it is given it keeps.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;

use crate::object::{self, Key};

/// A resource among all API groups: `("", "services")`, `("apps", "deployments")`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ResourceKey {
    pub(crate) group: String,
    pub(crate) plural: String,
}

/// All objects of one resource at one revision.
pub(crate) type Objects = BTreeMap<Key, Arc<Value>>;

/// One write, as the log keeps it. `after` is `None` for a deletion.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) resource: ResourceKey,
    pub(crate) key: Key,
    pub(crate) before: Option<Arc<Value>>,
    pub(crate) after: Option<Arc<Value>>,
}

/// The history asked for is no longer kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// The oldest revision that can still be asked for.
    pub(crate) oldest: u64,
}

#[derive(Debug)]
pub(crate) struct Store {
    revision: u64,
    compacted: u64,
    history: usize,
    objects: BTreeMap<ResourceKey, Objects>,
    log: VecDeque<Change>,
}

impl Store {
    /// An empty store that keeps the last `history` changes.
    pub(crate) fn new(history: usize) -> Self {
        Self { revision: 1, compacted: 0, history, objects: BTreeMap::new(), log: VecDeque::new() }
    }

    /// The revision of the last write.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, resource: &ResourceKey, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(resource)?.get(key)
    }

    /// The objects of a resource as they are.
    pub(crate) fn current(&self, resource: &ResourceKey) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.get(resource).into_iter().flatten()
    }

    /// Keeps `value` under the next revision, which is stamped into it.
    pub(crate) fn put(&mut self, resource: &ResourceKey, key: Key, mut value: Value) -> Arc<Value> {
        self.revision += 1;
        object::set_revision(&mut value, self.revision);
        let value = Arc::new(value);
        let before =
            self.objects.entry(resource.clone()).or_default().insert(key.clone(), Arc::clone(&value));
        self.record(resource, key, before, Some(Arc::clone(&value)));
        value
    }

    /// Removes an object; the answer carries the revision of its removal, as its DELETED event does.
    pub(crate) fn remove(&mut self, resource: &ResourceKey, key: &Key) -> Option<Value> {
        let before = self.objects.get_mut(resource)?.remove(key)?;
        self.revision += 1;
        let mut last = Value::clone(&before);
        object::set_revision(&mut last, self.revision);
        self.record(resource, key.clone(), Some(before), None);
        Some(last)
    }

    fn record(
        &mut self,
        resource: &ResourceKey,
        key: Key,
        before: Option<Arc<Value>>,
        after: Option<Arc<Value>>,
    ) {
        self.log.push_back(Change {
            revision: self.revision,
            resource: resource.clone(),
            key,
            before,
            after,
        });
        while self.log.len() > self.history {
            if let Some(oldest) = self.log.pop_front() {
                self.compacted = oldest.revision;
            }
        }
    }

    /// Forgets all history: older revisions are Gone from here on.
    pub(crate) fn compact(&mut self) {
        self.log.clear();
        self.compacted = self.revision;
    }

    /// The objects of a resource as they were at `revision`.
    pub(crate) fn at(&self, resource: &ResourceKey, revision: u64) -> Result<Objects, Compacted> {
        self.still_kept(revision)?;
        let mut objects = self.objects.get(resource).cloned().unwrap_or_default();
        let newer = self.log.iter().rev().take_while(|c| c.revision > revision);
        for change in newer.filter(|change| change.resource == *resource) {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), Arc::clone(before)),
                None => objects.remove(&change.key),
            };
        }
        Ok(objects)
    }

    /// The changes after `revision`, oldest first.
    pub(crate) fn since(&self, revision: u64) -> Result<impl Iterator<Item = &Change>, Compacted> {
        self.still_kept(revision)?;
        let from = self.log.partition_point(|c| c.revision <= revision);
        Ok(self.log.range(from..))
    }

    /// The oldest revision that `at` and `since` still answer.
    pub(crate) fn oldest(&self) -> u64 {
        self.compacted
    }

    fn still_kept(&self, revision: u64) -> Result<(), Compacted> {
        if revision < self.compacted {
            return Err(Compacted { oldest: self.compacted });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn services() -> ResourceKey {
        ResourceKey { group: String::new(), plural: "services".to_owned() }
    }

    #[test]
    fn the_past_is_read_as_it_was_and_refused_once_compacted() {
        let (mut store, services) = (Store::new(100), services());
        let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
        store.put(&services, a.clone(), json!({"spec": 1}));
        let first = store.revision();
        store.put(&services, a.clone(), json!({"spec": 2}));
        store.put(&services, b.clone(), json!({}));
        store.remove(&services, &a);

        let then = store.at(&services, first).unwrap();
        assert_eq!(then.keys().collect::<Vec<_>>(), [&a]);
        assert_eq!(then[&a]["spec"], 1);
        assert_eq!(store.since(first).unwrap().count(), 3);

        store.compact();
        let now = store.revision();
        assert!(store.at(&services, first).is_err());
        assert!(store.since(now - 1).is_err());
        assert_eq!(store.at(&services, now).unwrap().len(), 1);
        assert_eq!(store.since(now).unwrap().count(), 0);
    }

    #[test]
    fn history_is_bounded_and_what_falls_out_is_compacted() {
        let (mut store, services) = (Store::new(2), services());
        for round in 0..5 {
            store.put(&services, Key::new("ns", "a"), json!({ "spec": round }));
        }
        let now = store.revision();
        assert!(store.since(now - 3).is_err());
        assert_eq!(store.since(now - 2).unwrap().count(), 2);
        assert_eq!(store.oldest(), now - 2);
    }
}
