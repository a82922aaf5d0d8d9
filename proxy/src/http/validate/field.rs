//! Owns what a single field may be: the bytes of its name and value, and which names mean something to
//! a proxy.
//!
//! Pure. Called for each field that is read, of requests, responses and trailers.

use super::super::respond::Reason;

/// The fields that a proxy acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// Forwarded as it is.
    #[default]
    Other,
    /// Never forwarded: its name holds an underscore, which some backends take for a hyphen.
    Dropped,
    /// Host.
    Host,
    /// Content-Length.
    ContentLength,
    /// Transfer-Encoding.
    TransferEncoding,
    /// Connection.
    Connection,
    /// Upgrade.
    Upgrade,
    /// HTTP2-Settings.
    Http2Settings,
    /// Expect.
    Expect,
    /// Cookie.
    Cookie,
    /// TE.
    Te,
    /// Trailer.
    Trailer,
    /// What tells the backend who the client is; written by the proxy alone.
    Forwarding,
    /// Keep-Alive, Proxy-Connection, Proxy-Authenticate, Proxy-Authorization.
    HopByHop,
}

/// A field as it was read.
#[derive(Clone, Copy, Debug)]
pub struct FieldRef<'a> {
    /// What its name means.
    pub known: Known,
    /// Its name, as sent.
    pub name: &'a [u8],
    /// Its value, without the space around it.
    pub value: &'a [u8],
}

const TOKEN: u8 = 1;
const UNDERSCORE: u8 = 2;

/// For each byte: whether it may stand in a token, and whether it is an underscore.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        if (byte as u8).is_ascii_alphanumeric() {
            classes[byte] = TOKEN;
        }
        byte += 1;
    }
    let others = b"!#$%&'*+-.^`|~";
    let mut index = 0;
    while index < others.len() {
        classes[others[index] as usize] = TOKEN;
        index += 1;
    }
    classes[b'_' as usize] = TOKEN | UNDERSCORE;
    classes
};

/// Whether the bytes are a token (RFC 9110 section 5.6.2).
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().fold(TOKEN, |all, byte| all & CLASSES[usize::from(*byte)]) == TOKEN
}

/// Whether the bytes may be a field's value: no control character but the tab (RFC 9110 section 5.5).
pub fn is_value(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |bad, byte| bad | ((*byte < b' ') & (*byte != b'\t')) | (*byte == 0x7f))
}

/// Checks a field and tells what its name means.
///
/// # Errors
/// Where its name is no token or its value holds a control character.
pub fn check(name: &[u8], value: &[u8]) -> Result<Known, Reason> {
    if name.is_empty() {
        return Err(Reason::MalformedField);
    }
    let (mut all, mut any) = (TOKEN, 0);
    for byte in name {
        let class = CLASSES[usize::from(*byte)];
        all &= class;
        any |= class;
    }
    if all & TOKEN == 0 || !is_value(value) {
        return Err(Reason::MalformedField);
    }
    Ok(if any & UNDERSCORE != 0 { Known::Dropped } else { known(name) })
}

/// What a name means; its length tells most apart.
fn known(name: &[u8]) -> Known {
    let candidates: &[(&[u8], Known)] = match name.len() {
        2 => &[(b"te", Known::Te)],
        4 => &[(b"host", Known::Host)],
        6 => &[(b"cookie", Known::Cookie), (b"expect", Known::Expect)],
        7 => &[(b"upgrade", Known::Upgrade), (b"trailer", Known::Trailer)],
        9 => &[(b"forwarded", Known::Forwarding), (b"x-real-ip", Known::Forwarding)],
        10 => &[(b"connection", Known::Connection), (b"keep-alive", Known::HopByHop)],
        14 => &[(b"content-length", Known::ContentLength), (b"http2-settings", Known::Http2Settings)],
        15 => &[(b"x-forwarded-for", Known::Forwarding)],
        16 => &[
            (b"x-forwarded-host", Known::Forwarding),
            (b"x-forwarded-port", Known::Forwarding),
            (b"proxy-connection", Known::HopByHop),
        ],
        17 => &[(b"transfer-encoding", Known::TransferEncoding), (b"x-forwarded-proto", Known::Forwarding)],
        18 => &[(b"proxy-authenticate", Known::HopByHop)],
        19 => &[(b"proxy-authorization", Known::HopByHop)],
        _ => &[],
    };
    let found = candidates.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
    found.map_or(Known::Other, |(_, known)| *known)
}
