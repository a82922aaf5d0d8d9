//! Small operations on the maps and indexes of what the tasks made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The old and the new value.
type Replaced<T> = Option<(Option<Arc<T>>, Option<Arc<T>>)>;

/// Replaces a value; the old and the new one, where they differ.
pub(super) fn replace<K: Ord + Clone, T: PartialEq>(
    map: &mut BTreeMap<K, Arc<T>>,
    name: &K,
    new: Option<T>,
) -> Replaced<T> {
    let old = map.get(name).cloned();
    if old.as_deref() == new.as_ref() {
        return None;
    }
    let new = new.map(Arc::new);
    match &new {
        Some(new) => map.insert(name.clone(), new.clone()),
        None => map.remove(name),
    };
    Some((old, new))
}

/// Counts one less; a count of nothing is not kept.
pub(super) fn count_down<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Takes a member out of an index.
pub(super) fn forget<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, member: &V) {
    if let Some(members) = index.get_mut(key) {
        members.remove(member);
        if members.is_empty() {
            index.remove(key);
        }
    }
}

/// The keys whose values differ, there or not.
pub(super) fn differing<'a, K: Ord + Clone, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = K> + use<'a, K, V> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).cloned()
}
