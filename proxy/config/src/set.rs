//! A set of units with its hashes: what a controller wants a proxy to hold, or what a proxy holds.
//!
//! Units fall into 256 buckets by the hash of their id. A bucket's hash covers its units, the root
//! covers the buckets; a change costs its bucket and the root, not the whole set. Of the bucket it reads
//! hashes alone: what it copies is a leaf.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::name::UnitId;
use crate::unit::{ContentHash, EncodedUnit};

/// How many buckets a set has.
pub const BUCKETS: usize = 256;

/// The hash of a whole set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RootHash(pub ContentHash);

/// A set of units. Cloning shares all of it.
#[derive(Clone, Debug)]
pub struct UnitSet {
    buckets: Arc<[Arc<Bucket>]>,
    root: RootHash,
}

mod bucket;

use bucket::Bucket;

impl Default for UnitSet {
    fn default() -> Self {
        let empty = Arc::new(Bucket::default());
        let mut set = Self { buckets: vec![empty; BUCKETS].into(), root: RootHash(ContentHash([0; 32])) };
        set.seal();
        set
    }
}

impl UnitSet {
    /// The bucket of an id.
    pub fn bucket_of(id: &UnitId) -> u8 {
        Sha256::digest(id.as_str().as_bytes())[0]
    }

    /// Puts and deletes units; costs what changes.
    pub fn apply(
        &mut self,
        put: impl IntoIterator<Item = EncodedUnit>,
        delete: impl IntoIterator<Item = UnitId>,
    ) {
        let mut touched = [false; BUCKETS];
        for id in delete {
            let index = usize::from(Self::bucket_of(&id));
            if self.buckets[index].get(&id).is_some() {
                self.bucket_mut(index).remove(&id);
                touched[index] = true;
            }
        }
        for unit in put {
            let index = usize::from(Self::bucket_of(&unit.id));
            self.bucket_mut(index).insert(unit);
            touched[index] = true;
        }
        for (index, _) in touched.iter().enumerate().filter(|(_, touched)| **touched) {
            self.bucket_mut(index).seal();
        }
        if touched.contains(&true) {
            self.seal();
        }
    }

    fn bucket_mut(&mut self, index: usize) -> &mut Bucket {
        Arc::make_mut(&mut Arc::make_mut(&mut self.buckets)[index])
    }

    fn seal(&mut self) {
        let mut hash = Sha256::new();
        for bucket in &*self.buckets {
            hash.update(bucket.hash().0);
        }
        self.root = RootHash(ContentHash(hash.finalize().into()));
    }

    /// The hash of the whole set.
    pub fn root(&self) -> RootHash {
        self.root
    }

    /// The hash of each bucket, in order.
    pub fn bucket_hashes(&self) -> Vec<ContentHash> {
        self.buckets.iter().map(|bucket| bucket.hash()).collect()
    }

    /// The units of one bucket, by id.
    pub fn bucket(&self, index: u8) -> impl Iterator<Item = &EncodedUnit> {
        self.buckets[usize::from(index)].iter()
    }

    /// A unit by its id.
    pub fn get(&self, id: &UnitId) -> Option<&EncodedUnit> {
        self.buckets[usize::from(Self::bucket_of(id))].get(id)
    }

    /// All units, bucket by bucket.
    pub fn iter(&self) -> impl Iterator<Item = &EncodedUnit> {
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }

    /// How many units there are.
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.len() == 0)
    }

    /// The units that `other` lacks or has in another version; what is shared or equal costs nothing.
    pub fn missing_from<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a UnitId> {
        self.differing(other).flat_map(|(mine, theirs)| {
            let mine = mine.not_shared(theirs);
            mine.filter(|unit| theirs.get(&unit.id) != Some(*unit)).map(|unit| &unit.id)
        })
    }

    /// What must be put and deleted to come from `base` to this set; what is shared or equal costs nothing.
    pub fn diff(&self, base: &Self) -> (Vec<EncodedUnit>, Vec<UnitId>) {
        let (mut put, mut delete) = (Vec::new(), Vec::new());
        for (new, old) in self.differing(base) {
            put.extend(new.not_shared(old).filter(|unit| old.get(&unit.id) != Some(*unit)).cloned());
            let gone = old.not_shared(new).filter(|unit| new.get(&unit.id).is_none());
            delete.extend(gone.map(|unit| unit.id.clone()));
        }
        (put, delete)
    }

    /// The buckets that differ.
    fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a Bucket, &'a Bucket)> {
        let pairs = self.buckets.iter().zip(&*other.buckets);
        let differ =
            pairs.filter(|(mine, theirs)| !Arc::ptr_eq(mine, theirs) && mine.hash() != theirs.hash());
        differ.map(|(mine, theirs)| (&**mine, &**theirs))
    }
}

impl FromIterator<EncodedUnit> for UnitSet {
    fn from_iter<I: IntoIterator<Item = EncodedUnit>>(units: I) -> Self {
        let mut set = Self::default();
        set.apply(units, []);
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::certificate::PrivateKey;
    use crate::name::ObjectName;
    use crate::unit::Unit;

    fn unit(name: u8, content: u8) -> EncodedUnit {
        named(format!("k{name}"), content)
    }

    fn named(name: String, content: u8) -> EncodedUnit {
        let id = UnitId::key(&ObjectName::new("ns", name));
        EncodedUnit::new(id, &Unit::Key(PrivateKey { pem: content.to_string() }))
    }

    fn set(units: &[(u8, u8)]) -> UnitSet {
        units.iter().map(|&(name, content)| unit(name, content)).collect()
    }

    proptest! {
        #[test]
        fn a_diff_applied_to_its_base_gives_the_set(
            old in prop::collection::vec((0..40u8, 0..3u8), 0..40),
            new in prop::collection::vec((0..40u8, 0..3u8), 0..40),
        ) {
            let (old, new) = (set(&old), set(&new));
            let (put, delete) = new.diff(&old);
            let missing: Vec<_> = new.missing_from(&old).cloned().collect();
            prop_assert_eq!(missing, put.iter().map(|unit| unit.id.clone()).collect::<Vec<_>>());
            let mut result = old.clone();
            result.apply(put, delete);
            prop_assert_eq!(result.root(), new.root());
            prop_assert_eq!(result.bucket_hashes(), new.bucket_hashes());
            prop_assert_eq!(result.iter().collect::<Vec<_>>(), new.iter().collect::<Vec<_>>());
        }

        #[test]
        fn sets_have_one_root_exactly_if_they_are_equal(
            a in prop::collection::btree_map(0..6u8, 0..2u8, 0..6),
            b in prop::collection::btree_map(0..6u8, 0..2u8, 0..6),
        ) {
            let of = |map: &BTreeMap<u8, u8>| map.iter().map(|(n, c)| unit(*n, *c)).collect::<UnitSet>();
            prop_assert_eq!(of(&a).root() == of(&b).root(), a == b);
        }
    }

    #[test]
    fn a_change_copies_one_leaf_of_a_large_set() {
        let of = |version: u8| move |number| named(format!("k{number}"), version);
        let base: UnitSet = (0..20_000).map(of(0)).collect();
        for (put, delete) in
            [(vec![of(1)(7)], vec![]), (vec![], vec![of(0)(7).id]), (vec![of(0)(20_000)], vec![])]
        {
            let mut new = base.clone();
            new.apply(put, delete);
            let copied = new.differing(&base).flat_map(|(new, old)| new.not_shared(old)).count();
            assert!(copied <= bucket::LEAF, "{copied}");
            let buckets = new.buckets.iter().zip(&*base.buckets);
            assert_eq!(buckets.filter(|(new, old)| !Arc::ptr_eq(new, old)).count(), 1);
        }
    }

    #[test]
    fn a_unit_survives_the_wire_with_its_hash() {
        let before = unit(1, 2);
        let text = serde_json::to_string(&before).unwrap();
        let after: EncodedUnit = serde_json::from_str(&text).unwrap();
        assert_eq!(after, before);
        assert!(after.is_intact());
        assert_eq!(after.decode().unwrap(), Unit::Key(PrivateKey { pem: "2".into() }));
    }

    #[test]
    fn a_changed_byte_is_seen() {
        let text = serde_json::to_string(&unit(1, 2)).unwrap().replace(r#""pem":"2""#, r#""pem":"3""#);
        let after: EncodedUnit = serde_json::from_str(&text).unwrap();
        assert!(!after.is_intact());
    }
}
