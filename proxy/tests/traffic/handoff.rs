//! Where connections go, and what becomes of them when their listener does.

use std::sync::atomic::Ordering::Relaxed;

use proxy_config::set::UnitSet;
use tokio::net::TcpStream;

use crate::http1::Client;
use crate::http2;
use crate::origin::Origin;
use crate::rig::{Rig, Site};

fn open_per_worker(rig: &Rig, workers: usize) -> Vec<i64> {
    (0..workers).map(|worker| rig.proxy.metrics().worker(worker).open_connections.load(Relaxed)).collect()
}

#[tokio::test]
async fn connections_spread_over_the_workers_and_are_counted_until_they_end() {
    let origin = Origin::start().await;
    let rig = Rig::start(4).await;
    rig.hold(&Site::new(&rig, origin.address)).await;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let mut client = Client::connect(rig.http).await.unwrap();
        assert!(client.get("/quiet").await.unwrap().is_ok());
        first.push(client);
        let client = http2::Client::connect(&rig).await;
        client.get("/quiet").await.check(200, b"ok");
        second.push(client);
    }
    let open = open_per_worker(&rig, 4);
    assert!(open.iter().all(|count| *count >= 8), "{open:?}");
    drop((first, second));
    while open_per_worker(&rig, 4).iter().sum::<i64>() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_listener_that_is_gone_leaves_its_connections_to_end_by_themselves() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let mut client = Client::connect(rig.http).await.unwrap();
    assert!(client.get("/quiet").await.unwrap().is_ok());
    rig.proxy.hold(UnitSet::default()).await.unwrap();
    while TcpStream::connect(rig.http).await.is_ok() {}
    let answer = client.get("/quiet").await.expect("the connection is still served");
    assert!(answer.head.starts_with("HTTP/1.1 404 "), "{answer:?}");
    rig.hold(&Site::new(&rig, origin.address)).await;
    assert!(client.get("/quiet").await.unwrap().is_ok());
}
