//! What clients can't take away from each other: connections, those to endpoints, the endpoints, time.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::Method;
use proxy::limits::Limits;
use proxy::listen::drain::DrainSettings;
use proxy::metrics::text;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::http1::{Answer, Client};
use crate::http2;
use crate::origin::Origin;
use crate::rig::{PATIENCE, Rig, Site};
use crate::server::listen;

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

/// Waits until a line of the metrics is shown: a worker counts after it has answered.
async fn shown(rig: &Rig, line: &str) {
    let begun = Instant::now();
    while !text::render(rig.proxy.metrics()).lines().any(|shown| shown == line) {
        assert!(begun.elapsed() < PATIENCE, "{line} is not in\n{}", text::render(rig.proxy.metrics()));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
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
    shown(&rig, "portreeve_refusals_total{reason=\"upstream_exhausted\"} 4").await;
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
    shown(&rig, "portreeve_refusals_total{reason=\"endpoints_full\"} 1").await;
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

#[tokio::test]
async fn a_listener_that_is_full_for_one_client_serves_the_others_and_says_so() {
    let origin = Origin::start().await;
    let limits = Limits { connections_per_client: 2, ..Limits::new(4000) };
    let (rig, _) = limited(limits, &[&origin]).await;
    let mut clients = Vec::new();
    while clients.len() < 2 {
        // The rig's own connections may still be counted.
        let mut client = Client::connect(rig.http).await.unwrap();
        if client.get("/").await.is_some_and(|answer| answer.is_ok()) {
            clients.push(client);
        }
    }
    let before = rig.proxy.metrics().turned_away[1].load(Relaxed);
    let mut refused = Client::connect(rig.http).await.unwrap();
    assert!(refused.get("/").await.is_none(), "it is closed at once");
    let line = format!("portreeve_connections_refused_total{{reason=\"client_limit\"}} {}", before + 1);
    shown(&rig, &line).await;
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.33:0".parse().unwrap()).unwrap();
    let mut other = Client::over(other.connect(rig.http).await.unwrap());
    assert!(other.get("/").await.unwrap().is_ok());
    drop(clients);
    loop {
        let mut client = Client::connect(rig.http).await.unwrap();
        if client.get("/").await.is_some_and(|answer| answer.is_ok()) {
            break;
        }
    }
}

/// How late content may come to [`hasty`] limits: more than a busy machine lets a thread wait.
const GRACE: Duration = Duration::from_millis(1500);
/// Longer, by more than a deadline may be late.
const BEYOND_GRACE: Duration = Duration::from_millis(1800);

/// Limits that a test has the time for: a request's content must come at 1,000 bytes per second.
fn hasty() -> Limits {
    Limits { body_grace: GRACE, body_rate: 1000, ..Limits::new(4000) }
}

/// Sends a head and then so many bytes of content every 50 ms; the answer.
async fn trickle(client: &mut Client<TcpStream>, head: &str, bytes: usize, times: usize) -> Option<Answer> {
    client.stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..times {
        let answered = timeout(Duration::from_millis(50), client.stream.readable()).await.is_ok();
        // Refused once the proxy has ended the connection: the answer says why.
        if answered || client.stream.write_all(&vec![b'x'; bytes]).await.is_err() {
            break;
        }
    }
    client.answer().await
}

#[tokio::test]
async fn content_that_trickles_is_refused_and_content_that_keeps_the_pace_is_not() {
    let origin = Origin::start().await;
    let (rig, _) = limited(hasty(), &[&origin]).await;
    let head = "POST /quiet-echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 12000\r\n\r\n";
    let begun = Instant::now();
    let mut client = Client::connect(rig.http).await.unwrap();
    let answer = trickle(&mut client, head, 1, 400).await.unwrap();
    assert!(answer.head.starts_with("HTTP/1.1 408 "), "{answer:?}");
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    let mut client = Client::connect(rig.http).await.unwrap();
    let answer = trickle(&mut client, head, 200, 60).await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
}

/// Reads a head; ends the connection if that is a POST's, else answers.
async fn hears_no_post_out(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    if !head.starts_with(b"POST ") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    }
}

#[tokio::test]
async fn the_time_for_content_of_a_request_that_failed_is_not_the_next_ones() {
    let (address, _server) = listen("127.0.0.31:0", hears_no_post_out).await;
    let rig = Rig::limited(1, hasty(), DrainSettings::default()).await;
    rig.hold(&Site::new(&rig, address)).await;
    let mut client = Client::connect(rig.http).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\n";
    let answer = client.ask(head.as_bytes()).await.unwrap();
    assert!(answer.head.starts_with("HTTP/1.1 502 "), "{answer:?}");
    assert_eq!(answer.field("connection"), None);
    client.stream.write_all(b"hi").await.unwrap();
    tokio::time::sleep(BEYOND_GRACE).await;
    assert!(client.get("/").await.expect("the connection goes on").is_ok());
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_to_go_on_is_not_too_slow() {
    let origin = Origin::start().await;
    let (rig, _) = limited(hasty(), &[&origin]).await;
    let mut client = Client::connect(rig.http).await.unwrap();
    let head =
        "POST /quiet-echo HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let told = client.ask(head.as_bytes()).await.unwrap();
    assert!(told.head.starts_with("HTTP/1.1 100 "), "{told:?}");
    tokio::time::sleep(BEYOND_GRACE).await;
    assert!(client.ask(b"ok").await.unwrap().is_ok());
}

#[tokio::test]
async fn content_that_trickles_on_a_stream_is_refused_but_not_that_of_a_grpc_call() {
    let origin = Origin::start().await;
    let (rig, _) = limited(hasty(), &[&origin]).await;
    let client = http2::Client::connect(&rig).await;
    let post = |content_type: &str| {
        let mut head = http2::request(Method::POST, "/quiet-echo");
        head.headers_mut().insert("content-type", content_type.parse().unwrap());
        head
    };
    let (response, mut stream) = client.send(post("text/plain"), false).await;
    stream.send_data("a".into(), false).unwrap();
    assert_eq!(http2::answer(response).await.unwrap().head.status(), 408);
    let (response, mut stream) = client.send(post("application/grpc"), false).await;
    stream.send_data("a".into(), false).unwrap();
    tokio::time::sleep(BEYOND_GRACE).await;
    stream.send_data("b".into(), true).unwrap();
    http2::answer(response).await.unwrap().check(200, b"ab");
}
