//! How a status is merged into the one that stands.

use super::*;
use crate::status::{AncestorStatus, ListenerStatus, ParentStatus};

const THEN: &str = "2026-01-01T00:00:00Z";
const NOW: &str = "2026-06-01T12:00:00Z";

fn condition(kind: &'static str, status: ConditionStatus, message: &str) -> Condition {
    Condition { kind, status, reason: "Reason", message: message.into() }
}

fn written(kind: &str, status: &str, message: &str, generation: i64, since: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": "Reason", "message": message,
        "observedGeneration": generation, "lastTransitionTime": since,
    })
}

fn class(conditions: Vec<Condition>) -> DesiredStatus {
    let content = StatusContent::GatewayClass { conditions, supported_features: vec!["Gateway"] };
    DesiredStatus { observed_generation: 3, uid: "u".into(), content }
}

fn merge(desired: &DesiredStatus, current: &Value) -> Option<Value> {
    merge_status(desired, current, NOW.parse().unwrap())
}

/// The conditions after a merge into these.
fn merged(desired: Vec<Condition>, current: Value) -> Value {
    let current = json!({ "conditions": current });
    merge(&class(desired), &current).expect("a change")["conditions"].clone()
}

fn route(parents: &[&str]) -> DesiredStatus {
    let parents = parents.iter().map(|name| ParentStatus {
        parent: serde_json::from_value(json!({ "name": name, "sectionName": "http" })).unwrap(),
        conditions: vec![condition("Accepted", ConditionStatus::True, "yes")],
    });
    let content = StatusContent::Route { controller: "us.dev/x".into(), parents: parents.collect() };
    DesiredStatus { observed_generation: 3, uid: "u".into(), content }
}

#[test]
fn defaults_without_a_generation_are_replaced() {
    let accepted = condition("Accepted", ConditionStatus::True, "yes");
    let default = json!([{
        "type": "Accepted", "status": "Unknown", "reason": "Pending", "message": "Waiting",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]);
    assert_eq!(merged(vec![accepted], default), json!([written("Accepted", "True", "yes", 3, NOW)]));
}

#[test]
fn time_moves_only_when_the_status_flips() {
    let accepted = |status| condition("Accepted", status, "new");
    let current = json!([written("Accepted", "True", "old", 2, THEN)]);
    let same = merged(vec![accepted(ConditionStatus::True)], current.clone());
    assert_eq!(same, json!([written("Accepted", "True", "new", 3, THEN)]));
    let flipped = merged(vec![accepted(ConditionStatus::False)], current);
    assert_eq!(flipped, json!([written("Accepted", "False", "new", 3, NOW)]));
}

#[test]
fn what_is_as_desired_is_not_written() {
    let desired = class(vec![condition("Accepted", ConditionStatus::True, "yes")]);
    let status = merge(&desired, &Value::Null).unwrap();
    assert_eq!(merge_status(&desired, &status, THEN.parse().unwrap()), None);
}

#[test]
fn our_conditions_that_hold_no_more_go_and_others_stay() {
    let current = json!([
        written("PartiallyInvalid", "True", "gone", 2, THEN),
        written("portreeve.dev/Programmed", "False", "gone", 2, THEN),
        written("example.com/Theirs", "True", "stays", 1, THEN),
    ]);
    let accepted = condition("Accepted", ConditionStatus::True, "yes");
    let wanted = json!([
        written("Accepted", "True", "yes", 3, NOW),
        written("example.com/Theirs", "True", "stays", 1, THEN),
    ]);
    assert_eq!(merged(vec![accepted], current), wanted);
}

#[test]
fn what_is_kept_stays_as_long_as_it_is_about_this_generation() {
    let keep = || vec![condition("Programmed", ConditionStatus::Keep, "waiting")];
    let current = json!([written("Programmed", "True", "all", 3, THEN)]);
    assert_eq!(merged(keep(), current.clone()), current);
    let older = json!([written("Programmed", "True", "all", 2, THEN)]);
    let unknown = json!([written("Programmed", "Unknown", "waiting", 3, NOW)]);
    assert_eq!(merged(keep(), older), unknown);
    assert_eq!(merged(keep(), json!([])), unknown);
}

#[test]
fn listeners_and_addresses_are_those_of_the_gateway_and_what_we_do_not_know_stays() {
    let listener = |name: &str| ListenerStatus {
        name: name.into(),
        supported_kinds: vec![("group", "HTTPRoute")],
        attached_routes: 2,
        conditions: vec![condition("Accepted", ConditionStatus::True, "yes")],
        units: Vec::new(),
    };
    let gateway = GatewayStatus {
        conditions: Vec::new(),
        addresses: vec![("IPAddress", "10.0.0.1".into())],
        attached_sets: 0,
        listeners: vec![listener("kept"), listener("new")],
    };
    let desired =
        DesiredStatus { observed_generation: 3, uid: "u".into(), content: StatusContent::Gateway(gateway) };
    let accepted = |since| json!([written("Accepted", "True", "yes", 3, since)]);
    let current = json!({
        "attachedListenerSets": 1,
        "notKnown": 1,
        "addresses": [{ "type": "Hostname", "value": "gone" }],
        "listeners": [
            { "name": "gone", "attachedRoutes": 1, "supportedKinds": [], "conditions": [] },
            { "name": "kept", "attachedRoutes": 1, "supportedKinds": [], "conditions": accepted(THEN) },
        ],
    });
    let kinds = json!([{ "group": "group", "kind": "HTTPRoute" }]);
    let wanted = json!({
        "attachedListenerSets": 0,
        "notKnown": 1,
        "addresses": [{ "type": "IPAddress", "value": "10.0.0.1" }],
        "listeners": [
            { "name": "kept", "attachedRoutes": 2, "supportedKinds": kinds, "conditions": accepted(THEN) },
            { "name": "new", "attachedRoutes": 2, "supportedKinds": kinds, "conditions": accepted(NOW) },
        ],
    });
    assert_eq!(merge(&desired, &current), Some(wanted));
}

#[test]
fn entries_of_other_controllers_stay_and_ours_are_those_desired() {
    let entry = |controller: &str, parent: &str, since: &str| {
        json!({
            "controllerName": controller,
            "parentRef": {
                "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": parent, "sectionName": "http",
            },
            "conditions": [written("Accepted", "True", "yes", 3, since)],
        })
    };
    let theirs = entry("them.dev/x", "theirs", THEN);
    let current =
        json!({ "parents": [entry("us.dev/x", "gone", THEN), theirs, entry("us.dev/x", "a", THEN)] });
    let wanted = json!({ "parents": [theirs, entry("us.dev/x", "a", THEN), entry("us.dev/x", "b", NOW)] });
    assert_eq!(merge(&route(&["a", "b"]), &current), Some(wanted.clone()));
    assert_eq!(merge(&route(&["a", "b"]), &wanted), None);
    assert_eq!(merge(&route(&[]), &wanted), Some(json!({ "parents": [theirs] })));
    // Where another controller puts its entry last, ours is not put behind it again.
    let reversed = json!({ "parents": [entry("us.dev/x", "b", THEN), entry("us.dev/x", "a", THEN), theirs] });
    assert_eq!(merge(&route(&["a", "b"]), &reversed), None);
}

#[test]
fn a_route_of_more_parents_than_its_status_holds_says_what_fits() {
    let names: Vec<_> = (0..40).map(|index| format!("g{index}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let theirs = json!({ "controllerName": "them.dev/x", "parentRef": {}, "conditions": [] });
    let written = merge(&route(&names), &json!({ "parents": [theirs] })).expect("a change");
    let parents = written["parents"].as_array().expect("a list");
    assert_eq!((parents.len(), &parents[0]), (32, &theirs));
    assert_eq!(merge(&route(&names), &written), None);
}

#[test]
fn a_route_that_is_not_ours_is_left_alone() {
    assert_eq!(merge(&route(&[]), &Value::Null), None);
    assert_eq!(merge(&route(&[]), &json!({ "parents": [] })), None);
    let theirs =
        json!({ "parents": [{ "controllerName": "them.dev/x", "parentRef": {}, "conditions": [] }] });
    assert_eq!(merge(&route(&[]), &theirs), None);
    let ours = json!({ "parents": [{ "controllerName": "us.dev/x", "parentRef": {}, "conditions": [] }] });
    assert_eq!(merge(&route(&[]), &ours), Some(json!({ "parents": [] })));
}

#[test]
fn an_xbackend_has_an_entry_for_each_gateway_beside_those_of_others() {
    let backend = |gateways: usize| {
        let parents = (0..gateways).map(|index| AncestorStatus {
            gateway: ObjectName::new("shop", format!("g{index}")),
            conditions: vec![condition("Accepted", ConditionStatus::True, "yes")],
        });
        let content = StatusContent::Backend { controller: "us.dev/x".into(), parents: parents.collect() };
        DesiredStatus { observed_generation: 3, uid: "u".into(), content }
    };
    let theirs = json!({ "controllerName": "them.dev/x", "parentRef": { "name": "g0" }, "conditions": [] });
    let ours = json!({
        "controllerName": "us.dev/x",
        "parentRef": {
            "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop", "name": "g0",
        },
        "conditions": [written("Accepted", "True", "yes", 3, NOW)],
    });
    let before = json!({ "parents": [theirs] });
    let merged = merge(&backend(1), &before).expect("a change");
    assert_eq!(merged, json!({ "parents": [theirs, ours] }));
    assert_eq!(merge(&backend(1), &merged), None);
    assert_eq!(merge(&backend(0), &merged), Some(before.clone()), "no route leads there any more");
    assert_eq!(merge(&backend(0), &Value::Null), None);
    let many = merge(&backend(40), &before).expect("a change");
    assert_eq!(many["parents"].as_array().map(Vec::len), Some(32), "what the definition allows");
}
