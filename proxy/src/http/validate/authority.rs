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
    #[inline]
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

/// For each byte: whether a label may hold it.
const IN_LABEL: [bool; 256] = {
    let mut is_in = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        is_in[byte] = (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'-';
        byte += 1;
    }
    is_in
};

/// The host, checked, and what follows its colon.
#[inline]
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
    let (mut end, mut label) = (0, 0);
    for byte in text {
        match byte {
            byte if IN_LABEL[usize::from(*byte)] => label += 1,
            b'.' if label > 0 => label = 0,
            b':' => break,
            _ => return None,
        }
        end += 1;
    }
    let port = text.get(end + 1..);
    // After a dot no label need follow.
    let host = if label == 0 { text[..end].strip_suffix(b".")? } else { &text[..end] };
    Some((host, port))
}

fn number(digits: &[u8]) -> Option<u16> {
    if digits.len() > 5 {
        return None;
    }
    let number = digits.iter().try_fold(0, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        Some(sum * 10 + digit)
    })?;
    u16::try_from(number).ok()
}
