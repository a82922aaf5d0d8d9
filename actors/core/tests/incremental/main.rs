//! Translating edit by edit says what translating from nothing says, on every replica, and an object that
//! can't be read changes nothing for the others.

mod generated;

use actors_core::snapshot::Snapshot;
use actors_core::snapshot::meta::{Kind, ObjectRef};
use actors_core::status::StatusContent;
use actors_core::status::fleet::{Fleet, finalise};
use actors_core::status::merge::merge_status;
use actors_core::translate::{Settings, Translation, Translator};
use generated::{Edit, edits, edits_outside, ground};
use jiff::Timestamp;
use proptest::prelude::*;
use proxy_config::backend::{BackendTls, Destination};
use proxy_config::name::UnitId;
use proxy_config::unit::{EncodedUnit, Unit};
use serde_json::Value;

fn translated(snapshot: &Snapshot) -> Translation {
    Translator::new(Settings::default()).update(snapshot)
}

fn assert_equal(found: &Translation, wanted: &Translation) -> Result<(), TestCaseError> {
    let (put, delete) = wanted.units.diff(&found.units);
    prop_assert!(put.is_empty() && delete.is_empty(), "units differ: put {put:?} delete {delete:?}");
    prop_assert_eq!(found.units.root(), wanted.units.root());
    prop_assert_eq!(&found.statuses, &wanted.statuses);
    prop_assert_eq!(&found.problems, &wanted.problems);
    prop_assert_eq!(&found.wanted, &wanted.wanted);
    prop_assert_eq!(&found.unread, &wanted.unread);
    prop_assert_eq!(&found.waiting, &wanted.waiting);
    prop_assert_eq!(&found.services, &wanted.services);
    prop_assert_eq!(&found.expiries, &wanted.expiries);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(300), ..ProptestConfig::default() })]

    #[test]
    fn edit_by_edit_is_the_same_as_from_nothing(steps in prop::collection::vec(edits(1..4), 1..25)) {
        let mut snapshot = Snapshot::default();
        let mut translator = Translator::new(Settings::default());
        for step in steps {
            for edit in step {
                edit.apply(&mut snapshot);
            }
            snapshot.generation += 1;
            assert_equal(&translator.update(&snapshot), &translated(&snapshot))?;
        }
    }

    #[test]
    fn replicas_that_saw_another_order_say_the_same(edits in edits(1..60)) {
        let mut one = Snapshot::default();
        edits.iter().for_each(|edit| edit.apply(&mut one));
        let mut other = Snapshot::default();
        let mut translator = Translator::new(Settings::default());
        for kind in Kind::ALL.into_iter().rev() {
            // The last edit of each object decides, whenever the others arrive.
            let mut seen = std::collections::BTreeSet::new();
            let last = edits.iter().rev().filter(|edit| edit.reference().kind == kind);
            last.filter(|edit| seen.insert(edit.reference())).for_each(|edit| edit.apply(&mut other));
            translator.update(&other);
        }
        assert_equal(&translator.update(&other), &translated(&one))?;
    }

    #[test]
    fn what_is_taken_away_leaves_nothing(edits in edits(1..40)) {
        let mut snapshot = Snapshot::default();
        edits.iter().for_each(|edit| edit.apply(&mut snapshot));
        let mut translator = Translator::new(Settings::default());
        translator.update(&snapshot);
        edits.iter().for_each(|edit| _ = snapshot.remove(&edit.reference()));
        let left = translator.update(&snapshot);
        assert_equal(&left, &Translation::default())?;
        prop_assert!(translator.is_empty(), "what was memorised is forgotten: {translator:#?}");
    }

    #[test]
    fn hosts_outside_are_the_same_edit_by_edit_and_leave_nothing(steps in prop::collection::vec(edits_outside(1..4), 1..25)) {
        let mut snapshot = Snapshot::default();
        let mut translator = Translator::new(Settings::default());
        let steps: Vec<_> = [ground().to_vec()].into_iter().chain(steps).collect();
        for step in &steps {
            step.iter().for_each(|edit| edit.apply(&mut snapshot));
            snapshot.generation += 1;
            assert_equal(&translator.update(&snapshot), &translated(&snapshot))?;
        }
        steps.iter().flatten().for_each(|edit| _ = snapshot.remove(&edit.reference()));
        assert_equal(&translator.update(&snapshot), &Translation::default())?;
        prop_assert!(translator.is_empty(), "what was memorised is forgotten: {translator:#?}");
    }

    #[test]
    fn a_steady_state_writes_nothing(edits in edits(1..60)) {
        let mut snapshot = Snapshot::default();
        edits.iter().for_each(|edit| edit.apply(&mut snapshot));
        let translation = translated(&snapshot);
        for (object, status) in &finalise(&translation, &Fleet::default()) {
            let Some(written) = merge_status(status, &Value::Null, Timestamp::UNIX_EPOCH) else { continue };
            let later = Timestamp::from_second(1_000_000).unwrap();
            prop_assert_eq!(merge_status(status, &written, later), None, "{}", object);
        }
    }

    #[test]
    fn a_route_that_can_not_be_read_takes_only_itself_away(edits in edits(20..60), which in 0..6u8) {
        let mut snapshot = Snapshot::default();
        // Without GRPCRoutes: one that had to yield a hostname to it has that again.
        let edits = edits.iter().filter(|edit| edit.reference().kind != Kind::GrpcRoute);
        edits.for_each(|edit| edit.apply(&mut snapshot));
        let before = translated(&snapshot);
        let bad = Edit::malformed(Kind::HttpRoute, which);
        let ObjectRef { name, .. } = bad.reference();
        bad.apply(&mut snapshot);
        let after = translated(&snapshot);
        let (put, delete) = after.units.diff(&before.units);
        // A GRPCRoute that wanted the same hostname may have it now, and with it what it needs.
        let is = |unit: &EncodedUnit, kind: &str| unit.id.as_str().starts_with(kind);
        let follows = put.iter().any(|unit| is(unit, "route/GRPCRoute/"));
        let kinds = ["route/GRPCRoute/", "backend/", "endpoints/", "authority/", "certificate/", "key/"];
        let may_come = |unit: &EncodedUnit| kinds.into_iter().any(|kind| is(unit, kind));
        prop_assert!(put.is_empty() || (follows && put.iter().all(may_come)), "{put:?}");
        // What only its backends had read, as for TLS, goes with them.
        let needed: Vec<_> = after.units.iter().flat_map(|unit| unit.decode().unwrap().needs()).collect();
        let is_spare = |unit: &UnitId| {
            let kinds = ["authority/", "certificate/", "key/"];
            kinds.iter().any(|kind| unit.as_str().starts_with(kind)) && !needed.contains(unit)
        };
        for unit in &delete {
            // Its backends are not needed any more where no other route names them.
            let own = *unit == UnitId::route("HTTPRoute", &name);
            prop_assert!(own || !unit.as_str().starts_with("route/"), "{unit}");
            let is_backend = unit.as_str().starts_with("backend/") || unit.as_str().starts_with("endpoints/");
            prop_assert!(own || is_backend || is_spare(unit), "{unit}");
        }
    }

    #[test]
    fn a_slice_that_can_not_be_read_takes_only_itself_away(edits in edits(20..60), which in 0..6u8) {
        let mut snapshot = Snapshot::default();
        edits.iter().for_each(|edit| edit.apply(&mut snapshot));
        let before = translated(&snapshot);
        let bad = Edit::malformed(Kind::EndpointSlice, which);
        let ObjectRef { name, .. } = bad.reference();
        bad.apply(&mut snapshot);
        let after = translated(&snapshot);
        let (put, delete) = after.units.diff(&before.units);
        prop_assert!(put.is_empty(), "{put:?}");
        prop_assert!(delete.iter().all(|unit| *unit == UnitId::endpoints(&name)), "{delete:?}");
        prop_assert_eq!(&after.statuses, &before.statuses);
    }
}

/// What the generated clusters have together: kinds of unit, kinds of route, reasons.
const EVERYTHING: &[&str] = &[
    "key",
    "certificate",
    "endpoints",
    "backend",
    "listener",
    "route",
    "HTTPRoute",
    "GRPCRoute",
    "TLSRoute",
    "TCPRoute",
    "UDPRoute",
    "authority",
    "NotAllowed",
    "Conflicted",
    "NoValidCACertificate",
    "InvalidCACertificateRef",
    "InvalidClientCertificateRef",
    "HostnameConflict",
    "ProtocolConflict",
    "InvalidCertificateRef",
    "RefNotPermitted",
    "BackendNotFound",
    "NotAllowedByListeners",
    "Malformed",
    "NoMatchingParent",
    "NoMatchingListenerHostname",
    "UnsupportedValue",
    "UnsupportedAddress",
    "UnsupportedProtocol",
    "external",
    "external over TLS",
    "external, shown a certificate",
    "external with a policy",
];

/// The kind of route that a unit is of.
fn route_kind(unit: &UnitId) -> Option<&'static str> {
    let kind = unit.as_str().strip_prefix("route/")?.split('/').next()?;
    ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"].into_iter().find(|known| *known == kind)
}

/// What a unit of an XBackend has.
fn external(unit: &EncodedUnit) -> Vec<&'static str> {
    let Ok(Unit::Backend(backend)) = unit.decode() else { return Vec::new() };
    if !matches!(backend.destination, Destination::External(_)) {
        return Vec::new();
    }
    let verification = match &backend.tls {
        Some(BackendTls::Verified(verification)) => Some(verification),
        _ => None,
    };
    let shown = verification.and_then(|verification| verification.client_certificate.as_ref());
    let has = [
        ("external", true),
        ("external over TLS", verification.is_some()),
        ("external, shown a certificate", shown.is_some()),
        ("external with a policy", backend.traffic.is_some()),
    ];
    has.into_iter().filter(|(_, has)| *has).map(|(what, _)| what).collect()
}

#[test]
fn generated_clusters_serve_routes_over_tls_and_have_every_kind_of_trouble() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeSet::new();
    let mut attached_sets = 0;
    for _ in 0..300 {
        let edits = edits(100..200).new_tree(&mut runner).unwrap().current();
        let mut snapshot = Snapshot::default();
        edits.iter().for_each(|edit| edit.apply(&mut snapshot));
        let translation = translated(&snapshot);
        seen.extend(translation.units.iter().map(|unit| unit.id.kind().unwrap().prefix()));
        seen.extend(translation.units.iter().filter_map(|unit| route_kind(&unit.id)));
        seen.extend(translation.units.iter().flat_map(external));
        let has_sets = |status: &StatusContent| match status {
            StatusContent::Gateway(gateway) => gateway.attached_sets > 0,
            _ => false,
        };
        attached_sets += translation.statuses.values().filter(|status| has_sets(&status.content)).count();
        seen.extend(translation.problems.values().flat_map(|problems| problems.iter().map(|one| one.reason)));
    }
    for wanted in EVERYTHING {
        assert!(seen.contains(wanted), "no generated cluster has {wanted}: {seen:?}");
    }
    assert!(attached_sets > 10, "{attached_sets} Gateways have ListenerSets");
}
