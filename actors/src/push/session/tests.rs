//! A session against a proxy that follows the wire's rules to the letter.

use proptest::prelude::*;
use proxy_config::certificate::{Certificate, PrivateKey};
use proxy_config::listener::Listener;
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::unit::{EncodedUnit, Unit};
use proxy_config::wire::{NeedUnits, kept};

use super::*;

/// The store of a proxy, as `proxy_config::wire` specifies it.
struct Proxy {
    version: Version,
    units: UnitSet,
    moved: usize,
}

impl Proxy {
    fn holding(units: UnitSet) -> Self {
        Self { version: Version::default(), units, moved: 0 }
    }

    fn take(&mut self, push: Push) -> Reply {
        let proxy = "edge".to_owned();
        if push.version < self.version {
            return Reply::Nack(Nack { proxy, version: self.version, reason: NackReason::Stale });
        }
        if push.base != self.units.root() {
            let (buckets, kept) = (self.units.bucket_hashes(), kept(&self.units, &push.keep));
            return Reply::NeedUnits(NeedUnits { proxy, root: self.units.root(), buckets, kept });
        }
        self.moved += push.put.len() + push.delete.len();
        let kept = kept(&self.units, &push.keep);
        let dropped: Vec<UnitId> = (push.replace.iter())
            .flat_map(|&bucket| self.units.bucket(bucket))
            .map(|unit| unit.id.clone())
            .filter(|id| kept.iter().all(|kept| kept.id != *id))
            .collect();
        self.units.apply([], dropped);
        self.units.apply(push.put, push.delete);
        assert_eq!(self.units.root(), push.root);
        self.version = push.version;
        Reply::Ack(Ack { proxy, version: push.version, root: push.root, broken: Vec::new() })
    }
}

fn set(units: &[(u8, u8)]) -> UnitSet {
    let unit = |&(name, content): &(u8, u8)| {
        let id = UnitId::key(&ObjectName::new("ns", format!("k{name}")));
        EncodedUnit::new(id, &Unit::Key(PrivateKey { pem: content.to_string() }))
    };
    units.iter().map(unit).collect()
}

fn target(generation: u64, units: &[(u8, u8)]) -> Target {
    Target { version: Version { term: 1, generation }, units: set(units), keep: OrdSet::new() }
}

/// Pushes until acked; how many pushes it took.
#[track_caller]
fn settle(session: &mut Session, proxy: &mut Proxy, target: &Target) -> usize {
    for count in 1..4 {
        let reply = proxy.take(session.push(target, None));
        if let Outcome::Acked(_) = session.take(target, reply) {
            assert!(!session.needs(target));
            return count;
        }
    }
    panic!("not settled");
}

#[test]
fn a_failover_moves_nothing() {
    let mut proxy = Proxy::holding(set(&[(1, 1), (2, 2)]));
    assert_eq!(settle(&mut Session::new("edge"), &mut proxy, &target(1, &[(1, 1), (2, 2)])), 1);
    assert_eq!(proxy.moved, 0);
}

#[test]
fn a_change_moves_what_changed() {
    let mut proxy = Proxy::holding(UnitSet::default());
    let mut session = Session::new("edge");
    settle(&mut session, &mut proxy, &target(1, &[(1, 1), (2, 2), (3, 3)]));
    proxy.moved = 0;
    assert_eq!(settle(&mut session, &mut proxy, &target(2, &[(1, 1), (2, 9)])), 1);
    assert_eq!(proxy.moved, 2, "one put, one deleted");
}

#[test]
fn the_same_root_is_sent_again_only_under_a_new_term() {
    let mut proxy = Proxy::holding(UnitSet::default());
    let mut session = Session::new("edge");
    settle(&mut session, &mut proxy, &target(1, &[(1, 1)]));
    assert!(!session.needs(&target(2, &[(1, 1)])));
    let mut later = target(1, &[(1, 1)]);
    later.version.term = 2;
    assert!(session.needs(&later));
}

#[test]
fn a_later_term_in_force_is_told_apart_from_other_refusals() {
    let mut proxy = Proxy::holding(UnitSet::default());
    proxy.version = Version { term: 9, generation: 1 };
    let mut session = Session::new("edge");
    let target = target(5, &[(1, 1)]);
    let reply = proxy.take(session.push(&target, None));
    assert_eq!(session.take(&target, reply), Outcome::Superseded(9));
    proxy.version = Version { generation: 7, ..target.version };
    let reply = proxy.take(session.push(&target, None));
    assert_eq!(session.take(&target, reply), Outcome::Superseded(1), "another has had our term");
    let version = Version { generation: 4, ..target.version };
    let stale = Reply::Nack(Nack { proxy: "edge".into(), version, reason: NackReason::Stale });
    assert!(matches!(session.take(&target, stale), Outcome::Refused(_)));
}

#[test]
fn an_answer_of_another_proxy_counts_for_nothing() {
    let mut session = Session::new("other");
    let target = target(1, &[]);
    let reply = Proxy::holding(UnitSet::default()).take(session.push(&target, None));
    assert_eq!(session.take(&target, reply), Outcome::WrongProxy("edge".into()));
    assert!(session.needs(&target));
}

#[test]
fn an_ack_of_another_root_is_not_an_ack() {
    let mut session = Session::new("edge");
    let target = target(1, &[(1, 1)]);
    let root = UnitSet::default().root();
    let ack = Ack { proxy: "edge".into(), version: target.version, root, broken: Vec::new() };
    assert_eq!(session.take(&target, Reply::Ack(ack)), Outcome::WrongRoot(root));
    assert!(session.needs(&target));
}

/// A listener, its certificate and the key of that, of this content.
fn served(content: u8) -> Vec<EncodedUnit> {
    let secret = ObjectName::new("ns", "cert");
    let (certificate, key) = (UnitId::certificate(&secret), UnitId::key(&secret));
    let json = serde_json::json!({
        "bind": { "address": "node", "port": 443 }, "protocol": "HTTPS", "name": "https",
        "gateway": { "namespace": "ns", "name": "edge" }, "certificates": [certificate],
    });
    let listener: Listener = serde_json::from_value(json).unwrap();
    let chain = content.to_string();
    let units = [
        (listener_id(), Unit::Listener(listener)),
        (certificate, Unit::Certificate(Certificate { chain: chain.clone(), key: key.clone() })),
        (key, Unit::Key(PrivateKey { pem: chain })),
    ];
    units.into_iter().map(|(id, unit)| EncodedUnit::new(id, &unit)).collect()
}

fn listener_id() -> UnitId {
    UnitId::listener(&ObjectName::new("ns", "edge"), "https")
}

/// A target that says these units, and to keep the listener.
fn keeping(generation: u64, units: &[(u8, u8)]) -> Target {
    Target { keep: OrdSet::unit(listener_id()), ..target(generation, units) }
}

#[test]
fn what_can_not_be_told_stays_with_what_it_needs_while_all_else_changes() {
    let both = |units: &[(u8, u8)], content| {
        let mut both = set(units);
        both.apply(served(content), []);
        both
    };
    let mut proxy = Proxy::holding(both(&[(1, 1), (2, 2)], 1));
    // A new leader, which could not read the Secret yet.
    let mut session = Session::new("edge");
    settle(&mut session, &mut proxy, &keeping(1, &[(1, 1), (2, 9)]));
    assert_eq!(proxy.units.root(), both(&[(1, 1), (2, 9)], 1).root());
    assert_eq!(settle(&mut session, &mut proxy, &keeping(2, &[(3, 3)])), 1, "nothing is asked again");
    assert_eq!(proxy.units.root(), both(&[(3, 3)], 1).root());
    // It has been read: what is the same does not travel, and what differs does.
    proxy.moved = 0;
    let read = |generation, content| Target { units: both(&[(3, 3)], content), ..target(generation, &[]) };
    assert_eq!(settle(&mut session, &mut proxy, &read(3, 1)), 1);
    assert_eq!(proxy.moved, 0);
    settle(&mut session, &mut proxy, &keeping(4, &[(3, 3)]));
    settle(&mut session, &mut proxy, &read(5, 2));
    assert_eq!(proxy.units.root(), both(&[(3, 3)], 2).root());
}

#[test]
fn what_is_said_wins_over_what_is_kept_but_for_the_listener() {
    let (old, new) = (served(1), served(2));
    let mut proxy = Proxy::holding(old.iter().cloned().collect());
    let certificates: UnitSet = new[1..].iter().cloned().collect();
    let target = Target { units: certificates, ..keeping(1, &[]) };
    settle(&mut Session::new("edge"), &mut proxy, &target);
    let wanted: UnitSet = old[..1].iter().chain(&new[1..]).cloned().collect();
    assert_eq!(proxy.units.root(), wanted.root());
}

#[test]
fn where_nothing_is_held_there_is_nothing_to_keep() {
    let mut proxy = Proxy::holding(UnitSet::default());
    let mut session = Session::new("edge");
    settle(&mut session, &mut proxy, &keeping(1, &[(1, 1)]));
    assert_eq!(proxy.units.root(), set(&[(1, 1)]).root());
    // Nor is what the proxy is told to drop.
    settle(&mut session, &mut proxy, &target(2, &[]));
    assert!(proxy.units.is_empty());
}

proptest! {
    #[test]
    fn from_any_state_two_pushes_at_most_lead_to_the_target(
        held in prop::collection::vec((0..60u8, 0..3u8), 0..60),
        wanted in prop::collection::vec(prop::collection::vec((0..60u8, 0..3u8), 0..60), 1..5),
        lose in prop::collection::vec(any::<bool>(), 5),
    ) {
        let mut proxy = Proxy::holding(set(&held));
        let mut session = Session::new("edge");
        for (generation, (units, lose)) in wanted.iter().zip(lose).enumerate() {
            let target = target(generation as u64, units);
            if lose {
                proxy.take(session.push(&target, None));
                session.forget();
            }
            prop_assert!(settle(&mut session, &mut proxy, &target) <= 2);
            prop_assert_eq!(proxy.units.root(), target.units.root());
        }
    }
}
