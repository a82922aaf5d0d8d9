//! A proxy's data path on loopback: a worker's thread that serves every connection to one port, and an
//! origin that records what it gets.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use proxy::http::h1;
use proxy::limits::Limits;
use proxy::listen::context::{Client, Context, Shared};
use proxy::listen::drain::Drain;
use proxy::listen::handoff::Seats;
use proxy::metrics::Metrics;
use proxy::table::compile::Compiler;
use proxy::table::{SharedTable, Table};
use proxy::upstream::registry::{EndpointKey, Registry};
use proxy_config::backend::{
    Backend, BackendProtocol, Destination, Endpoint, EndpointPort, EndpointSlice, ServicePort,
};
use proxy_config::listener::{Address, Bind, Listener, Protocol};
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::resilience::BackendTraffic;
use proxy_config::route::{Attachment, Match, PathMatch, RouteUnit, Rule, Target, WeightedBackend};
use proxy_config::set::UnitSet;
use proxy_config::unit::{EncodedUnit, Unit};
use proxy_config::wire::Version;
use tokio::net::TcpSocket;
use tokio::task::LocalSet;
use tokio::time::Instant;

/// Nothing in these tests takes as long, unless something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A proxy that serves one port.
pub(crate) struct Rig {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What it counts.
    pub(crate) metrics: Arc<Metrics>,
    table: SharedTable,
    compiler: Mutex<Compiler>,
    registry: Arc<Registry>,
}

impl Rig {
    /// A proxy whose only rule is `rule`, to which a backend for each of `origins` is added, each with
    /// weight 1.
    pub(crate) fn new(mut rule: Rule, origins: &[SocketAddr]) -> Self {
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::new(1);
        let table: SharedTable = Arc::new(ArcSwap::from_pointee(Table::default()));
        let registry = Arc::new(Registry::default());
        let compiler = Mutex::new(Compiler::new(LOOPBACK, registry.clone(), metrics.clone()));
        let rig = Self { address, metrics: metrics.clone(), table: table.clone(), compiler, registry };
        let mut units = vec![listening(address)];
        for (index, origin) in origins.iter().enumerate() {
            let port = u16::try_from(index).unwrap() + 1;
            let id = UnitId::backend(&name("backend"), port);
            rule.backends.push(WeightedBackend {
                target: Target::Backend(id),
                weight: 1,
                filters: Vec::new(),
            });
            units.extend(backend(port, &[*origin]));
        }
        units.push(route(rule));
        rig.put(&units);
        thread::spawn(move || serve(listener, table, metrics));
        rig
    }

    /// A proxy that sends everything to one origin.
    pub(crate) fn to(origin: &Origin) -> Self {
        Self::new(rule(), &[origin.address])
    }

    /// Changes what is served.
    pub(crate) fn put(&self, units: &[EncodedUnit]) {
        self.apply(units, &[]);
    }

    /// Changes the endpoints of a backend.
    pub(crate) fn endpoints(&self, port: u16, endpoints: &[SocketAddr]) {
        let gone: Vec<UnitId> = (endpoints.len()..8).map(|index| slice_id(port, index)).collect();
        self.apply(&backend(port, endpoints), &gone);
    }

    /// Changes what holds for all traffic to a backend.
    pub(crate) fn traffic(&self, port: u16, traffic: BackendTraffic) {
        let mut unit = unit(port);
        unit.traffic = Some(traffic);
        self.put(&[EncodedUnit::new(UnitId::backend(&name("backend"), port), &Unit::Backend(unit))]);
    }

    fn apply(&self, put: &[EncodedUnit], delete: &[UnitId]) {
        let root = UnitSet::default().root();
        let version = Version { term: 1, generation: self.table.load().version().generation + 1 };
        let mut compiler = self.compiler.lock().unwrap();
        let table = compiler.apply(put, delete, version, root);
        assert!(compiler.broken().next().is_none());
        self.table.store(table);
    }

    /// The requests that an endpoint is serving.
    pub(crate) fn in_flight(&self, address: SocketAddr) -> u32 {
        self.registry.endpoint(EndpointKey { address, tls: None }).in_flight()
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends bytes on a new connection, ends it, and reads until the proxy ends it too.
    pub(crate) fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_to_end(&mut stream)
    }
}

fn serve(listener: TcpListener, table: SharedTable, metrics: Arc<Metrics>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seats = Arc::new(Seats::new(1));
    let load = seats.iter().next().unwrap().load().clone();
    let shared =
        Shared::new(table, seats, Arc::new(Drain::new(&Limits::new(1000))), metrics, Limits::new(1000))
            .unwrap();
    let shared = Arc::new(shared);
    LocalSet::new().block_on(&runtime, async move {
        let context = Rc::new(Context::new(0, load, &shared));
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let local = stream.local_addr().unwrap();
            let client = Client::in_clear(peer, local, Instant::now());
            let context = context.clone();
            tokio::task::spawn_local(async move { h1::serve(stream, client, &context).await });
        }
    });
}

pub(crate) fn name(name: &str) -> ObjectName {
    ObjectName::new("test", name)
}

/// A rule that takes everything and goes nowhere yet.
pub(crate) fn rule() -> Rule {
    let everything =
        Match { path: PathMatch::Prefix("/".into()), method: None, headers: Vec::new(), query: Vec::new() };
    Rule { matches: vec![everything], ..Rule::default() }
}

fn listening(address: SocketAddr) -> EncodedUnit {
    let listener = Listener {
        passthrough: false,
        client_validation: None,
        backend_certificate: None,
        bind: Bind { address: Address::Ip(address.ip()), port: address.port() },
        further: Vec::new(),
        protocol: Protocol::Http,
        hostname: None,
        certificates: Vec::new(),
        gateway: name("gateway"),
        name: "http".into(),
    };
    EncodedUnit::new(UnitId::listener(&name("gateway"), "http"), &Unit::Listener(listener))
}

/// The route with a rule.
pub(crate) fn route(rule: Rule) -> EncodedUnit {
    let listener = UnitId::listener(&name("gateway"), "http");
    let route = RouteUnit {
        kind: "HTTPRoute".into(),
        name: name("route"),
        created: 0,
        attachments: vec![Attachment { listener, hostnames: Vec::new() }],
        rules: vec![rule],
    };
    EncodedUnit::new(UnitId::route("HTTPRoute", &name("route")), &Unit::Route(route))
}

fn slice_id(port: u16, index: usize) -> UnitId {
    UnitId::endpoints(&name(&format!("backend-{port}-{index}")))
}

/// The unit of a backend.
fn unit(port: u16) -> Backend {
    let destination = ServicePort { service: name("backend"), port, port_name: Some(format!("p{port}")) };
    Backend {
        tls: None,
        traffic: None,
        destination: Destination::Service(destination),
        protocol: BackendProtocol::Http1,
    }
}

/// A backend with these endpoints, and the slices that they come from.
fn backend(port: u16, endpoints: &[SocketAddr]) -> Vec<EncodedUnit> {
    let (service, port_name) = (name("backend"), Some(format!("p{port}")));
    let mut units = vec![EncodedUnit::new(UnitId::backend(&service, port), &Unit::Backend(unit(port)))];
    for (index, endpoint) in endpoints.iter().enumerate() {
        let slice = EndpointSlice {
            service: service.clone(),
            ports: vec![EndpointPort { name: port_name.clone(), port: endpoint.port() }],
            endpoints: vec![Endpoint {
                address: endpoint.ip(),
                ready: true,
                serving: true,
                terminating: false,
                zone: None,
            }],
        };
        units.push(EncodedUnit::new(slice_id(port, index), &Unit::Endpoints(slice)));
    }
    units
}

/// An address at which nobody listens; while the socket is held, it is given to nobody else.
pub(crate) fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(LOOPBACK, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// What an origin does with a connection.
type Script = dyn Fn(&mut TcpStream, &Log) + Send + Sync;

/// What an origin got, message by message.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn push(&self, bytes: &[u8]) {
        self.0.lock().unwrap().push(String::from_utf8_lossy(bytes).into_owned());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A backend's endpoint.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) log: Log,
}

impl Origin {
    /// One that runs a script for each connection.
    pub(crate) fn new(script: impl Fn(&mut TcpStream, &Log) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let (script, seen): (Arc<Script>, Log) = (Arc::new(script), log.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, seen) = (script.clone(), seen.clone());
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.set_nodelay(true).unwrap();
                    script(&mut stream, &seen);
                });
            }
        });
        Self { address, log }
    }

    /// One that answers each request with `answer`, on connections that it keeps.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |stream, log| {
            while let Some(request) = read_message(stream) {
                log.push(&request);
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
        })
    }

    /// One that answers `200 ok`.
    pub(crate) fn ok() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    }

    /// The requests that it got.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.log.all()
    }
}

/// Reads one request or response with its content, as it is; `None` at the end of the connection.
pub(crate) fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(read_byte(stream)?);
    }
    let head = String::from_utf8_lossy(&bytes).to_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if let Some(length) = field("content-length:") {
        let mut content = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut content).ok()?;
        bytes.extend(content);
    } else if field("transfer-encoding:").is_some() {
        let start = bytes.len();
        while !(bytes[start..].ends_with(b"\r\n\r\n") && contains_last_chunk(&bytes[start..])) {
            bytes.push(read_byte(stream)?);
        }
    }
    Some(bytes)
}

fn contains_last_chunk(content: &[u8]) -> bool {
    content.starts_with(b"0\r\n") || content.windows(5).any(|window| window == b"\r\n0\r\n")
}

fn read_byte(stream: &mut TcpStream) -> Option<u8> {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(1) => Some(byte[0]),
        _ => None,
    }
}

/// Reads until the connection ends, however it does.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&bytes).into_owned(),
            Ok(count) => bytes.extend(&piece[..count]),
        }
    }
}

/// A message without its Date, which is another one each time.
pub(crate) fn without_date(message: &str) -> String {
    message.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}
