//! The request-smuggling, normalisation and limit cases: what is refused with which status, and what is
//! served with which bytes forwarded.
//!
//! Each refused case is followed on its connection by a second request, which must never be served.

use std::io::Write;
use std::net::Shutdown;

use super::rig::{Origin, Rig, read_to_end};

/// A request with these fields behind Host.
fn get(fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n").into_bytes()
}

/// A POST with these fields and this content.
fn post(fields: &str, content: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n{content}").into_bytes()
}

fn chunked(content: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", content)
}

fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a.example\r\n\r\n").into_bytes()
}

fn target(target: &str) -> Vec<u8> {
    line(&format!("GET {target} HTTP/1.1"))
}

fn host(fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\n{fields}\r\n").into_bytes()
}

fn raw(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

type Case = (&'static str, u16, Vec<u8>);

fn framing_cases() -> Vec<Case> {
    let mut cases = vec![
        ("S01", 400, post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("S02", 400, post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n")),
        ("S03", 400, post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello")),
        ("S04", 400, post("Content-Length: 5, 6\r\n", "hello")),
        ("S05", 400, post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        ("S06", 400, post("Content-Length: 5, 5\r\n", "hello")),
        ("S19", 400, post("Content-Length: 18446744073709551621\r\n", "hello")),
        ("S21", 400, post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")),
        ("S22", 400, post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("S23", 400, post("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n")),
    ];
    cases.extend(field_cases());
    cases.extend(length_and_coding_cases());
    cases
}

fn field_cases() -> Vec<Case> {
    vec![
        ("S35", 400, post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")),
        (
            "S36",
            400,
            raw(b"POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        ("S37", 400, post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n")),
        ("S38", 400, get("X-Folded: a\r\n b\r\n")),
        ("S39", 400, raw(b"GET / HTTP/1.1\r\n Host: a.example\r\n\r\n")),
        ("S40", 400, get("X: a\rb\r\n")),
        ("S41", 400, raw(b"GET / HTTP/1.1\nHost: a.example\n\n")),
        ("S42", 400, get("X: a\nTransfer-Encoding: chunked\r\n")),
        ("S43", 400, get("X: a\0b\r\n")),
        ("S44", 400, get("X: a\x01b\r\n")),
        ("S45", 400, get(": empty\r\n")),
        ("S46", 400, get("no colon\r\n")),
        ("S47", 400, get("X Y: a\r\n")),
        ("S48", 400, get("X(Y: a\r\n")),
        ("S49", 400, raw(b"GET / HTTP/1.1\r\nHost: a.example\r\nX\x85: a\r\n\r\n")),
        ("S50", 400, get("X\0: a\r\n")),
    ]
}

fn length_and_coding_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let lengths = ["+5", "-5", "0x5", "5 5", "", "\x0b5", "1_0", "5a", "\u{a0}5", "5,", "5.0", "\"5\""];
    for (id, length) in ["S07", "S08", "S09", "S10", "S11", "S12", "S13", "S14", "S15", "S16", "S17", "S18"]
        .into_iter()
        .zip(lengths)
    {
        cases.push((id, 400, post(&format!("Content-Length: {length}\r\n"), "hello")));
    }
    let codings = [
        ("S24", 501, "xchunked"),
        ("S25", 501, "identity"),
        ("S26", 501, "chunk"),
        ("S27", 501, "cow chunked bar"),
        ("S28", 501, "gzip, chunked"),
        ("S29", 400, "chunked;q=1"),
        ("S30", 400, "\"chunked\""),
        ("S31", 400, "\x0bchunked"),
        ("S32", 400, "chunked\0"),
        ("S33", 400, "\u{ff}chunked"),
        ("S34", 400, ",chunked"),
    ];
    for (id, status, coding) in codings {
        cases.push((id, status, post(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n")));
    }
    cases
}

fn chunk_cases() -> Vec<Case> {
    let long_extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(64 << 10));
    vec![
        ("S51", 400, chunked("0x5\r\nhello\r\n0\r\n\r\n")),
        ("S52", 400, chunked("+5\r\nhello\r\n0\r\n\r\n")),
        ("S53", 400, chunked("-0\r\n\r\n")),
        ("S54", 400, chunked(" 5\r\nhello\r\n0\r\n\r\n")),
        ("S55", 400, chunked("0_5\r\nhello\r\n0\r\n\r\n")),
        ("S56", 400, chunked("5z\r\nhello\r\n0\r\n\r\n")),
        ("S57", 400, chunked("\r\nhello\r\n0\r\n\r\n")),
        ("S58", 400, chunked("00000000000000005\r\nhello\r\n0\r\n\r\n")),
        ("S59", 400, chunked("5\nhello\r\n0\r\n\r\n")),
        ("S60", 400, chunked("5\r\nhello\n0\r\n\r\n")),
        ("S61", 400, chunked("5\r\nhello\r\n0\n\n")),
        ("S62", 400, chunked("5\r\nhello0\r\n\r\n")),
        ("S63", 400, chunked("5\r\nhello world\r\n0\r\n\r\n")),
        ("S64", 400, chunked("5\r\rhello\r\n0\r\n\r\n")),
        ("S65", 400, chunked("5;a\nb\r\nhello\r\n0\r\n\r\n")),
        ("S66", 400, chunked("5;a\rb\r\nhello\r\n0\r\n\r\n")),
        ("S67", 400, chunked("5;a\0b\r\nhello\r\n0\r\n\r\n")),
        ("S68", 400, chunked(&long_extension)),
        ("S69", 400, chunked("0\r\nXX")),
        ("S70", 400, chunked("0\r\nno colon\r\n\r\n")),
    ]
}

fn target_cases() -> Vec<Case> {
    vec![
        ("S76", 400, host("")),
        ("S77", 400, host("Host: a.example\r\nHost: a.example\r\n")),
        ("S78", 400, host("Host: a.example, b.example\r\n")),
        ("S79", 400, host("Host: a b\r\n")),
        ("S80", 400, host("Host: a/b\r\n")),
        ("S81", 400, host("Host: u@a.example\r\n")),
        ("S82", 400, host("Host: a\0b\r\n")),
        ("S83", 400, host("Host: a.example:8o\r\n")),
        ("S84", 400, target("http://b.example/")),
        ("S85", 400, target("http://u:p@a.example/")),
        ("S86", 400, target("*")),
        ("S87", 400, target("a.example:80")),
        ("S88", 400, target("x")),
        ("S89", 405, line("CONNECT a.example:443 HTTP/1.1")),
        ("S90", 405, line("TRACE / HTTP/1.1")),
        ("S91", 505, line("GET / HTTP/2.0")),
        ("S92", 400, line("GET / HTTP/1.10")),
        ("S93", 400, line("GET / http/1.1")),
        ("S94", 400, line("GET /")),
        ("S95", 400, line("GET  / HTTP/1.1")),
        ("S96", 400, line("GET\t/ HTTP/1.1")),
        ("S97", 400, target("/a b")),
        ("S98", 400, target("/a\x01b")),
        ("S99", 400, target("/a\x7fb")),
        ("S100", 400, raw(b"GET /\xff HTTP/1.1\r\nHost: a.example\r\n\r\n")),
        ("S101", 400, target("/#frag")),
        ("S102", 400, target("/%zz")),
        ("S103", 400, target("/%00")),
        ("S104", 400, line("G=(T / HTTP/1.1")),
        ("S105", 414, target(&format!("/{}", "a".repeat(100_000)))),
        ("S106", 431, get(&format!("X: {}\r\n", "a".repeat(1_000_000)))),
        ("S107", 431, get(&"X: a\r\n".repeat(2000))),
        ("S108", 417, post("Expect: 200-ok\r\nContent-Length: 5\r\n", "hello")),
        ("P04", 400, target("/a/../../b")),
        ("P04 encoded", 400, target("/%2e%2e/b")),
        ("P14 encoded dot", 400, host("Host: a%2eexample\r\n")),
        ("P14 underscore", 400, host("Host: a_b.example\r\n")),
        ("P14 empty", 400, host("Host:\r\n")),
        ("percent at the end", 400, target("/a%2")),
        ("percent in the query", 400, target("/?a=%g0")),
        ("TLS on a plain port", 400, raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")),
        ("cookie crumbs", 431, get(&format!("Cookie: {}\r\n", "a;".repeat(200)))),
    ]
}

/// The proxy gives each of these a status and closes; the origin sees nothing of it.
#[test]
fn what_is_ambiguous_is_refused_and_nothing_behind_it_is_served() {
    let origin = Origin::ok();
    let rig = Rig::to(&origin);
    let mut wrong = Vec::new();
    for (id, status, bytes) in framing_cases().into_iter().chain(chunk_cases()).chain(target_cases()) {
        let mut stream = rig.connect();
        // The proxy may have answered and closed before it has read all of it.
        let _ = stream.write_all(&bytes);
        let _ = stream.write_all(b"GET /behind HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let _ = stream.shutdown(Shutdown::Write);
        let got = read_to_end(&mut stream);
        let first_line = format!("HTTP/1.1 {status} ");
        if !got.starts_with(&first_line) || !got.contains("\r\nConnection: close\r\n") {
            wrong.push(format!("{id}: wanted {status}, got {got:?}"));
        }
        if got.matches("HTTP/1.1 ").count() > 1 {
            wrong.push(format!("{id}: answered twice: {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(origin.requests(), Vec::<String>::new());
}

/// What the origin gets of a request that is served: its request line, its fields less those that tell
/// who the client is, and its content.
#[track_caller]
fn check_served(id: &str, bytes: &[u8], want: &str) {
    let origin = Origin::ok();
    let rig = Rig::to(&origin);
    let mut stream = rig.connect();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let got = read_to_end(&mut stream);
    assert!(got.starts_with("HTTP/1.1 200 "), "{id}: {got:?}");
    let requests = origin.requests();
    assert_eq!(requests.len(), 1, "{id}: {requests:?}");
    let forwarded: Vec<&str> =
        requests[0].split_inclusive("\r\n").filter(|line| !line.starts_with("X-Forwarded-")).collect();
    assert_eq!(forwarded.concat(), want, "{id}");
}

#[test]
fn valid_framing_is_forwarded_in_one_form() {
    let head = "POST / HTTP/1.1\r\nHost: a.example\r\n";
    let chunks = |content: &str| format!("{head}Transfer-Encoding: chunked\r\n\r\n{content}");
    let hello = chunks("5\r\nhello\r\n0\r\n\r\n");
    check_served(
        "S20",
        &post("Content-Length: 005\r\n", "hello"),
        &format!("{head}Content-Length: 5\r\n\r\nhello"),
    );
    check_served("S72", &chunked("5;a=\"b\"\r\nhello\r\n0\r\n\r\n"), &hello);
    check_served("S73", &chunked("5\r\nhello\r\n000\r\n\r\n"), &hello);
    let with = |coding: &str| post(&format!("Transfer-Encoding: {coding}\r\n"), "5\r\nhello\r\n0\r\n\r\n");
    check_served("S74", &with("chunked\t"), &hello);
    check_served("S75", &with("ChUnKeD"), &hello);
    let trailers = "Content-Length: 3\r\nHost: b\r\nAuthorization: x\r\nTransfer-Encoding: y\r\nX-Sum: 1\r\n";
    check_served(
        "S71",
        &chunked(&format!("5\r\nhello\r\n0\r\n{trailers}\r\n")),
        &chunks("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
    );
    check_served(
        "S114",
        b"DELETE / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi",
        "DELETE / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi",
    );
}

#[test]
fn fields_of_the_connection_end_here() {
    let bare = "GET / HTTP/1.1\r\nHost: a.example\r\n";
    let check = |id: &str, fields: &str, want: &str| {
        check_served(id, &get(fields), &format!("{bare}{want}\r\n"));
    };
    check(
        "S110",
        "Connection: host, content-length, authorization, x-mine, x-forwarded-for\r\nAuthorization: a\r\n\
         X-Mine: m\r\nX-Forwarded-For: 6.6.6.6\r\nX-Yours: y\r\n",
        "Authorization: a\r\nX-Yours: y\r\n",
    );
    check("S111", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n", "");
    check("S111 alone", "Connection: upgrade\r\nUpgrade: h2c\r\n", "");
    check("S111 spelled", "Connection: upgrade\r\nUpgrade: H2C-14\r\n", "");
    check("two offers", "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n", "");
    check("not offered by the connection", "Upgrade: websocket\r\n", "");
    check("S115", "X_Forwarded_For: 6.6.6.6\r\nContent_Length: 5\r\nX-Fine: 1\r\n", "X-Fine: 1\r\n");
    check("hop by hop", "Keep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\nTE: gzip\r\n", "");
    check("forwarding", "Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n", "");
    check("TE", "TE: trailers, gzip\r\n", "Connection: te\r\nTE: trailers\r\n");
    check("spelling", "x-LoWeR: KeePs\r\nX-Empty:\r\n", "x-LoWeR: KeePs\r\nX-Empty: \r\n");
}

#[test]
fn request_lines_that_may_be_overlooked_or_unusual_are_served() {
    check_served(
        "S116",
        b"\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    );
    check_served("S117", &line("get / HTTP/1.1"), "get / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    check_served("1.0", &line("GET / HTTP/1.0"), "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    check_served(
        "absolute form",
        &target("http://A.example:80/x?y"),
        "GET /x?y HTTP/1.1\r\nHost: A.example:80\r\n\r\n",
    );
}

#[test]
fn the_path_that_is_sent_is_the_normalised_one() {
    let check = |id: &str, path: &str, want: &str| {
        check_served(id, &target(path), &format!("GET {want} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    };
    check("P01", "/a/../b", "/b");
    check("P02", "/a/%2e%2e/b", "/b");
    check("P03", "/a/.%2e/b?c=/../d", "/b?c=/../d");
    check("P04", "/./b", "/b");
    check("P04 end", "/a/b/..", "/a/");
    check("P05", "/a%2fb", "/a%2Fb");
    check("P06", "/a%5Cb", "/a%5Cb");
    check("P08", "//admin", "//admin");
    check("P09", "/a//b", "/a//b");
    check("P10", "/a;x=1/b", "/a;x=1/b");
    check("P11", "/%41%7e", "/A~");
    check("P12", "/%252e%252e/", "/%252e%252e/");
    check("hidden file", "/.well-known/x", "/.well-known/x");
}
