//! HTTP/2 through the proxy to an origin that speaks HTTP/1.1.

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::origin::Origin;
use crate::rig::{PATIENCE, Rig};

mod floods;
mod frames;

/// A client's connection.
pub struct Client {
    pub requests: SendRequest<Bytes>,
    pub connection: AbortOnDropHandle<Result<(), h2::Error>>,
}

impl Client {
    pub async fn connect(rig: &Rig) -> Self {
        let stream = TcpStream::connect(rig.http).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream).await
    }

    pub async fn over<S>(stream: S) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder.initial_max_send_streams(50).initial_connection_window_size(1 << 20);
        let (requests, connection) = builder.handshake(stream).await.unwrap();
        Self { requests, connection: AbortOnDropHandle::new(tokio::spawn(connection)) }
    }

    /// Sends a head, and what follows it if there is to be anything.
    pub async fn send(
        &self,
        request: Request<()>,
        is_whole: bool,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut ready = self.requests.clone().ready().await.unwrap();
        ready.send_request(request, is_whole).unwrap()
    }

    /// A request without content, and its answer in full.
    pub async fn get(&self, path: &str) -> Answer {
        let (response, _) = self.send(request(Method::GET, path), true).await;
        answer(response).await.unwrap()
    }
}

pub struct Answer {
    pub head: Response<()>,
    pub content: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    #[track_caller]
    pub fn check(&self, status: u16, content: &[u8]) {
        assert_eq!(self.head.status(), status);
        assert_eq!(String::from_utf8_lossy(&self.content), String::from_utf8_lossy(content));
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).map(|value| value.to_str().unwrap())
    }
}

pub fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://a.example{path}")).body(()).unwrap()
}

pub async fn answer(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = timeout(PATIENCE, response).await.expect("an answer in time")?.into_parts();
    let content = timeout(PATIENCE, read(&mut body)).await.expect("content in time")?;
    let trailers = body.trailers().await?;
    Ok(Answer { head: Response::from_parts(head, ()), content, trailers })
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        content.extend_from_slice(&data);
    }
    Ok(content)
}

/// Sends content in pieces as the window allows.
pub async fn write(stream: &mut SendStream<Bytes>, mut content: Bytes, is_last: bool) {
    while !content.is_empty() {
        stream.reserve_capacity(content.len());
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        let part = content.split_to(room.min(content.len()));
        stream.send_data(part, is_last && content.is_empty()).unwrap();
    }
}

#[tokio::test]
async fn a_get_is_forwarded_as_http1_and_answered() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    let head = Request::get("http://Example.org:80/a/../seen?b=c").header("x-kept", "1").body(()).unwrap();
    let (response, _) = client.send(head, true).await;
    answer(response).await.unwrap().check(200, b"ok");
    assert_eq!(
        origin.requests(),
        ["GET /seen?b=c HTTP/1.1\r\nHost: Example.org:80\r\nx-kept: 1\r\nX-Forwarded-For: 127.0.0.1\r\n\
          X-Forwarded-Proto: http\r\nX-Forwarded-Host: Example.org:80\r\n\r\n"]
    );
}

#[tokio::test]
async fn streams_of_one_connection_are_served_side_by_side_over_pooled_connections() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    let (held, _) = client.send(request(Method::GET, "/gate"), true).await;
    for _ in 0..20 {
        client.get("/").await.check(200, b"ok");
    }
    origin.seen.gate.add_permits(1);
    answer(held).await.unwrap().check(200, b"ok");
    assert_eq!(origin.seen.accepted.load(Relaxed), 2);
}

#[tokio::test]
async fn more_streams_than_the_limit_wait_for_their_turn() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    let answers = (0..250).map(|_| client.get("/"));
    for answer in futures_util::future::join_all(answers).await {
        answer.check(200, b"ok");
    }
}

#[tokio::test]
async fn content_is_framed_by_its_length_where_it_is_known_else_in_chunks() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    let mut known = request(Method::POST, "/echo");
    known.headers_mut().insert("content-length", 5.into());
    for head in [known, request(Method::POST, "/echo")] {
        let (response, mut stream) = client.send(head, false).await;
        stream.send_data("hello".into(), true).unwrap();
        answer(response).await.unwrap().check(200, b"hello");
    }
    let requests = origin.requests();
    assert!(requests[0].contains("Content-Length: 5\r\n") && requests[0].ends_with("\r\n\r\nhello"));
    assert!(requests[1].contains("Transfer-Encoding: chunked\r\n"));
    assert!(requests[1].ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{}", requests[1]);
}

#[tokio::test]
async fn large_content_goes_both_ways_unchanged() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    let content: Bytes = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    let (response, mut stream) = client.send(request(Method::PUT, "/quiet-echo"), false).await;
    write(&mut stream, content.clone(), true).await;
    let answer = answer(response).await.unwrap();
    assert!(answer.content == content);
}

#[tokio::test]
async fn trailers_pass_both_ways_less_those_that_must_not() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    let mut head = request(Method::POST, "/trailers");
    head.headers_mut().insert("te", "trailers".parse().unwrap());
    let (response, mut stream) = client.send(head, false).await;
    stream.send_data("hello".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "1".parse().unwrap());
    trailers.insert("authorization", "evil".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    let answer = answer(response).await.unwrap();
    answer.check(200, b"ok");
    let trailers = answer.trailers.unwrap();
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["grpc-status"], "0");
    assert!(origin.requests()[0].ends_with("0\r\nx-checksum: 1\r\n\r\n"), "{}", origin.requests()[0]);
    assert!(origin.requests()[0].contains("TE: trailers\r\n"));
}

#[tokio::test]
async fn answers_without_content_have_none() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    client.get("/none").await.check(204, b"");
    let same = client.get("/same").await;
    same.check(304, b"");
    assert_eq!(same.field("content-length"), Some("7"));
    let (response, _) = client.send(request(Method::HEAD, "/"), true).await;
    let to_head = answer(response).await.unwrap();
    to_head.check(200, b"");
    assert_eq!(to_head.field("content-length"), Some("2"));
    client.get("/").await.check(200, b"ok");
}

#[tokio::test]
async fn fields_of_the_upstreams_connection_end_here() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let answer = Client::connect(&rig).await.get("/hop").await;
    answer.check(200, b"ok");
    for name in ["connection", "keep-alive", "x-named", "transfer-encoding"] {
        assert_eq!(answer.field(name), None);
    }
    assert_eq!(answer.field("x-kept"), Some("1"));
}

#[tokio::test]
async fn interim_answers_pass() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    let (mut response, _) = client.send(request(Method::GET, "/hints"), true).await;
    let interim = timeout(PATIENCE, poll_fn(|cx| response.poll_informational(cx))).await.unwrap();
    let interim = interim.unwrap().unwrap();
    assert_eq!(interim.status(), 103);
    assert_eq!(interim.headers()["link"], "</style.css>");
    answer(response).await.unwrap().check(200, b"ok");
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_from_the_origin() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    let mut head = request(Method::POST, "/echo");
    head.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let (mut response, mut stream) = client.send(head, false).await;
    let interim = timeout(PATIENCE, poll_fn(|cx| response.poll_informational(cx))).await.unwrap();
    assert_eq!(interim.unwrap().unwrap().status(), 100);
    stream.send_data("hello".into(), true).unwrap();
    answer(response).await.unwrap().check(200, b"hello");
}

#[tokio::test]
async fn content_that_ends_with_the_upstreams_connection_is_whole_and_one_that_breaks_off_is_not() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    client.get("/until-close").await.check(200, b"hello");
    let (response, _) = client.send(request(Method::GET, "/cut"), true).await;
    let error = answer(response).await.map(|answer| answer.content).unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    client.get("/nonsense").await.check(502, b"Bad Gateway\n");
    client.get("/").await.check(200, b"ok");
}

#[tokio::test]
async fn a_slow_reader_stops_the_upstream_and_no_other_stream() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    let (response, _) = client.send(request(Method::GET, "/endless"), true).await;
    let (_, _unread) = timeout(PATIENCE, response).await.unwrap().unwrap().into_parts();
    let mut sent = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = origin.seen.sent.load(Relaxed);
        if now == sent && now > 0 {
            break;
        }
        sent = now;
    }
    // The sockets' own buffers are what it is allowed to fill.
    assert!(sent < 16 << 20, "{sent}");
    client.get("/").await.check(200, b"ok");
}

#[tokio::test]
async fn a_reset_by_the_client_cancels_the_try() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    let (response, mut stream) = client.send(request(Method::GET, "/gate"), true).await;
    while origin.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    let cancelled = async {
        while rig.proxy.metrics().worker(0).active_requests.load(Relaxed) != 0
            || rig.proxy.metrics().worker(1).active_requests.load(Relaxed) != 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, cancelled).await.expect("the try is cancelled");
    client.get("/").await.check(200, b"ok");
}

#[tokio::test]
async fn a_client_that_resets_again_and_again_is_told_to_calm_down() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    for _ in 0..300 {
        let Ok(mut ready) = client.requests.clone().ready().await else { break };
        let Ok((_, mut stream)) = ready.send_request(request(Method::GET, "/gate"), true) else { break };
        tokio::task::yield_now().await;
        stream.send_reset(h2::Reason::CANCEL);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let error = timeout(PATIENCE, client.connection).await.expect("it ends").unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn heads_of_requests_under_way_are_limited_over_a_connection() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    let large = |path: &str| {
        let mut head = request(Method::GET, path);
        for name in ["x-a", "x-b"] {
            head.headers_mut().insert(name, "y".repeat(12_000).parse().unwrap());
        }
        head
    };
    let mut held = Vec::new();
    for _ in 0..21 {
        held.push(client.send(large("/gate"), true).await.0);
    }
    while origin.requests().len() < 21 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (response, _) = client.send(large("/"), true).await;
    assert_eq!(answer(response).await.unwrap().head.status(), 431);
    origin.seen.gate.add_permits(21);
    for response in held {
        answer(response).await.unwrap().check(200, b"ok");
    }
    let (response, _) = client.send(large("/"), true).await;
    answer(response).await.unwrap().check(200, b"ok");
}

#[tokio::test]
async fn a_websocket_is_a_stream_by_extended_connect() {
    let origin = Origin::start().await;
    let rig = Rig::to(origin.address).await;
    let client = Client::connect(&rig).await;
    // The settings that allow it come with the first answer at the latest.
    client.get("/").await.check(200, b"ok");
    assert!(client.requests.is_extended_connect_protocol_enabled());
    let mut head = request(Method::CONNECT, "/ws");
    head.extensions_mut().insert(Protocol::from_static("websocket"));
    head.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    let (response, mut stream) = client.send(head, false).await;
    let (head, mut body) = timeout(PATIENCE, response).await.unwrap().unwrap().into_parts();
    assert_eq!(head.status, 200);
    for field in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!head.headers.contains_key(field));
    }
    for message in ["hello", "again"] {
        stream.send_data(message.into(), false).unwrap();
        let echoed = timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        assert_eq!(echoed, message);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(timeout(PATIENCE, read(&mut body)).await.unwrap().unwrap(), b"");
    let request = &origin.requests()[1];
    assert!(request.starts_with("GET /ws HTTP/1.1\r\n"), "{request}");
}
