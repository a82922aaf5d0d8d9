//! HTTP/1 connections on a worker, without a socket.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use proxy_config::route::PathMatch;
use proxy_config::set::UnitSet;
use proxy_config::unit::{EncodedUnit, Unit};
use proxy_config::wire::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::idle::LAST_CALL;
use super::*;
use crate::http::timers::TICK;
use crate::limits::Limits;
use crate::listen::context::Shared;
use crate::listen::drain::Drain;
use crate::listen::handoff::Seats;
use crate::metrics::Metrics;
use crate::table::compile::Compiler;
use crate::table::compile::tests::world::{backend, endpoints, listener, route, rule};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What a worker has that listens on 127.0.0.1:1 and has no routes.
fn context() -> Rc<Context> {
    context_of(Vec::new())
}

/// The same, of which the listener `web` has these routes, with all that they need.
pub(in crate::http) fn context_of(mut units: Vec<EncodedUnit>) -> Rc<Context> {
    let seats = Arc::new(Seats::new(1));
    let load = seats.iter().next().unwrap().load().clone();
    let (id, listener) = listener("web", 1, None);
    let mut compiler = Compiler::new([127, 0, 0, 1].into(), Arc::default(), Metrics::new(1));
    units.push(EncodedUnit::new(id, &listener));
    let table = compiler.apply(&units, [], Version::default(), UnitSet::default().root());
    let table = Arc::new(ArcSwap::new(table));
    let shared =
        Shared::new(table, seats, Arc::new(Drain::new(&Limits::new(10))), Metrics::new(1), Limits::new(10))
            .unwrap();
    Rc::new(Context::new(0, load, &Arc::new(shared)))
}

/// A client of a worker whose listener has no routes: each valid request is answered by 404.
fn client(context: &Rc<Context>) -> DuplexStream {
    client_with(context, 1 << 20)
}

/// The same, of whose bytes no more than these are on their way at a time.
fn client_with(context: &Rc<Context>, window: usize) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(window);
    let address = "127.0.0.1:1".parse().unwrap();
    let client = Client::in_clear(address, address, Instant::now());
    let context = context.clone();
    tokio::task::spawn_local(async move { serve(theirs, client, &context).await });
    ours
}

pub(in crate::http) async fn locally<F: Future>(test: impl FnOnce(Rc<Context>) -> F) -> F::Output {
    LocalSet::new().run_until(async { test(context()).await }).await
}

/// A route to one endpoint, of which answers may take so long.
pub(in crate::http) fn route_to(endpoint: SocketAddr, request: Duration) -> Vec<EncodedUnit> {
    let mut rule = rule(PathMatch::Prefix("/".to_owned()), Some("cart"));
    rule.timeouts.request = Some(u64::try_from(request.as_millis()).unwrap());
    let (slice_id, Unit::Endpoints(mut slice)) = endpoints("cart", "1", &[1]) else { unreachable!() };
    slice.endpoints[0].address = endpoint.ip();
    slice.ports[0].port = endpoint.port();
    let slice = (slice_id, Unit::Endpoints(slice));
    let units = [route("r", 0, &["web"], &[], vec![rule]), backend("cart"), slice];
    units.into_iter().map(|(id, unit)| EncodedUnit::new(id, &unit)).collect()
}

/// Lets time pass at once. It is real otherwise: paused, it leaps past the limit on a dial while the kernel connects.
async fn leap(time: Duration) {
    tokio::time::pause();
    sleep(time).await;
    tokio::time::resume();
}

/// An endpoint that waits before it answers one connection, and then before the second half of the content.
pub(in crate::http) async fn answers_slowly(
    within: Duration,
    before: Duration,
) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0, "a request");
        leap(before).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
        leap(within).await;
        stream.write_all(b"cd").await.unwrap();
        sleep(IDLE_TIMEOUT).await;
    });
    (address, AbortOnDropHandle::new(served))
}

#[tokio::test]
async fn an_answer_takes_as_long_as_the_rule_says_and_may_be_quiet_meanwhile() {
    let test = async {
        let long = IDLE_TIMEOUT * 3 / 2;
        for (within, before) in [(Duration::ZERO, long), (long, Duration::ZERO)] {
            for request in [Duration::ZERO, 2 * IDLE_TIMEOUT] {
                let (address, _server) = answers_slowly(within, before).await;
                let mut client = client(&context_of(route_to(address, request)));
                client.write_all(REQUEST).await.unwrap();
                let mut got = Vec::new();
                while !got.ends_with(b"abcd") {
                    got.push(client.read_u8().await.unwrap());
                }
                assert!(got.starts_with(b"HTTP/1.1 200 "), "{got:?}");
            }
        }
    };
    LocalSet::new().run_until(test).await;
}

async fn read_to_end(client: &mut DuplexStream) -> String {
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    got
}

async fn read_answer(client: &mut DuplexStream) -> String {
    let mut got = Vec::new();
    while !got.ends_with(b"Not Found\n") {
        got.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(got).unwrap()
}

#[track_caller]
fn check_elapsed(since: Instant, want: Duration) {
    let elapsed = since.elapsed();
    assert!(elapsed + TICK >= want && elapsed <= want + 3 * TICK, "{elapsed:?} is not about {want:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_is_refused_in_time_however_it_drips() {
    locally(async |context| {
        let begun = Instant::now();
        let mut client = client(&context);
        for byte in REQUEST.iter().take(9) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.write_all(&[*byte]).await.unwrap();
        }
        let got = read_to_end(&mut client).await;
        assert!(got.starts_with("HTTP/1.1 408 "), "{got}");
        check_elapsed(begun, HEAD_TIMEOUT);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_without_a_word() {
    locally(async |context| {
        let begun = Instant::now();
        assert_eq!(read_to_end(&mut client(&context)).await, "");
        check_elapsed(begun, HEAD_TIMEOUT);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_without_a_word() {
    locally(async |context| {
        let mut client = client(&context);
        client.write_all(REQUEST).await.unwrap();
        read_answer(&mut client).await;
        let begun = Instant::now();
        assert_eq!(read_to_end(&mut client).await, "");
        check_elapsed(begun, IDLE_TIMEOUT);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_has_given_its_memory_back() {
    locally(async |context| {
        let mut clients = [client(&context), client(&context), client(&context)];
        for client in &mut clients {
            client.write_all(REQUEST).await.unwrap();
            read_answer(client).await;
        }
        tokio::task::yield_now().await;
        assert_eq!(context.buffers.in_use(), 0);
        clients[0].write_all(b"GET").await.unwrap();
        tokio::time::sleep(TICK).await;
        assert_eq!(context.buffers.in_use(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn draining_closes_idle_connections_soon_and_others_after_their_answer() {
    locally(async |context| {
        let (mut idle, mut busy, mut new) = (client(&context), client(&context), client(&context));
        let mut late = client(&context);
        for client in [&mut idle, &mut busy, &mut late] {
            client.write_all(REQUEST).await.unwrap();
            assert!(!read_answer(client).await.contains("Connection: close"));
        }
        busy.write_all(&REQUEST[..5]).await.unwrap();
        tokio::time::sleep(TICK).await;
        let begun = Instant::now();
        context.begin_drain();
        tokio::time::sleep(LAST_CALL - TICK).await;
        late.write_all(REQUEST).await.unwrap();
        assert!(read_to_end(&mut late).await.contains("\r\nConnection: close\r\n"), "it came in time");
        assert_eq!(read_to_end(&mut idle).await, "");
        assert!(begun.elapsed() <= LAST_CALL + 2 * TICK, "{:?}", begun.elapsed());
        busy.write_all(&REQUEST[5..]).await.unwrap();
        new.write_all(REQUEST).await.unwrap();
        for client in [&mut busy, &mut new] {
            let got = read_to_end(client).await;
            assert!(got.contains("\r\nConnection: close\r\n"), "{got}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn content_of_a_refused_request_is_waited_for_no_longer_than_an_idle_connection() {
    locally(async |context| {
        let mut client = client(&context);
        let begun = Instant::now();
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel").await.unwrap();
        assert!(!read_answer(&mut client).await.contains("Connection: close"));
        tokio::time::sleep(Duration::from_secs(5)).await;
        client.write_all(b"lo").await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        read_answer(&mut client).await;
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel").await.unwrap();
        read_answer(&mut client).await;
        assert_eq!(read_to_end(&mut client).await, "");
        assert!(begun.elapsed() <= IDLE_TIMEOUT + Duration::from_secs(10));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_costs_little_memory_of_its_own() {
    locally(async |context| {
        let (stream, _) = tokio::io::duplex(1);
        let address = "127.0.0.1:1".parse().unwrap();
        let client = Client::in_clear(address, address, Instant::now());
        let size = size_of_val(&serve(stream, client, &context));
        assert!(size <= 4096, "{size} bytes");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_client_still_sends_is_read_past_for_a_while() {
    locally(async |context| {
        let mut client = client_with(&context, 1024);
        client.write_all(b"GET / HTTP/3.0\r\nHost: a\r\n\r\n").await.unwrap();
        client.write_all(&[b'x'; 100_000]).await.expect("a client that can't send may never read its answer");
        assert!(read_to_end(&mut client).await.starts_with("HTTP/1.1 505 "));
        let begun = Instant::now();
        while client.write_all(&[b'x'; 1024]).await.is_ok() {
            tokio::time::sleep(TICK).await;
        }
        assert!(begun.elapsed() <= LINGER + 5 * TICK, "{:?}", begun.elapsed());
    })
    .await;
}
