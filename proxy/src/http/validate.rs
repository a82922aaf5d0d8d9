//! Owns the one layer that every request of every protocol passes before it is matched.
//!
//! Pure. A codec hands over what it read, field by field checked by [`field`]; what comes back is what
//! is matched and sent: an unambiguous host, a normalised path, the framing. What is ambiguous is
//! refused, never repaired. Knows nothing of routes and connections.
//! Source: RFC 9110, RFC 9112, RFC 9113, RFC 3986.

use std::borrow::Cow;

pub mod authority;
pub mod field;
pub mod framing;
pub mod target;

use authority::Authority;
use field::{FieldRef, Known};
use framing::{Framing, FramingFields};
use target::Target;

use super::respond::Reason;

/// The longest request line in bytes, its end included.
pub const MAX_REQUEST_LINE: usize = 16 << 10;

/// The longest field line in bytes, its end included.
pub const MAX_FIELD_LINE: usize = 16 << 10;

/// The largest head in bytes.
pub const MAX_HEAD: usize = 64 << 10;

/// The most fields of a head; each crumb of a cookie counts.
pub const MAX_FIELDS: usize = 128;

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// What stands before the fields of a request, or in the pseudo-header fields of HTTP/2.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The target: the request target of HTTP/1, `:path` of HTTP/2.
    pub target: &'a [u8],
    /// The version.
    pub version: Version,
    /// `:authority` of HTTP/2.
    pub authority: Option<&'a [u8]>,
}

/// A method, as far as the proxy treats methods differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: its response has no content.
    Head,
    /// OPTIONS.
    Options,
    /// PUT or DELETE: not safe, but idempotent.
    Idempotent,
    /// Any other: it may have acted even if no answer came.
    Other,
}

impl Method {
    /// The method of a name, which is case-sensitive.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"PUT" | b"DELETE" => Self::Idempotent,
            _ => Self::Other,
        }
    }

    /// Whether sending it twice has the effect of sending it once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(self) -> bool {
        self != Self::Other
    }
}

/// What the client asks its connection to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade<'a> {
    /// Nothing.
    None,
    /// This protocol; never HTTP/2, which would pass this layer by.
    To(&'a [u8]),
}

/// A request that is valid: what is matched, and what is sent.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The method's name.
    pub method_name: &'a [u8],
    /// The method.
    pub method: Method,
    /// The version.
    pub version: Version,
    /// Host and port as sent.
    pub authority: Authority<'a>,
    /// The normalised path, or `*`.
    pub path: Cow<'a, [u8]>,
    /// The query with its question mark; empty where there is none.
    pub query: &'a [u8],
    /// How the content is delimited.
    pub framing: Framing,
    /// Whether the client waits for 100 (Continue) before it sends the content.
    pub expects_continue: bool,
    /// Whether the connection ends with this exchange.
    pub close: bool,
    /// What the client asks the connection to become.
    pub upgrade: Upgrade<'a>,
    /// Whether Connection names fields beyond the well-known ones, which must not be forwarded.
    pub nominates: bool,
    /// Whether the client takes trailers (`TE: trailers`).
    pub takes_trailers: bool,
}

/// What is gathered from the fields of a request.
#[derive(Default)]
struct Gathered<'a> {
    host: Option<&'a [u8]>,
    framing: FramingFields<'a>,
    connection: Connection,
    upgrade: Option<&'a [u8]>,
    upgrades: u8,
    has_http2_settings: bool,
    expects_continue: bool,
    takes_trailers: bool,
    count: usize,
}

/// The options of all Connection fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// `close`.
    pub close: bool,
    /// `keep-alive`.
    pub keep_alive: bool,
    /// `upgrade`.
    pub upgrade: bool,
    /// Any other: the name of a field.
    pub nominates: bool,
}

impl Connection {
    /// Adds the options of one field.
    #[inline]
    pub fn add(&mut self, value: &[u8]) {
        // What servers say by themselves.
        if value == b"keep-alive" {
            self.keep_alive = true;
            return;
        }
        for option in options(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.nominates = true;
            }
        }
    }
}

/// The elements of a comma-separated list, empty ones left out.
pub fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|option| !option.is_empty())
}

/// Checks a request. Each field must have passed [`field::check`].
///
/// # Errors
/// The reason why it is refused.
pub fn request<'a>(
    line: Line<'a>,
    fields: impl IntoIterator<Item = FieldRef<'a>>,
) -> Result<Request<'a>, Reason> {
    if !field::is_token(line.method) {
        return Err(Reason::MalformedRequestLine);
    }
    if matches!(line.method, b"CONNECT" | b"TRACE") {
        return Err(Reason::MethodNotAllowed);
    }
    let gathered = gather(line.version, fields)?;
    let target = Target::parse(line.target, line.method)?;
    if line.version == Version::Http2 && target.authority.is_some() {
        return Err(Reason::MalformedTarget);
    }
    let authority = authority(&line, &target, gathered.host)?;
    let framing = gathered.framing.request(line.version)?;
    let upgrade = upgrade(&line, &gathered, framing);
    Ok(Request {
        method_name: line.method,
        method: Method::of(line.method),
        version: line.version,
        authority,
        path: target.path,
        query: target.query,
        framing,
        expects_continue: gathered.expects_continue && framing != Framing::None,
        close: match line.version {
            Version::Http10 => !gathered.connection.keep_alive || gathered.connection.close,
            Version::Http11 => gathered.connection.close,
            Version::Http2 => false,
        },
        upgrade,
        nominates: gathered.connection.nominates,
        takes_trailers: gathered.takes_trailers,
    })
}

fn gather<'a>(
    version: Version,
    fields: impl IntoIterator<Item = FieldRef<'a>>,
) -> Result<Gathered<'a>, Reason> {
    let mut gathered = Gathered::default();
    for FieldRef { known, value, .. } in fields {
        gathered.count += 1;
        match known {
            Known::Other | Known::Dropped | Known::Forwarding => {}
            Known::Host if gathered.host.is_some() => return Err(Reason::MalformedHost),
            Known::Host => gathered.host = Some(value),
            Known::ContentLength => gathered.framing.content_length(value)?,
            Known::Expect if version == Version::Http10 => {}
            Known::Expect if value.eq_ignore_ascii_case(b"100-continue") => gathered.expects_continue = true,
            Known::Expect => return Err(Reason::ExpectationFailed),
            Known::Cookie => gathered.count += value.iter().filter(|byte| **byte == b';').count(),
            Known::Te => gathered.te(version, value)?,
            Known::Trailer => {}
            // RFC 9113 section 8.2.2: a request that has one of these is malformed.
            _ if version == Version::Http2 => return Err(Reason::MalformedField),
            Known::TransferEncoding => gathered.framing.transfer_encoding(value)?,
            Known::Connection => gathered.connection.add(value),
            Known::Upgrade => {
                gathered.upgrade = Some(value);
                gathered.upgrades += 1;
            }
            Known::Http2Settings => gathered.has_http2_settings = true,
            Known::HopByHop => {}
        }
    }
    if gathered.count > MAX_FIELDS { Err(Reason::FieldsTooLarge) } else { Ok(gathered) }
}

impl Gathered<'_> {
    fn te(&mut self, version: Version, value: &[u8]) -> Result<(), Reason> {
        let trailers = |option: &[u8]| option.eq_ignore_ascii_case(b"trailers");
        if version == Version::Http2 && !trailers(value) {
            return Err(Reason::MalformedField);
        }
        self.takes_trailers |= options(value).any(trailers);
        Ok(())
    }
}

/// One authority, whatever the number of places that name it; all of them must agree.
#[inline]
fn authority<'a>(
    line: &Line<'a>,
    target: &Target<'a>,
    host: Option<&'a [u8]>,
) -> Result<Authority<'a>, Reason> {
    if line.version != Version::Http2 && host.is_none() {
        return Err(Reason::MissingHost);
    }
    let named = line.authority.or(target.authority);
    let (first, second) = match (named, host) {
        (Some(named), host) => (named, host),
        (None, Some(host)) => (host, None),
        (None, None) => return Err(Reason::MissingHost),
    };
    let authority = Authority::parse(first)?;
    if let Some(second) = second
        && !first.eq_ignore_ascii_case(second)
        && !Authority::parse(second)?.names_the_same(&authority, target.default_port())
    {
        return Err(Reason::MalformedHost);
    }
    Ok(authority)
}

/// A protocol is offered to the backend only where it is the only one, the request has no content, and
/// it is not HTTP/2 (RFC 9113 section 3.1: `Upgrade: h2c` is obsolete).
#[inline]
fn upgrade<'a>(line: &Line<'a>, gathered: &Gathered<'a>, framing: Framing) -> Upgrade<'a> {
    let Some(protocol) = gathered.upgrade else { return Upgrade::None };
    let offered = line.version == Version::Http11
        && gathered.connection.upgrade
        && gathered.upgrades == 1
        && !gathered.has_http2_settings
        && framing == Framing::None
        && !protocol.is_empty()
        && protocol.iter().all(|byte| field::is_token(&[*byte]) || *byte == b'/')
        && !protocol.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"));
    if offered { Upgrade::To(protocol) } else { Upgrade::None }
}

#[cfg(test)]
mod tests;
