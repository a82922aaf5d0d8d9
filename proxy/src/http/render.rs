//! Owns the heads that are sent: a request's to the upstream, a response's to the client.
//!
//! Pure. Copies what may pass, field by field, with the edits of the route applied on the way; fields of
//! the connection never pass, those that delimit content or say who the client is are written anew.
//! Source: RFC 9110 section 7.6, RFC 9112.

use std::net::IpAddr;

use proxy_config::backend::BackendProtocol;

use super::filters::{Filters, HeaderEdits};
use super::head::{Head, Response};
use super::validate::field::{FieldRef, Known, is_disguised};
use super::validate::framing::Framing;
use super::validate::{Request, Upgrade, options};

const FOR: &str = "X-Forwarded-For";
const PROTO: &str = "X-Forwarded-Proto";
const HOST: &str = "X-Forwarded-Host";

/// Where a request comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    address: Box<str>,
    scheme: &'static str,
    /// The fields that say so, up to the value of the last one, which is the request's.
    lines: Box<str>,
}

impl Origin {
    /// A client at an address, which came over TLS or not.
    pub fn new(address: IpAddr, tls: bool) -> Self {
        let address = address.to_canonical().to_string().into();
        let scheme = if tls { "https" } else { "http" };
        let lines = format!("{FOR}: {address}\r\n{PROTO}: {scheme}\r\n{HOST}: ").into();
        Self { address, scheme, lines }
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The fields that tell a backend who the client is.
    pub(super) fn fields<'a>(&'a self, request: &Request<'a>) -> [(&'static str, &'a [u8]); 3] {
        let (address, scheme) = (self.address.as_bytes(), self.scheme.as_bytes());
        [(FOR, address), (PROTO, scheme), (HOST, request.authority.text)]
    }
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a field; as it came, where it came in the form that is written.
#[inline]
fn line(field: &FieldRef<'_>, out: &mut Vec<u8>) {
    match field.line {
        [] => put(out, &[field.name, b": ", field.value, b"\r\n"]),
        line => out.extend_from_slice(line),
    }
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[inline]
fn put_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            number(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
}

/// Appends the head of a request as an upstream gets it that speaks this.
pub fn request<'a>(
    request: &Request<'_>,
    fields: impl Iterator<Item = FieldRef<'a>> + Clone,
    (filters, matched): (&Filters, usize),
    (origin, protocol): (&Origin, BackendProtocol),
    out: &mut Vec<u8>,
) {
    put(out, &[request.method_name, b" "]);
    filters.rewrite.path(&request.path, matched, out);
    let host = filters.rewrite.host().map_or(request.authority.text, str::as_bytes);
    put(out, &[request.query, b" HTTP/1.1\r\nHost: ", host, b"\r\n"]);
    let nominated = Nominated::new(request.nominates, &fields);
    for field in fields.clone() {
        let passes = match field.known {
            Known::Dropped if protocol != BackendProtocol::H2c || is_disguised(field.name) => false,
            Known::Other | Known::Cookie | Known::Dropped => {
                !nominated.names(field.name) && !filters.request.drops(field.name)
            }
            Known::Trailer => request.framing == Framing::Chunked,
            _ => false,
        };
        if passes {
            line(&field, out);
        }
    }
    forwarded(request, &filters.request, origin, out);
    put_framing(request.framing, out);
    if request.expects_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    match request.upgrade {
        Upgrade::To(protocol) => put(out, &[b"Connection: upgrade\r\nUpgrade: ", protocol, b"\r\n"]),
        Upgrade::None if request.takes_trailers => put(out, &[b"Connection: te\r\nTE: trailers\r\n"]),
        Upgrade::None => {}
    }
    put(out, &[filters.request.lines(), b"\r\n"]);
}

/// Says who the client is. What it said itself is not believed; what the route says stands.
#[inline]
fn forwarded(request: &Request<'_>, edits: &HeaderEdits, origin: &Origin, out: &mut Vec<u8>) {
    if edits.is_empty() {
        return put(out, &[origin.lines.as_bytes(), request.authority.text, b"\r\n"]);
    }
    for (name, value) in origin.fields(request) {
        if !edits.drops(name.as_bytes()) {
            put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
        }
    }
}

/// The fields that Connection names besides the well-known options: they end here.
///
/// Fields that the proxy acts on are not among those that can be named away: they are not copied at all.
pub(super) struct Nominated<'f, F> {
    fields: Option<&'f F>,
}

impl<'a, 'f, F> Nominated<'f, F>
where
    F: Iterator<Item = FieldRef<'a>> + Clone,
{
    pub(super) fn new(any: bool, fields: &'f F) -> Self {
        Self { fields: any.then_some(fields) }
    }

    #[inline]
    pub(super) fn names(&self, name: &[u8]) -> bool {
        self.fields.is_some_and(|fields| Self::are_naming(fields, name))
    }

    fn are_naming(fields: &F, name: &[u8]) -> bool {
        let connection = fields.clone().filter(|field| field.known == Known::Connection);
        let mut named = connection.flat_map(|field| options(field.value));
        named.any(|option| option.eq_ignore_ascii_case(name))
            && !PROTECTED.iter().any(|protected| protected.eq_ignore_ascii_case(name))
    }
}

/// Fields that a client can't have taken away by naming them in Connection (Pingora CVE-2026-105299).
const PROTECTED: [&[u8]; 4] = [b"authorization", b"cookie", b"cache-control", b"origin"];

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It ends.
    Close,
    /// It goes on, as HTTP/1.1 assumes.
    Keep,
    /// It goes on, which HTTP/1.0 must be told.
    KeepTold,
}

impl Persistence {
    /// Appends the field that says so.
    pub fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Close => out.extend_from_slice(b"Connection: close\r\n"),
            Self::Keep => {}
            Self::KeepTold => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        }
    }
}

/// Appends the head of a final response as the client gets it. `framing` is what delimits the content
/// that is sent; where none is, the length that the upstream announced is passed on (HEAD, 304).
#[inline]
pub fn response(
    response: &Response,
    (head, bytes): (&Head, &[u8]),
    edits: &HeaderEdits,
    framing: Framing,
    persistence: Persistence,
    out: &mut Vec<u8>,
) {
    status_line(response, head, bytes, out);
    let all = head.fields(bytes);
    let nominated = Nominated::new(response.nominates, &all);
    fields(
        head,
        bytes,
        framing == Framing::Chunked,
        |name| !nominated.names(name) && !edits.drops(name),
        out,
    );
    let announced =
        if framing == Framing::None && response.status != 204 { response.framing } else { framing };
    if announced == Framing::Chunked && framing == Framing::None {
        // To HEAD: what a GET would get.
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    } else {
        put_framing(announced, out);
    }
    persistence.put(out);
    put(out, &[edits.lines(), b"\r\n"]);
}

/// Appends the head of an interim response (1xx) as the client gets it.
pub fn interim(response: &Response, (head, bytes): (&Head, &[u8]), out: &mut Vec<u8>) {
    status_line(response, head, bytes, out);
    let all = head.fields(bytes);
    let nominated = Nominated::new(response.nominates, &all);
    fields(head, bytes, false, |name| !nominated.names(name), out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of 101 (Switching Protocols), for the protocol that the upstream names.
pub fn switched(response: &Response, (head, bytes): (&Head, &[u8]), edits: &HeaderEdits, out: &mut Vec<u8>) {
    status_line(response, head, bytes, out);
    fields(head, bytes, false, |name| !edits.drops(name), out);
    out.extend_from_slice(b"Connection: upgrade\r\n");
    for field in head.fields(bytes).filter(|field| field.known == Known::Upgrade) {
        put(out, &[b"Upgrade: ", field.value, b"\r\n"]);
    }
    put(out, &[edits.lines(), b"\r\n"]);
}

#[inline]
fn status_line(response: &Response, head: &Head, bytes: &[u8], out: &mut Vec<u8>) {
    let line = head.start_line(bytes);
    if line.starts_with(b"HTTP/1.1 ") && line.len() > b"HTTP/1.1 200".len() {
        return put(out, &[line, b"\r\n"]);
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    number(out, u64::from(response.status));
    let reason = head.reason(response, bytes);
    put(out, &[if reason.is_empty() { b" " } else { reason }, b"\r\n"]);
}

fn fields(head: &Head, bytes: &[u8], trailers: bool, passes: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) {
    for field in head.fields(bytes) {
        if is_of_message(field.known, trailers) && passes(field.name) {
            line(&field, out);
        }
    }
}

/// Whether a field of a response belongs to the message, not to the connection that it came on.
pub(super) fn is_of_message(known: Known, trailers: bool) -> bool {
    match known {
        Known::ContentLength
        | Known::TransferEncoding
        | Known::Connection
        | Known::Upgrade
        | Known::Http2Settings
        | Known::HopByHop
        | Known::Te => false,
        Known::Trailer => trailers,
        Known::Other | Known::Dropped | Known::Host | Known::Expect | Known::Cookie | Known::Forwarding => {
            true
        }
    }
}
