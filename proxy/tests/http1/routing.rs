//! What a rule does to requests and responses: filters, shares, failures that it specifies.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use proxy_config::name::UnitId;
use proxy_config::route::{
    Field, Filter, HeaderEdits, PathEdit, PathMatch, Redirect, Rewrite, Rule, Target, WeightedBackend,
};

use super::rig::{Origin, PATIENCE, Rig, name, read_message, route, rule, without_date};

const NOWHERE: [SocketAddr; 0] = [];

fn fields(fields: &[(&str, &str)]) -> Vec<Field> {
    fields.iter().map(|(name, value)| Field { name: (*name).into(), value: (*value).into() }).collect()
}

fn request(target: &str, more: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{more}\r\n").into_bytes()
}

fn redirect() -> Redirect {
    Redirect { scheme: None, hostname: None, port: None, path: None, status: 302 }
}

#[test]
fn fields_are_edited_both_ways() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nServer: x\r\nX-Old: 1\r\nContent-Length: 0\r\n\r\n");
    let edits = |prefix: &str| HeaderEdits {
        remove: vec!["server".into(), "x-secret".into()],
        set: fields(&[("X-Old", &format!("{prefix}-new"))]),
        add: fields(&[("X-Added", &format!("{prefix}-added"))]),
    };
    let mut rule = rule();
    rule.filters = vec![Filter::RequestHeaders(edits("to")), Filter::ResponseHeaders(edits("from"))];
    let rig = Rig::new(rule, &[origin.address]);
    let got = rig.send(&request("/", "X-Secret: s\r\nx-old: 0\r\nX-OLD: 00\r\nX-Added: mine\r\n"));
    assert_eq!(got, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Old: from-new\r\nX-Added: from-added\r\n\r\n");
    let forwarded = &origin.requests()[0];
    assert!(forwarded.ends_with("\r\nX-Old: to-new\r\nX-Added: to-added\r\n\r\n"), "{forwarded:?}");
    assert!(forwarded.contains("\r\nX-Added: mine\r\n") && !forwarded.contains("Secret"), "{forwarded:?}");
    assert_eq!(forwarded.to_lowercase().matches("x-old:").count(), 1);
}

#[test]
fn host_and_path_are_rewritten_and_the_query_stays() {
    let origin = Origin::ok();
    let mut rule = rule();
    rule.matches[0].path = PathMatch::Prefix("/old".into());
    let path = Some(PathEdit::Prefix("/new".into()));
    rule.filters = vec![Filter::Rewrite(Rewrite { hostname: Some("inner.example".into()), path })];
    let rig = Rig::new(rule, &[origin.address]);
    rig.send(&request("/old/x?y=/old", ""));
    let forwarded = &origin.requests()[0];
    assert!(forwarded.starts_with("GET /new/x?y=/old HTTP/1.1\r\nHost: inner.example\r\n"), "{forwarded:?}");
    assert!(forwarded.contains("\r\nX-Forwarded-Host: a.example\r\n"), "{forwarded:?}");
}

#[test]
fn a_redirect_is_answered_without_a_backend_and_the_connection_goes_on() {
    let mut rule = rule();
    rule.filters = vec![
        Filter::Redirect(Redirect { scheme: Some("https".into()), status: 301, ..redirect() }),
        Filter::ResponseHeaders(HeaderEdits { add: fields(&[("X-By", "rule")]), ..HeaderEdits::default() }),
    ];
    let rig = Rig::new(rule, &NOWHERE);
    let mut client = rig.connect();
    for _ in 0..2 {
        client.write_all(&request("/a/./b?c", "Content-Length: 2\r\n")).unwrap();
        client.write_all(b"hi").unwrap();
        let got = String::from_utf8(read_message(&mut client).unwrap()).unwrap();
        assert!(got.contains(" GMT\r\n"), "{got}");
        assert_eq!(
            without_date(&got),
            "HTTP/1.1 301 Moved Permanently\r\nLocation: https://a.example/a/b?c\r\n\
             Content-Length: 0\r\nX-By: rule\r\n\r\n"
        );
    }
}

#[test]
fn a_redirect_names_the_listeners_port_unless_it_is_well_known() {
    let mut rule = rule();
    rule.filters = vec![Filter::Redirect(Redirect { hostname: Some("b.example".into()), ..redirect() })];
    let rig = Rig::new(rule, &NOWHERE);
    let got = rig.send(&request("/", ""));
    let location = format!("\r\nLocation: http://b.example:{}/\r\n", rig.address.port());
    assert!(got.contains(&location), "{got:?}");
}

#[test]
fn shares_are_exact_and_an_invalid_one_is_500() {
    let (one, two) = (Origin::ok(), Origin::ok());
    let mut shared = rule();
    let share = |target: Target, weight| WeightedBackend { target, weight, filters: Vec::new() };
    let of = |port| Target::Backend(UnitId::backend(&name("backend"), port));
    shared.backends = vec![
        share(of(1), 5),
        share(of(2), 3),
        share(Target::Invalid("no such Service".into()), 2),
        share(of(1), 0),
    ];
    let rig = Rig::new(rule(), &[one.address, two.address]);
    rig.put(&[route(shared)]);
    let mut client = rig.connect();
    let mut failed = 0;
    for _ in 0..100 {
        client.write_all(&request("/", "")).unwrap();
        let got = String::from_utf8(read_message(&mut client).unwrap()).unwrap();
        failed += usize::from(got.starts_with("HTTP/1.1 500 "));
    }
    assert_eq!((one.requests().len(), two.requests().len(), failed), (50, 30, 20));
}

#[test]
fn each_backend_gets_the_edits_of_its_own_filters() {
    let (one, two) = (Origin::ok(), Origin::ok());
    let mut shared = rule();
    shared.filters = vec![Filter::RequestHeaders(HeaderEdits {
        set: fields(&[("X-By", "rule")]),
        ..HeaderEdits::default()
    })];
    let by = |port: u16| {
        let set = fields(&[("X-By", &format!("backend-{port}"))]);
        WeightedBackend {
            target: Target::Backend(UnitId::backend(&name("backend"), port)),
            weight: 1,
            filters: vec![Filter::RequestHeaders(HeaderEdits { set, ..HeaderEdits::default() })],
        }
    };
    shared.backends = vec![by(1), by(2)];
    let rig = Rig::new(rule(), &[one.address, two.address]);
    rig.put(&[route(shared)]);
    for _ in 0..2 {
        rig.send(&request("/", ""));
    }
    for (port, origin) in [(1, &one), (2, &two)] {
        let requests = origin.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].matches("X-By:").count(), 1);
        assert!(requests[0].contains(&format!("X-By: backend-{port}\r\n")), "{requests:?}");
    }
}

#[test]
fn failures_have_the_status_that_is_specified_and_keep_the_connection() {
    let missing = Rule { invalid: Some("a filter that is not known".into()), ..rule() };
    let mut narrow = rule();
    narrow.matches[0].path = PathMatch::Exact("/only".into());
    let rig = Rig::new(rule(), &NOWHERE);
    let mut client = rig.connect();
    let mut check = |status: u16| {
        client.write_all(&request("/", "Content-Length: 5\r\n")).unwrap();
        client.write_all(b"hello").unwrap();
        let got = String::from_utf8(read_message(&mut client).unwrap()).unwrap();
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {got:?}");
        assert!(!got.contains("Connection: close"), "{got:?}");
    };
    check(500);
    rig.put(&[route(missing)]);
    check(500);
    rig.put(&[route(narrow)]);
    check(404);
    let mut empty = rule();
    let target = Target::Backend(UnitId::backend(&name("backend"), 1));
    empty.backends = vec![WeightedBackend { target, weight: 1, filters: Vec::new() }];
    rig.endpoints(1, &NOWHERE);
    rig.put(&[route(empty)]);
    check(503);
}

#[test]
fn a_swap_touches_neither_the_count_in_flight_nor_the_turn_nor_the_exchange() {
    let (one, two) = (Origin::ok(), Origin::ok());
    let (answer, answers) = mpsc::channel::<()>();
    let answers = Mutex::new(answers);
    let held = Origin::new(move |stream, log| {
        log.push(&read_message(stream).unwrap());
        answers.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nheld").unwrap();
    });
    let rig = Rig::new(rule(), &[one.address]);
    rig.endpoints(1, &[one.address, two.address]);
    rig.send(&request("/1", ""));
    rig.endpoints(1, &[one.address, two.address]);
    rig.send(&request("/2", ""));
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1), "the turn goes on over a swap");
    rig.endpoints(1, &[held.address]);
    let mut waiting = rig.connect();
    waiting.write_all(&request("/held", "")).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while held.requests().is_empty() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(rig.in_flight(held.address), 1);
    rig.endpoints(1, &[one.address]);
    assert_eq!(rig.in_flight(held.address), 1, "its exchange goes on, though no table names it any more");
    answer.send(()).unwrap();
    assert!(read_message(&mut waiting).unwrap().ends_with(b"held"));
    let deadline = Instant::now() + PATIENCE;
    while rig.in_flight(held.address) > 0 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(rig.in_flight(held.address), 0);
}

#[test]
fn an_exchange_is_counted_once_under_its_route_with_the_status_of_the_client() {
    let rig = Rig::to(&Origin::ok());
    let series = rig.metrics.route(&UnitId::route("HTTPRoute", &name("route")));
    rig.send(&request("/", ""));
    rig.send(b"GET / HTTP/1.1\r\n\r\n");
    rig.endpoints(1, &NOWHERE);
    rig.send(&request("/", ""));
    let counts = [2, 4, 5].map(|class| series.count(class));
    assert_eq!(counts, [1, 0, 1], "the request without Host has no route");
}
