//! The two ports of a proxy: which paths and methods there are, for whom, and how much is taken in.

use proxy_config::wire::MAX_PUSH_BYTES;

use crate::acked;
use crate::authority::Authority;
use crate::rig::{Origin, Rig};
use crate::units::World;

const CONTROLLER: &str = "urn:portreeve:controller";

/// A proxy that serves a configuration with a key.
async fn serving() -> (Rig, Origin) {
    let blue = Origin::named("blue").await;
    let rig = Rig::start().await;
    let units = World::new(rig.port).route("/", &blue).key("secret-of-the-shop").units();
    acked(rig.controller().push(&units, 1).await);
    assert_eq!(rig.get("/").await, "blue");
    (rig, blue)
}

#[tokio::test]
async fn the_status_port_knows_four_paths_to_read_and_no_configuration() {
    let (mut rig, _blue) = serving().await;
    for path in ["/healthz", "/readyz", "/metrics", "/supervision"] {
        let (status, body) = rig.status(path).await;
        assert_eq!(status, 200, "{path}");
        for secret in ["secret-of-the-shop", "PRIVATE KEY", "route/HTTPRoute"] {
            assert!(!body.contains(secret), "{path} shows {secret}");
        }
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert_eq!(rig.status_by(method, path).await.0, 405, "{method} {path}");
        }
    }
    let shown = rig.status("/supervision?format=json").await.1;
    assert!(!shown.contains("secret-of-the-shop"), "{shown}");
    for path in ["/config", "/push", "/reload", "/", "/healthz/x", "/%2e%2e/config"] {
        for method in ["GET", "POST", "PUT"] {
            assert_eq!(rig.status_by(method, path).await.0, 404, "{method} {path}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn the_admin_port_knows_three_paths_each_by_its_method() {
    let (mut rig, _blue) = serving().await;
    let leaf = || Some(rig.authority.issue(&[CONTROLLER]));
    for (request, wanted) in [
        (("GET", "/config"), 200),
        (("POST", "/config"), 405),
        (("POST", "/reload"), 200),
        (("GET", "/reload"), 405),
        (("GET", "/push"), 405),
        (("PUT", "/push"), 405),
        (("GET", "/healthz"), 404),
        (("GET", "/supervision"), 404),
        (("GET", "/"), 404),
    ] {
        let (status, _) = rig.ask(leaf(), request, Vec::new()).await.unwrap();
        assert_eq!(status, wanted, "{request:?}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn nobody_but_a_controller_changes_anything() {
    let (mut rig, blue) = serving().await;
    let units = World::new(rig.port).route("/other", &blue).units();
    let push = serde_json::to_vec(&rig.controller().difference(&units, 9)).unwrap();
    for (who, leaf) in [
        ("without a certificate", None),
        ("a proxy", Some(rig.authority.issue(&["urn:portreeve:proxy:edge-1"]))),
        ("with one name more", Some(rig.authority.issue(&[CONTROLLER, "urn:portreeve:proxy:x"]))),
        ("of another authority", Some(Authority::new().issue(&[CONTROLLER]))),
        ("expired", Some(rig.authority.issue_expired(CONTROLLER))),
    ] {
        for request in [("POST", "/push"), ("POST", "/reload"), ("GET", "/config")] {
            let answer = rig.ask(leaf.clone(), request, push.clone()).await;
            assert_eq!(answer, None, "{who} {request:?}");
        }
    }
    let metrics = rig.status("/metrics").await.1;
    assert!(metrics.contains("portreeve_config_generation 1"), "{metrics}");
    assert!(metrics.contains("portreeve_pushes_total{outcome=\"ack\"} 1"), "{metrics}");
    rig.stop().await;
}

#[tokio::test]
async fn a_push_beyond_the_limit_is_refused_and_changes_nothing() {
    let (mut rig, _blue) = serving().await;
    let leaf = rig.authority.issue(&[CONTROLLER]);
    let answer = rig.ask(Some(leaf), ("POST", "/push"), vec![b' '; MAX_PUSH_BYTES + 1]).await;
    // The answer may be lost where the connection ends before all is sent.
    assert!(answer.as_ref().is_none_or(|(status, _)| *status == 413), "{answer:?}");
    assert_eq!(rig.get("/").await, "blue");
    let controller = rig.controller();
    assert!(String::from_utf8(controller.get("/config").await).unwrap().contains("\"generation\":1"));
    rig.stop().await;
}
