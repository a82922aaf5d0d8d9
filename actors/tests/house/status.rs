//! What is written back.

use std::time::Duration;

use actors::term::Leadership;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use proxy_config::name::{ObjectName, UnitId};
use sandbox::{Access, Fault, Faults, How, Matcher, Verb};
use serde_json::Value;
use tokio::time::Instant;

use crate::stage::{GROUND, Stage, lead, route, until};

/// The status of an object of Gateway API.
pub(crate) async fn status(stage: &Stage, kind: &str, name: &str) -> Value {
    let gvk = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind);
    let resource = ApiResource::from_gvk(&gvk);
    let api: Api<DynamicObject> = if kind == "GatewayClass" {
        Api::all_with(stage.sandbox.client(), &resource)
    } else {
        Api::namespaced_with(stage.sandbox.client(), "default", &resource)
    };
    api.get(name).await.unwrap().data["status"].clone()
}

/// The status and reason of a condition.
fn condition(of: &Value, kind: &str) -> Option<(String, String)> {
    let all = of["conditions"].as_array()?;
    let found = all.iter().find(|condition| condition["type"] == kind)?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason")))
}

/// Waits until a condition is as said.
async fn condition_is(stage: &Stage, (kind, name): (&str, &str), condition_kind: &str, want: (&str, &str)) {
    let want = Some((want.0.to_owned(), want.1.to_owned()));
    for _ in 0..600 {
        let status = status(stage, kind, name).await;
        let of = if kind == "HTTPRoute" { &status["parents"][0] } else { &status };
        if condition(of, condition_kind) == want {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{kind} {name} is not {condition_kind} {want:?}: {}", status(stage, kind, name).await);
}

/// The requests of a controller that change something.
fn writes(accesses: &[Access], client: &str) -> Vec<Access> {
    let writing = |access: &&Access| !matches!(access.verb, Verb::Get | Verb::List | Verb::Watch);
    accesses.iter().filter(|access| access.client == client).filter(writing).cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn statuses_are_written_once_and_a_steady_state_writes_nothing() {
    let stage = Stage::new(2).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let controller = stage.leader("c", 1).await;
    condition_is(&stage, ("GatewayClass", "portreeve"), "Accepted", ("True", "Accepted")).await;
    condition_is(&stage, ("HTTPRoute", "one"), "Accepted", ("True", "Accepted")).await;
    condition_is(&stage, ("Gateway", "edge"), "Programmed", ("True", "Programmed")).await;
    let all = writes(&stage.sandbox.take_accesses(), "c");
    assert_eq!(all.len(), 4, "one write for each object, and the Service of the Gateway: {all:#?}");
    tokio::time::sleep(Duration::from_secs(300)).await;
    let more = writes(&stage.sandbox.take_accesses(), "c");
    assert!(more.is_empty(), "{more:#?}");
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failover_and_a_restart_write_nothing_either() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let first = stage.leader("a", 1).await;
    condition_is(&stage, ("Gateway", "edge"), "Programmed", ("True", "Programmed")).await;
    condition_is(&stage, ("HTTPRoute", "one"), "Accepted", ("True", "Accepted")).await;
    first.running.stop().await.unwrap();
    drop(stage.sandbox.take_accesses());
    let second = stage.leader("b", 2).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let more = writes(&stage.sandbox.take_accesses(), "b");
    assert!(more.is_empty(), "{more:#?}");
    second.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_status_that_somebody_else_changes_is_put_right() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    let controller = stage.leader("c", 1).await;
    condition_is(&stage, ("GatewayClass", "portreeve"), "Accepted", ("True", "Accepted")).await;
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "GatewayClass"));
    let api: Api<DynamicObject> = Api::all_with(stage.sandbox.client(), &resource);
    let nonsense = serde_json::json!({"status": {"conditions": []}});
    let params = kube::api::PatchParams::default();
    api.patch_status("portreeve", &params, &kube::api::Patch::Merge(nonsense)).await.unwrap();
    condition_is(&stage, ("GatewayClass", "portreeve"), "Accepted", ("True", "Accepted")).await;
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn conflicts_and_lost_answers_end_with_the_right_status() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    let settings = stage.settings("c");
    let on = || Matcher::all().verb(Verb::Patch);
    let faults = Faults::none()
        .with(on(), How::Times(1), Fault::Conflict)
        .with(on(), How::Times(1), Fault::LoseAnswer)
        .with(on(), How::Times(1), Fault::Throttle { retry_after: 1 })
        .with(on(), How::Times(1), Fault::Hang(Duration::from_secs(60)));
    stage.sandbox.set_faults("c", faults);
    let controller = actors::tree::run(settings).await.unwrap();
    lead(&controller, 1);
    stage.apply(&route("one", "/one")).await;
    condition_is(&stage, ("HTTPRoute", "one"), "Accepted", ("True", "Accepted")).await;
    condition_is(&stage, ("Gateway", "edge"), "Programmed", ("True", "Programmed")).await;
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_late_renewal_held_up_is_written_once_the_term_goes_on() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    let controller = stage.leader("c", 1).await;
    condition_is(&stage, ("Gateway", "edge"), "Programmed", ("True", "Programmed")).await;
    // Too short for a request, so nothing is sent.
    let short = Instant::now() + Duration::from_secs(1);
    controller.edges.leadership.send_replace(Some(Leadership::new(1, short)));
    stage.apply(&route("one", "/one")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(status(&stage, "HTTPRoute", "one").await, Value::Null);
    lead(&controller, 1);
    condition_is(&stage, ("HTTPRoute", "one"), "Accepted", ("True", "Accepted")).await;
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_can_not_use_is_said_in_the_status() {
    let stage = Stage::new(1).await;
    let unit = UnitId::listener(&ObjectName::new("default", "edge"), "http");
    stage.proxy(0).held.lock().unwrap().broken.insert(unit, "the port is taken".to_owned());
    stage.apply(GROUND).await;
    let controller = stage.leader("c", 1).await;
    let mut programmed = None;
    for _ in 0..200 {
        let status = status(&stage, "Gateway", "edge").await;
        programmed = condition(&status["listeners"][0], "Programmed");
        if programmed.as_ref().is_some_and(|(status, _)| status == "False") {
            assert!(status.to_string().contains("the port is taken"), "{status}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(programmed.map(|(status, _)| status).as_deref(), Some("False"));
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_is_silent_is_left_out_and_named() {
    let stage = Stage::new(2).await;
    stage.proxy(1).held.lock().unwrap().mute = true;
    stage.apply(GROUND).await;
    let controller = stage.leader("c", 1).await;
    condition_is(&stage, ("Gateway", "edge"), "Programmed", ("True", "Programmed")).await;
    let said = status(&stage, "Gateway", "edge").await.to_string();
    assert!(said.contains("1 of 2 proxies") && said.contains("edge-1"), "{said}");
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_route_that_leaves_us_loses_our_entry() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let controller = stage.leader("c", 1).await;
    condition_is(&stage, ("HTTPRoute", "one"), "Accepted", ("True", "Accepted")).await;
    stage.apply(&route("one", "/one").replace("name: edge", "name: somebody-elses")).await;
    let mut left = Value::Null;
    for _ in 0..100 {
        left = status(&stage, "HTTPRoute", "one").await["parents"].clone();
        if left.as_array().is_some_and(Vec::is_empty) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(left, serde_json::json!([]));
    until("the controller still runs", || controller.edges.translation.borrow().is_some()).await;
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_made_from_an_older_spec_is_not_written_over_what_is_newer() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let settings = stage.settings("c");
    let on = Matcher::resource("secrets").verb(Verb::Get);
    let hang = Fault::Hang(Duration::from_secs(3600));
    stage.sandbox.set_faults("c", Faults::none().with(on, How::Always, hang));
    let controller = actors::tree::run(settings).await.unwrap();
    lead(&controller, 1);
    condition_is(&stage, ("HTTPRoute", "one"), "Accepted", ("True", "Accepted")).await;
    // Nothing is translated while this Secret is being read for the first time; the route moves on meanwhile.
    let secret = "{apiVersion: v1, kind: Secret, type: kubernetes.io/tls, metadata: {name: cert, namespace: default}, \
        data: {tls.crt: \"\", tls.key: \"\"}}";
    stage.apply(secret).await;
    let tls =
        "listeners: [{name: https, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}]";
    let http = "listeners: [{name: http, port: 8080, protocol: HTTP}]";
    stage.apply(&GROUND.replace("name: edge,", "name: tls,").replace(http, tls)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.apply(&route("one", "/moved")).await;
    // Another leader has written what follows from that already, and a message of its own.
    let newer = status(&stage, "HTTPRoute", "one")
        .await
        .to_string()
        .replace(r#""observedGeneration":1"#, r#""observedGeneration":2"#);
    let newer: Value = serde_json::from_str(&newer.replace("the route is accepted", "newer")).unwrap();
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"));
    let api: Api<DynamicObject> = Api::namespaced_with(stage.sandbox.client(), "default", &resource);
    let patch = kube::api::Patch::Merge(serde_json::json!({ "status": newer }));
    api.patch_status("one", &kube::api::PatchParams::default(), &patch).await.unwrap();
    for _ in 0..100 {
        let observed = status(&stage, "HTTPRoute", "one").await.to_string();
        assert!(!observed.contains(r#""observedGeneration":1"#), "{observed}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_resync_looks_at_everything_and_writes_nothing() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one")).await;
    let mut settings = stage.settings("c");
    settings.resync = Duration::from_secs(7);
    let controller = actors::tree::run(settings).await.unwrap();
    lead(&controller, 1);
    condition_is(&stage, ("Gateway", "edge"), "Programmed", ("True", "Programmed")).await;
    condition_is(&stage, ("HTTPRoute", "one"), "Accepted", ("True", "Accepted")).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    drop(stage.sandbox.take_accesses());
    let (pushes, resyncs) = (stage.proxy(0).held().taken.len(), *controller.edges.resync.borrow());
    let generation = || controller.edges.translation.borrow().as_ref().unwrap().generation;
    let before = generation();
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(*controller.edges.resync.borrow() - resyncs, 10);
    assert_eq!(generation() - before, 10, "all is joined and translated again");
    let more = writes(&stage.sandbox.take_accesses(), "c");
    assert!(more.is_empty(), "{more:#?}");
    let moved: usize = stage.proxy(0).held().taken[pushes..].iter().map(|(_, moved)| moved).sum();
    assert_eq!(moved, 0, "a proxy is asked whether it is still there, and told nothing");
    controller.running.stop().await.unwrap();
}

/// The Events of a reason: type, note, and how often it was told.
async fn events(stage: &Stage, reason: &str) -> Vec<(String, String, i32)> {
    let api: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(stage.sandbox.client(), "default");
    let all = api.list(&kube::api::ListParams::default()).await.unwrap();
    let of_reason = all.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    of_reason
        .map(|event| {
            let count = event.series.map_or(1, |series| series.count);
            (event.type_.unwrap_or_default(), event.note.unwrap_or_default(), count)
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn trouble_is_told_once_by_an_event_and_so_is_its_end() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    stage.apply(&route("one", "/one").replace("name: shop", "name: missing")).await;
    let first = stage.leader("a", 1).await;
    condition_is(&stage, ("HTTPRoute", "one"), "ResolvedRefs", ("False", "BackendNotFound")).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let told = events(&stage, "BackendNotFound").await;
    assert!(
        matches!(&told[..], [(kind, note, 1)] if kind == "Warning" && note.contains("missing")),
        "{told:?}"
    );
    first.running.stop().await.unwrap();
    let second = stage.leader("b", 2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(events(&stage, "BackendNotFound").await, told, "a new leader tells nothing twice");
    stage.apply(&route("one", "/one")).await;
    condition_is(&stage, ("HTTPRoute", "one"), "ResolvedRefs", ("True", "ResolvedRefs")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let over = events(&stage, "ResolvedRefs").await;
    assert!(matches!(&over[..], [(kind, _, 1)] if kind == "Normal"), "{over:?}");
    second.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_class_waits_for_parameters_whose_definition_is_not_installed_yet() {
    let stage = Stage::new(1).await;
    let reference = "portreeve.dev/gateway-controller, parametersRef: {group: portreeve.dev, kind: EdgeParameters, name: here}";
    stage.apply(&GROUND.replace("portreeve.dev/gateway-controller", reference)).await;
    let controller = stage.leader("c", 1).await;
    let class = ("GatewayClass", "portreeve");
    condition_is(&stage, class, "Accepted", ("False", "InvalidParameters")).await;
    // Long enough for the watch to have settled on its absence.
    tokio::time::sleep(Duration::from_secs(60)).await;
    for definition in actors_api::crds::ours() {
        stage.apply(&serde_json::to_string(&definition).unwrap()).await;
    }
    let parameters = "{apiVersion: portreeve.dev/v1alpha1, kind: EdgeParameters, metadata: {name: here}, \
        spec: {addressProvider: {node: {}}}}";
    stage.apply(parameters).await;
    condition_is(&stage, class, "Accepted", ("True", "Accepted")).await;
    condition_is(&stage, ("Gateway", "edge"), "Programmed", ("True", "Programmed")).await;
    controller.running.stop().await.unwrap();
}
