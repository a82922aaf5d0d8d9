//! What the proxies' answers add to statuses.

use proxy_config::certificate::PrivateKey;
use proxy_config::unit::{EncodedUnit, Unit};

use super::answers::GRACE;
use super::*;
use crate::snapshot::http_route::ParentRef;
use crate::status::ParentStatus;

mod incremental;

fn id(listener: &str) -> UnitId {
    UnitId::listener(&ObjectName::new("shop", "edge"), listener)
}

fn route() -> (ObjectRef, UnitId) {
    let name = ObjectName::new("shop", "cart");
    (ObjectRef::new(Kind::HttpRoute, name.clone()), UnitId::route("HTTPRoute", &name))
}

/// Units with a version each, whatever they hold.
fn units(versions: &[(UnitId, &str)]) -> UnitSet {
    let unit = |(id, version): &(UnitId, &str)| {
        EncodedUnit::new(id.clone(), &Unit::Key(PrivateKey { pem: (*version).to_owned() }))
    };
    versions.iter().map(unit).collect()
}

fn status(content: StatusContent) -> Arc<DesiredStatus> {
    Arc::new(DesiredStatus { observed_generation: 1, uid: "u".into(), content })
}

/// A Gateway with a listener for each name, and a route, all at version 2.
fn translation(listeners: &[&str]) -> Translation {
    let listener = |name: &&str| ListenerStatus {
        name: (*name).into(),
        supported_kinds: Vec::new(),
        attached_routes: 0,
        conditions: Vec::new(),
        units: vec![id(name)],
    };
    let gateway = GatewayStatus {
        conditions: Vec::new(),
        addresses: Vec::new(),
        attached_sets: 0,
        listeners: listeners.iter().map(listener).collect(),
    };
    let parent: ParentRef = serde_json::from_value(serde_json::json!({ "name": "edge" })).unwrap();
    let parents = vec![ParentStatus { parent, conditions: Vec::new() }];
    let mut versions: Vec<_> = listeners.iter().map(|name| (id(name), "2")).collect();
    versions.push((route().1, "2"));
    let gateway_ref = ObjectRef::new(Kind::Gateway, ObjectName::new("shop", "edge"));
    Translation {
        units: units(&versions),
        statuses: OrdMap::from_iter([
            (gateway_ref, status(StatusContent::Gateway(gateway))),
            (route().0, status(StatusContent::Route { controller: "us".into(), parents })),
        ]),
        ..Translation::default()
    }
}

fn holding(units: UnitSet) -> ProxyState {
    ProxyState { ready: true, acked: Some(Acked { units, ..Acked::default() }), ..ProxyState::default() }
}

fn fleet<const N: usize>(proxies: [(&str, ProxyState); N]) -> Fleet {
    let named =
        |(name, proxy): (&str, _)| (format!("uid of {name}"), ProxyState { name: name.into(), ..proxy });
    let proxies = proxies.into_iter().map(named).collect();
    Fleet { proxies, led_for: Duration::from_secs(3600), now: 0 }
}

/// Programmed of the Gateway, then of its listeners, as `status reason: message`.
#[track_caller]
fn check(translation: &Translation, fleet: &Fleet, wanted: &[&str]) {
    let statuses = finalise(translation, fleet);
    let gateway = statuses.get(&ObjectRef::new(Kind::Gateway, ObjectName::new("shop", "edge"))).unwrap();
    let StatusContent::Gateway(gateway) = &gateway.content else { panic!("{gateway:?}") };
    let all = std::iter::once(&gateway.conditions).chain(gateway.listeners.iter().map(|one| &one.conditions));
    let found: Vec<_> = all
        .map(|conditions| {
            let condition = conditions.iter().find(|condition| condition.kind == PROGRAMMED).unwrap();
            format!("{:?} {}: {}", condition.status, condition.reason, condition.message)
        })
        .collect();
    assert_eq!(found, wanted);
}

#[test]
fn what_every_ready_proxy_holds_is_programmed() {
    let wanted = translation(&["http"]);
    let all = || holding(wanted.units.clone());
    let mut starting = holding(UnitSet::default());
    starting.ready = false;
    let line = "True Programmed: all proxies serve it";
    check(&wanted, &fleet([("a", all()), ("b", all()), ("starting", starting)]), &[line, line]);
}

#[test]
fn what_is_on_its_way_stays_as_it_stands() {
    let wanted = translation(&["http"]);
    let line = "Keep Pending: waiting for the proxies";
    let behind = || holding(units(&[(id("http"), "1")]));
    check(&wanted, &fleet([("a", holding(wanted.units.clone())), ("b", behind())]), &[line, line]);
    check(&wanted, &fleet([("a", holding(UnitSet::default()))]), &[line, line]);
}

#[test]
fn a_proxy_that_does_not_answer_is_left_out_and_named() {
    let wanted = translation(&["http"]);
    let all = || holding(wanted.units.clone());
    let silent = || ProxyState { ready: true, silent: true, ..ProxyState::default() };
    let line = "True Programmed: 3 of 4 proxies serve it; not answering: d";
    check(&wanted, &fleet([("a", all()), ("b", all()), ("c", all()), ("d", silent())]), &[line, line]);
    let line = "Keep Pending: waiting for the proxies";
    check(&wanted, &fleet([("a", silent())]), &[line, line]);
}

#[test]
fn a_broken_unit_is_not_programmed_and_says_why() {
    let wanted = translation(&["http", "other"]);
    let mut broken = holding(wanted.units.clone());
    let reason = "address in use: 10.0.0.1:80".to_owned();
    broken.acked.as_mut().unwrap().broken.insert(id("http"), reason);
    check(
        &wanted,
        &fleet([("a", holding(wanted.units.clone())), ("b", broken)]),
        &[
            "True Programmed: all proxies serve it; not served: http",
            "False Invalid: b: address in use: 10.0.0.1:80",
            "True Programmed: all proxies serve it",
        ],
    );
}

#[test]
fn what_was_broken_before_it_changed_says_nothing_of_what_it_is_now() {
    let wanted = translation(&["http"]);
    let mut behind = holding(units(&[(id("http"), "1"), (route().1, "1")]));
    let broken = [(id("http"), "old".to_owned()), (route().1, "old".to_owned())];
    behind.acked.as_mut().unwrap().broken.extend(broken);
    let line = "Keep Pending: waiting for the proxies";
    let fleet = fleet([("a", behind)]);
    check(&wanted, &fleet, &[line, line]);
    assert_eq!(finalise(&wanted, &fleet).get(&route().0), wanted.statuses.get(&route().0));
}

#[test]
fn a_broken_route_says_so_for_each_parent() {
    let wanted = translation(&["http"]);
    let mut broken = holding(wanted.units.clone());
    broken.acked.as_mut().unwrap().broken.insert(route().1, "too large".to_owned());
    let statuses = finalise(&wanted, &fleet([("a", broken), ("b", holding(wanted.units.clone()))]));
    let StatusContent::Route { parents, .. } = &statuses.get(&route().0).unwrap().content else {
        panic!("a route")
    };
    let [condition] = &parents[0].conditions[..] else { panic!("{parents:?}") };
    assert_eq!((condition.kind, condition.status), ("portreeve.dev/Programmed", ConditionStatus::False));
    assert_eq!(condition.message, "a: too large");
}

#[test]
fn without_a_proxy_there_are_no_resources() {
    let wanted = translation(&["http"]);
    let lines = ["False NoResources: no proxy is ready", "False Pending: no proxy is ready"];
    check(&wanted, &Fleet::default(), &lines);
}

#[test]
fn a_refusal_is_shown() {
    let wanted = translation(&["http"]);
    let mut refusing = holding(UnitSet::default());
    refusing.refused = Some("wire version 2 is not known".into());
    let line = "False Pending: a: wire version 2 is not known";
    check(&wanted, &fleet([("a", refusing)]), &[line, line]);
}

#[test]
fn after_a_failover_what_is_not_known_changes_nothing_for_30_seconds() {
    let wanted = translation(&["http"]);
    let unknown = || ProxyState { ready: true, silent: true, ..ProxyState::default() };
    let mut fleet = fleet([("a", holding(wanted.units.clone())), ("b", unknown())]);
    fleet.led_for = Duration::from_secs(29);
    let line = "Keep Pending: waiting for the proxies";
    check(&wanted, &fleet, &[line, line]);
    fleet.led_for = GRACE;
    let line = "True Programmed: 1 of 2 proxies serve it; not answering: b";
    check(&wanted, &fleet, &[line, line]);
}

#[test]
fn a_message_names_a_few_of_many_proxies_and_stays_short() {
    let wanted = translation(&["http"]);
    let mut broken = holding(wanted.units.clone());
    let reason = "é".repeat(3000);
    broken.acked.as_mut().unwrap().broken.extend([(id("http"), reason.clone()), (route().1, reason.clone())]);
    let refusing = ProxyState { refused: Some(reason), ..holding(UnitSet::default()) };
    let silent = ProxyState { silent: true, ..holding(wanted.units.clone()) };
    let answering = ("answering".to_owned(), holding(wanted.units.clone()));
    for (proxy, ends) in
        [(broken, "; and 995 more"), (refusing, "; and 995 more"), (silent, ", and 995 more")]
    {
        let mut fleet = fleet([]);
        let name = |index| format!("proxy-{index}");
        let proxies = (0..1000).map(|index| (name(index), ProxyState { name: name(index), ..proxy.clone() }));
        fleet.proxies = proxies.collect();
        fleet.proxies.extend([answering.clone()]);
        let statuses = finalise(&wanted, &fleet);
        let mut messages = Vec::new();
        for status in statuses.values() {
            let conditions: Vec<_> = match &status.content {
                StatusContent::Gateway(gateway) | StatusContent::ListenerSet(gateway) => {
                    gateway.listeners[0].conditions.iter().collect()
                }
                StatusContent::Route { parents, .. } => parents[0].conditions.iter().collect(),
                StatusContent::GatewayClass { .. }
                | StatusContent::Policy { .. }
                | StatusContent::Backend { .. } => panic!("there is none"),
            };
            messages.extend(conditions.into_iter().map(|condition| condition.message.clone()));
        }
        assert!(!messages.is_empty());
        for message in messages {
            assert!(message.len() < 8192 && message.ends_with(ends), "{} {message:.300}", message.len());
        }
    }
}
