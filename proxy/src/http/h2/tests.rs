//! HTTP/2 connections on a worker, without a socket: how they live and end.

use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::http::h1::IDLE_TIMEOUT;
use crate::http::h1::tests::{answers_slowly, context_of, locally, route_to};

const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const HEADERS: u8 = 1;
const ACK: u8 = 1;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn peer() -> Client {
    let address = "127.0.0.1:1".parse().unwrap();
    Client::in_clear(address, address, Instant::now())
}

/// A client of a worker that serves nothing: each valid request is answered by 404. No more than `window`
/// of its bytes are on their way at a time.
async fn client(context: &Rc<Context>, window: usize) -> DuplexStream {
    let (mut ours, theirs) = tokio::io::duplex(window);
    let (context, peer) = (context.clone(), peer());
    tokio::task::spawn_local(async move { serve(theirs, peer, &context).await });
    ours.write_all(PREFACE).await.unwrap();
    ours
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, 5, stream, b"\x82\x86\x84\x41\x01a")
}

/// The next frame: its kind, its flags, its payload. `None` where the connection has ended.
async fn next(client: &mut DuplexStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut header = [0; 9];
    client.read_exact(&mut header).await.ok()?;
    let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
    client.read_exact(&mut payload).await.ok()?;
    Some((header[3], header[4], payload))
}

/// The kinds of all frames until the connection ends.
async fn rest(client: &mut DuplexStream) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some((kind, ..)) = next(client).await {
        kinds.push(kind);
    }
    kinds
}

fn count(kinds: &[u8], kind: u8) -> usize {
    kinds.iter().filter(|other| **other == kind).count()
}

#[tokio::test(start_paused = true)]
async fn resets_are_counted_over_a_sliding_window() {
    let resets = Resets::default();
    for _ in 0..MAX_RESETS {
        resets.count();
    }
    assert!(!resets.are_too_many());
    sleep(RESET_WINDOW / 2).await;
    resets.count();
    assert!(resets.are_too_many());
    sleep(RESET_WINDOW / 2 + Duration::from_millis(1)).await;
    resets.count();
    assert!(!resets.are_too_many());
}

#[tokio::test(start_paused = true)]
async fn answers_that_a_client_takes_slowly_outlive_a_drain() {
    locally(async |context| {
        let mut client = client(&context, 512).await;
        for stream in 0..60 {
            client.write_all(&get(2 * stream + 1)).await.unwrap();
        }
        context.begin_drain();
        sleep(Duration::from_secs(20)).await;
        let mut kinds = Vec::new();
        while let Some((kind, ..)) = next(&mut client).await {
            kinds.push(kind);
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(count(&kinds, HEADERS), 60);
        assert!(count(&kinds, GOAWAY) > 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_left_in_the_end() {
    locally(async |context| {
        let begun = Instant::now();
        let mut client = client(&context, 512).await;
        for stream in 0..60 {
            client.write_all(&get(2 * stream + 1)).await.unwrap();
        }
        context.begin_drain();
        let ended = async {
            while client.write_all(b"").await.is_ok() && Rc::strong_count(&context) > 1 {
                sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(Duration::from_secs(100), ended).await.expect("it ends");
        assert!(begun.elapsed() >= Duration::from_secs(30), "{:?}", begun.elapsed());
        assert!(count(&rest(&mut client).await, HEADERS) < 60);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_client_still_sends_after_the_end_is_read_past() {
    locally(async |context| {
        let mut client = client(&context, 1 << 16).await;
        context.begin_drain();
        assert!(count(&rest(&mut client).await, GOAWAY) > 0);
        for _ in 0..8 {
            client.write_all(&[0; 1 << 10]).await.expect("it is taken");
            sleep(Duration::from_secs(1)).await;
        }
        drop(client);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(Rc::strong_count(&context), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_old_is_ended_however_busy_it_is() {
    locally(async |context| {
        let begun = Instant::now();
        let mut client = client(&context, 1 << 16).await;
        'life: for stream in 0..200 {
            client.write_all(&get(2 * stream + 1)).await.unwrap();
            while let Ok(frame) = timeout(Duration::from_secs(50), next(&mut client)).await {
                let Some((kind, ..)) = frame else { break 'life };
                if kind == GOAWAY {
                    break 'life;
                }
            }
        }
        let age = begun.elapsed().as_secs();
        assert!((3600..=3961).contains(&age), "{age}");
    })
    .await;
}

/// A connection on which a request is always under way, until it is to end.
async fn busy(theirs: DuplexStream, context: Rc<Context>) -> End {
    let (mut stream, seen) = (theirs, Seen::default());
    let mut frames = handshake(Wire::new(&mut stream, &seen), &peer()).await.unwrap();
    let shared = Shared::new(peer(), &context, &seen);
    let mut life = Life::new(&shared, frames.ping_pong());
    poll_fn(|cx| {
        assert!(frames.poll_accept(cx).is_pending());
        life.poll(cx, true)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_silent_with_requests_under_way_is_asked_and_left_where_it_does_not_answer() {
    locally(async |context| {
        let (mut client, theirs) = tokio::io::duplex(1 << 16);
        let ended = tokio::task::spawn_local(busy(theirs, context));
        client.write_all(PREFACE).await.unwrap();
        for _ in 0..5 {
            let begun = Instant::now();
            let payload = loop {
                match next(&mut client).await.expect("it goes on") {
                    (PING, 0, payload) => break payload,
                    (SETTINGS, 0, _) => client.write_all(&frame(SETTINGS, ACK, 0, b"")).await.unwrap(),
                    _ => {}
                }
            };
            let waited = begun.elapsed().as_secs();
            assert!((29..=61).contains(&waited), "{waited}");
            client.write_all(&frame(PING, ACK, 0, &payload)).await.unwrap();
        }
        let begun = Instant::now();
        assert_eq!(timeout(Duration::from_secs(100), ended).await.unwrap().unwrap(), End::Now);
        assert!(begun.elapsed() >= Duration::from_secs(59), "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_route_is_unimplemented() {
    locally(async |context| {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let peer = peer();
        tokio::task::spawn_local(async move { serve(theirs, peer, &context).await });
        let (requests, connection) = h2::client::handshake(ours).await.unwrap();
        let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::task::spawn_local(connection));
        for (kind, status) in
            [("application/grpc", 200), ("application/grpc+proto", 200), ("application/grpc-web", 404)]
        {
            let request =
                http::Request::post("http://a/shop.Cart/Add").header("content-type", kind).body(()).unwrap();
            let mut ready = requests.clone().ready().await.unwrap();
            let response = ready.send_request(request, true).unwrap().0.await.unwrap();
            assert_eq!(response.status(), status, "{kind}");
            let grpc_status = response.headers().get("grpc-status");
            assert_eq!(grpc_status.is_some_and(|code| code == "12"), status == 200, "{kind}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_is_waited_for_as_long_as_the_rule_says() {
    let test = async {
        let (address, _server) = answers_slowly(Duration::ZERO, IDLE_TIMEOUT * 3 / 2).await;
        let context = context_of(route_to(address, Duration::from_secs(120)));
        let response = ask(&context).await;
        assert_eq!(response.status(), 200);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn an_answer_may_be_quiet_for_as_long_as_the_rule_says() {
    let test = async {
        for request in [Duration::ZERO, Duration::from_secs(120)] {
            let (address, _server) = answers_slowly(IDLE_TIMEOUT * 3 / 2, Duration::ZERO).await;
            let context = context_of(route_to(address, request));
            let mut body = ask(&context).await.into_body();
            for part in ["ab", "cd"] {
                let data = body.data().await.unwrap().unwrap();
                assert_eq!(data, part);
                body.flow_control().release_capacity(data.len()).unwrap();
            }
        }
    };
    LocalSet::new().run_until(test).await;
}

/// The answer to a request on a connection of its own.
async fn ask(context: &Rc<Context>) -> http::Response<h2::RecvStream> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let context = context.clone();
    tokio::task::spawn_local(async move { serve(theirs, peer(), &context).await });
    let (requests, connection) = h2::client::handshake(ours).await.unwrap();
    tokio::task::spawn_local(connection);
    let mut ready = requests.ready().await.unwrap();
    let request = http::Request::get("http://a/").body(()).unwrap();
    ready.send_request(request, true).unwrap().0.await.unwrap()
}
