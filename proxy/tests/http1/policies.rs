//! What a rule does besides editing and forwarding: cross-origin sharing, filters of single backends,
//! retries, mirrors, sessions.

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use proxy_config::name::UnitId;
use proxy_config::resilience::{BackendTraffic, Retry, RetryConstraint, SessionCarrier, SessionPersistence};
use proxy_config::route::{
    Cors, Field, Filter, HeaderEdits, Mirror, PathEdit, PathMatch, Redirect, Rewrite, Rule, Target,
};

use super::rig::{Origin, Rig, name, nobody, read_message, read_to_end, rule, without_date};

fn cors() -> Cors {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Cors {
        allow_origins: texts(&["https://a.example", "https://*.b.example"]),
        allow_methods: texts(&["GET", "PUT"]),
        allow_headers: texts(&["x-one", "x-two"]),
        expose_headers: texts(&["x-three"]),
        max_age: 60,
        allow_credentials: false,
    }
}

fn sharing(cors: Cors) -> Rule {
    Rule { filters: vec![Filter::Cors(cors)], ..rule() }
}

fn preflight(origin: &str) -> Vec<u8> {
    format!(
        "OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\
         Access-Control-Request-Headers: x-any\r\n\r\n"
    )
    .into_bytes()
}

fn get(origin: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\r\n").into_bytes()
}

#[test]
fn a_preflight_is_answered_by_the_proxy_and_the_connection_goes_on() {
    let origin = Origin::ok();
    let rig = Rig::new(sharing(cors()), &[origin.address]);
    let mut client = rig.connect();
    for from in ["https://a.example", "https://x.b.example"] {
        client.write_all(&preflight(from)).unwrap();
        let got = String::from_utf8(read_message(&mut client).unwrap()).unwrap();
        assert_eq!(
            without_date(&got),
            format!(
                "HTTP/1.1 204 No Content\r\nVary: Origin\r\nAccess-Control-Allow-Origin: {from}\r\n\
                 Access-Control-Expose-Headers: x-three\r\nAccess-Control-Allow-Methods: GET, PUT\r\n\
                 Access-Control-Allow-Headers: x-one, x-two\r\nAccess-Control-Max-Age: 60\r\n\r\n"
            )
        );
    }
    client.write_all(&preflight("https://evil.example")).unwrap();
    let got = String::from_utf8(read_message(&mut client).unwrap()).unwrap();
    assert_eq!(without_date(&got), "HTTP/1.1 204 No Content\r\nVary: Origin\r\n\r\n");
    assert!(origin.requests().is_empty());
}

#[test]
fn an_options_request_that_is_no_preflight_is_forwarded() {
    let origin = Origin::ok();
    let rig = Rig::new(sharing(cors()), &[origin.address]);
    rig.send(b"OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n\r\n");
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_response_says_what_its_origin_may_read_and_an_upstreams_own_word_is_dropped() {
    let origin =
        Origin::answering("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n");
    let rig = Rig::new(sharing(cors()), &[origin.address]);
    let mut client = rig.connect();
    let mut check = |from: &str, want: &str| {
        client.write_all(&get(from)).unwrap();
        let got = String::from_utf8(read_message(&mut client).unwrap()).unwrap();
        assert_eq!(got, format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVary: Origin\r\n{want}\r\n"));
    };
    check(
        "https://a.example",
        "Access-Control-Allow-Origin: https://a.example\r\nAccess-Control-Expose-Headers: x-three\r\n",
    );
    check("https://evil.example", "");
}

#[test]
fn with_credentials_a_star_is_told_as_what_was_asked_for() {
    let origin = Origin::ok();
    let all = || vec!["*".to_owned()];
    let open = Cors {
        allow_origins: all(),
        allow_methods: all(),
        allow_headers: all(),
        max_age: 5,
        ..Cors::default()
    };
    let got = Rig::new(sharing(open.clone()), &[origin.address]).send(&preflight("https://x.example"));
    assert_eq!(
        without_date(&got),
        "HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Methods: *\r\n\
         Access-Control-Allow-Headers: *\r\nAccess-Control-Max-Age: 5\r\n\r\n"
    );
    let closed = Cors { allow_credentials: true, ..open };
    let got = Rig::new(sharing(closed), &[origin.address]).send(&preflight("https://x.example"));
    for line in [
        "Vary: Origin",
        "Access-Control-Allow-Origin: https://x.example",
        "Access-Control-Allow-Credentials: true",
        "Access-Control-Allow-Methods: PUT",
        "Access-Control-Allow-Headers: x-any",
    ] {
        assert!(got.contains(&format!("\r\n{line}\r\n")), "{line}: {got}");
    }
}

#[test]
fn a_backend_redirects_or_rewrites_its_own_share() {
    let origin = Origin::ok();
    let mut rule = rule();
    rule.matches[0].path = PathMatch::Prefix("/old".into());
    let path = Some(PathEdit::Prefix("/new".into()));
    let backend = |filter| proxy_config::route::WeightedBackend {
        target: Target::Backend(UnitId::backend(&name("backend"), 1)),
        weight: 1,
        filters: vec![filter],
    };
    let redirect =
        Redirect { scheme: None, hostname: Some("b".into()), port: None, path: path.clone(), status: 307 };
    rule.backends = vec![
        backend(Filter::Redirect(redirect)),
        backend(Filter::Rewrite(Rewrite { hostname: Some("inner".into()), path })),
    ];
    // A third share, which neither redirects nor rewrites.
    let rig = Rig::new(rule, &[origin.address]);
    let got: Vec<String> = (0..6).map(|_| rig.send(b"GET /old/x HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let redirected = got.iter().filter(|got| got.starts_with("HTTP/1.1 307 ")).count();
    assert_eq!(redirected, 2, "{got:?}");
    assert!(got.iter().any(|got| got.contains("/new/x\r\n") && got.contains("\r\nLocation: http://b")));
    let requests = origin.requests();
    let rewritten =
        requests.iter().filter(|request| request.starts_with("GET /new/x HTTP/1.1\r\nHost: inner"));
    assert_eq!((rewritten.count(), requests.len()), (2, 4));
}

fn retrying(codes: &[u16], attempts: u32, backoff: u64) -> Rule {
    Rule { retry: Some(Retry { codes: codes.to_vec(), attempts, backoff: Some(backoff) }), ..rule() }
}

/// An origin that answers 503 so many times, then 200.
fn failing(times: usize) -> Origin {
    let left = AtomicUsize::new(times);
    Origin::new(move |stream, log| {
        while let Some(request) = read_message(stream) {
            log.push(&request);
            let fails = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            let status = if fails { "503 Service Unavailable" } else { "200 OK" };
            write!(stream, "HTTP/1.1 {status}\r\nX-From: origin\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    })
}

#[test]
fn a_listed_status_is_tried_again_with_the_same_content() {
    let origin = failing(2);
    let rig = Rig::new(retrying(&[500, 503], 2, 10), &[origin.address]);
    let mut client = rig.connect();
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").unwrap();
    thread::sleep(Duration::from_millis(50));
    client.write_all(b"again").unwrap();
    let got = String::from_utf8(read_message(&mut client).unwrap()).unwrap();
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
    let requests = origin.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.ends_with("\r\n\r\nhelloagain")), "{requests:?}");
}

#[test]
fn the_last_status_is_passed_on_and_one_that_is_not_listed_at_once() {
    for (rule, tries) in
        [(retrying(&[503], 2, 1), 3), (retrying(&[500], 2, 1), 1), (retrying(&[503], 0, 1), 1), (rule(), 1)]
    {
        let origin = failing(9);
        let got = Rig::new(rule, &[origin.address]).send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(got.starts_with("HTTP/1.1 503 Service Unavailable\r\nX-From: origin\r\n"), "{got}");
        assert_eq!(origin.requests().len(), tries);
    }
}

#[test]
fn content_that_is_too_large_to_keep_is_sent_once() {
    for (size, tries) in [(60 << 10, 2), (80 << 10, 1)] {
        let origin = failing(1);
        let rig = Rig::new(retrying(&[503], 3, 1), &[origin.address]);
        let mut client = rig.connect();
        write!(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").unwrap();
        client.write_all(&vec![b'x'; size]).unwrap();
        let got = String::from_utf8(read_message(&mut client).unwrap()).unwrap();
        assert_eq!(got.starts_with("HTTP/1.1 200 "), tries == 2, "{size}: {got}");
        assert_eq!(origin.requests().len(), tries, "{size}");
    }
}

#[test]
fn an_endpoint_that_says_nothing_is_left_for_another_and_the_request_has_an_end() {
    let silent = Origin::new(|stream, log| {
        log.push(&read_message(stream).unwrap());
        let _ = read_message(stream);
    });
    let healthy = Origin::ok();
    let mut patient = retrying(&[], 1, 1);
    patient.timeouts.backend_request = Some(1000);
    let rig = Rig::new(patient, &[silent.address]);
    rig.endpoints(1, &[silent.address, healthy.address]);
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    for _ in 0..4 {
        let got = rig.send(post);
        assert!(got.starts_with("HTTP/1.1 200 "), "{got}");
    }
    assert!(!silent.requests().is_empty() && healthy.requests().len() == 4);
    let mut short = retrying(&[503], 100, 400);
    short.timeouts.request = Some(1600);
    let origin = failing(1000);
    let begun = Instant::now();
    let got = Rig::new(short, &[origin.address]).send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 504 "), "{got}");
    assert!(begun.elapsed() >= Duration::from_millis(1600) && begun.elapsed() < Duration::from_secs(5));
    assert!((2..5).contains(&origin.requests().len()));
}

#[test]
fn no_connection_after_all_attempts_is_503() {
    let (_held, unused) = nobody();
    let rig = Rig::new(retrying(&[500], 3, 1), &[unused]);
    let got = rig.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 503 "), "{got}");
}

#[test]
fn retries_do_not_multiply_an_outage() {
    let origin = failing(usize::MAX);
    let rig = Rig::new(retrying(&[503], 5, 0), &[origin.address]);
    let mut client = rig.connect();
    let begun = Instant::now();
    for _ in 0..300 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_message(&mut client).unwrap();
    }
    // 300 requests, a fifth of that, and the reserve of each second.
    let reserve = 10 * (begun.elapsed().as_secs() as usize + 2);
    let tries = origin.requests().len();
    assert!((360..=360 + reserve).contains(&tries), "{tries}");
}

/// A rule that copies to the backend of port 9.
fn mirroring(numerator: u32, denominator: u32) -> Rule {
    let target = Target::Backend(UnitId::backend(&name("backend"), 9));
    let set = vec![Field { name: "X-Set".into(), value: "rule".into() }];
    let edits = HeaderEdits { set, ..HeaderEdits::default() };
    let mirror = Filter::Mirror(Mirror { target, numerator, denominator });
    Rule { filters: vec![mirror, Filter::RequestHeaders(edits)], ..rule() }
}

fn wait_for(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !what() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    assert!(what(), "it did not come to pass");
}

#[test]
fn a_mirror_gets_a_whole_copy_with_edited_fields_and_never_delays_the_reply() {
    let origin = Origin::ok();
    // It takes requests and never answers one.
    let silent = Origin::new(|stream, log| {
        while let Some(request) = read_message(stream) {
            log.push(&request);
        }
    });
    let rig = Rig::new(mirroring(1, 1), &[origin.address]);
    rig.endpoints(9, &[silent.address]);
    let mut client = rig.connect();
    let begun = Instant::now();
    let chunked = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let requests = [
        "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n",
        chunked,
        "POST /c HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    ];
    for request in &requests[..2] {
        client.write_all(request.as_bytes()).unwrap();
        assert!(read_message(&mut client).unwrap().starts_with(b"HTTP/1.1 200 "));
    }
    client.write_all(requests[2].as_bytes()).unwrap();
    assert!(read_message(&mut client).unwrap().starts_with(b"HTTP/1.1 200 "));
    assert!(begun.elapsed() < Duration::from_secs(4));
    wait_for(|| silent.requests().len() == 3);
    let mut copies = silent.requests();
    copies.sort();
    for (copy, original) in copies.iter().zip(requests) {
        let first = original.split("\r\n").next().unwrap();
        assert!(copy.starts_with(&format!("{first}\r\nHost: a\r\n")), "{copy}");
        assert!(copy.contains("\r\nX-Set: rule\r\nConnection: close\r\n\r\n"), "{copy}");
        assert!(!copy.contains("Expect"), "{copy}");
        assert_eq!(copy.split("\r\n\r\n").nth(1), original.split("\r\n\r\n").nth(1));
    }
    assert!(origin.requests().iter().all(|request| !request.contains("Connection")));
}

#[test]
fn a_percentage_of_requests_is_copied_exactly() {
    let (origin, mirror) = (Origin::ok(), Origin::ok());
    let rig = Rig::new(mirroring(3, 10), &[origin.address]);
    rig.endpoints(9, &[mirror.address]);
    let mut client = rig.connect();
    for _ in 0..200 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_message(&mut client).unwrap();
    }
    wait_for(|| mirror.requests().len() >= 60);
    thread::sleep(Duration::from_millis(50));
    assert_eq!((mirror.requests().len(), origin.requests().len()), (60, 200));
}

#[test]
fn a_mirror_that_does_not_keep_up_is_cut_off_and_one_that_is_down_changes_nothing() {
    let origin = Origin::ok();
    let stuck = Origin::new(|stream, log| {
        wait_for(|| !log.all().is_empty());
        log.push(format!("{}", read_to_end(stream).len()).as_bytes());
    });
    let rig = Rig::new(mirroring(1, 1), &[origin.address]);
    rig.endpoints(9, &[stuck.address]);
    let mut client = rig.connect();
    let size = 32 << 20;
    write!(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").unwrap();
    client.write_all(&vec![b'x'; size]).unwrap();
    assert!(read_message(&mut client).unwrap().starts_with(b"HTTP/1.1 200 "));
    stuck.log.push(b"read on");
    wait_for(|| stuck.requests().len() == 2);
    assert!(stuck.requests()[1].parse::<usize>().unwrap() < size);
    let (_held, unused) = nobody();
    rig.endpoints(9, &[unused]);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(read_message(&mut client).unwrap().starts_with(b"HTTP/1.1 200 "));
}

/// An origin that says which one it is.
fn named(name: &'static str) -> Origin {
    Origin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()))
}

fn sticky(carrier: SessionCarrier) -> Rule {
    let session = SessionPersistence {
        name: "X-Sticky".into(),
        carrier,
        absolute_timeout: (carrier == SessionCarrier::PermanentCookie).then_some(3_600_000),
        idle_timeout: None,
    };
    Rule { session: Some(session), ..rule() }
}

fn field<'a>(got: &'a str, name: &str) -> Option<&'a str> {
    got.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn a_session_stays_at_its_endpoint_over_swaps_until_that_is_gone() {
    for carrier in [SessionCarrier::SessionCookie, SessionCarrier::PermanentCookie, SessionCarrier::Header] {
        let origins = ["one", "two", "three"].map(named);
        let [one, two, three] = [0, 1, 2].map(|index| origins[index].address);
        let rig = Rig::new(sticky(carrier), &[one]);
        rig.endpoints(1, &[one, two, three]);
        let ask = |carried: &str| rig.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{carried}\r\n").as_bytes());
        let got = ask("");
        let carried = match carrier {
            SessionCarrier::Header => format!("X-Sticky: {}\r\n", field(&got, "X-Sticky").unwrap()),
            _ => {
                let cookie = field(&got, "Set-Cookie").unwrap();
                assert_eq!(cookie.contains("; Max-Age=3600"), carrier == SessionCarrier::PermanentCookie);
                assert!(cookie.contains("; Path=/; HttpOnly; SameSite=Lax") && !cookie.contains("Secure"));
                format!("Cookie: a=b; {}\r\n", cookie.split(';').next().unwrap())
            }
        };
        let place = |got: &str| ["one", "two", "three"].iter().position(|name| got.ends_with(name)).unwrap();
        let home = place(&got);
        for _ in 0..4 {
            let got = ask(&carried);
            assert_eq!(place(&got), home, "{got}");
            assert!(!got.contains("Sticky"), "it knows: {got}");
        }
        let others: Vec<_> =
            (0..3).filter(|other| *other != home).map(|other| origins[other].address).collect();
        rig.endpoints(1, &[others[0], origins[home].address]);
        assert_eq!(place(&ask(&carried)), home);
        rig.endpoints(1, &others);
        let got = ask(&carried);
        assert!(place(&got) != home && got.contains("X-Sticky"), "{got}");
        assert!(ask("Cookie: X-Sticky=forged.1.2\r\nX-Sticky: nonsense\r\n").contains("X-Sticky"));
    }
}

#[test]
fn a_session_stays_at_its_backend_whatever_the_weights_are() {
    let origins = ["one", "two"].map(named);
    let rig = Rig::new(sticky(SessionCarrier::Header), &[origins[0].address, origins[1].address]);
    let first = rig.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let value = field(&first, "X-Sticky").unwrap();
    for _ in 0..6 {
        let got = rig.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Sticky: {value}\r\n\r\n").as_bytes());
        assert_eq!(got.ends_with("one"), first.ends_with("one"), "{got}");
    }
}

#[test]
fn a_session_whose_endpoint_can_not_be_connected_to_goes_on_elsewhere() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = dead.local_addr().unwrap();
    let serving = thread::spawn(move || {
        let (mut stream, _) = dead.accept().unwrap();
        read_message(&mut stream).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    });
    let rig = Rig::new(sticky(SessionCarrier::Header), &[address]);
    let first = rig.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    serving.join().unwrap();
    let healthy = named("two");
    rig.endpoints(1, &[address, healthy.address]);
    let value = field(&first, "X-Sticky").unwrap();
    let got = rig.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Sticky: {value}\r\n\r\n").as_bytes());
    assert!(got.ends_with("two") && field(&got, "X-Sticky").unwrap() != value, "{got}");
}

fn constraint(percent: u32, min_count: u32) -> BackendTraffic {
    let retries = RetryConstraint { percent, interval: 3_600_000, min_count, min_interval: 3_600_000 };
    BackendTraffic { retries: Some(retries), session: None }
}

#[test]
fn a_policy_of_the_backend_says_how_many_requests_may_be_retries_and_what_is_beyond_is_503() {
    let origin =
        Origin::answering("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops".to_owned());
    let rig = Rig::new(retrying(&[500], 3, 1), &[origin.address]);
    rig.traffic(1, constraint(10, 5));
    let mut client = rig.connect();
    let mut answers = Vec::new();
    for _ in 0..100 {
        client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        answers.push(String::from_utf8(read_message(&mut client).unwrap()).unwrap());
    }
    // Whose attempts were within the budget is shown the backend's answer.
    let passed = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 500 ")).count();
    assert_eq!(passed, 1, "three of the five retries were for the first request");
    let refused = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503 ")).count();
    assert_eq!(passed + refused, 100);
    assert_eq!(origin.requests().len(), 100 + 10);
    // Another policy counts from there.
    rig.traffic(1, constraint(20, 5));
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(read_message(&mut client).unwrap().starts_with(b"HTTP/1.1 500 "));
    assert_eq!(origin.requests().len(), 110 + 4);
}

#[test]
fn a_connection_that_can_not_be_made_again_within_the_budget_is_503() {
    let (_held, unused) = nobody();
    let rig = Rig::new(retrying(&[500], 30, 1), &[unused]);
    rig.traffic(1, constraint(0, 2));
    let got = rig.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 503 ") && got.ends_with("Service Unavailable\n"), "{got}");
}

fn sticking(name: &str) -> BackendTraffic {
    let carrier = SessionCarrier::Header;
    let session =
        SessionPersistence { name: name.into(), carrier, absolute_timeout: None, idle_timeout: None };
    BackendTraffic { retries: None, session: Some(session) }
}

#[test]
fn sessions_of_a_backend_stay_at_its_endpoint_whatever_the_weights_are() {
    let origins = ["one", "two", "three", "four"].map(named);
    let rig = Rig::new(rule(), &[origins[0].address, origins[2].address]);
    rig.endpoints(1, &[origins[0].address, origins[1].address]);
    let ask = |carried: &str| rig.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{carried}\r\n").as_bytes());
    let place = |got: &str| got.rsplit("\r\n\r\n").next().unwrap().to_owned();
    // The second backend has sessions, the first has none.
    rig.endpoints(2, &[origins[2].address, origins[3].address]);
    rig.traffic(2, sticking("X-Second"));
    let first = (0..8).map(|_| ask("")).find(|got| got.contains("X-Second")).expect("it gets half of them");
    let value = field(&first, "X-Second").unwrap();
    assert!(["three", "four"].contains(&&*place(&first)));
    for _ in 0..8 {
        let got = ask(&format!("X-Second: {value}\r\n"));
        assert_eq!(place(&got), place(&first));
        assert!(!got.contains("X-Second"), "it knows: {got}");
    }
    let others: std::collections::BTreeSet<_> =
        (0..8).map(|_| ask("X-First: 1\r\n")).map(|got| place(&got)).collect();
    assert_eq!(others.len(), 4, "who has no session goes everywhere: {others:?}");
}

#[test]
fn sessions_of_the_rule_count_before_those_of_its_backends() {
    let origin = named("one");
    let rig = Rig::new(sticky(SessionCarrier::Header), &[origin.address]);
    rig.traffic(1, sticking("X-Backend"));
    let got = rig.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(got.contains("X-Sticky: ") && !got.contains("X-Backend"), "{got}");
}
