//! What becomes of what is open when a configuration takes something away: an endpoint's requests finish,
//! a listener's and a route's may finish within a bound, a hostname's and a grant's are cut.

use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use http::Method;
use proxy::limits::Limits;
use proxy::listen::drain::DrainSettings;
use proxy_config::name::{HostPattern, ObjectName, UnitId};
use proxy_config::route::{RouteUnit, Target};
use proxy_config::set::UnitSet;
use proxy_config::unit::{EncodedUnit, Unit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::http1::{Answer, Client};
use crate::http2;
use crate::origin::Origin;
use crate::rig::{PATIENCE, Rig, Site};

/// What is cut is cut within this time.
const CUT_WITHIN: Duration = Duration::from_secs(1);
/// How often that is tried: a busy machine may hold it up, though not each time.
const TRIES: usize = 3;
/// What ends by itself ends within this time, and what may finish goes on for longer.
const SOON: Duration = Duration::from_secs(5);

/// A proxy that serves one route, and bounds what is open for so long when it closes.
async fn serving(close_within: Duration) -> (Rig, Site, Origin) {
    serving_by(2, close_within).await
}

/// The same by so many workers. One worker has told what is busy when it has ended what is idle.
async fn serving_by(workers: usize, close_within: Duration) -> (Rig, Site, Origin) {
    let origin = Origin::start().await;
    let limits = Limits { close_within, ..Limits::new(4000) };
    let rig = Rig::limited(workers, limits, DrainSettings::default()).await;
    let site = Site::new(&rig, origin.address);
    rig.hold(&site).await;
    (rig, site, origin)
}

/// The site's units, without those whose id begins so.
fn without(site: &Site, prefix: &str) -> UnitSet {
    site.units().iter().filter(|unit| !unit.id.as_str().starts_with(prefix)).cloned().collect()
}

/// The site's units with another version of its route.
fn with_route(site: &Site, edit: impl FnOnce(&mut RouteUnit)) -> UnitSet {
    let encoded = site.route();
    let Unit::Route(mut route) = encoded.decode().unwrap() else { panic!("it is a route") };
    edit(&mut route);
    let id = UnitId::route("HTTPRoute", &route.name);
    let edited = EncodedUnit::new(id, &Unit::Route(route));
    without(site, "route/").iter().cloned().chain([edited]).collect()
}

fn refuse(route: &mut RouteUnit, target: fn(String) -> Target) {
    route.rules[0].backends[0].target = target("for a test".to_owned());
}

/// A request whose answer waits for a permit.
async fn waiting(rig: &Rig, origin: &Origin) -> JoinHandle<Option<Answer>> {
    let before = origin.requests().len();
    let mut client = Client::connect(rig.http).await.unwrap();
    let asked = tokio::spawn(async move { client.get("/gate").await });
    while origin.requests().len() == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    asked
}

/// A tunnel through HTTP/1.1 that has carried something.
async fn tunnel(rig: &Rig) -> Client<TcpStream> {
    let mut client = Client::connect(rig.http).await.unwrap();
    let upgrade = b"GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = client.ask(upgrade).await.unwrap();
    assert!(answer.head.starts_with("HTTP/1.1 101 "), "{answer:?}");
    assert!(echoes(&mut client).await);
    client
}

async fn echoes(client: &mut Client<TcpStream>) -> bool {
    client.stream.write_all(b"hello").await.is_ok()
        && client.fill().await.is_some()
        && client.take() == b"hello"
}

/// A tunnel through HTTP/2 that has carried something.
async fn tunnel2(client: &http2::Client) -> (h2::SendStream<Bytes>, h2::RecvStream) {
    let mut head = http2::request(Method::CONNECT, "/ws");
    head.extensions_mut().insert(Protocol::from_static("websocket"));
    head.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    let (response, mut stream) = client.send(head, false).await;
    let mut body = timeout(PATIENCE, response).await.unwrap().unwrap().into_body();
    stream.send_data("hello".into(), false).unwrap();
    assert_eq!(timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap(), "hello");
    (stream, body)
}

#[tokio::test]
async fn connections_of_a_listener_that_is_gone_end_when_nothing_is_under_way() {
    let (rig, site, origin) = serving_by(1, PATIENCE).await;
    let mut idle = Client::connect(rig.http).await.unwrap();
    assert!(idle.get("/").await.unwrap().is_ok());
    let idle2 = http2::Client::connect(&rig).await;
    idle2.get("/").await.check(200, b"ok");
    let busy = waiting(&rig, &origin).await;
    let busy2 = http2::Client::connect(&rig).await;
    let (response, _) = busy2.send(http2::request(Method::GET, "/gate"), true).await;
    while origin.requests().len() < 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rig.proxy.hold(without(&site, "listener/")).await.unwrap();
    assert!(timeout(SOON, idle.answer()).await.expect("it ends at once").is_none());
    timeout(PATIENCE, idle2.connection).await.expect("GOAWAY").unwrap().unwrap();
    origin.seen.gate.add_permits(2);
    let answer = busy.await.unwrap().expect("it is answered");
    assert!(answer.is_ok());
    assert_eq!(answer.field("connection"), Some("close"));
    http2::answer(response).await.unwrap().check(200, b"ok");
    timeout(PATIENCE, busy2.connection).await.expect("GOAWAY").unwrap().unwrap();
}

#[tokio::test]
async fn what_a_listener_that_is_gone_leaves_under_way_is_cut_when_its_time_is_over() {
    let bound = Duration::from_secs(2);
    let (rig, site, origin) = serving(bound).await;
    let busy = waiting(&rig, &origin).await;
    let (mut tunnelled, client2) = (tunnel(&rig).await, http2::Client::connect(&rig).await);
    client2.get("/").await.check(200, b"ok");
    let (_to, mut from) = tunnel2(&client2).await;
    let begun = Instant::now();
    rig.proxy.hold(without(&site, "listener/")).await.unwrap();
    assert!(echoes(&mut tunnelled).await, "it has time left");
    assert!(busy.await.unwrap().is_some_and(|answer| answer.head.starts_with("HTTP/1.1 503 ")));
    assert!(tunnelled.fill().await.is_none(), "it is cut");
    assert!(timeout(PATIENCE, from.data()).await.unwrap().is_none_or(|data| data.is_err()));
    assert!(begun.elapsed() >= bound && begun.elapsed() < bound + SOON, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_open_is_cut_when_its_hostname_is_gone() {
    type Case = fn(&Site) -> UnitSet;
    let cases: [Case; 3] = [
        |site| without(site, "route/"),
        |site| with_route(site, |route| route.attachments.clear()),
        |site| with_route(site, |route| route.attachments[0].hostnames = vec![HostPattern::new("b.example")]),
    ];
    for lost in cases {
        all_is_cut_in_time(lost).await;
    }
}

#[tokio::test]
async fn what_is_open_is_cut_when_its_grant_is_gone() {
    all_is_cut_in_time(|site| with_route(site, |route| refuse(route, Target::NotPermitted))).await;
}

async fn all_is_cut_in_time(lost: fn(&Site) -> UnitSet) {
    let mut took = Vec::new();
    while took.len() < TRIES {
        let (rig, site, origin) = serving(PATIENCE).await;
        took.push(all_is_cut(&rig, &origin, &lost(&site)).await);
        if took.iter().any(|took| *took < CUT_WITHIN) {
            return;
        }
    }
    panic!("{took:?}");
}

/// How long it takes until all is cut.
async fn all_is_cut(rig: &Rig, origin: &Origin, units: &UnitSet) -> Duration {
    let busy = waiting(rig, origin).await;
    let (mut tunnelled, client2) = (tunnel(rig).await, http2::Client::connect(rig).await);
    client2.get("/").await.check(200, b"ok");
    let (_to, mut from) = tunnel2(&client2).await;
    let begun = Instant::now();
    rig.proxy.hold(units.clone()).await.unwrap();
    assert!(busy.await.unwrap().is_some_and(|answer| answer.head.starts_with("HTTP/1.1 503 ")));
    assert!(tunnelled.fill().await.is_none(), "it is cut");
    assert!(timeout(PATIENCE, from.data()).await.unwrap().is_none_or(|data| data.is_err()));
    let took = begun.elapsed();
    // The connection itself goes on: its listener is still there.
    assert!(matches!(client2.get("/").await.head.status().as_u16(), 404 | 500));
    took
}

#[tokio::test]
async fn what_is_open_goes_on_when_the_route_leads_elsewhere_now() {
    type Case = fn(&Site) -> UnitSet;
    let cases: [Case; 4] = [
        // The Service is gone, but nobody took the right to use it away.
        |site| with_route(site, |route| refuse(route, Target::Invalid)),
        |site| with_route(site, |route| route.rules[0].backends.clear()),
        // The endpoints are gone.
        |site| without(site, "endpoints/"),
        // Another hostname of the route is new.
        |site| {
            with_route(site, |route| {
                let hosts = ["a.example", "b.example"].map(HostPattern::new);
                route.attachments[0].hostnames = hosts.to_vec();
            })
        },
    ];
    for changed in cases {
        let (rig, site, origin) = serving(Duration::from_millis(100)).await;
        let (busy, mut tunnelled) = (waiting(&rig, &origin).await, tunnel(&rig).await);
        rig.proxy.hold(changed(&site)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(echoes(&mut tunnelled).await);
        origin.seen.gate.add_permits(1);
        assert!(busy.await.unwrap().unwrap().is_ok());
    }
}

#[tokio::test]
async fn what_is_open_may_finish_when_another_route_serves_its_hostname_now() {
    let bound = Duration::from_secs(2);
    let (rig, site, origin) = serving_by(1, bound).await;
    let (busy, mut tunnelled) = (waiting(&rig, &origin).await, tunnel(&rig).await);
    let renamed = with_route(&site, |route| route.name = ObjectName::new("test", "successor"));
    let begun = Instant::now();
    rig.proxy.hold(renamed).await.unwrap();
    tokio::time::sleep(bound / 4).await;
    assert!(echoes(&mut tunnelled).await);
    origin.seen.gate.add_permits(1);
    let answer = busy.await.unwrap().unwrap();
    assert!(answer.is_ok());
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(tunnelled.fill().await.is_none(), "its time is over");
    assert!(begun.elapsed() >= bound && begun.elapsed() < bound + SOON, "{:?}", begun.elapsed());
}
