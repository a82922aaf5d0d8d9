//! Owns: the units of one bucket, by id, with the hash that covers them.
//! Called by [`super::UnitSet`]. It refuses to know why they are in one bucket.
//!
//! They lie in leaves of a few, which versions of the bucket share: a change copies one leaf, so that it does not touch
//! the counts of all others' references.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::name::UnitId;
use crate::unit::{ContentHash, EncodedUnit};

/// How many units a leaf has at the most.
pub(super) const LEAF: usize = 8;

/// Units by id. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// In the order of their ids; none is empty.
    leaves: Vec<Arc<Vec<EncodedUnit>>>,
    hash: ContentHash,
}

impl Default for Bucket {
    fn default() -> Self {
        let mut empty = Self { leaves: Vec::new(), hash: ContentHash([0; 32]) };
        empty.seal();
        empty
    }
}

impl Bucket {
    /// The hash over its units, as last sealed.
    pub(super) fn hash(&self) -> ContentHash {
        self.hash
    }

    /// Computes the hash: over those of the units, in the order of their ids.
    pub(super) fn seal(&mut self) {
        let mut hash = Sha256::new();
        for unit in self.iter() {
            hash.update(unit.hash.0);
        }
        self.hash = ContentHash(hash.finalize().into());
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &EncodedUnit> {
        self.leaves.iter().flat_map(|leaf| leaf.iter())
    }

    pub(super) fn len(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.len()).sum()
    }

    pub(super) fn get(&self, id: &UnitId) -> Option<&EncodedUnit> {
        let leaf = self.leaves.get(self.leaf_of(id))?;
        Some(&leaf[place(leaf, id).ok()?])
    }

    /// Puts a unit in the place of the one of its id.
    pub(super) fn insert(&mut self, unit: EncodedUnit) {
        let index = self.leaf_of(&unit.id);
        let Some(leaf) = self.leaves.get_mut(index) else {
            self.leaves.push(Arc::new(vec![unit]));
            return;
        };
        let leaf = Arc::make_mut(leaf);
        match place(leaf, &unit.id) {
            Ok(place) => leaf[place] = unit,
            Err(place) => leaf.insert(place, unit),
        }
        if leaf.len() > LEAF {
            let upper = leaf.split_off(LEAF / 2);
            self.leaves.insert(index + 1, Arc::new(upper));
        }
    }

    pub(super) fn remove(&mut self, id: &UnitId) {
        let index = self.leaf_of(id);
        let Some(leaf) = self.leaves.get_mut(index) else { return };
        let Ok(place) = place(leaf, id) else { return };
        Arc::make_mut(leaf).remove(place);
        if leaf.is_empty() {
            self.leaves.remove(index);
        }
    }

    /// The units in leaves that the other one does not share.
    pub(super) fn not_shared<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a EncodedUnit> {
        let is_shared = |leaf: &Arc<Vec<EncodedUnit>>| other.leaves.iter().any(|one| Arc::ptr_eq(one, leaf));
        self.leaves.iter().filter(move |leaf| !is_shared(leaf)).flat_map(|leaf| leaf.iter())
    }

    /// The index of the leaf that has an id, if any has.
    fn leaf_of(&self, id: &UnitId) -> usize {
        self.leaves.partition_point(|leaf| leaf[0].id <= *id).saturating_sub(1)
    }
}

/// The place of an id in a leaf, or where it would be.
fn place(leaf: &[EncodedUnit], id: &UnitId) -> Result<usize, usize> {
    leaf.binary_search_by(|unit| unit.id.cmp(id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::name::ObjectName;

    fn unit(name: u8, version: u8) -> EncodedUnit {
        let id = UnitId::key(&ObjectName::new("ns", format!("k{name}")));
        EncodedUnit::known_by_hash(id, ContentHash([version; 32]))
    }

    fn apply(bucket: &mut Bucket, known: &mut BTreeMap<UnitId, EncodedUnit>, changes: &[(u8, Option<u8>)]) {
        for &(name, version) in changes {
            let id = unit(name, 0).id;
            match version {
                Some(version) => {
                    bucket.insert(unit(name, version));
                    known.insert(id, unit(name, version));
                }
                None => {
                    bucket.remove(&id);
                    known.remove(&id);
                }
            }
        }
        bucket.seal();
    }

    fn changes() -> impl Strategy<Value = Vec<(u8, Option<u8>)>> {
        prop::collection::vec((any::<u8>(), prop::option::weighted(0.7, 0..3u8)), 0..300)
    }

    proptest! {
        #[test]
        fn it_holds_what_was_put_in_order_and_knows_what_another_may_lack(first in changes(), then in changes()) {
            let (mut bucket, mut known) = (Bucket::default(), BTreeMap::new());
            apply(&mut bucket, &mut known, &first);
            let (before, known_before) = (bucket.clone(), known.clone());
            apply(&mut bucket, &mut known, &then);
            for (bucket, known) in [(&before, &known_before), (&bucket, &known)] {
                prop_assert!(bucket.iter().eq(known.values()));
                prop_assert_eq!(bucket.len(), known.len());
                prop_assert!((0..=u8::MAX).map(|name| unit(name, 0).id).all(|id| bucket.get(&id) == known.get(&id)));
                prop_assert!(bucket.leaves.iter().all(|leaf| (1..=LEAF).contains(&leaf.len())));
            }
            let lacks = known.values().filter(|unit| known_before.get(&unit.id) != Some(*unit));
            let not_shared: Vec<_> = bucket.not_shared(&before).collect();
            for unit in lacks {
                prop_assert!(not_shared.contains(&unit), "{unit:?}");
            }
            // How it came about is of no matter to its hash.
            let mut fresh = Bucket::default();
            known.values().rev().for_each(|unit| fresh.insert(unit.clone()));
            fresh.seal();
            prop_assert_eq!(fresh.hash(), bucket.hash());
        }
    }
}
