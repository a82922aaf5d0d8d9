//! What the one validation layer refuses and lets pass.

use proptest::prelude::*;

use super::*;

fn fields<'a>(list: &'a [(&'a str, &'a str)]) -> Result<Vec<FieldRef<'a>>, Reason> {
    let field = |(name, value): &(&'a str, &'a str)| {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        Ok(FieldRef::new(field::check(name, value)?, name, value))
    };
    list.iter().map(field).collect()
}

/// A request of HTTP/2 with these pseudo-header fields and fields.
fn http2<'a>(
    method: &'a str,
    path: &'a str,
    authority: Option<&'a str>,
    list: &'a [(&'a str, &'a str)],
) -> Result<Request<'a>, Reason> {
    let line = Line {
        method: method.as_bytes(),
        target: path.as_bytes(),
        version: Version::Http2,
        authority: authority.map(str::as_bytes),
    };
    request(line, fields(list)?)
}

#[track_caller]
fn refused(id: &str, got: Result<Request<'_>, Reason>, want: Reason) {
    assert_eq!(got.err(), Some(want), "{id}");
}

#[test]
fn http_2_fields_that_are_malformed_are_refused() {
    let with = |name: &'static str, value: &'static str| {
        http2("GET", "/", Some("a.example"), Box::leak(Box::new([(name, value)])))
    };
    for (id, name, value) in [
        ("D02", "a:b", "c"),
        ("D03", "a b", "c"),
        ("D04", "a\r\nb", "c"),
        ("D05", "a\0", "c"),
        ("D06", "", "c"),
        ("D07", "a\u{ff}", "c"),
        ("D08", "a", "b\r\nc"),
        ("D09", "a", "b\nc"),
        ("D10", "a", "b\rc"),
        ("D11", "a", "b\0c"),
        ("D14", "transfer-encoding", "chunked"),
        ("D15", "connection", "close"),
        ("D16", "keep-alive", "5"),
        ("D17", "proxy-connection", "x"),
        ("D18", "upgrade", "x"),
        ("D19", "te", "gzip"),
    ] {
        refused(id, with(name, value), Reason::MalformedField);
    }
    for (id, value) in [("D24", "5, 5"), ("D25", "+5")] {
        refused(id, with("content-length", value), Reason::MalformedContentLength);
    }
    assert!(with("te", "trailers").unwrap().takes_trailers, "D59");
    refused("Expect", with("expect", "x"), Reason::ExpectationFailed);
}

#[test]
fn http_2_targets_and_authorities_that_are_malformed_are_refused() {
    let of = |path: &'static str, authority: Option<&'static str>| http2("GET", path, authority, &[]);
    for (id, path) in [
        ("D35", "/\r\n"),
        ("D36", "/ a"),
        ("D37", "/\0"),
        ("D38", "a"),
        ("D39", "http://a/"),
        ("D40", "/#a"),
        ("D34", ""),
    ] {
        refused(id, of(path, Some("a.example")), Reason::MalformedTarget);
    }
    for (id, authority) in [("D45", "u@a"), ("D46", "a b"), ("D47", "a/b"), ("D48", "a\r\n"), ("D49", "")] {
        refused(id, of("/", Some(authority)), Reason::MalformedHost);
    }
    refused("D51", of("/", None), Reason::MissingHost);
    for (id, method) in [("D41", "G ET"), ("D42", "G\r\n"), ("D43", "")] {
        refused(id, http2(method, "/", Some("a"), &[]), Reason::MalformedRequestLine);
    }
    refused("D53", http2("CONNECT", "/", Some("a"), &[]), Reason::MethodNotAllowed);
}

#[test]
fn all_places_that_name_a_host_must_agree() {
    let with =
        |authority, hosts: &'static [(&'static str, &'static str)]| http2("GET", "/", authority, hosts);
    refused("D50", with(Some("a.example"), &[("host", "b.example")]), Reason::MalformedHost);
    refused("D52", with(None, &[("host", "a"), ("host", "a")]), Reason::MalformedHost);
    assert_eq!(with(Some("A.example:80"), &[("host", "a.example")]).unwrap().authority.host, b"A.example");
    assert_eq!(with(None, &[("host", "a.example.")]).unwrap().authority.host, b"a.example");
    let port = with(Some("[::1]:8080"), &[]).unwrap().authority;
    assert_eq!((port.host, port.port), (&b"[::1]"[..], Some(8080)));
    for bad in ["[::1", "[::g]", "[::1]x", "a..b:", ":80", "a:65536", ".a", "a.."] {
        refused(bad, with(Some(bad), &[]), Reason::MalformedHost);
    }
}

proptest! {
    #[test]
    fn no_target_panics_and_what_is_accepted_can_be_sent(target in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(target) = Target::parse(&target, b"GET") {
            let sent = [&target.path[..], target.query].concat();
            prop_assert!(sent.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#'));
        }
    }

    #[test]
    fn an_accepted_authority_holds_nothing_that_could_be_read_otherwise(text in prop::collection::vec(any::<u8>(), 0..30)) {
        if let Ok(authority) = Authority::parse(&text) {
            prop_assert!(authority.text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-.:[]".contains(byte)));
        }
    }
}
