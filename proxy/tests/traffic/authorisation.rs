//! External authorisation by `envoy.service.auth.v3.Authorization/Check`, and of clients that speak HTTP/2.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Method, Request, Response};
use prost::Message;
use proxy_config::backend::{
    Backend, BackendProtocol, Destination, Endpoint, EndpointPort, EndpointSlice, ServicePort,
};
use proxy_config::name::UnitId;
use proxy_config::route::{AuthProtocol, ExternalAuth, Filter, RouteUnit, Target};
use proxy_config::unit::{EncodedUnit, Unit};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::http1;
use crate::http2::{Client, answer, request, write};
use crate::origin::Origin;
use crate::rig::{PATIENCE, Rig, Site, name, nobody};
use crate::server::listen;

/// What a service is asked, with the numbers of the fields written down a second time.
#[derive(Clone, PartialEq, Message)]
struct Check {
    #[prost(message, required, tag = "1")]
    attributes: Attributes,
}

#[derive(Clone, PartialEq, Message)]
struct Attributes {
    #[prost(message, required, tag = "1")]
    source: Peer,
    #[prost(message, required, tag = "2")]
    destination: Peer,
    #[prost(message, required, tag = "4")]
    request: Asked,
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(message, required, tag = "1")]
    address: Address,
}

#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(message, required, tag = "1")]
    socket: Socket,
}

#[derive(Clone, PartialEq, Message)]
struct Socket {
    #[prost(string, tag = "2")]
    address: String,
    #[prost(uint32, tag = "3")]
    port: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(message, required, tag = "2")]
    http: Http,
}

#[derive(Clone, PartialEq, Message)]
struct Http {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(btree_map = "string, string", tag = "3")]
    headers: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "6")]
    scheme: String,
    #[prost(int64, tag = "9")]
    size: i64,
    #[prost(string, tag = "10")]
    protocol: String,
    #[prost(string, tag = "11")]
    body: String,
    #[prost(bytes = "vec", tag = "12")]
    raw_body: Vec<u8>,
}

/// A length-delimited field of protocol buffers; everything in an answer is one, or a small number.
fn field(number: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

/// A small number, 127 at most.
fn small(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn header(number: u8, name: &str, value: &str, append: Option<bool>) -> Vec<u8> {
    let pair = [field(1, name), field(2, value)].concat();
    let append = append.map(|append| field(2, small(1, append.into())));
    field(number, [field(1, pair), append.unwrap_or_default()].concat())
}

/// An answer that lets a request pass, and changes it.
fn yes() -> Vec<u8> {
    let ok = [
        header(2, "x-user", "anna", None),
        header(2, "x-seen", "more", Some(true)),
        field(5, "x-secret"),
        header(6, "x-told", "1", Some(false)),
    ];
    [field(1, []), field(3, ok.concat())].concat()
}

/// One that does not.
fn no() -> Vec<u8> {
    // 401 as two bytes of seven bits.
    let denied =
        [field(1, [1 << 3, 0x91, 0x03]), header(2, "www-authenticate", "Basic", None), field(3, "no!")];
    [field(1, small(1, 16)), field(2, denied.concat())].concat()
}

/// A service that is asked.
pub struct Service {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    _server: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    heads: Mutex<Vec<Request<()>>>,
    checks: Mutex<Vec<Check>>,
    connections: AtomicUsize,
}

impl Seen {
    fn last(&self) -> Http {
        self.checks.lock().unwrap().last().unwrap().attributes.request.http.clone()
    }
}

impl Service {
    pub async fn start() -> Self {
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let (address, server) = listen("127.0.0.34:0", move |stream| {
            shared.connections.fetch_add(1, Relaxed);
            connection(stream, shared.clone())
        })
        .await;
        Self { address, seen, _server: server }
    }
}

async fn connection(stream: TcpStream, seen: Arc<Seen>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(check(request, respond, seen.clone()));
    }
}

/// Does what the path of the request that is asked about says.
async fn check(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: Arc<Seen>) {
    let (parts, mut body) = request.into_parts();
    seen.heads.lock().unwrap().push(Request::from_parts(parts, ()));
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        message.extend_from_slice(&data.unwrap());
    }
    assert_eq!(message[0], 0, "nothing is compressed");
    assert_eq!(u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize, message.len() - 5);
    let check = Check::decode(&message[5..]).unwrap();
    let path = check.attributes.request.http.path.clone();
    seen.checks.lock().unwrap().push(check);
    let verdict = match path.as_str() {
        "/denied" => no(),
        "/silent" => std::future::pending().await,
        "/error" => {
            let head = Response::builder().header("grpc-status", "13").body(()).unwrap();
            return respond.send_response(head, true).map(drop).unwrap();
        }
        "/reset" => return respond.send_reset(h2::Reason::INTERNAL_ERROR),
        _ => yes(),
    };
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    let length = u32::try_from(verdict.len()).unwrap().to_be_bytes();
    stream.send_data([&[0][..], &length, &verdict].concat().into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}

pub fn asking(max_body: u32, allowed: &[&str]) -> Filter {
    let allowed_headers = allowed.iter().map(|name| (*name).to_owned()).collect();
    Filter::ExternalAuth(ExternalAuth {
        target: Target::Backend(UnitId::backend(&name("service"), 9000)),
        protocol: AuthProtocol::Grpc { allowed_headers },
        max_body,
    })
}

/// A proxy that has a service asked before it sends anything to an origin.
pub async fn rig(service: SocketAddr, origin: &Origin, shape: fn(&mut RouteUnit)) -> Rig {
    let rig = Rig::start(1).await;
    let mut site = Site::new(&rig, origin.address);
    site.shape = shape;
    rig.hold(&site).await;
    hold(&rig, &site, service).await;
    rig
}

/// Puts a site in force, and the service that its route has asked.
pub async fn hold(rig: &Rig, site: &Site, service: SocketAddr) {
    let of = name("service");
    let backend = Backend {
        destination: Destination::Service(ServicePort { service: of.clone(), port: 9000, port_name: None }),
        protocol: BackendProtocol::Http1,
        tls: None,
        traffic: None,
    };
    let slice = EndpointSlice {
        service: of.clone(),
        ports: vec![EndpointPort { name: None, port: service.port() }],
        endpoints: vec![Endpoint {
            address: service.ip(),
            ready: true,
            serving: true,
            terminating: false,
            zone: None,
        }],
    };
    let more = [
        EncodedUnit::new(UnitId::backend(&of, 9000), &Unit::Backend(backend)),
        EncodedUnit::new(UnitId::endpoints(&of), &Unit::Endpoints(slice)),
    ];
    let ack = rig.proxy.hold(site.units().iter().cloned().chain(more).collect()).await.unwrap();
    assert_eq!(ack.broken, []);
}

#[tokio::test]
async fn a_call_shows_the_request_and_its_answer_changes_it() {
    let (service, origin) = (Service::start().await, Origin::start().await);
    let rig = rig(service.address, &origin, |route| route.rules[0].filters.push(asking(0, &[]))).await;
    let mut client = http1::Client::connect(rig.http).await.unwrap();
    for _ in 0..2 {
        let asked = "POST /a/../b?c HTTP/1.1\r\nHost: a.example\r\nX-User: root\r\nX-SECRET: s\r\nx-seen: 1\r\n\
                     x-seen: 2\r\nContent-Length: 2\r\n\r\nhi";
        let answer = client.ask(asked.as_bytes()).await.unwrap();
        assert!(answer.is_ok());
        assert_eq!(answer.field("x-told"), Some("1"));
    }
    let head = &service.seen.heads.lock().unwrap()[0];
    assert_eq!(head.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
    assert_eq!(head.uri().authority().unwrap().as_str(), "service.test.svc:9000");
    assert_eq!(head.headers()["content-type"], "application/grpc");
    assert_eq!(head.headers()["te"], "trailers");
    let check = service.seen.checks.lock().unwrap()[0].clone();
    assert_eq!(check.attributes.source.address.socket.address, "127.0.0.1");
    assert_eq!(check.attributes.destination.address.socket.port, u32::from(rig.http.port()));
    let http = check.attributes.request.http;
    assert_eq!((&*http.method, &*http.path, &*http.host), ("POST", "/b?c", "a.example"));
    assert_eq!((&*http.scheme, &*http.protocol, http.size), ("http", "HTTP/1.1", 2));
    assert_eq!(http.body, "");
    let headers = [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "a.example"),
        ("x-forwarded-proto", "http"),
        ("x-secret", "s"),
        ("x-seen", "1,2"),
        ("x-user", "root"),
    ];
    assert_eq!(http.headers, headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    for passed in origin.requests() {
        for line in ["x-seen: 1\r\n", "x-seen: 2\r\n", "x-seen: more\r\n", "x-user: anna\r\n"] {
            assert!(passed.contains(line), "{line} in {passed}");
        }
        assert!(!passed.contains("root") && !passed.contains("SECRET"), "{passed}");
    }
    assert_eq!(service.seen.connections.load(Relaxed), 1, "connections are shared");
}

#[tokio::test]
async fn clients_of_http2_are_asked_about_with_their_content() {
    let (service, origin) = (Service::start().await, Origin::start().await);
    let rig = rig(service.address, &origin, |route| route.rules[0].filters.push(asking(8, &["x-a"]))).await;
    let client = Client::connect(&rig).await;
    let mut head = request(Method::POST, "/echo");
    head.headers_mut().insert("x-a", "1".parse().unwrap());
    let (response, mut stream) = client.send(head, false).await;
    stream.send_data("hello".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    answer(response).await.unwrap().check(200, b"hello");
    let http = service.seen.last();
    assert_eq!((&*http.body, http.size, &*http.protocol), ("hello", 5, "HTTP/2"));
    assert_eq!(http.headers, [("x-a".to_owned(), "1".to_owned())].into());
    assert!(origin.requests()[0].ends_with("5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"), "{:?}", origin.requests());

    let (response, mut stream) = client.send(request(Method::POST, "/echo"), false).await;
    stream.send_data(Bytes::from_static(b"\xff\0"), true).unwrap();
    answer(response).await.unwrap().check(200, b"\xff\0");
    assert_eq!((service.seen.last().raw_body, &*service.seen.last().body), (b"\xff\0".to_vec(), ""));

    let (response, mut stream) = client.send(request(Method::POST, "/echo"), false).await;
    write(&mut stream, Bytes::from_static(b"more than eight"), true).await;
    answer(response).await.unwrap().check(413, b"Payload Too Large\n");
    assert_eq!(service.seen.checks.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn content_that_is_not_shown_streams_on_behind_the_check() {
    let (service, origin) = (Service::start().await, Origin::start().await);
    let rig = rig(service.address, &origin, |route| route.rules[0].filters.push(asking(0, &[]))).await;
    let client = Client::connect(&rig).await;
    let (response, mut stream) = client.send(request(Method::POST, "/echo"), false).await;
    let content = Bytes::from(vec![b'x'; 300 << 10]);
    write(&mut stream, content.clone(), true).await;
    answer(response).await.unwrap().check(200, &content);
    assert_eq!(service.seen.last().size, -1);
    // The end of a stream may come while the service is asked.
    for _ in 0..20 {
        let (response, mut stream) = client.send(request(Method::POST, "/echo"), false).await;
        stream.send_data(Bytes::new(), true).unwrap();
        answer(response).await.unwrap().check(200, b"");
    }
}

#[tokio::test]
async fn a_denial_reaches_clients_of_both_protocols() {
    let (service, origin) = (Service::start().await, Origin::start().await);
    let rig = rig(service.address, &origin, |route| route.rules[0].filters.push(asking(0, &[]))).await;
    let mut client = http1::Client::connect(rig.http).await.unwrap();
    let got = client.get("/denied").await.unwrap();
    assert!(got.head.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{}", got.head);
    assert_eq!((got.field("www-authenticate"), &*got.content), (Some("Basic"), &b"no!"[..]));
    let client = Client::connect(&rig).await;
    let got = client.get("/denied").await;
    got.check(401, b"no!");
    assert_eq!(got.field("www-authenticate"), Some("Basic"));
    let (response, _) = client.send(request(Method::HEAD, "/denied"), true).await;
    let got = answer(response).await.unwrap();
    got.check(401, b"");
    assert_eq!(got.field("content-length"), Some("3"));
    client.get("/seen").await.check(200, b"ok");
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn nothing_passes_where_the_call_comes_to_no_answer() {
    let (service, origin) = (Service::start().await, Origin::start().await);
    let with_timeout = |route: &mut RouteUnit| {
        route.rules[0].filters.push(asking(0, &[]));
        route.rules[0].timeouts.request = Some(1_500);
    };
    let limited = rig(service.address, &origin, with_timeout).await;
    let client = Client::connect(&limited).await;
    client.get("/error").await.check(503, b"Service Unavailable\n");
    client.get("/reset").await.check(503, b"Service Unavailable\n");
    let begun = Instant::now();
    client.get("/silent").await.check(504, b"Gateway Timeout\n");
    assert!(begun.elapsed() < Duration::from_secs(4), "the rule's own timeout counts");
    let (_held, nobody) = nobody([127, 0, 0, 34]);
    let alone = rig(nobody, &origin, |route| route.rules[0].filters.push(asking(0, &[]))).await;
    Client::connect(&alone).await.get("/a").await.check(503, b"Service Unavailable\n");
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_meanwhile_is_not_waited_for() {
    let (service, origin) = (Service::start().await, Origin::start().await);
    let rig = rig(service.address, &origin, |route| route.rules[0].filters.push(asking(0, &[]))).await;
    let client = Client::connect(&rig).await;
    let (_, mut stream) = client.send(request(Method::GET, "/silent"), true).await;
    let asked = async {
        while service.seen.checks.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        stream.send_reset(h2::Reason::CANCEL);
        let line = "portreeve_refusals_total{reason=\"client_gone\"} 1";
        while !proxy::metrics::text::render(rig.proxy.metrics()).contains(line) {
            tokio::task::yield_now().await;
        }
    };
    let begun = Instant::now();
    timeout(PATIENCE, asked).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "sooner than the check's own timeout");
}
