//! What a rule does besides editing and forwarding: cross-origin sharing, filters of single backends.

use std::io::Write;

use proxy_config::route::{Cors, Filter, PathEdit, PathMatch, Redirect, Rewrite, Rule};

use super::rig::{Origin, Rig, read_message, rule, without_date};

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
        target: proxy_config::route::Target::Backend(proxy_config::name::UnitId::backend(
            &super::rig::name("backend"),
            1,
        )),
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
