//! The two ports of a controller, over real sockets: what is shown to whom, and who is kept out.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use actors::push::authority::{AUTHORITY_LIFE, Authority, LEAF_LIFE};
use actors::push::identity::{Identity, Role};
use actors::tree::{self, Controller};
use bytes::Bytes;
use proxy_config::name::{ObjectName, UnitId};
use sandbox::{Fault, Faults, How, Matcher, Verb};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::election::leader;
use crate::ports::{Answer, LOCAL, ask, ask_securely, get, nameless, tls};
use crate::secrets::{HTTPS, certificate, secret};
use crate::stage::{GROUND, Stage, lead, route, until};

/// A controller with both ports.
async fn controller(stage: &Stage) -> Controller {
    let mut settings = stage.candidate("c");
    settings.lease = None;
    settings.status_bind = Some(LOCAL);
    settings.admin_bind = Some(LOCAL);
    tree::run(settings).await.unwrap()
}

/// One that leads and holds a certificate with its key.
async fn with_a_secret(stage: &Stage) -> Controller {
    for manifest in [GROUND, HTTPS, &secret("cert"), &route("one", "/one")] {
        stage.apply(manifest).await;
    }
    let controller = controller(stage).await;
    lead(&controller, 1);
    until("the certificate", || certificate(&controller).is_some()).await;
    until("an identity", || controller.edges.identity.borrow().is_some()).await;
    // A new leader lists everything before its first push.
    until("the first push", || stage.proxy(0).held().version.term == 1).await;
    controller
}

fn issue(stage: &Stage, role: &Role) -> Identity {
    stage.authority.issue(role, SystemTime::now(), LEAF_LIFE).unwrap()
}

/// A request on the admin port as a controller.
async fn as_controller(stage: &Stage, controller: &Controller, method: &str, path: &str) -> Answer {
    let tls = tls(&issue(stage, &Role::Controller));
    ask_securely(controller.admin.unwrap(), tls, (method, path), Bytes::new()).await.unwrap()
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
}

#[tokio::test]
async fn anybody_may_read_health_metrics_and_the_tree_but_no_configuration() {
    let stage = Stage::new(1).await;
    let controller = with_a_secret(&stage).await;
    let status = controller.status.unwrap();
    let healthy = get(status, "/healthz").await;
    assert_eq!((healthy.status, healthy.body.as_str()), (200, "ok\n"));
    assert_eq!(get(status, "/readyz").await.status, 200);
    let metrics = get(status, "/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    assert!(metrics.body.contains("portreeve_"), "{}", metrics.body);
    let page = get(status, "/supervision").await;
    assert!(page.body.starts_with("<!doctype html>"));
    let shown = get(status, "/supervision?format=json").await;
    assert_eq!(shown.headers["cache-control"], "no-store");
    assert_eq!(json(&shown)["tree"]["name"], "controller");
    assert_eq!(json(&shown)["facts"]["proxies"]["edge-0"]["admin"], "127.0.0.2:9901");
    for path in ["/config", "/reload", "/push", "/", "/supervision/", "/healthz/x", "/%2e%2e/config"] {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            assert_eq!(ask(status, method, path, Bytes::new()).await.status, 404, "{method} {path}");
        }
    }
    for path in ["/healthz", "/readyz", "/metrics", "/supervision"] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert_eq!(ask(status, method, path, Bytes::new()).await.status, 405, "{method} {path}");
        }
        let body = get(status, path).await.body;
        for secret in ["PRIVATE KEY", "BEGIN CERTIFICATE", "/one"] {
            assert!(!body.contains(secret), "{path} shows {secret}");
        }
    }
    controller.running.stop().await.unwrap();
}

#[tokio::test]
async fn metrics_say_who_leads_what_proxies_hold_when_certificates_end_and_what_waits() {
    let stage = Stage::new(1).await;
    let controller = with_a_secret(&stage).await;
    let text = || controller.edges.metrics.render(&controller.running.live.snapshot());
    until("an acknowledgement", || text().contains("portreeve_controller_proxy_acked_generation{")).await;
    let metrics = get(controller.status.unwrap(), "/metrics").await.body;
    for series in [
        "portreeve_controller_leader 1\n",
        "portreeve_controller_leader_term 1\n",
        "portreeve_controller_translate_seconds_count ",
        "portreeve_controller_pushes_total{",
        "portreeve_controller_proxy_acked_generation{",
        "portreeve_controller_certificate_expires_in_seconds{",
        "portreeve_controller_identity_expires_in_seconds ",
        "portreeve_controller_mailbox_depth{",
        "portreeve_controller_mailbox_oldest_seconds{",
        "portreeve_controller_actor_restarts_total{actor=\"observe/translator\"} 0\n",
        "# TYPE portreeve_controller_messages_total counter\n",
        "# TYPE portreeve_controller_message_seconds_total counter\n",
    ] {
        assert!(metrics.contains(series), "{series} is not in\n{metrics}");
    }
    controller.running.stop().await.unwrap();
}

#[tokio::test]
async fn who_shows_a_controllers_certificate_reads_the_configuration_without_its_keys() {
    let stage = Stage::new(1).await;
    let controller = with_a_secret(&stage).await;
    let shown = as_controller(&stage, &controller, "GET", "/config").await;
    assert_eq!(shown.status, 200);
    let config = json(&shown);
    let units = config["units"].as_array().unwrap();
    let unit = |id: &UnitId| units.iter().find(|unit| unit["id"] == id.as_str()).cloned().unwrap();
    let key = unit(&UnitId::key(&ObjectName::new("default", "cert")));
    assert!(key["body"].is_null() && key["hash"].is_string(), "{key}");
    let one = unit(&UnitId::route("HTTPRoute", &ObjectName::new("default", "one")));
    assert!(one["body"].to_string().contains("/one"), "{one}");
    assert!(!shown.body.contains("PRIVATE KEY"));
    for (method, path) in [("POST", "/config"), ("GET", "/reload"), ("PUT", "/reload")] {
        assert_eq!(as_controller(&stage, &controller, method, path).await.status, 405, "{method} {path}");
    }
    for path in ["/healthz", "/metrics", "/supervision", "/push", "/"] {
        assert_eq!(as_controller(&stage, &controller, "GET", path).await.status, 404, "{path}");
    }
    controller.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_reload_lists_every_kind_again() {
    let stage = Stage::new(1).await;
    let controller = with_a_secret(&stage).await;
    drop(stage.sandbox.take_accesses());
    let answer = as_controller(&stage, &controller, "POST", "/reload").await;
    assert_eq!((answer.status, answer.body.as_str()), (202, "everything is listed again\n"));
    let kinds: Vec<_> =
        controller.edges.watched.iter().map(|watched| watched.resource.plural().to_owned()).collect();
    until("a list of each kind", || {
        let accesses = stage.sandbox.accesses();
        let listed = |kind: &String| {
            accesses.iter().any(|access| access.verb == Verb::List && access.resource == *kind)
        };
        kinds.iter().all(listed)
    })
    .await;
    controller.running.stop().await.unwrap();
}

#[tokio::test]
async fn nobody_else_gets_into_the_admin_port() {
    let stage = Stage::new(1).await;
    let controller = with_a_secret(&stage).await;
    let admin = controller.admin.unwrap();
    let ours = issue(&stage, &Role::Controller);
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    let expired = stage.authority.issue(&Role::Controller, long_ago, Duration::from_secs(3600)).unwrap();
    let stranger = Authority::generate(SystemTime::now(), AUTHORITY_LIFE).unwrap();
    let mut stranger = stranger.issue(&Role::Controller, SystemTime::now(), LEAF_LIFE).unwrap();
    // It would trust us all the same.
    stranger.authorities = ours.authorities.clone();
    drop(stage.sandbox.take_accesses());
    for (who, tls) in [
        ("without a certificate", nameless(&ours)),
        ("a proxy", tls(&issue(&stage, &Role::Proxy("edge-0".to_owned())))),
        ("of another authority", tls(&stranger)),
        ("expired", tls(&expired)),
    ] {
        for request in [("GET", "/config"), ("POST", "/reload")] {
            let answer = ask_securely(admin, tls.clone(), request, Bytes::new()).await;
            assert!(answer.is_none(), "{who}: {answer:?}");
        }
    }
    let mut plain = TcpStream::connect(admin).await.unwrap();
    plain.write_all(b"GET /config HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    let _ = plain.read_to_end(&mut read).await;
    assert!(!read.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&read));
    let lists = stage.sandbox.take_accesses().into_iter().filter(|access| access.verb == Verb::List);
    assert_eq!(lists.count(), 0, "nothing was listed again");
    assert_eq!(as_controller(&stage, &controller, "GET", "/config").await.status, 200);
    controller.running.stop().await.unwrap();
}

#[tokio::test]
async fn large_requests_are_not_taken_in_and_keep_nobody_waiting() {
    let stage = Stage::new(1).await;
    let controller = with_a_secret(&stage).await;
    let (status, admin) = (controller.status.unwrap(), controller.admin.unwrap());
    let long = format!("/healthz?{}", "x".repeat(1 << 20));
    let refused = async {
        let mut stream = TcpStream::connect(status).await.unwrap();
        let request = format!("GET {long} HTTP/1.1\r\nHost: x\r\n\r\n");
        // It may end before all is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = [0; 12];
        let _ = stream.read_exact(&mut answer).await;
        answer
    };
    let refused = tokio::time::timeout(Duration::from_secs(10), refused).await.unwrap();
    assert_ne!(&refused, b"HTTP/1.1 200");
    // More is announced than ever comes: the answer does not wait for it.
    let mut stream = TcpStream::connect(status).await.unwrap();
    stream
        .write_all(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 405");
    let tls = tls(&issue(&stage, &Role::Controller));
    let body = Bytes::from(vec![b'x'; 8 << 20]);
    let answer = ask_securely(admin, tls, ("POST", "/reload"), body).await;
    assert!(answer.is_none_or(|answer| answer.status == 202), "it is not read");
    assert_eq!(get(status, "/readyz").await.status, 200);
    controller.running.stop().await.unwrap();
}

/// Takes every place there is. Without the runtime: under paused time each wait for a socket is a leap.
async fn crowd(address: SocketAddr, says: &[u8]) -> Vec<std::net::TcpStream> {
    let connect = |_| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(says).unwrap();
        stream
    };
    let mut crowd = Vec::new();
    // The kernel queues 128 at a time.
    for _ in 0..3 {
        crowd.extend((0..80).map(connect));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    crowd
}

#[tokio::test(start_paused = true)]
async fn clients_that_are_silent_or_slow_lose_their_places_to_a_probe() {
    let stage = Stage::new(0).await;
    stage.apply(GROUND).await;
    let controller = controller(&stage).await;
    let status = controller.status.unwrap();
    let silent: [&[u8]; 3] = [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"];
    for says in silent {
        let crowd = crowd(status, says).await;
        assert_eq!(get(status, "/healthz").await.status, 200);
        drop(crowd);
    }
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_controller_is_ready_once_everything_is_listed_and_names_what_is_not() {
    let stage = Stage::new(0).await;
    stage.apply(GROUND).await;
    let hang = Fault::Hang(Duration::from_secs(3600));
    let lists = Matcher::resource("services").verb(Verb::List);
    let mut settings = stage.settings("c");
    stage.sandbox.set_faults("c", Faults::none().with(lists, How::Always, hang));
    settings.status_bind = Some(LOCAL);
    let controller = tree::run(settings).await.unwrap();
    let status = controller.status.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waiting = get(status, "/readyz").await;
    assert_eq!(waiting.status, 503);
    assert!(waiting.body.contains("Service") && !waiting.body.contains("HTTPRoute"), "{}", waiting.body);
    assert_eq!(get(status, "/healthz").await.status, 200, "it lives");
    stage.sandbox.set_faults("c", Faults::none());
    until("the translation", || controller.edges.translation.borrow().is_some()).await;
    assert_eq!(get(status, "/readyz").await.status, 200);
    controller.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_followers_page_names_the_leader() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    let mut controllers = Vec::new();
    for name in ["a", "b"] {
        let mut settings = stage.candidate(name);
        settings.status_bind = Some(LOCAL);
        controllers.push(tree::run(settings).await.unwrap());
    }
    until("a leader", || leader(&controllers).is_some()).await;
    let leading = leader(&controllers).unwrap();
    let follows = &controllers[1 - leading];
    until("the follower knows", || follows.edges.standing.borrow().holder.is_some()).await;
    let facts = |answer: Answer| json(&answer)["facts"]["leadership"].clone();
    let of_the_leader = facts(get(controllers[leading].status.unwrap(), "/supervision?format=json").await);
    let of_the_follower = facts(get(follows.status.unwrap(), "/supervision?format=json").await);
    assert_eq!((&of_the_leader["leads"], &of_the_follower["leads"]), (&true.into(), &false.into()));
    assert_eq!(of_the_follower["leader"], of_the_leader["leader"]);
    let name = ["a_", "b_"][leading];
    assert!(of_the_follower["leader"].as_str().unwrap().starts_with(name), "{of_the_follower}");
    until("the follower's translation", || follows.edges.translation.borrow().is_some()).await;
    assert_eq!(get(follows.status.unwrap(), "/readyz").await.status, 200, "a follower is ready");
    for controller in &controllers {
        controller.running.stop().await.unwrap();
    }
}
