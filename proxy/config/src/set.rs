//! A set of units with its hashes: what a controller wants a proxy to hold, or what a proxy holds.
//!
//! Units fall into 256 buckets by the hash of their id. A bucket's hash covers its units, the root
//! covers the buckets; a change costs its bucket and the root, not the whole set.

use std::collections::BTreeMap;
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

/// A set of units. Cloning shares the buckets.
#[derive(Clone, Debug)]
pub struct UnitSet {
    buckets: Vec<Arc<Bucket>>,
    root: RootHash,
}

#[derive(Clone, Debug)]
struct Bucket {
    units: BTreeMap<UnitId, EncodedUnit>,
    hash: ContentHash,
}

impl Bucket {
    fn seal(&mut self) {
        let mut hash = Sha256::new();
        for unit in self.units.values() {
            hash.update(unit.hash.0);
        }
        self.hash = ContentHash(hash.finalize().into());
    }
}

impl Default for UnitSet {
    fn default() -> Self {
        let mut empty = Bucket { units: BTreeMap::new(), hash: ContentHash([0; 32]) };
        empty.seal();
        let empty = Arc::new(empty);
        let mut set = Self { buckets: vec![empty; BUCKETS], root: RootHash(ContentHash([0; 32])) };
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
            touched[index] |= Arc::make_mut(&mut self.buckets[index]).units.remove(&id).is_some();
        }
        for unit in put {
            let index = usize::from(Self::bucket_of(&unit.id));
            Arc::make_mut(&mut self.buckets[index]).units.insert(unit.id.clone(), unit);
            touched[index] = true;
        }
        for (bucket, _) in self.buckets.iter_mut().zip(touched).filter(|(_, touched)| *touched) {
            Arc::make_mut(bucket).seal();
        }
        if touched.contains(&true) {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let mut hash = Sha256::new();
        for bucket in &self.buckets {
            hash.update(bucket.hash.0);
        }
        self.root = RootHash(ContentHash(hash.finalize().into()));
    }

    /// The hash of the whole set.
    pub fn root(&self) -> RootHash {
        self.root
    }

    /// The hash of each bucket, in order.
    pub fn bucket_hashes(&self) -> Vec<ContentHash> {
        self.buckets.iter().map(|bucket| bucket.hash).collect()
    }

    /// The units of one bucket, by id.
    pub fn bucket(&self, index: u8) -> impl Iterator<Item = &EncodedUnit> {
        self.buckets[usize::from(index)].units.values()
    }

    /// A unit by its id.
    pub fn get(&self, id: &UnitId) -> Option<&EncodedUnit> {
        self.buckets[usize::from(Self::bucket_of(id))].units.get(id)
    }

    /// All units, bucket by bucket.
    pub fn iter(&self) -> impl Iterator<Item = &EncodedUnit> {
        self.buckets.iter().flat_map(|bucket| bucket.units.values())
    }

    /// How many units there are.
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.units.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.units.is_empty())
    }

    /// The units that `other` lacks or has in another version; buckets that are shared or equal cost nothing.
    pub fn missing_from<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a UnitId> {
        let pairs = self.buckets.iter().zip(&other.buckets);
        let differ = pairs.filter(|(mine, theirs)| !Arc::ptr_eq(mine, theirs) && mine.hash != theirs.hash);
        differ.flat_map(|(mine, theirs)| {
            mine.units.values().filter(|unit| theirs.units.get(&unit.id) != Some(*unit)).map(|unit| &unit.id)
        })
    }

    /// What must be put and deleted to come from `base` to this set; buckets that are shared or equal
    /// cost nothing.
    pub fn diff(&self, base: &Self) -> (Vec<EncodedUnit>, Vec<UnitId>) {
        let (mut put, mut delete) = (Vec::new(), Vec::new());
        for (new, old) in self.buckets.iter().zip(&base.buckets) {
            if Arc::ptr_eq(new, old) || new.hash == old.hash {
                continue;
            }
            put.extend(new.units.values().filter(|unit| old.units.get(&unit.id) != Some(*unit)).cloned());
            delete.extend(old.units.keys().filter(|id| !new.units.contains_key(*id)).cloned());
        }
        (put, delete)
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
    use proptest::prelude::*;

    use super::*;
    use crate::certificate::PrivateKey;
    use crate::name::ObjectName;
    use crate::unit::Unit;

    fn unit(name: u8, content: u8) -> EncodedUnit {
        let id = UnitId::key(&ObjectName::new("ns", format!("k{name}")));
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
