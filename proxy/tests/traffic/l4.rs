//! Streams that are not HTTP, through a whole proxy: TCP routes here, TLS routes in [`tls`], hosts outside the
//! cluster in [`external`], datagrams in [`udp`].

use std::net::SocketAddr;
use std::time::Duration;

use proxy::limits::Limits;
use proxy::listen::drain::{DrainSettings, Drained};
use proxy::metrics::text::render;
use proxy_config::backend::{
    Backend, BackendProtocol, Destination, Endpoint, EndpointPort, EndpointSlice, ServicePort,
};
use proxy_config::l4::L4Route;
use proxy_config::listener::{Address, Bind, Listener, Protocol};
use proxy_config::name::{HostPattern, UnitId};
use proxy_config::route::{Attachment, Target, WeightedBackend};
use proxy_config::unit::{EncodedUnit, Unit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::rig::{PATIENCE, Rig, name, nobody};
use crate::server::listen;

mod external;
mod policies;
mod tls;
mod udp;

/// A server that speaks first: its name and a line feed; then it says back what it is told, and ends when
/// its client has ended.
struct Server {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(name: &'static str) -> Self {
        Self::at(([127, 0, 0, 31], 0).into(), name).await
    }

    async fn at(address: SocketAddr, name: &'static str) -> Self {
        let (address, task) = listen(address, move |mut stream| async move {
            let _ = stream.write_all(format!("{name}\n").as_bytes()).await;
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.write_all(b"bye").await;
        })
        .await;
        Self { address, _task: task }
    }
}

/// A client that has read the server's name.
struct Connected {
    stream: TcpStream,
    server: String,
}

impl Connected {
    async fn to(address: SocketAddr) -> Self {
        let mut stream = timeout(PATIENCE, connect(address)).await.expect("it listens");
        let server = timeout(PATIENCE, line(&mut stream)).await.expect("the server speaks first");
        Self { stream, server }
    }

    async fn echo(&mut self, text: &[u8]) {
        self.stream.write_all(text).await.unwrap();
        let mut back = vec![0; text.len()];
        timeout(PATIENCE, self.stream.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(back, text);
    }

    /// What still comes, once the connection has ended by itself.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("it ends");
        rest
    }
}

/// A connection, once there is a listener.
async fn connect(address: SocketAddr) -> TcpStream {
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return stream,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn line(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut line = String::new();
    while let Ok(byte) = stream.read_u8().await {
        if byte == b'\n' {
            break;
        }
        line.push(byte.into());
    }
    line
}

/// A listener unit.
fn listener(listener: &str, address: SocketAddr, protocol: Protocol) -> Listener {
    Listener {
        bind: Bind { address: Address::Ip(address.ip()), port: address.port() },
        further: Vec::new(),
        protocol,
        hostname: None,
        certificates: Vec::new(),
        passthrough: false,
        client_validation: None,
        backend_certificate: None,
        gateway: name("gateway"),
        name: listener.to_owned(),
    }
}

fn encoded(unit: Listener) -> EncodedUnit {
    let id = UnitId::listener(&unit.gateway, &unit.name);
    EncodedUnit::new(id, &Unit::Listener(unit))
}

fn to(service: &str, weight: u32) -> WeightedBackend {
    let target = Target::Backend(UnitId::backend(&name(service), 80));
    WeightedBackend { target, weight, filters: Vec::new() }
}

fn nowhere(target: Target) -> WeightedBackend {
    WeightedBackend { target, weight: 1, filters: Vec::new() }
}

/// A route of a listener for server names (none: all).
fn route(
    route: &str,
    created: i64,
    (listener, names): (&str, &[&str]),
    backends: Vec<WeightedBackend>,
) -> EncodedUnit {
    let attachment = Attachment {
        listener: UnitId::listener(&name("gateway"), listener),
        hostnames: names.iter().map(|name| HostPattern::new(name)).collect(),
    };
    let unit = L4Route {
        kind: "TCPRoute".to_owned(),
        name: name(route),
        created,
        attachments: vec![attachment],
        backends,
    };
    EncodedUnit::new(UnitId::route("TCPRoute", &name(route)), &Unit::L4Route(unit))
}

fn service(service: &str, endpoints: &[SocketAddr], protocol: BackendProtocol) -> Vec<EncodedUnit> {
    let backend = Backend {
        destination: Destination::Service(ServicePort { service: name(service), port: 80, port_name: None }),
        protocol,
        tls: None,
        traffic: None,
    };
    let mut units = vec![EncodedUnit::new(UnitId::backend(&name(service), 80), &Unit::Backend(backend))];
    for (index, endpoint) in endpoints.iter().enumerate() {
        let slice = EndpointSlice {
            service: name(service),
            ports: vec![EndpointPort { name: None, port: endpoint.port() }],
            endpoints: vec![Endpoint {
                address: endpoint.ip(),
                ready: true,
                serving: true,
                terminating: false,
                zone: None,
            }],
        };
        let id = UnitId::endpoints(&name(&format!("{service}-{index}")));
        units.push(EncodedUnit::new(id, &Unit::Endpoints(slice)));
    }
    units
}

/// Puts units in force beside a TCP listener, and waits until it is listened for.
async fn hold(rig: &Rig, units: impl IntoIterator<Item = EncodedUnit>) {
    let listener = encoded(listener("tcp", rig.http, Protocol::Tcp));
    put(rig, [listener].into_iter().chain(units)).await;
}

async fn put(rig: &Rig, units: impl IntoIterator<Item = EncodedUnit>) {
    let ack = rig.proxy.hold(units.into_iter().collect()).await.unwrap();
    assert_eq!(ack.broken, []);
}

/// A proxy whose one TCP route goes to a server.
async fn one(limits: Limits) -> (Rig, Server) {
    let server = Server::start("one").await;
    let rig = Rig::limited(2, limits, DrainSettings::default()).await;
    hold(&rig, one_route(&[server.address])).await;
    (rig, server)
}

fn one_route(endpoints: &[SocketAddr]) -> Vec<EncodedUnit> {
    let mut units = service("one", endpoints, BackendProtocol::Http1);
    units.push(route("route", 0, ("tcp", &[]), vec![to("one", 1)]));
    units
}

#[tokio::test]
async fn the_server_may_speak_first_and_each_side_ends_by_itself() {
    let (rig, _server) = one(Limits::new(100)).await;
    let mut client = Connected::to(rig.http).await;
    assert_eq!(client.server, "one");
    client.echo(b"hello").await;
    client.echo(&vec![7; 300_000]).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"bye", "it still speaks to a client that has ended");
    let lines = [
        "portreeve_streams_total{route=\"TCPRoute/test/route\",outcome=\"forwarded\"} 1",
        "portreeve_stream_bytes_total{route=\"TCPRoute/test/route\",direction=\"sent\"} 300005",
        "portreeve_stream_bytes_total{route=\"TCPRoute/test/route\",direction=\"received\"} 300012",
    ];
    // Bytes are counted a moment after the client has seen the end.
    let counted = async {
        while !lines.iter().all(|line| render(rig.proxy.metrics()).contains(line)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, counted).await.expect("all is counted");
}

#[tokio::test]
async fn connections_are_shared_exactly_by_weight() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let rig = Rig::start(2).await;
    let mut units = service("one", &[one.address], BackendProtocol::Http1);
    units.extend(service("two", &[two.address], BackendProtocol::Http1));
    units.push(route("route", 0, ("tcp", &[]), vec![to("one", 3), to("two", 1), to("gone", 0)]));
    hold(&rig, units).await;
    let mut ones = 0;
    for _ in 0..16 {
        ones += usize::from(Connected::to(rig.http).await.server == "one");
    }
    assert_eq!(ones, 12);
}

#[tokio::test]
async fn of_two_routes_the_oldest_has_the_listener_then_the_first_by_name() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let rig = Rig::start(1).await;
    let both = |a: i64, b: i64| {
        let mut units = service("one", &[one.address], BackendProtocol::Http1);
        units.extend(service("two", &[two.address], BackendProtocol::Http1));
        units.push(route("a", a, ("tcp", &[]), vec![to("one", 1)]));
        units.push(route("b", b, ("tcp", &[]), vec![to("two", 1)]));
        units
    };
    hold(&rig, both(2, 1)).await;
    assert_eq!(Connected::to(rig.http).await.server, "two");
    hold(&rig, both(1, 1)).await;
    assert_eq!(Connected::to(rig.http).await.server, "one");
}

#[tokio::test]
async fn a_connection_without_a_backend_is_closed_at_once() {
    let rig = Rig::start(1).await;
    for backends in [
        vec![],
        vec![nowhere(Target::Invalid("no such Service".to_owned()))],
        vec![nowhere(Target::NotPermitted("no grant".to_owned()))],
        vec![to("missing", 1)],
        vec![to("empty", 1)],
    ] {
        let mut units = service("empty", &[], BackendProtocol::Http1);
        units.push(route("route", 0, ("tcp", &[]), backends));
        hold(&rig, units).await;
        assert_eq!(Connected::to(rig.http).await.server, "");
    }
    hold(&rig, []).await;
    assert_eq!(Connected::to(rig.http).await.server, "", "no route at all");
    let text = render(rig.proxy.metrics());
    assert!(
        text.contains("outcome=\"no_backend\"} 4") && text.contains("outcome=\"no_endpoint\"} 1"),
        "{text}"
    );
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let server = Server::start("one").await;
    let (_held, refusing) = nobody([127, 0, 0, 31]);
    let rig = Rig::start(1).await;
    hold(&rig, one_route(&[refusing, server.address])).await;
    for _ in 0..4 {
        assert_eq!(Connected::to(rig.http).await.server, "one");
    }
}

#[tokio::test]
async fn what_is_open_at_an_endpoint_that_goes_finishes_there() {
    let (rig, _server) = one(Limits::new(100)).await;
    let mut client = Connected::to(rig.http).await;
    let other = Server::start("other").await;
    hold(&rig, one_route(&[other.address])).await;
    assert_eq!(Connected::to(rig.http).await.server, "other");
    client.echo(b"still there").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"bye");
}

#[tokio::test]
async fn what_is_open_ends_within_a_bound_once_its_route_is_gone() {
    let limits = Limits { close_within: Duration::from_millis(1500), ..Limits::new(100) };
    let (rig, _server) = one(limits).await;
    let mut client = Connected::to(rig.http).await;
    hold(&rig, []).await;
    client.echo(b"a little longer").await;
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn what_is_open_is_cut_once_its_grant_is_gone() {
    let (rig, server) = one(Limits::new(100)).await;
    let mut client = Connected::to(rig.http).await;
    let mut units = service("one", &[server.address], BackendProtocol::Http1);
    let target = Target::NotPermitted("no grant".to_owned());
    units.push(route("route", 0, ("tcp", &[]), vec![nowhere(target)]));
    hold(&rig, units).await;
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn a_drain_waits_for_streams_to_end() {
    let server = Server::start("one").await;
    let rig = Rig::with(2, DrainSettings { accept_for: Duration::ZERO, ..DrainSettings::default() }).await;
    hold(&rig, one_route(&[server.address])).await;
    let mut client = Connected::to(rig.http).await;
    let proxy = rig.proxy.clone();
    let drained = tokio::spawn(async move { proxy.drain().await.unwrap() });
    while TcpStream::connect(rig.http).await.is_ok() {}
    client.echo(b"still there").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"bye");
    assert_eq!(timeout(PATIENCE, drained).await.unwrap().unwrap(), Drained { cut: 0 });
}
