//! Which Secrets are read, and when.

use std::time::{Duration, SystemTime};

use actors::tree::Controller;
use proxy_config::name::{ObjectName, UnitId};
use sandbox::{Fault, Faults, How, Matcher, Verb};

use crate::stage::{GROUND, Stage, lead, route, until};

pub(crate) const HTTPS: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: tls, namespace: default}
spec:
  gatewayClassName: portreeve
  listeners:
  - name: https
    port: 8443
    protocol: HTTPS
    tls: {certificateRefs: [{name: cert}]}
";

/// A Secret with a new certificate.
pub(crate) fn secret(name: &str) -> String {
    secret_until(name, Duration::from_secs(80 * 24 * 3600))
}

/// A Secret with a new certificate that ends after this time, ten days after it began.
fn secret_until(name: &str, left: Duration) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["shop.example.com".to_owned()]).unwrap();
    params.not_before = (SystemTime::now() - Duration::from_secs(10 * 24 * 3600)).into();
    params.not_after = (SystemTime::now() + left).into();
    let certificate = params.self_signed(&key).unwrap();
    let indent = |pem: String| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: default}}\n\
         stringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indent(certificate.pem()),
        indent(key.serialize_pem()),
    )
}

pub(crate) fn certificate(controller: &Controller) -> Option<String> {
    let unit = UnitId::certificate(&ObjectName::new("default", "cert"));
    let translation = controller.edges.translation.borrow().clone()?;
    translation.units.get(&unit).map(|unit| unit.hash.to_string())
}

/// With so many proxies, and a Gateway with a certificate.
pub(crate) async fn stage(proxies: u8) -> Stage {
    let stage = Stage::new(proxies).await;
    for manifest in [GROUND, HTTPS, &secret("cert")] {
        stage.apply(manifest).await;
    }
    stage
}

/// The Secrets whose content was asked for.
pub(crate) fn read(stage: &Stage) -> Vec<String> {
    read_of(stage, "secrets")
}

/// The objects of a kind whose content was asked for.
fn read_of(stage: &Stage, resource: &str) -> Vec<String> {
    let gets = stage.sandbox.take_accesses().into_iter();
    gets.filter(|access| access.resource == resource && access.verb == Verb::Get)
        .filter_map(|access| access.name)
        .collect()
}

/// A ConfigMap with a new authority.
fn authority(name: &str) -> String {
    let pem = rcgen::generate_simple_self_signed(["authority.example".to_owned()]).unwrap().cert.pem();
    let indented: String = pem.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\ndata:\n  ca.crt: |\n{indented}"
    )
}

const POLICY: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: shop, namespace: default}
spec:
  targetRefs: [{group: "", kind: Service, name: shop}]
  validation:
    hostname: shop.example.com
    caCertificateRefs: [{group: "", kind: ConfigMap, name: roots}]
"#;

#[tokio::test(start_paused = true)]
async fn only_a_config_map_that_is_named_is_read_and_again_when_it_changes() {
    let stage = Stage::new(0).await;
    let empty = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: empty, namespace: default}\n";
    for manifest in [GROUND, &route("r", "/"), POLICY, &authority("roots"), &authority("other"), empty] {
        stage.apply(manifest).await;
    }
    drop(stage.sandbox.take_accesses());
    let controller = stage.controller("c").await;
    let unit = UnitId::authority("ConfigMap", &ObjectName::new("default", "roots"));
    let held = || {
        let translation = controller.edges.translation.borrow().clone()?;
        translation.units.get(&unit).map(|unit| unit.hash.to_string())
    };
    until("the authority", || held().is_some()).await;
    assert_eq!(read_of(&stage, "configmaps"), ["roots"]);
    let before = held();
    stage.apply(&authority("roots")).await;
    drop(stage.sandbox.take_accesses());
    until("the new authority", || held() != before).await;
    assert!(held().is_some());
    assert_eq!(read_of(&stage, "configmaps"), ["roots"]);

    let to_empty = POLICY.replace("name: roots", "name: empty");
    stage.apply(&to_empty).await;
    until("one without `ca.crt` to hold up nothing", || held().is_none()).await;
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn only_a_secret_that_is_named_is_read_and_again_when_it_changes() {
    let stage = Stage::new(0).await;
    for manifest in [GROUND, HTTPS, &secret("cert"), &secret("other")] {
        stage.apply(manifest).await;
    }
    drop(stage.sandbox.take_accesses());
    let controller = stage.controller("c").await;
    until("the certificate", || certificate(&controller).is_some()).await;
    assert_eq!(read(&stage), ["cert"]);
    let before = certificate(&controller);
    stage.apply(&secret("cert")).await;
    drop(stage.sandbox.take_accesses());
    until("the new certificate", || certificate(&controller) != before).await;
    assert!(certificate(&controller).is_some());
    assert_eq!(read(&stage), ["cert"]);
    controller.running.stop().await.unwrap();
}

/// API servers may answer from what they remember.
#[tokio::test(start_paused = true)]
async fn what_is_read_is_no_older_than_what_was_seen() {
    let stage = stage(0).await;
    let settings = stage.settings("c");
    let gets = Matcher::resource("secrets").verb(Verb::Get);
    let late = Faults::none().with(gets, How::Always, Fault::StaleRead { revisions: 1 });
    stage.sandbox.set_faults("c", late);
    let controller = actors::tree::run(settings).await.unwrap();
    until("the certificate", || certificate(&controller).is_some()).await;
    let before = certificate(&controller);
    stage.apply(&secret("cert")).await;
    until("the new certificate", || certificate(&controller) != before).await;
    assert!(certificate(&controller).is_some());
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_may_not_be_read_holds_up_nothing_for_long_and_is_tried_again() {
    let stage = stage(0).await;
    let settings = stage.settings("c");
    let on = Matcher::resource("secrets").verb(Verb::Get);
    let refuse = Fault::ServerError(http::StatusCode::FORBIDDEN);
    stage.sandbox.set_faults("c", Faults::none().with(on, How::Times(3), refuse));
    let controller = actors::tree::run(settings).await.unwrap();
    let begun = tokio::time::Instant::now();
    until("a translation without it", || controller.edges.translation.borrow().is_some()).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    until("the certificate", || certificate(&controller).is_some()).await;
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_can_not_be_read_holds_up_what_needs_it_and_nothing_else() {
    let stage = stage(1).await;
    let unit = UnitId::certificate(&ObjectName::new("default", "cert"));
    let holds = |unit: &UnitId| stage.proxy(0).held().units.get(unit).is_some();
    let first = stage.leader("a", 1).await;
    until("the certificate is served", || holds(&unit)).await;
    first.running.stop().await.unwrap();
    let settings = stage.settings("b");
    let on = || Matcher { name: Some("cert".to_owned()), ..Matcher::resource("secrets").verb(Verb::Get) };
    let trouble = Fault::ServerError(http::StatusCode::INTERNAL_SERVER_ERROR);
    stage.sandbox.set_faults("b", Faults::none().with(on(), How::Always, trouble));
    let second = actors::tree::run(settings).await.unwrap();
    lead(&second, 2);
    stage.apply(&route("one", "/one")).await;
    let changed = UnitId::route("HTTPRoute", &ObjectName::new("default", "one"));
    let begun = tokio::time::Instant::now();
    until("the new route", || holds(&changed)).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // A Gateway that was never served waits alone.
    stage.apply(&HTTPS.replace("name: tls,", "name: new,").replace("8443", "9443")).await;
    stage.apply(&route("two", "/two")).await;
    let last = UnitId::route("HTTPRoute", &ObjectName::new("default", "two"));
    until("one more route", || holds(&last)).await;
    let listener = |gateway: &str| UnitId::listener(&ObjectName::new("default", gateway), "https");
    assert!(holds(&listener("tls")) && holds(&unit), "what was served is");
    assert!(!holds(&listener("new")));
    stage.sandbox.set_faults("b", Faults::none());
    until("the new Gateway", || holds(&listener("new"))).await;
    assert!(holds(&listener("tls")) && holds(&unit));
    second.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_that_can_not_read_a_secret_leaves_its_listener_alone_and_asks_ever_more_rarely() {
    let stage = stage(1).await;
    let unit = UnitId::certificate(&ObjectName::new("default", "cert"));
    let serves = || stage.proxy(0).held().units.get(&unit).is_some();
    let first = stage.leader("a", 1).await;
    until("the certificate is served", serves).await;
    first.running.stop().await.unwrap();
    let hang = Fault::Hang(Duration::from_secs(3600));
    let trouble = Fault::ServerError(http::StatusCode::INTERNAL_SERVER_ERROR);
    // What hangs is logged only when it is answered.
    for (fault, answers) in [(hang, 0..1), (trouble, 5..25)] {
        let settings = stage.settings("b");
        let on = Matcher::resource("secrets").verb(Verb::Get);
        stage.sandbox.set_faults("b", Faults::none().with(on, How::Always, fault));
        let second = actors::tree::run(settings).await.unwrap();
        let term = stage.proxy(0).held().version.term + 1;
        lead(&second, term);
        drop(stage.sandbox.take_accesses());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(serves(), "the listener was taken away");
        let reads = read(&stage).len();
        assert!(answers.contains(&reads), "{reads} reads in a minute");
        stage.sandbox.set_faults("b", Faults::none());
        until("the new term", || stage.proxy(0).held().version.term == term).await;
        assert!(serves());
        second.running.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_was_not_renewed_is_told_of_before_it_ends() {
    use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
    let stage = Stage::new(1).await;
    for manifest in [GROUND, HTTPS, &secret_until("cert", Duration::from_secs(3600))] {
        stage.apply(manifest).await;
    }
    let controller = stage.leader("c", 1).await;
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway"));
    let api: Api<DynamicObject> = Api::namespaced_with(stage.sandbox.client(), "default", &resource);
    let said = async || api.get("tls").await.unwrap().data["status"].to_string();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let first = said().await;
    assert!(first.contains("CertificateExpiring") && first.contains("default/cert"), "{first}");
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(stage.sandbox.client(), "default");
    let told = events.list(&kube::api::ListParams::default()).await.unwrap();
    let soon = told.items.iter().filter(|event| event.reason.as_deref() == Some("ExpiresSoon")).count();
    assert_eq!(soon, 1);
    stage.apply(&secret("cert")).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let renewed = said().await;
    assert!(!renewed.contains("CertificateExpiring"), "{renewed}");
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_secrets_that_are_not_answered_hold_up_all_else_for_seconds_only() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    let cert = secret("cert");
    for number in 0..200 {
        stage.apply(&cert.replace("name: cert", &format!("name: cert-{number}"))).await;
        let gateway = HTTPS.replace("name: tls,", &format!("name: tls-{number},"));
        let gateway = gateway.replace("8443", &(10_000 + number).to_string());
        stage.apply(&gateway.replace("name: cert", &format!("name: cert-{number}"))).await;
    }
    let settings = stage.settings("c");
    let hang = Fault::Hang(Duration::from_secs(3600));
    let on = Matcher::resource("secrets").verb(Verb::Get);
    stage.sandbox.set_faults("c", Faults::none().with(on, How::Always, hang));
    let controller = actors::tree::run(settings).await.unwrap();
    lead(&controller, 1);
    let begun = tokio::time::Instant::now();
    let http = UnitId::listener(&ObjectName::new("default", "edge"), "http");
    until("what needs no Secret", || stage.proxy(0).held().units.get(&http).is_some()).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    // The last of them comes to its turn though all before it go on failing.
    let last = |matcher: Matcher| Matcher { name: Some("cert-99".to_owned()), ..matcher };
    let on = Matcher::resource("secrets").verb(Verb::Get);
    let fine = Fault::Delay(Duration::from_millis(1));
    let hang = Fault::Hang(Duration::from_secs(3600));
    let faults = Faults::none().with(last(on.clone()), How::Always, fine).with(on, How::Always, hang);
    stage.sandbox.set_faults("c", faults);
    let unit = UnitId::listener(&ObjectName::new("default", "tls-99"), "https");
    until("the one that can be read", || stage.proxy(0).held().units.get(&unit).is_some()).await;
    controller.running.stop().await.unwrap();
}
