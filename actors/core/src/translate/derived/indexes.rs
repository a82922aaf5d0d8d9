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

/// A part of the old and of the new value; nothing where there is no value.
pub(super) fn parts<T, P: Default>(
    old: &Option<Arc<T>>,
    new: &Option<Arc<T>>,
    part: impl Fn(&T) -> P,
) -> (P, P) {
    let of = |value: &Option<Arc<T>>| value.as_deref().map(&part).unwrap_or_default();
    (of(old), of(new))
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

/// Counts what a set has gained and lost.
pub(super) fn recount<K: Ord + Clone>(
    counts: &mut BTreeMap<K, u32>,
    before: &BTreeSet<K>,
    after: &BTreeSet<K>,
) {
    for key in before.difference(after) {
        count_down(counts, key);
    }
    for key in after.difference(before) {
        *counts.entry(key.clone()).or_default() += 1;
    }
}

/// Counts, under the first of each pair, what a set of pairs has gained and lost.
pub(super) fn recount_pairs<K: Ord + Clone, V: Ord + Clone>(
    counts: &mut BTreeMap<K, BTreeMap<V, u32>>,
    before: &BTreeSet<(K, V)>,
    after: &BTreeSet<(K, V)>,
) {
    for (key, value) in before.difference(after) {
        let under = counts.entry(key.clone()).or_default();
        count_down(under, value);
        if under.is_empty() {
            counts.remove(key);
        }
    }
    for (key, value) in after.difference(before) {
        *counts.entry(key.clone()).or_default().entry(value.clone()).or_default() += 1;
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

/// Moves a member of an index from the keys that it was under to those that it is under.
pub(super) fn reindex<K: Ord + Clone, V: Ord + Clone>(
    index: &mut BTreeMap<K, BTreeSet<V>>,
    member: &V,
    before: &BTreeSet<K>,
    after: &BTreeSet<K>,
) {
    for key in before.difference(after) {
        forget(index, key, member);
    }
    for key in after.difference(before) {
        index.entry(key.clone()).or_default().insert(member.clone());
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
