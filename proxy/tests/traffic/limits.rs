//! What clients can't take away from each other: connections to endpoints, the endpoints themselves.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::Method;
use proxy::limits::Limits;
use proxy::listen::drain::DrainSettings;
use proxy::metrics::text;

use crate::http1::Client;
use crate::http2;
use crate::origin::Origin;
use crate::rig::{Rig, Site};

async fn limited(limits: Limits, origins: &[&Origin]) -> (Rig, Site) {
    let rig = Rig::limited(1, limits, DrainSettings::default()).await;
    let mut site = Site::new(&rig, origins[0].address);
    site.origins = origins.iter().map(|origin| origin.address).collect();
    rig.hold(&site).await;
    (rig, site)
}

async fn seen(origin: &Origin, requests: usize) {
    while origin.requests().len() < requests {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[track_caller]
fn check_shown(rig: &Rig, line: &str) {
    let shown = text::render(rig.proxy.metrics());
    assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
}

#[tokio::test]
async fn streams_open_no_more_connections_to_endpoints_than_the_proxy_may_have() {
    let origin = Origin::start().await;
    let limits = Limits { upstream_connections: 5, ..Limits::new(4000) };
    let (rig, _) = limited(limits, &[&origin]).await;
    let client = http2::Client::connect(&rig).await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(client.send(http2::request(Method::GET, "/gate"), true).await.0);
    }
    seen(&origin, 5).await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.head.status(), 503);
    }
    let mut other = Client::connect(rig.http).await.unwrap();
    let refused = other.get("/").await.unwrap();
    assert!(refused.head.starts_with("HTTP/1.1 503 "), "{refused:?}");
    check_shown(&rig, "portreeve_refusals_total{reason=\"upstream_exhausted\"} 4");
    assert_eq!(origin.seen.accepted.load(Relaxed), 5);
    origin.seen.gate.add_permits(5);
    for response in waiting {
        http2::answer(response).await.unwrap().check(200, b"ok");
    }
    client.get("/").await.check(200, b"ok");
    assert!(other.get("/").await.unwrap().is_ok(), "the connection goes on");
}

#[tokio::test]
async fn an_idle_connection_to_one_endpoint_makes_room_for_one_to_another() {
    let (first, second) = (Origin::start().await, Origin::start().await);
    let limits = Limits { upstream_connections: 1, ..Limits::new(4000) };
    let (rig, mut site) = limited(limits, &[&first]).await;
    let mut client = Client::connect(rig.http).await.unwrap();
    for origin in [&first, &second, &first] {
        site.origins = vec![origin.address];
        rig.hold(&site).await;
        let before = origin.requests().len();
        assert!(client.get("/").await.unwrap().is_ok());
        assert_eq!(origin.requests().len(), before + 1);
    }
}

#[tokio::test]
async fn an_endpoint_gets_no_more_requests_at_a_time_than_it_may() {
    let (first, second) = (Origin::start().await, Origin::start().await);
    let limits = Limits { requests_per_endpoint: 2, ..Limits::new(4000) };
    let (rig, _) = limited(limits, &[&first, &second]).await;
    let client = http2::Client::connect(&rig).await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(client.send(http2::request(Method::GET, "/gate"), true).await.0);
    }
    seen(&first, 2).await;
    seen(&second, 2).await;
    assert_eq!(client.get("/").await.head.status(), 503);
    check_shown(&rig, "portreeve_refusals_total{reason=\"endpoints_full\"} 1");
    first.seen.gate.add_permits(1);
    while rig.proxy.metrics().worker(0).active_requests.load(Relaxed) > 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..3 {
        client.get("/").await.check(200, b"ok");
    }
    assert_eq!((first.requests().len(), second.requests().len()), (5, 2), "the other one is still full");
    first.seen.gate.add_permits(1);
    second.seen.gate.add_permits(2);
    for response in waiting {
        http2::answer(response).await.unwrap().check(200, b"ok");
    }
}
