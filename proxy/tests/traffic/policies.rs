//! What a rule does besides editing and forwarding, for clients of HTTP/2.

use std::sync::atomic::Ordering::Relaxed;

use http::{Method, Request};
use proxy_config::resilience::{Retry, SessionCarrier, SessionPersistence};
use proxy_config::route::{Cors, Filter, Mirror};

use crate::http2::{Answer, Client, answer, request};
use crate::origin::Origin;
use crate::rig::{PATIENCE, Rig, Site};

async fn ask(client: &Client, method: Method, fields: &[(&'static str, &'static str)]) -> Answer {
    let mut head: Request<()> = request(method, "/");
    for (name, value) in fields {
        head.headers_mut().insert(*name, value.parse().unwrap());
    }
    let (response, _) = client.send(head, true).await;
    answer(response).await.unwrap()
}

#[tokio::test]
async fn a_preflight_is_answered_and_responses_say_who_may_read_them() {
    let origin = Origin::start().await;
    let rig = Rig::start(2).await;
    let mut site = Site::new(&rig, origin.address);
    site.shape = |route| {
        let cors = Cors {
            allow_origins: vec!["https://*.a.example".into()],
            allow_credentials: true,
            allow_methods: vec!["*".into()],
            max_age: 5,
            ..Cors::default()
        };
        route.rules[0].filters.push(Filter::Cors(cors));
    };
    rig.hold(&site).await;
    let client = Client::connect(&rig).await;
    let asked = [("origin", "https://x.a.example"), ("access-control-request-method", "PUT")];
    let got = ask(&client, Method::OPTIONS, &asked).await;
    got.check(204, b"");
    assert_eq!(got.field("access-control-allow-origin"), Some("https://x.a.example"));
    assert_eq!(got.field("access-control-allow-methods"), Some("PUT"));
    assert_eq!(got.field("access-control-max-age"), Some("5"));
    assert!(origin.requests().is_empty());
    let got = ask(&client, Method::GET, &asked[..1]).await;
    got.check(200, b"ok");
    assert_eq!(got.field("access-control-allow-origin"), Some("https://x.a.example"));
    assert_eq!(got.field("access-control-allow-credentials"), Some("true"));
    assert_eq!(got.field("vary"), Some("Origin"));
    let got = ask(&client, Method::GET, &[("origin", "https://b.example")]).await;
    got.check(200, b"ok");
    assert_eq!(got.field("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_listed_status_is_tried_again_with_the_same_content() {
    let origin = Origin::start().await;
    let rig = Rig::start(2).await;
    let mut site = Site::new(&rig, origin.address);
    site.shape =
        |route| route.rules[0].retry = Some(Retry { codes: vec![503], attempts: 2, backoff: Some(5) });
    rig.hold(&site).await;
    let client = Client::connect(&rig).await;
    for (failures, status) in [(0, 200), (2, 200), (3, 503)] {
        origin.seen.failures.store(failures, Relaxed);
        let before = origin.requests().len();
        let (response, mut stream) = client.send(request(Method::POST, "/fail"), false).await;
        stream.send_data("hello".into(), false).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        stream.send_data("again".into(), true).unwrap();
        let got = answer(response).await.unwrap();
        assert_eq!(got.head.status(), status);
        let tries = &origin.requests()[before..];
        assert_eq!(tries.len(), failures.min(2) + 1);
        assert!(
            tries.iter().all(|tried| tried.contains("\r\n5\r\nhello\r\n5\r\nagain\r\n0\r\n")),
            "{tries:?}"
        );
    }
}

#[tokio::test]
async fn a_mirror_gets_a_whole_copy() {
    let origin = Origin::start().await;
    let rig = Rig::start(2).await;
    let mut site = Site::new(&rig, origin.address);
    site.shape = |route| {
        // To the same origin: it sees everything twice.
        let target = route.rules[0].backends[0].target.clone();
        let mirror = Mirror { target, numerator: 1, denominator: 1 };
        route.rules[0].filters.push(Filter::Mirror(mirror));
    };
    rig.hold(&site).await;
    let client = Client::connect(&rig).await;
    client.get("/").await.check(200, b"ok");
    let (response, mut stream) = client.send(request(Method::POST, "/"), false).await;
    stream.send_data("hello".into(), true).unwrap();
    answer(response).await.unwrap().check(200, b"ok");
    let copied = async {
        while origin.requests().len() < 4 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, copied).await.expect("all copies in time");
    let posts = origin.requests().into_iter().filter(|request| request.starts_with("POST "));
    assert!(posts.clone().all(|post| post.ends_with("5\r\nhello\r\n0\r\n\r\n")));
    assert_eq!(posts.filter(|post| post.contains("\r\nConnection: close\r\n")).count(), 1);
}

#[tokio::test]
async fn a_session_stays_at_its_endpoint() {
    let origins = [Origin::start().await, Origin::start().await];
    let rig = Rig::start(2).await;
    let mut site = Site::new(&rig, origins[0].address);
    site.origins.push(origins[1].address);
    site.shape = |route| {
        route.rules[0].session = Some(SessionPersistence {
            name: "s".into(),
            carrier: SessionCarrier::SessionCookie,
            absolute_timeout: None,
            idle_timeout: None,
        });
    };
    rig.hold(&site).await;
    let client = Client::connect(&rig).await;
    let got = client.get("/").await;
    let cookie = got.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    for _ in 0..5 {
        let mut head = request(Method::GET, "/");
        head.headers_mut().insert("cookie", cookie.parse().unwrap());
        let (response, _) = client.send(head, true).await;
        assert_eq!(answer(response).await.unwrap().field("set-cookie"), None);
    }
    let mut counts = origins.each_ref().map(|origin| origin.requests().len());
    counts.sort_unstable();
    assert_eq!(counts, [0, 6]);
}
