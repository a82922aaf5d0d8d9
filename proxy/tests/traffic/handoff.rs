//! Where connections go.

use std::sync::atomic::Ordering::Relaxed;

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
