//! External authorisation by requests of HTTP/1: what a service is shown, what its answer does, and that
//! nothing passes where it says nothing.

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use proxy::http::respond::Reason;
use proxy::metrics::text::render;
use proxy_config::name::UnitId;
use proxy_config::route::{
    AuthProtocol, Cors, ExternalAuth, Field, Filter, HeaderEdits, Mirror, PathEdit, Redirect, Rewrite, Rule,
    Target,
};

use super::rig::{Origin, Rig, name, nobody, read_message, read_to_end, rule, without_date};

const YES: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

struct Check {
    path: &'static str,
    shown: &'static [&'static str],
    passed_on: &'static [&'static str],
    max_body: u32,
}

const PLAIN: Check = Check { path: "", shown: &[], passed_on: &[], max_body: 0 };

impl Check {
    /// A filter by which a service is asked whose port this is.
    fn of(&self, port: u16) -> Filter {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Filter::ExternalAuth(ExternalAuth {
            target: Target::Backend(UnitId::backend(&name("backend"), port)),
            protocol: AuthProtocol::Http {
                path: self.path.into(),
                allowed_headers: names(self.shown),
                allowed_response_headers: names(self.passed_on),
            },
            max_body: self.max_body,
        })
    }
}

fn set(field: &str, value: &str) -> HeaderEdits {
    let set = vec![Field { name: field.into(), value: value.into() }];
    HeaderEdits { set, ..HeaderEdits::default() }
}

/// A proxy with these filters, and a service at port 9.
fn rig(filters: Vec<Filter>, origin: &Origin, service: &Origin) -> Rig {
    let rig = Rig::new(Rule { filters, ..rule() }, &[origin.address]);
    rig.endpoints(9, &[service.address]);
    rig
}

#[track_caller]
fn check_refused(rig: &Rig, reason: Reason, count: u64) {
    let line = format!("portreeve_refusals_total{{reason=\"{}\"}} {count}", reason.label());
    let shown = render(&rig.metrics);
    assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
}

#[test]
fn a_service_is_shown_no_more_than_it_must_be_and_what_it_says_replaces_what_the_client_said() {
    let origin = Origin::ok();
    let service = Origin::answering(
        "HTTP/1.1 200 OK\r\nX-User: anna\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nHost: evil\r\n\
         Connection: x-hop\r\nX-Hop: 1\r\n\r\nok",
    );
    let rig = rig(vec![PLAIN.of(9)], &origin, &service);
    let mut client = rig.connect();
    for _ in 0..2 {
        client
            .write_all(
                b"POST /a/../b?c HTTP/1.1\r\nHost: a.example\r\nAuthorization: Basic x\r\nCookie: s=1\r\n\
                  X-User: root\r\nContent-Length: 2\r\n\r\nhi",
            )
            .unwrap();
        assert!(read_message(&mut client).unwrap().ends_with(b"ok"));
    }
    let asked =
        "POST /b?c HTTP/1.1\r\nHost: a.example\r\nAuthorization: Basic x\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(service.requests(), [asked, asked]);
    let passed = "POST /b?c HTTP/1.1\r\nHost: a.example\r\nAuthorization: Basic x\r\nCookie: s=1\r\n\
                  X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\n\
                  Content-Length: 2\r\nX-User: anna\r\n\r\nhi";
    assert_eq!(origin.requests(), [passed, passed]);
}

#[test]
fn fields_pass_as_the_lists_say_and_the_prefix_stands_before_the_path() {
    let origin = Origin::ok();
    let service = Origin::answering("HTTP/1.1 200 OK\r\nX-One: 1\r\nX-Two: 2\r\nContent-Length: 0\r\n\r\n");
    let check = Check {
        path: "/check/",
        shown: &["x-a", "Cookie", "X-Forwarded-For"],
        passed_on: &["x-two"],
        max_body: 0,
    };
    let rig = rig(vec![check.of(9)], &origin, &service);
    rig.send(
        b"GET /b HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-B: 1\r\nCookie: s=1\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n",
    );
    assert_eq!(
        service.requests(),
        ["GET /check/b HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nCookie: s=1\r\nX-Forwarded-For: 127.0.0.1\r\n\
          Content-Length: 0\r\n\r\n"]
    );
    let passed = &origin.requests()[0];
    assert!(passed.contains("X-Two: 2\r\n") && !passed.contains("X-One"), "{passed}");
}

#[test]
fn what_is_the_services_to_say_no_client_says_for_it() {
    let (origin, service) = (Origin::ok(), Origin::answering(YES));
    let rig = rig(vec![Check { passed_on: &["X-User", "Host"], ..PLAIN }.of(9)], &origin, &service);
    rig.send(b"GET /b HTTP/1.1\r\nHost: a\r\nx-user: root\r\nX-Other: 1\r\n\r\n");
    let passed = &origin.requests()[0];
    assert!(!passed.contains("root") && passed.contains("X-Other: 1\r\n"), "{passed}");
    assert!(passed.contains("Host: a\r\n"), "{passed}");
}

#[test]
fn what_a_service_denies_is_answered_as_it_says_and_the_connection_goes_on() {
    let origin = Origin::ok();
    let service = Origin::new(|stream, log| {
        while let Some(request) = read_message(stream) {
            log.push(&request);
            let answer: &[u8] = match request.starts_with(b"HEAD") {
                true => b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 5\r\n\r\n",
                false => {
                    b"HTTP/1.1 401 Unauthorized\r\nDate: then\r\nWWW-Authenticate: Basic\r\nSet-Cookie: a=1\r\n\
                      Transfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n"
                }
            };
            stream.write_all(answer).unwrap();
        }
    });
    let cors = Filter::Cors(Cors { allow_origins: vec!["*".into()], ..Cors::default() });
    let filters = vec![cors, Filter::ResponseHeaders(set("X-Before", "1")), PLAIN.of(9)];
    let rig = rig([filters, vec![Filter::ResponseHeaders(set("X-After", "1"))]].concat(), &origin, &service);
    let mut client = rig.connect();
    client
        .write_all(b"POST /a HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nContent-Length: 2\r\n\r\nhi")
        .unwrap();
    let got = String::from_utf8(read_message(&mut client).unwrap()).unwrap();
    assert_eq!(
        without_date(&got),
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nSet-Cookie: a=1\r\nContent-Length: 3\r\n\
         X-Before: 1\r\nAccess-Control-Allow-Origin: *\r\n\r\nno!"
    );
    client.write_all(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let got = read_to_end(&mut client);
    assert!(got.starts_with("HTTP/1.1 302 Found\r\n") && got.contains("Location: /login\r\n"), "{got}");
    assert!(got.ends_with("\r\n\r\n"), "{got}");
    assert!(origin.requests().is_empty());
    check_refused(&rig, Reason::AuthorisationDenied, 2);
}

#[test]
fn nothing_passes_where_a_service_says_nothing() {
    let origin = Origin::ok();
    let answers: [&[u8]; 4] = [
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 6\r\n\r\nsecret",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-User: \xff\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nshort",
    ];
    for answer in answers {
        let service = Origin::new(move |stream, _| {
            read_message(stream);
            stream.write_all(answer).unwrap();
        });
        let rig = rig(vec![PLAIN.of(9)], &origin, &service);
        let got = rig.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(got.starts_with("HTTP/1.1 503 ") && !got.contains("secret"), "{got}");
        check_refused(&rig, Reason::AuthorisationFailed, 1);
    }
    let (_held, nobody) = nobody();
    let rig = Rig::new(Rule { filters: vec![PLAIN.of(9)], ..rule() }, &[origin.address]);
    // First there is no such backend, then it has no endpoint that can be connected to, then none at all.
    assert!(rig.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 500 "));
    rig.endpoints(9, &[nobody]);
    assert!(rig.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 503 "));
    rig.endpoints(9, &[]);
    assert!(rig.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 503 "));
    assert!(origin.requests().is_empty());
}

#[test]
fn a_reference_that_is_not_valid_refuses_everything() {
    let origin = Origin::ok();
    for target in [Target::Invalid("missing".into()), Target::NotPermitted("no grant".into())] {
        let Filter::ExternalAuth(auth) = PLAIN.of(9) else { unreachable!() };
        let filter = Filter::ExternalAuth(ExternalAuth { target, ..auth });
        let rig = Rig::new(Rule { filters: vec![filter], ..rule() }, &[origin.address]);
        assert!(rig.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 500 "));
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn a_connection_that_a_service_has_closed_meanwhile_costs_no_request() {
    let origin = Origin::ok();
    let served = AtomicUsize::new(0);
    // Each connection serves one check, and says so only by ending.
    let service = Origin::new(move |stream, log| {
        let request = read_message(stream).unwrap();
        log.push(&request);
        served.fetch_add(1, SeqCst);
        stream.write_all(YES.as_bytes()).unwrap();
    });
    let rig = rig(vec![PLAIN.of(9)], &origin, &service);
    let mut client = rig.connect();
    for _ in 0..10 {
        client.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(read_message(&mut client).unwrap().starts_with(b"HTTP/1.1 200 "));
    }
    assert_eq!(service.requests().len(), 10);
}

#[test]
fn a_check_of_any_method_is_made_again_where_a_connection_ends_with_it() {
    let origin = Origin::ok();
    // Each connection serves one check, takes a second one and says nothing to it.
    let service = Origin::new(|stream, log| {
        log.push(&read_message(stream).unwrap());
        stream.write_all(YES.as_bytes()).unwrap();
        read_message(stream);
    });
    let rig = rig(vec![PLAIN.of(9)], &origin, &service);
    let mut client = rig.connect();
    for _ in 0..3 {
        client.write_all(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").unwrap();
        assert!(read_message(&mut client).unwrap().starts_with(b"HTTP/1.1 200 "));
    }
    assert_eq!(service.requests().len(), 3);
}

#[test]
fn content_is_shown_and_passed_on_whole_with_its_trailers() {
    let (origin, service) = (Origin::ok(), Origin::answering(YES));
    let rig = rig(vec![Check { max_body: 8, ..PLAIN }.of(9)], &origin, &service);
    let mut client = rig.connect();
    let chunked = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n";
    for request in [chunked, "PUT /b HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n12345678"] {
        client.write_all(request.as_bytes()).unwrap();
        assert!(read_message(&mut client).unwrap().ends_with(b"ok"));
    }
    let [first, second] = &service.requests()[..] else { panic!() };
    assert_eq!(first, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde");
    assert!(second.ends_with("Content-Length: 8\r\n\r\n12345678"), "{second}");
    let [first, second] = &origin.requests()[..] else { panic!() };
    assert!(
        first.ends_with("Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n"),
        "{first}"
    );
    assert!(second.ends_with("Content-Length: 8\r\n\r\n12345678"), "{second}");
}

#[test]
fn a_client_that_waits_to_send_its_content_is_told_once_to_go_on() {
    let (origin, service) = (Origin::ok(), Origin::answering(YES));
    let rig = rig(vec![Check { max_body: 8, ..PLAIN }.of(9)], &origin, &service);
    let mut client = rig.connect();
    client
        .write_all(b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .unwrap();
    assert_eq!(read_message(&mut client).unwrap(), b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hi").unwrap();
    assert!(read_message(&mut client).unwrap().starts_with(b"HTTP/1.1 200 "));
    let passed = &origin.requests()[0];
    assert!(!passed.contains("Expect") && passed.ends_with("\r\n\r\nhi"), "{passed}");
}

#[test]
fn content_beyond_what_may_be_shown_is_refused_before_anybody_is_asked() {
    let (origin, service) = (Origin::ok(), Origin::answering(YES));
    let rig = rig(vec![Check { max_body: 4, ..PLAIN }.of(9)], &origin, &service);
    for request in [
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let got = rig.send(request.as_bytes());
        assert!(got.starts_with("HTTP/1.1 413 ") && got.contains("Connection: close"), "{got}");
    }
    let got = rig.send(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n");
    assert!(got.starts_with("HTTP/1.1 400 "), "{got}");
    assert!(origin.requests().is_empty() && service.requests().is_empty());
    check_refused(&rig, Reason::ContentTooLarge, 3);
}

#[test]
fn a_request_whose_time_is_over_within_its_content_is_the_last_of_its_connection() {
    let (origin, service) = (Origin::ok(), Origin::answering(YES));
    let mut rule = Rule { filters: vec![Check { max_body: 8, ..PLAIN }.of(9)], ..rule() };
    rule.timeouts.request = Some(100);
    let rig = Rig::new(rule, &[origin.address]);
    rig.endpoints(9, &[service.address]);
    let mut client = rig.connect();
    client.write_all(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhi").unwrap();
    let got = read_to_end(&mut client);
    assert!(got.starts_with("HTTP/1.1 504 ") && got.contains("Connection: close\r\n"), "{got}");
    assert!(service.requests().is_empty());
}

#[test]
fn filters_before_a_check_are_seen_by_it_and_those_behind_act_on_what_it_says() {
    let origin = Origin::ok();
    let service =
        Origin::answering("HTTP/1.1 200 OK\r\nX-User: anna\r\nX-Role: a\r\nContent-Length: 0\r\n\r\n");
    let rewrite = Filter::Rewrite(Rewrite {
        hostname: Some("inner".into()),
        path: Some(PathEdit::Full("/new".into())),
    });
    let check = Check { shown: &["x-early", "x-late"], ..PLAIN };
    let filters = vec![
        Filter::RequestHeaders(set("X-Early", "1")),
        rewrite,
        check.of(9),
        Filter::RequestHeaders(HeaderEdits { remove: vec!["x-role".into()], ..set("X-Late", "1") }),
    ];
    let rig = rig(filters, &origin, &service);
    rig.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        service.requests(),
        ["GET /new HTTP/1.1\r\nHost: inner\r\nX-Early: 1\r\nContent-Length: 0\r\n\r\n"]
    );
    let passed = &origin.requests()[0];
    for line in
        ["GET /new HTTP/1.1\r\nHost: inner\r\n", "X-Early: 1\r\n", "X-User: anna\r\n", "X-Late: 1\r\n"]
    {
        assert!(passed.contains(line), "{line} in {passed}");
    }
    assert!(!passed.contains("X-Role"), "{passed}");
}

#[test]
fn a_backend_may_have_a_check_of_its_own_behind_the_rules() {
    let (origin, first) =
        (Origin::ok(), Origin::answering("HTTP/1.1 200 OK\r\nX-One: 1\r\nContent-Length: 0\r\n\r\n"));
    let second = Origin::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let mut rule = Rule { filters: vec![PLAIN.of(9)], ..rule() };
    rule.backends.push(proxy_config::route::WeightedBackend {
        target: Target::Backend(UnitId::backend(&name("backend"), 7)),
        weight: 1,
        filters: vec![Check { shown: &["x-one"], ..PLAIN }.of(8)],
    });
    let rig = Rig::new(rule, &[]);
    rig.endpoints(9, &[first.address]);
    rig.endpoints(8, &[second.address]);
    rig.endpoints(7, &[origin.address]);
    let got = rig.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 403 "), "{got}");
    assert_eq!(first.requests().len(), 1);
    assert!(second.requests()[0].contains("X-One: 1\r\n"));
    assert!(origin.requests().is_empty());
}

#[test]
fn nothing_is_copied_or_redirected_before_it_passes_and_a_preflight_needs_not() {
    let (origin, copies) = (Origin::ok(), Origin::ok());
    let no = Origin::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    let mirror = Filter::Mirror(Mirror {
        target: Target::Backend(UnitId::backend(&name("backend"), 8)),
        numerator: 1,
        denominator: 1,
    });
    let cors = Filter::Cors(Cors { allow_origins: vec!["*".into()], ..Cors::default() });
    let rig = rig(vec![mirror, PLAIN.of(9), cors], &origin, &no);
    rig.endpoints(8, &[copies.address]);
    assert!(rig.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 403 "));
    let preflight =
        b"OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nAccess-Control-Request-Method: PUT\r\n\r\n";
    assert!(rig.send(preflight).starts_with("HTTP/1.1 204 "));
    let redirect = Redirect { scheme: None, hostname: Some("b".into()), port: None, path: None, status: 302 };
    let redirecting = |service| {
        let filters = vec![Check { max_body: 8, ..PLAIN }.of(9), Filter::Redirect(redirect.clone())];
        let rig = Rig::new(Rule { filters, ..rule() }, &[]);
        rig.endpoints(9, &[service]);
        let mut client = rig.connect();
        let mut answers = Vec::new();
        for _ in 0..2 {
            client.write_all(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").unwrap();
            answers.push(String::from_utf8(read_message(&mut client).unwrap()).unwrap());
        }
        answers
    };
    assert!(redirecting(no.address).iter().all(|answer| answer.starts_with("HTTP/1.1 403 ")));
    let yes = Origin::answering(YES);
    assert!(redirecting(yes.address).iter().all(|answer| answer.contains("Location: http://b")));
    assert!(origin.requests().is_empty() && copies.requests().is_empty());
}

#[test]
fn a_request_to_switch_protocols_is_asked_about_as_any_other() {
    let origin = Origin::new(|stream, log| {
        log.push(&read_message(stream).unwrap());
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
            )
            .unwrap();
    });
    let service = Origin::answering("HTTP/1.1 200 OK\r\nX-User: anna\r\nContent-Length: 0\r\n\r\n");
    let rig = rig(vec![PLAIN.of(9)], &origin, &service);
    let got = rig.send(b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 101 ") && got.ends_with("hello"), "{got}");
    assert_eq!(service.requests(), ["GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"]);
    assert!(origin.requests()[0].contains("X-User: anna\r\n"));
    let no = Origin::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    rig.endpoints(9, &[no.address]);
    let got = rig.send(b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(got.starts_with("HTTP/1.1 403 "), "{got}");
}
