//! Datagrams: a session per client, replies from the address that was asked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use proxy::limits::Limits;
use proxy::listen::drain::{DrainSettings, Drained};
use proxy::metrics::text::render;
use proxy_config::backend::BackendProtocol;
use proxy_config::listener::Protocol;
use proxy_config::unit::EncodedUnit;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{encoded, listener, put, route, service, to};
use crate::rig::{PATIENCE, Rig};

/// A server that answers each datagram with its name, the client's port as it sees it, and what came.
async fn server(name: &'static str) -> (SocketAddr, AbortOnDropHandle<()>) {
    server_at("127.0.0.31:0", name).await
}

async fn server_at(address: &str, name: &'static str) -> (SocketAddr, AbortOnDropHandle<()>) {
    let socket = UdpSocket::bind(address).await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut datagram = vec![0; 64 << 10];
        while let Ok((length, peer)) = socket.recv_from(&mut datagram).await {
            let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
            let _ = socket.send_to(format!("{name} {} {text}", peer.port()).as_bytes(), peer).await;
        }
    });
    (address, AbortOnDropHandle::new(task))
}

async fn hold(rig: &Rig, units: impl IntoIterator<Item = EncodedUnit>) {
    let listener = encoded(listener("udp", rig.http, Protocol::Udp));
    put(rig, [listener].into_iter().chain(units)).await;
}

/// A client that hears the proxy's address alone.
async fn client(rig: &Rig) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.32:0").await.unwrap();
    socket.connect(rig.http).await.unwrap();
    socket
}

/// What a client gets for a text, which it says again until it gets something for it: server, port, text.
async fn ask(client: &UdpSocket, text: &str) -> (String, String, String) {
    let asking = async {
        let mut reply = vec![0; 64 << 10];
        loop {
            let _ = client.send(text.as_bytes()).await;
            if let Ok(Ok(length)) = timeout(Duration::from_millis(500), client.recv(&mut reply)).await {
                let reply = String::from_utf8_lossy(&reply[..length]).into_owned();
                let mut parts = reply.splitn(3, ' ').map(str::to_owned);
                let mut part = || parts.next().unwrap();
                let replied = (part(), part(), part());
                // What was said again, as the reply was late, has a reply more.
                if replied.2 == text {
                    break replied;
                }
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("a reply")
}

fn one(endpoint: SocketAddr) -> Vec<EncodedUnit> {
    let mut units = service("one", &[endpoint], BackendProtocol::Udp);
    units.push(route("route", 0, ("udp", &[]), vec![to("one", 1)]));
    units
}

#[tokio::test]
async fn each_client_has_a_session_of_its_own() {
    let (address, _server) = server("one").await;
    let rig = Rig::start(1).await;
    hold(&rig, one(address)).await;
    let (first, second) = (client(&rig).await, client(&rig).await);
    let (name, port, text) = ask(&first, "a").await;
    assert_eq!((&*name, &*text), ("one", "a"));
    let (_, other, text) = ask(&second, "b").await;
    assert_eq!(text, "b");
    assert_ne!(port, other, "clients share a socket");
    let (_, again, _) = ask(&first, &"c".repeat(8000)).await;
    assert_eq!(port, again, "a session keeps its socket");
    let text = render(rig.proxy.metrics());
    assert!(text.contains("outcome=\"forwarded\"} 2"), "{text}");
    assert!(text.contains("portreeve_streams{route=\"TCPRoute/test/route\"} 2"), "{text}");
}

#[tokio::test]
async fn over_ipv6_a_session_is_answered_from_the_address_that_was_asked() {
    let client = UdpSocket::bind("[::1]:0").await.unwrap();
    let ((six, _six), (four, _four)) = (server_at("[::1]:0", "IPv6").await, server("IPv4").await);
    // Last: nothing else here may be given its port.
    let local = UdpSocket::bind("[::1]:0").await.unwrap().local_addr().unwrap();
    // It hears that address alone.
    client.connect(local).await.unwrap();
    let rig = Rig::start(1).await;
    for (endpoint, family) in [(six, "IPv6"), (four, "IPv4")] {
        put(&rig, one(endpoint).into_iter().chain([encoded(listener("udp", local, Protocol::Udp))])).await;
        let (name, port, text) = ask(&client, "a").await;
        assert_eq!((&*name, &*text), (family, "a"));
        assert_eq!(ask(&client, "b").await.1, port, "a session keeps its socket");
    }
}

#[tokio::test]
async fn the_first_datagram_of_a_session_arrives() {
    let (address, _server) = server("one").await;
    let rig = Rig::start(1).await;
    hold(&rig, one(address)).await;
    ask(&client(&rig).await, "until it is listened for").await;
    for round in 0..20 {
        let (client, text) = (client(&rig).await, round.to_string());
        client.send(text.as_bytes()).await.unwrap();
        let mut reply = vec![0; 64];
        let length = timeout(PATIENCE, client.recv(&mut reply)).await.expect("a reply").unwrap();
        assert!(String::from_utf8_lossy(&reply[..length]).ends_with(&text));
    }
}

#[tokio::test]
async fn sessions_are_shared_by_weight() {
    let (one, _one) = server("one").await;
    let (two, _two) = server("two").await;
    let rig = Rig::start(1).await;
    let mut units = service("one", &[one], BackendProtocol::Udp);
    units.extend(service("two", &[two], BackendProtocol::Udp));
    units.push(route("route", 0, ("udp", &[]), vec![to("one", 3), to("two", 1)]));
    hold(&rig, units).await;
    let mut ones = 0;
    for _ in 0..8 {
        ones += usize::from(ask(&client(&rig).await, "x").await.0 == "one");
    }
    assert_eq!(ones, 6);
}

#[tokio::test]
async fn a_session_moves_on_when_its_endpoint_goes() {
    let ((one_address, _one), (two, _two)) = (server("one").await, server("two").await);
    let rig = Rig::start(1).await;
    hold(&rig, one(one_address)).await;
    let client = client(&rig).await;
    assert_eq!(ask(&client, "a").await.0, "one");
    hold(&rig, one(two)).await;
    assert_eq!(ask(&client, "b").await.0, "two");
}

#[tokio::test]
async fn a_session_goes_on_in_the_process_that_takes_over() {
    let (address, _server) = server("one").await;
    let rig = Rig::first(DrainSettings::default()).await;
    hold(&rig, one(address)).await;
    let client = client(&rig).await;
    let (_, port, _) = ask(&client, "a").await;
    let next = rig.successor(DrainSettings::default()).await;
    rig.proxy.drain().await.unwrap();
    let (name, again, text) = ask(&client, "b").await;
    assert_eq!((&*name, &*text), ("one", "b"));
    assert_eq!(port, again, "a session keeps its socket");
    let text = render(next.proxy.metrics());
    assert!(text.contains("portreeve_streams{route=\"TCPRoute/test/route\"} 1"), "{text}");
    let text = render(rig.proxy.metrics());
    assert!(text.contains("portreeve_streams{route=\"TCPRoute/test/route\"} 0"), "{text}");
}

/// Says one thing after the other, each once, until it is stopped: all of it is answered.
async fn every_one_is_answered(client: UdpSocket, stop: Arc<AtomicBool>) {
    for number in 0_u64.. {
        if stop.load(Relaxed) {
            return;
        }
        client.send(number.to_string().as_bytes()).await.unwrap();
        timeout(PATIENCE, answer_to(&client, number)).await.expect("a datagram is lost");
    }
}

/// Passes over what answers something before.
async fn answer_to(client: &UdpSocket, number: u64) {
    let mut reply = vec![0; 64];
    loop {
        let length = client.recv(&mut reply).await.unwrap();
        if String::from_utf8_lossy(&reply[..length]).ends_with(&format!(" {number}")) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_datagram_is_lost_on_the_way_from_one_process_to_the_next() {
    let (address, _server) = server("one").await;
    let mut rig = Rig::first(DrainSettings::default()).await;
    hold(&rig, one(address)).await;
    let (stop, mut clients) = (Arc::<AtomicBool>::default(), JoinSet::new());
    for _ in 0..8 {
        let client = client(&rig).await;
        ask(&client, "until it is listened for").await;
        clients.spawn(every_one_is_answered(client, stop.clone()));
    }
    for _ in 0..5 {
        let next = rig.successor(DrainSettings::default()).await;
        rig.proxy.drain().await.unwrap();
        rig = next;
    }
    stop.store(true, Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// A rig whose one UDP route goes to an endpoint, and that is being listened at.
async fn limited(limits: Limits, drain: DrainSettings, endpoint: SocketAddr) -> Rig {
    let rig = Rig::limited(1, limits, drain).await;
    hold(&rig, one(endpoint)).await;
    rig
}

/// Waits until the metrics say this.
async fn says(rig: &Rig, line: &str) {
    let said = async {
        while !render(rig.proxy.metrics()).contains(line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("{line}: {}", render(rig.proxy.metrics())));
}

/// Whether nothing comes back for a while.
async fn is_silent(client: &UdpSocket, text: &str) -> bool {
    client.send(text.as_bytes()).await.unwrap();
    timeout(Duration::from_millis(300), client.recv(&mut [0; 64])).await.is_err()
}

#[tokio::test]
async fn a_client_stays_at_its_endpoint_whoever_comes() {
    let ((a, _a), (b, _b), (c, _c)) = (server("a").await, server("b").await, server("c").await);
    let rig = Rig::start(1).await;
    let to_all = |endpoints: &[SocketAddr]| {
        let mut units = service("one", endpoints, BackendProtocol::Udp);
        units.push(route("route", 0, ("udp", &[]), vec![to("one", 1)]));
        units
    };
    hold(&rig, to_all(&[a, b])).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let client = client(&rig).await;
        let (endpoint, port, _) = ask(&client, "a").await;
        clients.push((client, endpoint, port));
    }
    for endpoints in [&[a, b][..], &[a, b, c]] {
        hold(&rig, to_all(endpoints)).await;
        for (client, endpoint, port) in clients.iter().cycle().take(24) {
            let (now, again, _) = ask(client, "b").await;
            assert_eq!((&now, &again), (endpoint, port));
        }
    }
}

#[tokio::test]
async fn a_session_ends_when_nothing_moves_and_the_next_datagram_begins_another() {
    let (address, _server) = server("one").await;
    let limits = Limits { datagram_idle: Duration::from_secs(1), ..Limits::new(100) };
    let rig = limited(limits, DrainSettings::default(), address).await;
    let (busy, idle) = (client(&rig).await, client(&rig).await);
    let begun = Instant::now();
    let (_, first, _) = ask(&idle, "a").await;
    let (_, kept, _) = ask(&busy, "a").await;
    // One that sends keeps its own meanwhile.
    while !render(rig.proxy.metrics()).contains("portreeve_streams{route=\"TCPRoute/test/route\"} 1") {
        assert_eq!(ask(&busy, "b").await.1, kept);
        assert!(begun.elapsed() < PATIENCE, "{}", render(rig.proxy.metrics()));
    }
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(ask(&busy, "c").await.1, kept);
    assert_ne!(ask(&idle, "b").await.1, first, "it has a new socket");
}

#[tokio::test]
async fn a_client_that_is_never_answered_keeps_its_session_while_it_sends() {
    let silent = UdpSocket::bind("127.0.0.31:0").await.unwrap();
    let limits = Limits { datagram_idle: Duration::from_secs(2), ..Limits::new(100) };
    let rig = limited(limits, DrainSettings::default(), silent.local_addr().unwrap()).await;
    let client = client(&rig).await;
    let (mut ports, begun) = (BTreeSet::new(), Instant::now());
    while begun.elapsed() < Duration::from_secs(5) {
        // Refused until it is listened for.
        let _ = client.send(b"x").await;
        let heard = timeout(Duration::from_millis(100), silent.recv_from(&mut [0; 8])).await;
        ports.extend(heard.ok().map(|heard| heard.unwrap().1.port()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ports.len(), 1, "{ports:?}");
}

#[tokio::test]
async fn at_the_bound_on_sessions_one_whose_endpoint_goes_moves_on() {
    let ((one_address, _one), (two, _two)) = (server("one").await, server("two").await);
    let limits = Limits { datagram_sessions: 1, ..Limits::new(100) };
    let rig = limited(limits, DrainSettings::default(), one_address).await;
    let client = client(&rig).await;
    assert_eq!(ask(&client, "a").await.0, "one");
    hold(&rig, one(two)).await;
    assert_eq!(ask(&client, "b").await.0, "two");
}

#[tokio::test]
async fn clients_beyond_the_bound_on_sessions_are_dropped_and_counted_and_the_others_served() {
    let (address, _server) = server("one").await;
    let limits = Limits { datagram_sessions: 3, datagram_idle: Duration::from_secs(2), ..Limits::new(100) };
    let rig = limited(limits, DrainSettings::default(), address).await;
    let clients = [client(&rig).await, client(&rig).await, client(&rig).await];
    for client in &clients {
        ask(client, "a").await;
    }
    let beyond = client(&rig).await;
    assert!(is_silent(&beyond, "b").await, "it has a session");
    says(&rig, "portreeve_connections_refused_total{reason=\"session_limit\"} 1").await;
    for client in &clients {
        assert_eq!(ask(client, "c").await.2, "c");
    }
    assert!(is_silent(&beyond, "d").await, "it has a session");
    says(&rig, "portreeve_connections_refused_total{reason=\"session_limit\"} 2").await;
    // Once one of them has ended there is room.
    assert_eq!(ask(&beyond, "e").await.2, "e");
}

#[tokio::test]
async fn a_drain_serves_the_sessions_that_are_open_until_they_are_silent_and_begins_none() {
    let (address, _server) = server("one").await;
    let drain = DrainSettings { accept_for: Duration::ZERO, ..DrainSettings::default() };
    let rig = limited(Limits::new(4000), drain, address).await;
    let open = client(&rig).await;
    let (_, port, _) = ask(&open, "a").await;
    let proxy = rig.proxy.clone();
    let drained = tokio::spawn(async move { proxy.drain().await.unwrap() });
    // Fewer than the limits on clients let in: those would be silent too.
    let mut begun = 0;
    while !is_silent(&client(&rig).await, "new").await {
        begun += 1;
        assert!(begun < 500, "it goes on to begin sessions");
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        let (_, again, text) = ask(&open, "b").await;
        assert_eq!((&again, &*text), (&port, "b"));
        assert!(!drained.is_finished(), "it waits for a session in which something moves");
        assert!(is_silent(&client(&rig).await, "new").await, "a drain begins no session");
    }
    assert_eq!(timeout(PATIENCE, drained).await.expect("it ends").unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn both_transports_have_ports_of_their_own() {
    let (address, _server) = server("datagrams").await;
    let stream = super::Server::start("stream").await;
    let rig = Rig::start(1).await;
    let mut units = one(address);
    units.extend(service("tcp", &[stream.address], BackendProtocol::Http1));
    units.push(route("tcp", 0, ("tcp", &[]), vec![to("tcp", 1)]));
    units.push(encoded(listener("tcp", rig.http, Protocol::Tcp)));
    hold(&rig, units).await;
    assert_eq!(ask(&client(&rig).await, "a").await.0, "datagrams");
    assert_eq!(super::Connected::to(rig.http).await.server, "stream");
}
