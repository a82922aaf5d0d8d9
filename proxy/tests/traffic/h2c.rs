//! Backends that speak HTTP/2 with prior knowledge, for clients of both protocols.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use proxy_config::backend::BackendProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::http1;
use crate::http2::{Client, answer, request};
use crate::rig::{PATIENCE, Rig, Site};
use crate::server::listen;

/// An origin of HTTP/2 that records heads and does what the path says.
pub struct Origin {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    _server: AbortOnDropHandle<()>,
}

#[derive(Default)]
pub struct Seen {
    pub heads: Mutex<Vec<Request<()>>>,
    trailers: Mutex<Vec<HeaderMap>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    resets: AtomicUsize,
}

impl Origin {
    pub async fn start() -> Self {
        Self::with(h2::server::Builder::new()).await
    }

    /// One that takes extended CONNECT.
    async fn of_websockets() -> Self {
        let mut builder = h2::server::Builder::new();
        builder.enable_connect_protocol();
        Self::with(builder).await
    }

    async fn with(builder: h2::server::Builder) -> Self {
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let (address, server) = listen("127.0.0.32:0", move |stream| {
            shared.connections.fetch_add(1, Relaxed);
            shared.open.fetch_add(1, Relaxed);
            connection(stream, builder.clone(), shared.clone())
        })
        .await;
        Self { address, seen, _server: server }
    }
}

async fn connection(stream: TcpStream, builder: h2::server::Builder, seen: Arc<Seen>) {
    stream.set_nodelay(true).unwrap();
    let mut connection = builder.handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.uri().path() == "/goaway" {
            connection.graceful_shutdown();
        }
        tokio::spawn(serve(request, respond, seen.clone()));
    }
    seen.open.fetch_sub(1, Relaxed);
}

async fn serve(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: Arc<Seen>) {
    let (parts, mut body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let repeat = parts.headers.get("x-repeat").map(|times| times.to_str().unwrap().parse().unwrap());
    seen.heads.lock().unwrap().push(Request::from_parts(parts, ()));
    let asked = seen.heads.lock().unwrap().iter().filter(|head| head.uri().path() == path).count();
    let head = |status: u16| Response::builder().status(status).header("x-path", &path).body(()).unwrap();
    match path.as_str() {
        "/chat" => {
            let mut stream = respond.send_response(head(200), false).unwrap();
            echo(&mut body, &mut stream).await;
            let sent = body.trailers().await.unwrap();
            seen.trailers.lock().unwrap().extend(sent);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        }
        "/length" => length_and_trailers(&mut respond),
        "/hints" => {
            let hints = Response::builder().status(StatusCode::EARLY_HINTS).header("link", "</a>");
            respond.send_informational(hints.body(()).unwrap()).unwrap();
            respond.send_response(head(204), true).unwrap();
        }
        "/reset" => reset(&mut respond.send_response(head(200), false).unwrap()).await,
        "/never" => {
            std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
            seen.resets.fetch_add(1, Relaxed);
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(30)).await;
            respond.send_response(head(200), true).unwrap();
        }
        "/test.Echo/Repeat" => repeat_messages(body, respond, repeat.unwrap_or(1)).await,
        "/test.Echo/Fail" => fail(&mut respond),
        "/ws-refused-once" if asked == 1 => respond.send_reset(h2::Reason::REFUSED_STREAM),
        "/ws" | "/ws-refused-once" => {
            let mut stream = respond.send_response(head(200), false).unwrap();
            echo(&mut body, &mut stream).await;
            stream.send_data(Bytes::new(), true).unwrap();
        }
        "/refused-once" if asked == 1 => respond.send_reset(h2::Reason::REFUSED_STREAM),
        "/refused" => respond.send_reset(h2::Reason::REFUSED_STREAM),
        _ => {
            let mut whole = head(200);
            whole.headers_mut().insert("content-length", 2.into());
            let mut stream = respond.send_response(whole, false).unwrap();
            stream.send_data("ok".into(), true).unwrap();
        }
    }
}

async fn echo(body: &mut RecvStream, stream: &mut SendStream<Bytes>) {
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        stream.send_data(data, false).unwrap();
    }
}

fn length_and_trailers(respond: &mut SendResponse<Bytes>) {
    let head = Response::builder().header("content-length", 2).body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    stream.send_data("ok".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}

async fn reset(stream: &mut SendStream<Bytes>) {
    stream.send_data("part".into(), false).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.send_reset(h2::Reason::INTERNAL_ERROR);
}

/// Answers a call by trailers alone.
fn fail(respond: &mut SendResponse<Bytes>) {
    let failed = Response::builder().header("content-type", "application/grpc");
    let failed = failed.header("grpc-status", "5").header("grpc-message", "no such cart");
    respond.send_response(failed.body(()).unwrap(), true).unwrap();
}

/// Answers a call: each piece that comes so many times, then trailers.
async fn repeat_messages(mut body: RecvStream, mut respond: SendResponse<Bytes>, times: usize) {
    let head = Response::builder().header("content-type", "application/grpc+proto").body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        for _ in 0..times {
            stream.send_data(data.clone(), false).unwrap();
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    trailers.insert("trace_proto-bin", "AAE".parse().unwrap());
    trailers.insert("host", "evil".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}

/// A proxy that sends everything to it.
pub async fn rig(origin: &Origin) -> Rig {
    let rig = Rig::start(2).await;
    let mut site = Site::new(&rig, origin.address);
    site.protocol = BackendProtocol::H2c;
    rig.hold(&site).await;
    rig
}

#[tokio::test]
async fn a_client_of_http1_is_served_by_a_backend_of_http2() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let mut client = http1::Client::connect(rig.http).await.unwrap();
    for _ in 0..3 {
        let request = b"GET /a?b=c HTTP/1.1\r\nHost: A.example\r\nX-Kept: 1\r\nUpgrade: x\r\n\r\n";
        let answer = client.ask(request).await.unwrap();
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(answer.field("x-path"), Some("/a"));
    }
    let heads = origin.seen.heads.lock().unwrap();
    assert_eq!(heads[0].uri(), "http://A.example/a?b=c");
    assert_eq!(heads[0].headers()["x-kept"], "1");
    assert_eq!(heads[0].headers()["x-forwarded-proto"], "http");
    for name in ["host", "connection", "upgrade", "transfer-encoding"] {
        assert!(!heads[0].headers().contains_key(name), "{name}");
    }
    assert_eq!(origin.seen.connections.load(Relaxed), 1);
}

#[tokio::test]
async fn the_backends_of_a_grpc_route_speak_http2_whatever_they_say() {
    let origin = Origin::start().await;
    let rig = Rig::start(2).await;
    let mut site = Site::new(&rig, origin.address);
    site.shape = |route| route.kind = "GRPCRoute".into();
    rig.hold(&site).await;
    Client::connect(&rig).await.get("/").await.check(200, b"ok");
    let mut client = http1::Client::connect(rig.http).await.unwrap();
    assert!(client.get("/").await.unwrap().is_ok());
    assert_eq!(origin.seen.heads.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_stream_both_ways_is_passed_on_as_it_goes_with_its_trailers() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    let mut head = request(Method::POST, "/chat");
    head.headers_mut().insert("te", "trailers".parse().unwrap());
    let (response, mut stream) = client.send(head, false).await;
    stream.send_data("one".into(), false).unwrap();
    let (_, mut body) = timeout(PATIENCE, response).await.unwrap().unwrap().into_parts();
    for message in ["one", "two", "three"] {
        if message != "one" {
            stream.send_data(message.into(), false).unwrap();
        }
        assert_eq!(timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap(), message);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "3".parse().unwrap());
    stream.send_trailers(trailers.clone()).unwrap();
    assert!(timeout(PATIENCE, body.data()).await.unwrap().is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    assert_eq!(*origin.seen.trailers.lock().unwrap(), [trailers]);
}

#[tokio::test]
async fn answers_without_content_and_interim_ones_pass() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    let (response, _) = client.send(request(Method::HEAD, "/"), true).await;
    answer(response).await.unwrap().check(200, b"");
    let (mut response, _) = client.send(request(Method::GET, "/hints"), true).await;
    let interim = timeout(PATIENCE, std::future::poll_fn(|cx| response.poll_informational(cx))).await;
    assert_eq!(interim.unwrap().unwrap().unwrap().status(), 103);
    answer(response).await.unwrap().check(204, b"");
}

#[tokio::test]
async fn many_requests_share_two_connections_at_most() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let clients = [Client::connect(&rig).await, Client::connect(&rig).await, Client::connect(&rig).await];
    let answers = (0..240).map(|n| clients[n % 3].get("/slow"));
    for answer in futures_util::future::join_all(answers).await {
        answer.check(200, b"");
    }
    assert!(origin.seen.connections.load(Relaxed) <= 2);
}

#[tokio::test]
async fn a_backend_that_goes_away_is_connected_to_again() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    for round in 1..4 {
        client.get("/goaway").await.check(200, b"ok");
        while origin.seen.open.load(Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.get("/").await.check(200, b"ok");
        assert_eq!(origin.seen.connections.load(Relaxed), round + 1);
    }
}

#[tokio::test]
async fn what_breaks_off_on_one_side_breaks_off_on_the_other() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    let (response, _) = client.send(request(Method::GET, "/reset"), true).await;
    assert!(answer(response).await.is_err());
    let (response, mut stream) = client.send(request(Method::GET, "/never"), true).await;
    while origin.seen.heads.lock().unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    let cancelled = async {
        while origin.seen.resets.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, cancelled).await.expect("the backend is told");
    client.get("/refused").await.check(502, b"Bad Gateway\n");
    client.get("/").await.check(200, b"ok");
    assert_eq!(origin.seen.connections.load(Relaxed), 1);
}

#[tokio::test]
async fn a_request_that_the_backend_refuses_unseen_is_sent_again_whatever_its_method() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    let (response, mut stream) = client.send(request(Method::POST, "/refused-once"), false).await;
    stream.send_data("content".into(), true).unwrap();
    answer(response).await.unwrap().check(200, b"ok");
    assert_eq!(origin.seen.heads.lock().unwrap().len(), 2);
}

fn websocket(path: &str) -> Request<()> {
    let mut head = request(Method::CONNECT, path);
    head.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    head.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    head
}

#[tokio::test]
async fn a_websocket_of_http2_is_one_of_http2_to_the_backend() {
    let origin = Origin::of_websockets().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    client.get("/").await.check(200, b"ok");
    let (response, mut stream) = client.send(websocket("/ws"), false).await;
    let (head, mut body) = timeout(PATIENCE, response).await.unwrap().unwrap().into_parts();
    assert_eq!(head.status, 200);
    for field in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!head.headers.contains_key(field), "{field}");
    }
    for message in ["hello", "again"] {
        stream.send_data(message.into(), false).unwrap();
        assert_eq!(timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap(), message);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(timeout(PATIENCE, body.data()).await.unwrap().is_none_or(|data| data.unwrap().is_empty()));
    let heads = origin.seen.heads.lock().unwrap();
    assert_eq!(heads[1].method(), Method::CONNECT);
    assert_eq!(heads[1].extensions().get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
    assert!(!heads[1].headers().contains_key("sec-websocket-key"));
}

#[tokio::test]
async fn a_websocket_that_the_backend_refuses_unseen_is_asked_for_again() {
    let origin = Origin::of_websockets().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    let (response, mut stream) = client.send(websocket("/ws-refused-once"), false).await;
    let (head, mut body) = timeout(PATIENCE, response).await.unwrap().unwrap().into_parts();
    assert_eq!(head.status, 200);
    stream.send_data("hello".into(), false).unwrap();
    assert_eq!(timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap(), "hello");
    assert_eq!(origin.seen.heads.lock().unwrap().len(), 2);
}

const UPGRADE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[tokio::test]
async fn a_websocket_of_http1_is_one_of_http2_to_the_backend() {
    let origin = Origin::of_websockets().await;
    let rig = rig(&origin).await;
    let mut stream = TcpStream::connect(rig.http).await.unwrap();
    stream.write_all(UPGRADE).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for field in
        ["connection: upgrade", "upgrade: websocket", "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="]
    {
        assert!(head.contains(field), "{head}");
    }
    for message in [b"hello", b"again"] {
        stream.write_all(message).await.unwrap();
        let mut echoed = [0; 5];
        timeout(PATIENCE, stream.read_exact(&mut echoed)).await.unwrap().unwrap();
        assert_eq!(&echoed, message);
    }
    stream.shutdown().await.unwrap();
    assert_eq!(
        timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
}

#[tokio::test]
async fn a_websocket_to_a_backend_that_takes_none_is_refused() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    client.get("/").await.check(200, b"ok");
    let (response, _stream) = client.send(websocket("/ws"), false).await;
    assert_eq!(timeout(PATIENCE, response).await.unwrap().unwrap().status(), 501);
    let mut one = http1::Client::connect(rig.http).await.unwrap();
    assert!(one.ask(UPGRADE).await.unwrap().head.starts_with("HTTP/1.1 501 "));
    assert_eq!(origin.seen.heads.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn trailers_behind_content_of_a_known_length_reach_clients_that_have_a_place_for_them() {
    let origin = Origin::start().await;
    let rig = rig(&origin).await;
    let client = Client::connect(&rig).await;
    for _ in 0..2 {
        let got = client.get("/length").await;
        got.check(200, b"ok");
        assert_eq!(got.field("content-length"), Some("2"));
        assert_eq!(got.trailers.unwrap()["grpc-status"], "0");
    }
    let mut client = http1::Client::connect(rig.http).await.unwrap();
    for _ in 0..2 {
        let got = client.get("/length").await.unwrap();
        assert_eq!((got.field("content-length"), &*got.content), (Some("2"), &b"ok"[..]));
        assert_eq!(got.field("transfer-encoding"), None);
    }
}
