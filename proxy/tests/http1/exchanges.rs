//! Exchanges: persistence, content both ways, interim responses, upgrades, failures of either side.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use super::rig::{Log, Origin, Rig, nobody, read_message, read_to_end, rule};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

fn text(bytes: Option<Vec<u8>>) -> String {
    String::from_utf8(bytes.expect("a whole message")).unwrap()
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn requests_on_one_connection_go_over_one_upstream_connection() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let origin = Origin::new(move |stream, _| {
        counted.fetch_add(1, SeqCst);
        while read_message(stream).is_some() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    for _ in 0..50 {
        client.write_all(GET).unwrap();
        assert_eq!(text(read_message(&mut client)), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
    assert_eq!(connections.load(SeqCst), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::new(|stream, _| {
        while let Some(request) = read_message(stream) {
            let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap().to_owned();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()).unwrap();
        }
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    let request = |path: usize| format!("GET /{path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    client.write_all((0..20).map(request).collect::<String>().as_bytes()).unwrap();
    for path in 0..20 {
        assert!(text(read_message(&mut client)).ends_with(&format!("\r\n\r\n/{path}")));
    }
}

#[test]
fn http_1_0_gets_what_it_understands() {
    let chunked =
        Origin::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let got = Rig::to(&chunked).send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(got, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok");
    let rig = Rig::to(&Origin::ok());
    let mut client = rig.connect();
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let got = text(read_message(&mut client));
        assert_eq!(got, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok");
    }
}

#[test]
fn a_response_without_length_ends_with_a_last_chunk() {
    let origin = Origin::new(|stream, _| {
        read_message(stream).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").unwrap();
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    client.write_all(GET).unwrap();
    let got = text(read_message(&mut client));
    assert!(got.starts_with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), "{got:?}");
    assert!(got.ends_with("0\r\n\r\n"), "{got:?}");
}

#[test]
fn responses_that_never_have_content_end_with_their_head() {
    for (method, answer, want) in [
        ("HEAD", "200 OK\r\nContent-Length: 99", "200 OK\r\nContent-Length: 99"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked", "200 OK\r\nTransfer-Encoding: chunked"),
        ("GET", "304 Not Modified\r\nContent-Length: 99", "304 Not Modified\r\nContent-Length: 99"),
        ("GET", "204 No Content", "204 No Content"),
    ] {
        let origin = Origin::answering(format!("HTTP/1.1 {answer}\r\n\r\n"));
        let rig = Rig::to(&origin);
        let mut client = rig.connect();
        for _ in 0..2 {
            write!(client, "{method} / HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
            assert_eq!(read_head(&mut client), format!("HTTP/1.1 {want}\r\n\r\n"));
        }
        assert_eq!(origin.log.all().len(), 2);
    }
}

#[test]
fn trailers_of_a_response_pass_if_they_may() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n2;x=y\r\nok\r\n0\r\n\
         grpc-status: 0\r\nContent-Length: 7\r\n\r\n",
    );
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    client.write_all(GET).unwrap();
    assert_eq!(
        text(read_message(&mut client)),
        "HTTP/1.1 200 OK\r\nTrailer: grpc-status\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n"
    );
}

#[test]
fn interim_responses_pass_and_the_final_one_follows() {
    let origin = Origin::new(|stream, log| {
        let head = read_head(stream);
        log.push(head.as_bytes());
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").unwrap();
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let mut content = [0; 5];
        stream.read_exact(&mut content).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
        stream.write_all(&content).unwrap();
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .unwrap();
    assert_eq!(read_head(&mut client), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_eq!(read_head(&mut client), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hello").unwrap();
    assert!(text(read_message(&mut client)).ends_with("\r\n\r\nhello"));
    assert!(origin.log.all()[0].contains("\r\nExpect: 100-continue\r\n"));
}

#[test]
fn an_expectation_that_is_refused_closes_so_that_content_is_never_taken_for_a_request() {
    let origin = Origin::new(|stream, log| {
        log.push(read_head(stream).as_bytes());
        stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n").unwrap();
        log.push(read_to_end(stream).as_bytes());
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 50\r\n\r\n")
        .unwrap();
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 413 "), "{head:?}");
    assert!(head.contains("\r\nConnection: close\r\n"), "{head:?}");
    let _ = client.write_all(GET);
    assert_eq!(read_to_end(&mut client), "");
}

#[test]
fn too_many_interim_responses_or_an_unasked_switch_are_502() {
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(11);
    let final_one = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let got = Rig::to(&Origin::answering(format!("{interim}{final_one}"))).send(GET);
    assert_eq!(got.matches("HTTP/1.1 103 ").count(), 10);
    assert!(got.contains("HTTP/1.1 502 "), "{got:?}");
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    let got = Rig::to(&Origin::answering(switch)).send(GET);
    assert!(got.starts_with("HTTP/1.1 502 "), "{got:?}");
}

#[test]
fn malformed_responses_are_502_and_their_connection_is_never_used_again() {
    let cases = [
        ("R01", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("R02", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
        ("R03", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        ("R04", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
        ("R04 NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
        ("status", "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n"),
        ("no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ];
    for (id, answer) in cases {
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let origin = Origin::new(move |stream, _| {
            counted.fetch_add(1, SeqCst);
            while read_message(stream).is_some() {
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let rig = Rig::to(&origin);
        let mut client = rig.connect();
        for round in 1..=2 {
            client.write_all(GET).unwrap();
            let got = text(read_message(&mut client));
            assert!(got.starts_with("HTTP/1.1 502 "), "{id}: {got:?}");
            assert_eq!(connections.load(SeqCst), round, "{id}");
        }
    }
}

#[test]
fn a_head_beyond_the_limit_is_502() {
    let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", format!("X: {}\r\n", "a".repeat(8000)).repeat(9));
    let got = Rig::to(&Origin::answering(head)).send(GET);
    assert!(got.starts_with("HTTP/1.1 502 "), "{got:?}");
}

#[test]
fn bytes_behind_a_response_never_answer_another_request() {
    let origin = Origin::new(|stream, _| {
        read_message(stream).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            .unwrap();
        read_to_end(stream);
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    for _ in 0..3 {
        client.write_all(GET).unwrap();
        assert!(text(read_message(&mut client)).ends_with("\r\n\r\nok"));
    }
}

#[test]
fn a_reset_in_the_middle_of_content_is_seen_by_the_client() {
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let origin = Origin::new(move |stream, _| {
            read_message(stream).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n").unwrap();
        });
        let got = Rig::to(&origin).send(GET);
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got:?}");
        assert!(!got.ends_with("0\r\n\r\n") && got.len() < 100, "it looks complete: {got:?}");
    }
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let origin = Origin::new(|stream, _| {
        read_head(stream);
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").unwrap();
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").unwrap();
    let mut sender = client.try_clone().unwrap();
    let sending = thread::spawn(move || while sender.write_all(&[b'x'; 4096]).is_ok() {});
    let got = text(read_message(&mut client));
    assert!(got.starts_with("HTTP/1.1 403 ") && got.ends_with("\r\n\r\nno"), "{got:?}");
    assert!(got.contains("\r\nConnection: close\r\n"), "{got:?}");
    drop(client);
    sending.join().unwrap();
}

#[test]
fn a_client_that_goes_away_while_sending_takes_its_request_with_it() {
    let origin = Origin::new(|stream, log| {
        read_head(stream);
        log.push(read_to_end(stream).as_bytes());
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").unwrap();
    drop(client);
    let deadline = Instant::now() + Duration::from_secs(5);
    while origin.log.all().is_empty() && Instant::now() < deadline {
        thread::yield_now();
    }
    assert_eq!(origin.log.all(), ["hello"]);
}

#[test]
fn content_of_any_size_passes_both_ways_in_both_framings() {
    let origin = Origin::new(|stream, _| {
        while let Some(request) = read_message(stream) {
            let start = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            let content = &request[start..];
            let is_chunked = String::from_utf8_lossy(&request[..start]).contains("chunked");
            if is_chunked {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            } else {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()).unwrap();
            }
            stream.write_all(content).unwrap();
        }
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    for size in [0, 1, 100, 65_000, 65_536, 200_000, 1_000_000] {
        let content = vec![b'x'; size];
        write!(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").unwrap();
        client.write_all(&content).unwrap();
        let got = read_message(&mut client).unwrap();
        assert!(got.ends_with(&content) && got.len() < size + 60, "{size}");
    }
    for size in [1, 100, 65_536, 300_000] {
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for piece in vec![b'x'; size].chunks(50_000) {
            write!(client, "{:x}\r\n", piece.len()).unwrap();
            client.write_all(piece).unwrap();
            client.write_all(b"\r\n").unwrap();
        }
        client.write_all(b"0\r\n\r\n").unwrap();
        let got = read_message(&mut client).unwrap();
        assert_eq!(got.iter().filter(|byte| **byte == b'x').count(), size);
        assert!(got.ends_with(b"\r\n0\r\n\r\n"));
    }
}

#[test]
fn what_a_slow_client_does_not_read_is_not_read_from_the_upstream() {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    let origin = Origin::new(move |stream, _| {
        read_message(stream).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 65_536]).is_ok() {
            counted.fetch_add(65_536, SeqCst);
        }
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    client.write_all(GET).unwrap();
    read_head(&mut client);
    let mut before = u64::MAX;
    while sent.load(SeqCst) != before {
        before = sent.load(SeqCst);
        thread::sleep(Duration::from_millis(200));
    }
    assert!(before < 40 << 20, "{before} bytes were taken of a response that nobody reads");
}

#[test]
fn a_websocket_passes_bytes_both_ways_once_both_sides_agree() {
    let origin = Origin::new(|stream, log| {
        log.push(read_head(stream).as_bytes());
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\nfirst")
            .unwrap();
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            stream.write_all(&piece[..count]).unwrap();
        }
        stream.write_all(b"bye").unwrap();
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    client
        .write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
        .unwrap();
    assert_eq!(
        read_head(&mut client),
        "HTTP/1.1 101 Switching Protocols\r\nX: y\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    client.write_all(b" and late").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), "firstearly and latebye");
    assert!(origin.log.all()[0].contains("\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"));
}

#[test]
fn a_refused_upgrade_leaves_http_as_it_was() {
    let origin = Origin::ok();
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    client
        .write_all(
            b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\
              GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .unwrap();
    for _ in 0..2 {
        assert!(text(read_message(&mut client)).ends_with("\r\n\r\nok"));
    }
    let requests = origin.requests();
    assert!(requests[0].starts_with("GET /1 ") && requests[0].ends_with("\r\n\r\n"), "{requests:?}");
    assert!(requests[1].starts_with("GET /2 "), "{requests:?}");
}

#[test]
fn a_pooled_connection_that_died_is_tried_again_where_that_is_safe() {
    let origin = Origin::new(|stream, log| {
        // Answers once; the second request on a connection finds it closed without an answer.
        let request = read_message(stream).unwrap();
        log.push(&request);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        if let Some(request) = read_message(stream) {
            log.push(&request);
        }
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    for _ in 0..4 {
        client.write_all(GET).unwrap();
        assert!(text(read_message(&mut client)).starts_with("HTTP/1.1 200 "));
    }
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    client.write_all(post).unwrap();
    let got = text(read_message(&mut client));
    let posts = || origin.requests().iter().filter(|request| request.starts_with("POST")).count();
    assert!(got.starts_with("HTTP/1.1 502 "), "the endpoint may have acted on it: {got:?}");
    assert_eq!(posts(), 1);
}

#[test]
fn a_dead_endpoint_is_passed_over() {
    let (_held, unused) = nobody();
    let origin = Origin::ok();
    let rig = Rig::new(rule(), &[origin.address]);
    rig.endpoints(1, &[unused, origin.address]);
    let mut client = rig.connect();
    for _ in 0..10 {
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert!(text(read_message(&mut client)).starts_with("HTTP/1.1 200 "));
    }
    rig.endpoints(1, &[unused, unused]);
    client.write_all(GET).unwrap();
    assert!(text(read_message(&mut client)).starts_with("HTTP/1.1 503 "));
}

#[test]
fn an_endpoint_that_says_nothing_is_504_and_one_that_closes_502() {
    let silent = Origin::new(|stream, _: &Log| drop(read_to_end(stream)));
    let mut slow = rule();
    slow.timeouts.backend_request = Some(200);
    let begun = Instant::now();
    let mut client = Rig::new(slow.clone(), &[silent.address]).connect();
    client.write_all(GET).unwrap();
    assert!(text(read_message(&mut client)).starts_with("HTTP/1.1 504 "));
    assert!(begun.elapsed() >= Duration::from_millis(200) && begun.elapsed() < Duration::from_secs(4));
    slow.timeouts = proxy_config::route::Timeouts { request: Some(200), backend_request: Some(0) };
    let mut client = Rig::new(slow, &[silent.address]).connect();
    client.write_all(GET).unwrap();
    assert!(text(read_message(&mut client)).starts_with("HTTP/1.1 504 "));
    let closing = Origin::new(|stream, _| drop(read_message(stream)));
    let got = Rig::to(&closing).send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 502 "), "{got:?}");
}

#[test]
fn a_client_that_resets_its_connection_while_it_waits_takes_its_request_with_it() {
    let origin = Origin::new(|stream, log| {
        log.push(&read_message(stream).unwrap());
        log.push(read_to_end(stream).as_bytes());
    });
    let rig = Rig::to(&origin);
    let mut client = rig.connect();
    client.write_all(GET).unwrap();
    let wait_for = |count: usize| {
        let deadline = Instant::now() + Duration::from_secs(3);
        while origin.log.all().len() < count && Instant::now() < deadline {
            thread::yield_now();
        }
        assert_eq!(origin.log.all().len(), count);
    };
    wait_for(1);
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    wait_for(2);
}

#[test]
fn a_client_that_has_ended_its_side_still_gets_its_answer() {
    let origin = Origin::new(|stream, _| {
        read_message(stream).unwrap();
        thread::sleep(Duration::from_millis(100));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    assert!(Rig::to(&origin).send(GET).ends_with("\r\n\r\nok"));
}
