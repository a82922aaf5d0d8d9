//! Owns the heads of responses as HTTP/2 sends them.
//!
//! Pure. Copies what may pass, with the edits of the route; fields of the connection never pass (RFC 9113
//! section 8.2.2).

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{HeaderMap, Response as Head2, StatusCode};

use crate::http::authorise::Denial;
use crate::http::filters::HeaderEdits;
use crate::http::head::{Head, Response};
use crate::http::lines::push;
use crate::http::render::{Nominated, is_of_message};
use crate::http::respond::{self, Reason};
use crate::http::validate::framing::Framing;

/// A final response. `framing` is what delimits the content that is sent; where none is, the length that
/// the upstream announced is passed on (HEAD, 304).
pub(super) fn response(
    response: &Response,
    (head, bytes): (&Head, &[u8]),
    edits: &HeaderEdits,
    framing: Framing,
) -> Head2<()> {
    let mut sent = interim(response, (head, bytes), |name| !edits.drops(name));
    let announced =
        if framing == Framing::None && response.status != 204 { response.framing } else { framing };
    if let Framing::Length(length) = announced {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(length).as_bytes();
        push(CONTENT_LENGTH.as_str().as_bytes(), digits, sent.headers_mut());
    }
    append(edits, sent.headers_mut());
    sent
}

/// An interim response (1xx), or the fields of a final one that `passes` lets through.
pub(super) fn interim(
    response: &Response,
    (head, bytes): (&Head, &[u8]),
    passes: impl Fn(&[u8]) -> bool,
) -> Head2<()> {
    let mut sent = with_status(response.status);
    // The fields at once, and what the proxy adds: a map that grows is filled again.
    *sent.headers_mut() = HeaderMap::with_capacity(head.fields(bytes).count() + 1);
    let all = head.fields(bytes);
    let nominated = Nominated::new(response.nominates, &all);
    for field in head.fields(bytes) {
        if is_of_message(field.known, true) && !nominated.names(field.name) && passes(field.name) {
            push(field.name, field.value, sent.headers_mut());
        }
    }
    sent
}

/// The answer to an extended CONNECT that the upstream took (RFC 8441 section 5.1): 200 stands for 101.
pub(super) fn connected(response: &Response, head: (&Head, &[u8]), edits: &HeaderEdits) -> Head2<()> {
    let is_of_http1 = |name: &[u8]| name.eq_ignore_ascii_case(b"sec-websocket-accept");
    let mut sent = interim(response, head, |name| !edits.drops(name) && !is_of_http1(name));
    *sent.status_mut() = StatusCode::OK;
    append(edits, sent.headers_mut());
    sent
}

/// An answer of the proxy's own, and its content.
pub(super) fn answer(reason: Reason) -> (Head2<()>, String) {
    let status = reason.status();
    let mut sent = dated(status);
    let text = format!("{}\n", respond::phrase(status));
    let headers = sent.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CONTENT_LENGTH, text.len().into());
    if status == 405 {
        headers.insert(http::header::ALLOW, HeaderValue::from_static(respond::ALLOWED));
    }
    (sent, text)
}

/// An answer of the proxy's own to a call of gRPC: trailers alone.
pub(super) fn call_answer(reason: Reason, grpc_status: u8) -> Head2<()> {
    let mut sent = dated(200);
    let headers = sent.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", u16::from(grpc_status).into());
    push(b"grpc-message", respond::phrase(reason.status()).as_bytes(), headers);
    sent
}

/// A redirect.
pub(super) fn redirect(status: u16, location: &[u8], edits: &HeaderEdits) -> Head2<()> {
    let mut sent = dated(status);
    push(LOCATION.as_str().as_bytes(), location, sent.headers_mut());
    sent.headers_mut().insert(CONTENT_LENGTH, 0_u64.into());
    append(edits, sent.headers_mut());
    sent
}

/// The answer of a service that did not let a request pass. `edits`: those of the filters before it.
pub(super) fn denial(denial: &Denial, edits: &HeaderEdits) -> Head2<()> {
    let mut sent = dated(denial.status);
    for field in denial.fields.iter().filter(|field| !edits.drops(&field.name)) {
        push(&field.name, &field.value, sent.headers_mut());
    }
    if denial.has_content() {
        sent.headers_mut().insert(CONTENT_LENGTH, denial.content.len().into());
    }
    append(edits, sent.headers_mut());
    sent
}

/// The answer to a preflight.
pub(super) fn preflight(edits: &HeaderEdits) -> Head2<()> {
    let mut sent = dated(respond::PREFLIGHT);
    append(edits, sent.headers_mut());
    sent
}

/// The beginning of an answer of our own, for which the proxy is the origin (RFC 9110 section 6.6.1).
fn dated(status: u16) -> Head2<()> {
    let mut head = with_status(status);
    push(b"date", respond::date().as_bytes(), head.headers_mut());
    head
}

fn with_status(status: u16) -> Head2<()> {
    let mut head = Head2::new(());
    *head.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    head
}

fn append(edits: &HeaderEdits, headers: &mut HeaderMap) {
    for field in edits.appended() {
        push(field.name.as_bytes(), field.value.as_bytes(), headers);
    }
}
