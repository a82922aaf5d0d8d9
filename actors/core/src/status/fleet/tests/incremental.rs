//! What is worked out change by change is what would be worked out from nothing, and costs what changed.

use proptest::prelude::*;

use super::*;
use crate::translate::Validity;

/// Listeners of each Gateway.
const LISTENERS: [&str; 3] = ["a", "b", "c"];

/// Something that changes.
#[derive(Clone, Debug)]
enum Step {
    /// A Gateway (a ListenerSet from the third on) has these of the listeners, at a version, or is gone.
    Holder(u8, Option<(u8, u8)>),
    /// A route has a version, or is gone.
    Route(u8, Option<u8>),
    /// The certificate of a Gateway is valid for that long.
    Certificate(u8, Option<(i64, i64)>),
    /// A proxy is there, ready or not, silent or not, holding what was wanted so many steps ago, with some of that
    /// broken, having refused something, or is not there.
    Proxy(u8, Option<(bool, bool, Option<u8>, u8, bool)>),
    /// It is that time, and this process has led for that long.
    Time(i64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let held = prop::option::weighted(0.8, 0..3u8);
    let proxy = (any::<bool>(), prop::bool::weighted(0.2), held, 0..8u8, prop::bool::weighted(0.2));
    let step = prop_oneof![
        (0..4u8, prop::option::weighted(0.8, (0..8u8, 0..3u8))).prop_map(|(n, what)| Step::Holder(n, what)),
        (0..2u8, prop::option::of(0..3u8)).prop_map(|(n, what)| Step::Route(n, what)),
        (0..4u8, prop::option::of((0..50i64, 0..100i64))).prop_map(|(n, what)| Step::Certificate(n, what)),
        (0..3u8, prop::option::weighted(0.9, proxy)).prop_map(|(n, what)| Step::Proxy(n, what)),
        (0..120i64, 0..60u64).prop_map(|(now, led)| Step::Time(now, led)),
    ];
    prop::collection::vec(step, 1..40)
}

fn holder(number: u8) -> (ObjectRef, ObjectName) {
    let name = ObjectName::new("shop", format!("g{number}"));
    let kind = if number < 2 { Kind::Gateway } else { Kind::ListenerSet };
    (ObjectRef::new(kind, name.clone()), name)
}

fn numbered_route(number: u8) -> (ObjectRef, UnitId) {
    let name = ObjectName::new("shop", format!("r{number}"));
    (ObjectRef::new(Kind::HttpRoute, name.clone()), UnitId::route("HTTPRoute", &name))
}

fn set_holder(translation: &mut Translation, number: u8, what: Option<(u8, u8)>) {
    let (object, name) = holder(number);
    let ids = LISTENERS.map(|listener| UnitId::listener(&name, listener));
    translation.units.apply([], ids.clone());
    let Some((listeners, version)) = what else { return drop(translation.statuses.remove(&object)) };
    let mut status = GatewayStatus {
        conditions: Vec::new(),
        addresses: Vec::new(),
        attached_sets: 0,
        listeners: Vec::new(),
    };
    for (place, id) in ids.iter().enumerate() {
        let is_served = listeners & (1 << place) != 0;
        let needs = [id.clone(), UnitId::certificate(&name)];
        status.listeners.push(ListenerStatus {
            name: LISTENERS[place].into(),
            supported_kinds: Vec::new(),
            attached_routes: version.into(),
            conditions: Vec::new(),
            units: needs.into_iter().filter(|_| is_served).collect(),
        });
        let unit = units(&[(id.clone(), &version.to_string())]);
        translation.units.apply(unit.iter().filter(|_| is_served).cloned(), []);
    }
    let content =
        if number < 2 { StatusContent::Gateway(status) } else { StatusContent::ListenerSet(status) };
    translation.statuses.insert(object, super::status(content));
}

fn set_route(translation: &mut Translation, number: u8, version: Option<u8>) {
    let (object, id) = numbered_route(number);
    translation.units.apply([], [id.clone()]);
    let Some(version) = version else { return drop(translation.statuses.remove(&object)) };
    translation.units.apply(units(&[(id, &version.to_string())]).iter().cloned(), []);
    let parent: ParentRef = serde_json::from_value(serde_json::json!({ "name": "edge" })).unwrap();
    let parents = vec![ParentStatus { parent, conditions: Vec::new() }];
    let content = StatusContent::Route { controller: "us".into(), parents };
    translation.statuses.insert(object, super::status(content));
}

fn take(step: &Step, wanted: &mut Vec<Translation>, fleet: &mut Fleet) {
    let mut translation = wanted.last().cloned().unwrap_or_default();
    match step {
        Step::Holder(number, what) => set_holder(&mut translation, *number, *what),
        Step::Route(number, version) => set_route(&mut translation, *number, *version),
        Step::Certificate(number, validity) => {
            let (_, name) = holder(*number);
            translation.expiries.remove(&name);
            if let Some((from, until)) = *validity {
                translation.expiries.insert(name, Validity { from, until });
            }
        }
        Step::Proxy(number, None) => drop(fleet.proxies.remove(&number.to_string())),
        Step::Proxy(number, Some((ready, silent, held, broken, refuses))) => {
            let held = held.and_then(|ago| wanted.iter().rev().nth(ago.into())).map(|then| Acked {
                units: then.units.clone(),
                broken: (then.units.iter().enumerate())
                    .filter(|(place, _)| broken & (1 << (place % 8)) != 0)
                    .map(|(_, unit)| (unit.id.clone(), "bad".to_owned()))
                    .collect(),
            });
            let state = ProxyState {
                name: format!("node-{number}"),
                ready: *ready,
                silent: *silent,
                acked: held,
                refused: refuses.then(|| "no".to_owned()),
            };
            fleet.proxies.insert(number.to_string(), state);
        }
        Step::Time(now, led) => (fleet.now, fleet.led_for) = (*now, Duration::from_secs(*led)),
    }
    wanted.push(translation);
}

proptest! {
    #[test]
    fn change_by_change_is_as_from_nothing(steps in steps()) {
        let (mut wanted, mut fleet) = (vec![Translation::default()], Fleet::default());
        let mut finaliser = Finaliser::default();
        for step in &steps {
            take(step, &mut wanted, &mut fleet);
            let translation = wanted.last().unwrap();
            let before = finaliser.statuses().clone();
            let mut changed = finaliser.update(translation, &fleet);
            prop_assert_eq!(finaliser.statuses(), &finalise(translation, &fleet), "{:?}", step);
            changed.sort();
            let objects: BTreeSet<_> = before.keys().chain(finaliser.statuses().keys()).cloned().collect();
            let differs = |object: &&ObjectRef| before.get(*object) != finaliser.statuses().get(*object);
            prop_assert_eq!(changed, objects.iter().filter(differs).cloned().collect::<Vec<_>>());
        }
    }
}

#[test]
fn an_answer_costs_the_listeners_that_waited_for_it() {
    let mut old = Translation::default();
    for number in 0..200 {
        set_holder(&mut old, number, Some((7, 0)));
        set_route(&mut old, number, Some(0));
    }
    let mut fleet = fleet([("a", holding(old.units.clone())), ("b", holding(old.units.clone()))]);
    let mut finaliser = Finaliser::default();
    finaliser.update(&old, &fleet);
    let (mut route, mut listener) = (old.clone(), old.clone());
    set_route(&mut route, 7, Some(1));
    set_holder(&mut listener, 7, Some((7, 1)));
    for (new, counts) in [(route, [0; 4]), (old, [0; 4]), (listener, [1, 1, 1, 0])] {
        // The change, an answer from each proxy, and one that says nothing new.
        let mut worked_out = Vec::new();
        finaliser.update(&new, &fleet);
        worked_out.push(finaliser.worked_out());
        for proxy in ["uid of a", "uid of b", "uid of b"] {
            fleet.proxies.get_mut(proxy).unwrap().acked.as_mut().unwrap().units = new.units.clone();
            finaliser.update(&new, &fleet);
            worked_out.push(finaliser.worked_out());
        }
        assert_eq!(worked_out, counts);
    }
}
