//! Owns the reading of a request's head: from what the `h2` crate decoded to what the one validation
//! layer takes.
//!
//! Pure. What the crate has refused already (RFC 9113 sections 8.2 and 8.3: names that are not lower
//! case, fields of the connection, pseudo-header fields that are missing, repeated or late) does not
//! come here. It hands over the path as a URI: bytes as they were sent, less a fragment, of which
//! [`wire`](super::wire) knows; of the scheme nothing is known where there is no authority, and nothing is
//! decided by it. Cookie crumbs are joined, for HTTP/1 has one Cookie field (section 8.2.3).

use std::borrow::Cow;

use base64::Engine as _;
use h2::ext::Protocol;
use http::header::COOKIE;
use http::request::Parts;

use crate::http::respond::Reason;
use crate::http::validate::field::{self, FieldRef, Known};
use crate::http::validate::framing::Framing;
use crate::http::validate::{self, Line, Request, Upgrade, Version};
use crate::table::request::RequestView;

/// What a head is read into besides what it borrows.
#[derive(Debug, Default)]
pub(super) struct Joined {
    cookie: Vec<u8>,
    websocket_key: String,
}

impl Joined {
    /// Joins the crumbs of a head; makes the key that HTTP/1 wants of a WebSocket (RFC 8441 section 5).
    pub(super) fn new(parts: &Parts) -> Self {
        let mut joined = Self::default();
        for crumb in parts.headers.get_all(COOKIE) {
            if !joined.cookie.is_empty() {
                joined.cookie.extend_from_slice(b"; ");
            }
            joined.cookie.extend_from_slice(crumb.as_bytes());
        }
        if is_websocket(parts) {
            let key: [u8; 16] = rand::random();
            joined.websocket_key = base64::engine::general_purpose::STANDARD.encode(key);
        }
        joined
    }
}

/// A head that is valid.
#[derive(Debug)]
pub(super) struct Checked<'a> {
    /// What is matched and sent.
    pub(super) request: Request<'a>,
    /// Its fields.
    pub(super) fields: Vec<FieldRef<'a>>,
}

impl Checked<'_> {
    /// Whether it is a call of gRPC. Looked for only where that matters: in answers of our own.
    pub(super) fn is_call(&self) -> bool {
        const GRPC: &[u8] = b"application/grpc";
        let is_grpc = |value: &[u8]| {
            value.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
                && matches!(value.get(GRPC.len()), None | Some(b'+' | b';' | b' '))
        };
        let mut types = self.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(b"content-type"));
        types.any(|field| is_grpc(field.value))
    }
}

/// Whether a request is an extended CONNECT for a WebSocket (RFC 8441).
fn is_websocket(parts: &Parts) -> bool {
    parts.method == http::Method::CONNECT
        && parts.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// Checks a head. `is_whole`: no content follows.
///
/// # Errors
/// The reason why the request is refused.
pub(super) fn check<'a>(parts: &'a Parts, joined: &'a Joined, is_whole: bool) -> Result<Checked<'a>, Reason> {
    let is_websocket = is_websocket(parts);
    let mut fields = fields(parts, joined)?;
    if is_websocket {
        let (name, value) = (&b"Sec-WebSocket-Key"[..], joined.websocket_key.as_bytes());
        fields.retain(|field| !field.name.eq_ignore_ascii_case(name));
        fields.push(FieldRef::new(Known::Other, name, value));
    }
    let target = parts.uri.path_and_query().ok_or(Reason::MalformedTarget)?.as_str().as_bytes();
    if target.first() != Some(&b'/') && target != b"*" {
        return Err(Reason::MalformedTarget);
    }
    let method = if is_websocket { "GET" } else { parts.method.as_str() };
    let line = Line {
        method: method.as_bytes(),
        target,
        version: Version::Http2,
        authority: parts.uri.authority().map(|authority| authority.as_str().as_bytes()),
    };
    let mut request = validate::request(line, fields.iter().copied())?;
    request.framing = match request.framing {
        Framing::None if !is_whole && !is_websocket => Framing::Chunked,
        framing => framing,
    };
    request.expects_continue = !is_whole && fields.iter().any(|field| field.known == Known::Expect);
    if is_websocket {
        // What follows an extended CONNECT are the bytes of the tunnel (RFC 8441 section 5). Passed on, a
        // length would frame them as content of a request that is answered before they come.
        if request.framing != Framing::None {
            return Err(Reason::ConflictingFraming);
        }
        request.upgrade = Upgrade::To(b"websocket");
    }
    Ok(Checked { request, fields })
}

fn fields<'a>(parts: &'a Parts, joined: &'a Joined) -> Result<Vec<FieldRef<'a>>, Reason> {
    let mut fields = Vec::with_capacity(parts.headers.len() + 1);
    for (name, value) in &parts.headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        let known = field::check(name, value)?;
        // RFC 9113 section 8.2.1: no space around a value.
        if value.trim_ascii().len() != value.len() {
            return Err(Reason::MalformedField);
        }
        if known != Known::Cookie {
            fields.push(FieldRef::new(known, name, value));
        }
    }
    if !joined.cookie.is_empty() {
        fields.push(FieldRef::new(Known::Cookie, b"Cookie", &joined.cookie));
    }
    Ok(fields)
}

/// What routing sees of the request.
impl RequestView for Checked<'_> {
    fn method(&self) -> &[u8] {
        self.request.method_name
    }

    fn host(&self) -> &[u8] {
        self.request.authority.host
    }

    fn path(&self) -> &[u8] {
        &self.request.path
    }

    fn query(&self) -> &[u8] {
        self.request.query.strip_prefix(b"?").unwrap_or_default()
    }

    fn header(&self, lower_name: &str) -> Option<Cow<'_, [u8]>> {
        let is_named = |name: &[u8]| name.eq_ignore_ascii_case(lower_name.as_bytes());
        let is_seen = |known, name| known != Known::Dropped || !field::is_disguised(name);
        let seen =
            self.fields.iter().filter(|field| is_named(field.name) && is_seen(field.known, field.name));
        seen.map(|field| Cow::Borrowed(field.value)).reduce(|mut values, value| {
            values.to_mut().push(b',');
            values.to_mut().extend_from_slice(&value);
            values
        })
    }
}
