//! Heads of HTTP/1, whole and in pieces.

use proptest::prelude::*;

use super::*;

const HEAD: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\nX-One:  1 \t\r\nCookie:\r\n\r\n";

fn fields(head: &Head, bytes: &[u8]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    head.fields(bytes).map(|field| (text(field.name), text(field.value))).collect()
}

proptest! {
    #[test]
    fn what_is_read_of_a_head_does_not_depend_on_how_it_arrives(
        cuts in prop::collection::vec(0..HEAD.len(), 0..8),
    ) {
        let mut whole = Head::default();
        prop_assert_eq!(whole.parse(HEAD), Ok(Some(HEAD.len())));
        let mut piecewise = Head::default();
        let mut cuts = cuts;
        cuts.sort_unstable();
        for cut in cuts {
            prop_assert_eq!(piecewise.parse(&HEAD[..cut]), Ok(None));
        }
        prop_assert_eq!(piecewise.parse(HEAD), Ok(Some(HEAD.len())));
        prop_assert_eq!(fields(&piecewise, HEAD), fields(&whole, HEAD));
    }

    #[test]
    fn no_bytes_panic_and_what_is_accepted_holds_no_bare_line_end(
        bytes in prop::collection::vec(prop::sample::select(&b"GET / HTTP/1.1:a\r\n\0 \t\xff"[..]), 0..80),
    ) {
        let mut head = Head::default();
        if let Ok(Some(length)) = head.parse(&bytes) {
            let lines = bytes[..length].strip_suffix(b"\r\n").unwrap();
            for (at, byte) in lines.iter().enumerate() {
                prop_assert!(*byte != b'\n' || lines[at - 1] == b'\r');
            }
            let clean = |text: &[u8]| !text.iter().any(|byte| b"\r\n\0".contains(byte));
            prop_assert!(head.fields(&bytes).all(|field| clean(field.name) && clean(field.value)));
        }
    }
}

#[test]
fn names_and_values_are_found_without_the_space_around_them() {
    let mut head = Head::default();
    head.parse(HEAD).unwrap();
    let want = [("Host", "a"), ("X-One", "1"), ("Cookie", "")];
    assert_eq!(fields(&head, HEAD), want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(head.request_line(HEAD).unwrap().target, b"/a");
}

#[test]
fn a_request_line_is_taken_apart() {
    let check = |line: &str, want: Result<(&str, &str), Reason>| {
        let bytes = format!("{line}\r\n\r\n").into_bytes();
        let mut head = Head::default();
        head.parse(&bytes).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let got = head.request_line(&bytes).map(|line| (text(line.method), text(line.target)));
        assert_eq!(got, want.map(|(method, target)| (method.to_owned(), target.to_owned())), "{line}");
    };
    check("GET /a HTTP/1.1", Ok(("GET", "/a")));
    check("GET /a HTTP/1.0", Ok(("GET", "/a")));
    // What holds a space is no target: the validation refuses it.
    check("GET /a b HTTP/1.1", Ok(("GET", "/a b")));
    check("GET /a HTTP/1.2", Err(Reason::VersionNotSupported));
    check("GET /a", Err(Reason::MalformedRequestLine));
    check("GET HTTP/1.1", Err(Reason::MalformedRequestLine));
    check("GET /HTTP/1.1", Err(Reason::MalformedRequestLine));
    check("GET /a HTTP/1.1 ", Err(Reason::MalformedRequestLine));
    check("GET /a http/1.1", Err(Reason::MalformedRequestLine));
    check("HTTP/1.1", Err(Reason::MalformedRequestLine));
}

#[test]
fn what_follows_a_head_is_not_part_of_it() {
    let bytes = [HEAD, HEAD].concat();
    let mut head = Head::default();
    assert_eq!(head.parse(&bytes), Ok(Some(HEAD.len())));
    head.reset();
    assert_eq!(head.parse(&bytes[HEAD.len()..]), Ok(Some(HEAD.len())));
}

#[test]
fn limits_hold_before_a_line_has_ended() {
    let endless = |start: &str, more: &str, count: usize| {
        let mut head = Head::default();
        head.parse(format!("{start}{}", more.repeat(count)).as_bytes())
    };
    let line = "GET / HTTP/1.1\r\n";
    assert_eq!(endless("GET /", "a", MAX_REQUEST_LINE), Err(Reason::TargetTooLong));
    assert_eq!(endless(&format!("{line}X: "), "a", MAX_FIELD_LINE), Err(Reason::FieldsTooLarge));
    assert_eq!(endless(line, "X: a\r\n", MAX_FIELDS + 1), Err(Reason::FieldsTooLarge));
    let large = format!("X: {}\r\n", "a".repeat(8000));
    assert_eq!(endless(line, &large, 9), Err(Reason::FieldsTooLarge));
    assert_eq!(endless(line, &large, 7), Ok(None));
}

#[test]
fn a_status_line_is_taken_apart() {
    let check = |line: &str, want: Option<(u16, &str)>| {
        let bytes = format!("{line}\r\n\r\n").into_bytes();
        let mut head = Head::default();
        head.parse(&bytes).unwrap();
        let got = head.response(&bytes).ok();
        let reason = |response: &Response| String::from_utf8(head.reason(response, &bytes).to_vec()).unwrap();
        let got = got.map(|response| (response.status, reason(&response)));
        assert_eq!(got, want.map(|(status, reason)| (status, reason.to_owned())), "{line}");
    };
    check("HTTP/1.1 200 OK", Some((200, " OK")));
    check("HTTP/1.0 404 Not Found", Some((404, " Not Found")));
    check("HTTP/1.1 200", Some((200, "")));
    check("HTTP/1.1 099 x", None);
    check("HTTP/1.1 600 x", None);
    check("HTTP/1.1 20 x", None);
    check("HTTP/1.1 2000 x", None);
    check("HTTP/2.0 200 OK", None);
    check("HTTP/1.1  200 OK", None);
    check("200 OK", None);
}
