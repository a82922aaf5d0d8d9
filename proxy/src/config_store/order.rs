//! The order of pushes: what is applied, confirmed, asked for, refused. Pure.

use std::collections::BTreeSet;

use proxy_config::name::UnitId;
use proxy_config::set::UnitSet;
use proxy_config::wire::{NackReason, Push, WIRE_VERSION, kept};

use super::in_force::InForce;

/// What becomes of a push.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It leads to these units.
    Apply(UnitSet),
    /// It leads to what is in force already.
    Confirm,
    /// It starts from another set than the one in force.
    NeedUnits,
    /// It must not be applied.
    Refuse(NackReason),
}

/// Judges a push by what is in force.
pub(super) fn judge(identity: &str, in_force: &InForce, push: &Push) -> Verdict {
    let root = in_force.units.root();
    if push.wire != WIRE_VERSION {
        return Verdict::Refuse(NackReason::UnknownWire);
    }
    if push.proxy != identity {
        return Verdict::Refuse(NackReason::WrongProxy);
    }
    let same_place = push.version == in_force.version && in_force.is_some();
    // Who asks what is held may not know yet what is kept here in place of what it wants, and changes nothing.
    let is_question = push.base == push.root
        && push.root != root
        && push.put.is_empty()
        && push.delete.is_empty()
        && push.replace.is_empty();
    if push.version < in_force.version || (same_place && push.root != root && !is_question) {
        return Verdict::Refuse(NackReason::Stale);
    }
    if push.root == root && in_force.is_some() {
        return Verdict::Confirm;
    }
    if push.base != root {
        return Verdict::NeedUnits;
    }
    match result(&in_force.units, push) {
        Ok(units) => Verdict::Apply(units),
        Err(reason) => Verdict::Refuse(reason),
    }
}

/// The set that a push leads to.
fn result(base: &UnitSet, push: &Push) -> Result<UnitSet, NackReason> {
    if let Some(unit) = push.put.iter().find(|unit| !unit.is_intact()) {
        return Err(NackReason::HashMismatch(format!("the bytes of {} are not those of its hash", unit.id)));
    }
    let kept: BTreeSet<UnitId> = kept(base, &push.keep).into_iter().map(|kept| kept.id).collect();
    let replaced = push.replace.iter().flat_map(|bucket| base.bucket(*bucket)).map(|unit| unit.id.clone());
    let replaced = replaced.filter(|id| !kept.contains(id));
    let delete: Vec<UnitId> = replaced.chain(push.delete.iter().cloned()).collect();
    let mut units = base.clone();
    // Deletions first: what a replaced bucket keeps is in `put`.
    units.apply(push.put.iter().cloned(), delete);
    if units.root() == push.root {
        Ok(units)
    } else {
        Err(NackReason::HashMismatch("the units do not lead to the root that the push names".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proxy_config::certificate::PrivateKey;
    use proxy_config::name::ObjectName;
    use proxy_config::unit::{EncodedUnit, Unit};
    use proxy_config::wire::Version;

    use super::*;
    use crate::config_store::in_force::Source;

    fn unit(name: &str, content: &str) -> EncodedUnit {
        let id = UnitId::key(&ObjectName::new("shop", name));
        EncodedUnit::new(id, &Unit::Key(PrivateKey { pem: content.to_owned() }))
    }

    fn held(units: &[EncodedUnit], term: u64, generation: u64) -> InForce {
        InForce {
            units: units.iter().cloned().collect(),
            version: Version { term, generation },
            source: Source::Controller,
            ..InForce::default()
        }
    }

    /// What leads from one configuration to another.
    fn push(from: &InForce, to: &InForce) -> Push {
        let (put, delete) = to.units.diff(&from.units);
        let (base, root) = (from.units.root(), to.units.root());
        Push {
            wire: WIRE_VERSION,
            proxy: "edge-1".to_owned(),
            version: to.version,
            base,
            root,
            replace: Vec::new(),
            put,
            delete,
            keep: Vec::new(),
            traceparent: None,
        }
    }

    #[track_caller]
    fn refused(in_force: &InForce, push: &Push) -> NackReason {
        match judge("edge-1", in_force, push) {
            Verdict::Refuse(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_push_from_what_is_in_force_leads_to_its_root() {
        let (old, new) = (held(&[unit("a", "1"), unit("b", "1")], 1, 1), held(&[unit("a", "2")], 1, 2));
        let Verdict::Apply(units) = judge("edge-1", &old, &push(&old, &new)) else { panic!("not applied") };
        assert_eq!(units.root(), new.units.root());
    }

    #[test]
    fn what_is_older_is_refused_by_term_then_generation() {
        let old = held(&[unit("a", "1")], 2, 7);
        for (term, generation) in [(1, 99), (2, 6), (2, 7)] {
            let new = held(&[unit("a", "2")], term, generation);
            assert_eq!(refused(&old, &push(&old, &new)), NackReason::Stale, "({term}, {generation})");
        }
        let next_term = held(&[unit("a", "2")], 3, 0);
        assert!(matches!(judge("edge-1", &old, &push(&old, &next_term)), Verdict::Apply(_)));
    }

    #[test]
    fn who_asks_at_the_place_that_is_in_force_is_told_what_is_held() {
        let kept = held(&[unit("a", "1"), unit("kept", "1")], 2, 7);
        let wanted = held(&[unit("a", "1")], 2, 7);
        let question = push(&wanted, &wanted);
        assert!(matches!(judge("edge-1", &kept, &question), Verdict::NeedUnits));
        assert_eq!(refused(&kept, &push(&kept, &wanted)), NackReason::Stale, "it is no question");
        let older = held(&[unit("a", "1")], 2, 6);
        assert_eq!(refused(&kept, &push(&older, &older)), NackReason::Stale);
    }

    #[test]
    fn a_new_leader_with_the_same_units_confirms_them_whatever_base_it_assumed() {
        let old = held(&[unit("a", "1")], 2, 7);
        let mut same = push(&old, &held(&[unit("a", "1")], 3, 1));
        same.base = UnitSet::default().root();
        assert!(matches!(judge("edge-1", &old, &same), Verdict::Confirm));
    }

    #[test]
    fn a_repeated_push_is_confirmed_again() {
        let old = held(&[unit("a", "1")], 2, 7);
        assert!(matches!(judge("edge-1", &old, &push(&InForce::default(), &old)), Verdict::Confirm));
    }

    #[test]
    fn an_empty_first_configuration_is_one() {
        let empty = held(&[], 1, 1);
        let first = push(&InForce::default(), &empty);
        assert!(matches!(judge("edge-1", &InForce::default(), &first), Verdict::Apply(_)));
    }

    #[test]
    fn another_base_asks_for_units_and_replaced_buckets_answer() {
        let mine = held(&[unit("a", "1"), unit("b", "1"), unit("gone", "1")], 1, 1);
        let theirs = held(&[unit("a", "1"), unit("b", "2"), unit("c", "1")], 1, 5);
        let unknown = held(&[unit("z", "1")], 1, 4);
        assert!(matches!(judge("edge-1", &mine, &push(&unknown, &theirs)), Verdict::NeedUnits));
        let pairs = mine.units.bucket_hashes().into_iter().zip(theirs.units.bucket_hashes());
        let differ = (0..=u8::MAX).zip(pairs).filter(|(_, (a, b))| a != b).map(|(bucket, _)| bucket);
        let mut whole = push(&mine, &theirs);
        whole.delete.clear();
        whole.replace = differ.collect();
        whole.put = whole.replace.iter().flat_map(|b| theirs.units.bucket(*b)).cloned().collect();
        let Verdict::Apply(units) = judge("edge-1", &mine, &whole) else { panic!("not applied") };
        assert_eq!(units.root(), theirs.units.root());
    }

    #[test]
    fn a_replaced_bucket_keeps_what_the_push_says_to_keep() {
        let mine = held(&[unit("a", "1"), unit("b", "1")], 1, 1);
        let mut whole = push(&mine, &held(&[unit("b", "1")], 1, 2));
        whole.delete.clear();
        whole.replace = (0..=u8::MAX).collect();
        whole.keep = vec![unit("b", "1").id];
        let Verdict::Apply(units) = judge("edge-1", &mine, &whole) else { panic!("not applied") };
        assert_eq!(units.iter().cloned().collect::<Vec<_>>(), [unit("b", "1")]);
    }

    #[test]
    fn what_is_not_what_it_says_is_refused() {
        let (old, new) = (held(&[], 1, 1), held(&[unit("a", "1")], 1, 2));
        let change = |edit: fn(&mut Push)| {
            let mut push = push(&old, &new);
            edit(&mut push);
            refused(&old, &push)
        };
        assert_eq!(change(|push| push.wire = 99), NackReason::UnknownWire);
        assert_eq!(change(|push| push.proxy = "edge-2".to_owned()), NackReason::WrongProxy);
        let swap_bytes = |push: &mut Push| push.put[0].body = unit("a", "2").body;
        assert!(matches!(change(swap_bytes), NackReason::HashMismatch(_)));
        assert!(matches!(change(|push| push.put.clear()), NackReason::HashMismatch(_)));
    }
}
