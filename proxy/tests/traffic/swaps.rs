//! Swaps of the configuration under every kind of traffic: nothing fails, and each request sees one
//! generation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::http1::{Answer, Client};
use crate::http2;
use crate::origin::Origin;
use crate::rig::{Rig, Site};
use crate::tls::Trust;

const SWAPS: u64 = 10_000;

/// What the traffic has come to.
#[derive(Default)]
struct Traffic {
    is_over: AtomicBool,
    served: [AtomicUsize; 6],
}

impl Traffic {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Relaxed)
    }

    fn served(&self, kind: usize) {
        self.served[kind].fetch_add(1, Relaxed);
    }
}

/// The generation that the request was edited with is the one that the response was edited with.
#[track_caller]
fn check(answer: &Answer) {
    assert!(answer.is_ok(), "{answer:?}");
    assert!(answer.field("x-seen").is_some());
    assert_eq!(answer.field("x-seen"), answer.field("x-generation"));
}

async fn kept_alive(rig: Arc<Rig>, traffic: Arc<Traffic>) {
    let mut client = Client::connect(rig.http).await.unwrap();
    while traffic.goes_on() {
        check(&client.get("/quiet").await.expect("the connection is kept"));
        traffic.served(0);
    }
}

async fn new_each(rig: Arc<Rig>, traffic: Arc<Traffic>) {
    while traffic.goes_on() {
        let mut client = Client::connect(rig.http).await.unwrap();
        let request = b"GET /quiet HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
        check(&client.ask(request).await.expect("an answer"));
        traffic.served(1);
    }
}

async fn streams(rig: Arc<Rig>, traffic: Arc<Traffic>) {
    let client = http2::Client::connect(&rig).await;
    while traffic.goes_on() {
        let answers = (0..8).map(|_| client.get("/quiet"));
        for answer in futures_util::future::join_all(answers).await {
            answer.check(200, b"ok");
            assert_eq!(answer.field("x-seen"), answer.field("x-generation"));
            traffic.served(2);
        }
    }
}

async fn secured(rig: Arc<Rig>, traffic: Arc<Traffic>) {
    while traffic.goes_on() {
        let mut client = Client::over(Trust.connect(rig.https, "a.example", &[]).await.unwrap());
        check(&client.get("/quiet").await.expect("an answer"));
        traffic.served(3);
    }
}

async fn websocket(rig: Arc<Rig>, traffic: Arc<Traffic>) {
    let mut client = Client::connect(rig.http).await.unwrap();
    let request = b"GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let answer = client.ask(request).await.unwrap();
    assert!(answer.head.starts_with("HTTP/1.1 101 "), "{answer:?}");
    while traffic.goes_on() {
        client.stream.write_all(b"message").await.unwrap();
        let mut echoed = Vec::new();
        while echoed.len() < 7 {
            client.fill().await.expect("the tunnel stays open");
            echoed.extend(client.take());
        }
        assert_eq!(echoed, b"message");
        traffic.served(4);
    }
}

/// One upload and one download, both as long as the test.
async fn long(rig: Arc<Rig>, traffic: Arc<Traffic>) {
    let client = http2::Client::connect(&rig).await;
    let (response, mut upload) = client.send(http2::request(Method::POST, "/quiet-echo"), false).await;
    let mut download = Client::connect(rig.http).await.unwrap();
    download.stream.write_all(b"GET /endless HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    let mut sent = 0;
    while traffic.goes_on() {
        download.fill().await.expect("the response goes on");
        download.take();
        http2::write(&mut upload, Bytes::from_static(&[7; 64]), false).await;
        sent += 64;
        traffic.served(5);
        tokio::task::yield_now().await;
    }
    upload.send_data(Bytes::new(), true).unwrap();
    assert_eq!(http2::answer(response).await.unwrap().content.len(), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_swaps_under_load_fail_no_request() {
    let origin = Origin::start().await;
    let rig = Arc::new(Rig::start(2).await);
    let mut site = Site::new(&rig, origin.address);
    site.certificates = vec![("", "any.example")];
    site.generation = Some(0);
    rig.hold(&site).await;
    let traffic = Arc::new(Traffic::default());
    let mut clients = JoinSet::new();
    for _ in 0..2 {
        clients.spawn(kept_alive(rig.clone(), traffic.clone()));
        clients.spawn(new_each(rig.clone(), traffic.clone()));
        clients.spawn(streams(rig.clone(), traffic.clone()));
    }
    clients.spawn(secured(rig.clone(), traffic.clone()));
    clients.spawn(websocket(rig.clone(), traffic.clone()));
    clients.spawn(long(rig.clone(), traffic.clone()));
    let mut units = site.units();
    for generation in 1..=SWAPS {
        site.generation = Some(generation);
        units.apply(site.backend().into_iter().chain([site.route()]), []);
        let ack = rig.proxy.hold(units.clone()).await.unwrap();
        assert_eq!((ack.broken.len(), ack.root), (0, units.root()));
        if let Some(ended) = clients.try_join_next() {
            ended.expect("no client fails");
        }
    }
    let mut newest = Client::connect(rig.http).await.unwrap();
    assert_eq!(newest.get("/quiet").await.unwrap().field("x-seen"), Some(&*SWAPS.to_string()));
    traffic.is_over.store(true, Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client fails");
    }
    for (kind, served) in traffic.served.iter().enumerate() {
        assert!(served.load(Relaxed) > 50, "traffic {kind} was not there");
    }
    // Swaps make no connection anew: what lives longer than a configuration is not in the table.
    let accepted = origin.seen.accepted.load(Relaxed);
    assert!(accepted < 60, "{accepted} connections to the origin");
}
