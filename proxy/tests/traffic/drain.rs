//! A drain: nothing that is under way is lost, and nothing new is taken after its time.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use proxy::listen::drain::{DrainSettings, Drained};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http1::Client;
use crate::http2;
use crate::origin::Origin;
use crate::rig::{PATIENCE, Rig, Site};

async fn draining(accept_for: u64, finish_within: u64) -> (Arc<Rig>, Origin) {
    let origin = Origin::start().await;
    let settings = DrainSettings {
        accept_for: Duration::from_millis(accept_for),
        finish_within: Duration::from_millis(finish_within),
    };
    let rig = Rig::with(2, settings).await;
    rig.hold(&Site::new(&rig, origin.address)).await;
    (Arc::new(rig), origin)
}

fn begin(rig: &Arc<Rig>) -> tokio::task::JoinHandle<Drained> {
    let proxy = rig.proxy.clone();
    tokio::spawn(async move { proxy.drain().await.unwrap() })
}

#[tokio::test]
async fn what_is_under_way_finishes_and_idle_connections_end_soon() {
    let (rig, origin) = draining(0, 10_000).await;
    let mut idle = Client::connect(rig.http).await.unwrap();
    assert!(idle.get("/").await.unwrap().is_ok());
    let idle2 = http2::Client::connect(&rig).await;
    idle2.get("/").await.check(200, b"ok");
    let mut busy = Client::connect(rig.http).await.unwrap();
    let busy2 = http2::Client::connect(&rig).await;
    let (response, _) = busy2.send(http2::request(Method::GET, "/gate"), true).await;
    let (asked, drained) = {
        let asked = tokio::spawn(async move { busy.get("/gate").await });
        while origin.requests().len() < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (asked, begin(&rig))
    };
    assert!(idle.answer().await.is_none(), "an idle connection is ended");
    timeout(PATIENCE, idle2.connection).await.expect("GOAWAY").unwrap().unwrap();
    while TcpStream::connect(rig.http).await.is_ok() {}
    assert!(!drained.is_finished());
    origin.seen.gate.add_permits(2);
    let answer = asked.await.unwrap().expect("it is answered");
    assert!(answer.is_ok());
    assert_eq!(answer.field("connection"), Some("close"));
    http2::answer(response).await.unwrap().check(200, b"ok");
    timeout(PATIENCE, busy2.connection).await.expect("GOAWAY").unwrap().unwrap();
    assert_eq!(drained.await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn new_connections_are_served_while_the_world_learns_of_the_drain() {
    let (rig, _origin) = draining(2_000, 10_000).await;
    let drained = begin(&rig);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut client = Client::connect(rig.http).await.unwrap();
    let answer = client.get("/").await.expect("it is served");
    assert!(answer.is_ok());
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(drained.await.unwrap(), Drained { cut: 0 });
    TcpStream::connect(rig.http).await.expect_err("nobody listens");
}

#[tokio::test]
async fn what_is_open_at_the_deadline_is_cut() {
    let (rig, origin) = draining(0, 1_000).await;
    let mut busy = Client::connect(rig.http).await.unwrap();
    let asked = tokio::spawn(async move { busy.get("/gate").await });
    while origin.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(begin(&rig).await.unwrap(), Drained { cut: 1 });
    assert!(asked.await.unwrap().is_none(), "it is cut");
}
