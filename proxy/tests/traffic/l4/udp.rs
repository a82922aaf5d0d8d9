//! Datagrams: a session per client, replies from the address that was asked.

use std::net::SocketAddr;
use std::time::Duration;

use proxy::listen::drain::DrainSettings;
use proxy::metrics::text::render;
use proxy_config::backend::BackendProtocol;
use proxy_config::listener::Protocol;
use proxy_config::unit::EncodedUnit;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{encoded, listener, put, route, service, to};
use crate::rig::{PATIENCE, Rig};

/// A server that answers each datagram with its name, the client's port as it sees it, and what came.
async fn server(name: &'static str) -> (SocketAddr, AbortOnDropHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.31:0").await.unwrap();
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

/// What a client gets for a text, which it says again until it gets something: server, port, text.
async fn ask(client: &UdpSocket, text: &str) -> (String, String, String) {
    let asking = async {
        let mut reply = vec![0; 64 << 10];
        loop {
            let _ = client.send(text.as_bytes()).await;
            if let Ok(Ok(length)) = timeout(Duration::from_millis(500), client.recv(&mut reply)).await {
                let reply = String::from_utf8_lossy(&reply[..length]).into_owned();
                let mut parts = reply.splitn(3, ' ').map(str::to_owned);
                let mut part = || parts.next().unwrap();
                break (part(), part(), part());
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
