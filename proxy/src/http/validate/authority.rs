//! Owns what a host and port may be.
//!
//! Pure. Source: RFC 9110 sections 4.2 and 7.2, RFC 3986 section 3.2; stricter: letters, digits, hyphens
//! and dots alone, so that every backend reads the same name.

use std::net::Ipv6Addr;

use super::super::respond::Reason;

/// A host, and a port where one is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// As it was sent.
    pub text: &'a [u8],
    /// The host as it was sent, without port and without a final dot.
    pub host: &'a [u8],
    /// The port.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads an authority.
    ///
    /// # Errors
    /// Where it is empty, holds user information or any byte that no host has, or a port that is none.
    pub fn parse(text: &'a [u8]) -> Result<Self, Reason> {
        let (host, port) = split(text).ok_or(Reason::MalformedHost)?;
        let port = match port {
            None | Some([]) => None,
            Some(digits) => Some(number(digits).ok_or(Reason::MalformedHost)?),
        };
        Ok(Self { text, host, port })
    }

    /// Whether both name the same host and port; a port that is left out is `default`.
    pub fn names_the_same(&self, other: &Self, default: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

/// The host, checked, and what follows its colon.
fn split(text: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    if text.first() == Some(&b'[') {
        let end = memchr::memchr(b']', text)?;
        let address = std::str::from_utf8(&text[1..end]).ok()?;
        address.parse::<Ipv6Addr>().ok()?;
        return match &text[end + 1..] {
            [] => Some((&text[..=end], None)),
            [b':', port @ ..] => Some((&text[..=end], Some(port))),
            _ => None,
        };
    }
    let colon = memchr::memchr(b':', text);
    let host = &text[..colon.unwrap_or(text.len())];
    let host = host.strip_suffix(b".").unwrap_or(host);
    let is_name = !host.is_empty()
        && host.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        && host.split(|byte| *byte == b'.').all(|label| !label.is_empty());
    is_name.then(|| (host, colon.map(|colon| &text[colon + 1..])))
}

fn number(digits: &[u8]) -> Option<u16> {
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
