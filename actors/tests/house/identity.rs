//! How controllers come by their certificates, and that they change without a stop.

use std::time::{Duration, SystemTime};

use actors::lead::trust_bundle::CONFIG_MAP;
use actors::push::credentials::{SECRET, Trust, load};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use proxy_config::name::{ObjectName, UnitId};

use crate::stage::{GROUND, Stage, lead, route, until};

#[tokio::test(start_paused = true)]
async fn the_leader_makes_the_authority_and_followers_use_it() {
    let stage = Stage::new(0).await;
    let mut controllers = Vec::new();
    for name in ["a", "b"] {
        let mut settings = stage.settings(name);
        settings.trust = Trust::Secret(settings.client.clone(), "default".to_owned());
        controllers.push(actors::tree::run(settings).await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(load(&stage.sandbox.client(), "default").await.unwrap().is_none(), "nobody leads, nobody writes");
    lead(&controllers[0], 1);
    let authorities = || {
        let of = |controller: &actors::tree::Controller| {
            controller.edges.identity.borrow().as_ref().map(|identity| identity.authorities.clone())
        };
        controllers.iter().map(of).collect::<Vec<_>>()
    };
    until("both have a certificate of one authority", || {
        let all = authorities();
        all[0].is_some() && all[0] == all[1]
    })
    .await;
    let writes = stage.sandbox.accesses();
    let made: Vec<_> = writes.iter().filter(|access| access.name.as_deref() == Some(SECRET)).collect();
    assert!(made.iter().all(|access| !access.changed || access.client == "a"));
    for controller in &controllers {
        controller.running.stop().await.unwrap();
    }
}

/// As the chart leaves them: the objects are there, and empty.
#[tokio::test(start_paused = true)]
async fn the_leader_fills_the_secret_and_shows_proxies_whom_to_trust() {
    let stage = Stage::new(0).await;
    let empty = |kind: &str| {
        format!("---\napiVersion: v1\nkind: {kind}\nmetadata: {{name: {SECRET}, namespace: default}}\n")
    };
    stage.apply(&(empty("Secret") + &empty("ConfigMap"))).await;
    let mut settings = stage.settings("c");
    settings.trust = Trust::Secret(settings.client.clone(), "default".to_owned());
    let controller = actors::tree::run(settings).await.unwrap();
    lead(&controller, 1);
    let maps: Api<ConfigMap> = Api::namespaced(stage.sandbox.client(), "default");
    let shown = async || maps.get(CONFIG_MAP).await.unwrap().data.unwrap_or_default().remove("ca.crt");
    until("a certificate", || controller.edges.identity.borrow().is_some()).await;
    let authorities = controller.edges.identity.borrow().as_ref().unwrap().authorities.clone();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(shown().await, Some(authorities.clone()));
    let writes =
        || stage.sandbox.accesses().iter().filter(|access| access.changed && access.client == "c").count();
    let before = writes();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(writes(), before, "what says it already is left alone");
    let spoiled = serde_json::json!({ "data": { "ca.crt": "other" } });
    maps.patch(CONFIG_MAP, &PatchParams::default(), &Patch::Merge(spoiled)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(shown().await, Some(authorities));
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_silent_about_the_authority_is_asked_again() {
    use sandbox::{Fault, Faults, How, Matcher};
    let stage = Stage::new(0).await;
    let mut settings = stage.settings("c");
    settings.trust = Trust::Secret(settings.client.clone(), "default".to_owned());
    let on = Matcher { name: Some(SECRET.to_owned()), ..Matcher::resource("secrets") };
    let hang = Fault::Hang(Duration::from_secs(3600));
    stage.sandbox.set_faults("c", Faults::none().with(on, How::Times(1), hang));
    let controller = actors::tree::run(settings).await.unwrap();
    lead(&controller, 1);
    until("a certificate", || controller.edges.identity.borrow().is_some()).await;
    controller.running.stop().await.unwrap();
}

/// In real time: certificates end by the wall clock.
#[tokio::test]
async fn certificates_are_renewed_under_load_without_a_failed_push() {
    let life = Duration::from_secs(6);
    let stage = Stage::new(2).await;
    stage.apply(GROUND).await;
    let mut settings = stage.settings("c");
    settings.lives.leaf = life;
    let controller = actors::tree::run(settings).await.unwrap();
    lead(&controller, 1);
    let begun = SystemTime::now();
    let mut last = String::new();
    for index in 0..100 {
        last = format!("r-{}", index % 10);
        stage.apply(&route(&last, &format!("/{index}"))).await;
        tokio::time::sleep(Duration::from_millis(90)).await;
        let board = controller.edges.board.read();
        let failures: Vec<_> =
            board.borrow().values().filter_map(|answers| answers.failure.clone()).collect();
        assert!(failures.is_empty(), "{failures:?}");
    }
    let unit = UnitId::route("HTTPRoute", &ObjectName::new("default", last));
    until("the last route", || stage.proxies.values().all(|proxy| proxy.held().units.get(&unit).is_some()))
        .await;
    let identity = controller.edges.identity.borrow().clone().unwrap();
    assert!(identity.not_after > begun + life + Duration::from_secs(2), "it was not renewed");
    assert!(stage.proxies.values().all(|proxy| proxy.held().connections >= 2), "it was not used");
    controller.running.stop().await.unwrap();
}
