//! Owns what a single field may be: the bytes of its name and value, and which names mean something to
//! a proxy.
//!
//! Pure. Called for each field that is read, of requests, responses and trailers.

use std::ops::Range;

use super::super::respond::Reason;

/// The fields that a proxy acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// Forwarded as it is.
    #[default]
    Other,
    /// Its name holds an underscore, which some backends of HTTP/1 take for a hyphen: they don't get it. See
    /// [`is_disguised`].
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
    /// Its line as it came and may be passed on, end included; empty where it did not come as one, or came
    /// in another form than `name: value`.
    pub line: &'a [u8],
}

impl<'a> FieldRef<'a> {
    /// A field that did not come as a line.
    pub fn new(known: Known, name: &'a [u8], value: &'a [u8]) -> Self {
        Self { known, name, value, line: b"" }
    }
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
    control(bytes, 0).is_none()
}

/// Checks a field and tells what its name means.
///
/// # Errors
/// Where its name is no token or its value holds a control character.
pub fn check(name: &[u8], value: &[u8]) -> Result<Known, Reason> {
    let (length, has_underscore) = token(name);
    if length == 0 || length < name.len() || !is_value(value) {
        return Err(Reason::MalformedField);
    }
    Ok(if has_underscore { Known::Dropped } else { known(name) })
}

/// Whether a name with underscores is, with hyphens, one that means something to a proxy. Nobody gets such a
/// field. Any other passes to backends of HTTP/2, where metadata of gRPC have such names.
pub fn is_disguised(name: &[u8]) -> bool {
    const LONGEST: usize = 19;
    let mut hyphened = [0; LONGEST];
    let Some(hyphened) = hyphened.get_mut(..name.len()) else { return false };
    hyphened.copy_from_slice(name);
    hyphened.iter_mut().filter(|byte| **byte == b'_').for_each(|byte| *byte = b'-');
    known(hyphened) != Known::Other
}

/// A field's line in HTTP/1, by the places of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldLine {
    /// What its name means.
    pub known: Known,
    /// The length of its name, which the line begins with.
    pub name: usize,
    /// Where its value is, without the space around it.
    pub value: Range<usize>,
    /// The length of the line, its end included.
    pub length: usize,
}

impl FieldLine {
    /// Whether the line is as a proxy writes it: one space before the value, none behind.
    pub fn is_canonical(&self) -> bool {
        self.value.start == self.name + 2 && self.value.end + 2 == self.length
    }
}

/// Reads the field line that the bytes begin with, in one pass; `None` while its end has not arrived.
/// Source: RFC 9112 section 5.
///
/// # Errors
/// As for [`check`], or where the line has another end than CRLF.
#[inline]
pub fn line(bytes: &[u8]) -> Result<Option<FieldLine>, Reason> {
    let (name, has_underscore) = token(bytes);
    match bytes.get(name) {
        Some(b':') if name > 0 => {}
        Some(b'\n') => return Err(Reason::MalformedLineEnd),
        Some(_) => return Err(Reason::MalformedField),
        None => return Ok(None),
    }
    let is_space = |at: usize| matches!(bytes.get(at), Some(b' ' | b'\t'));
    let mut start = name + 1;
    while is_space(start) {
        start += 1;
    }
    let Some(control) = control(bytes, start) else { return Ok(None) };
    match &bytes[control..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] => return Ok(None),
        [b'\n', ..] => return Err(Reason::MalformedLineEnd),
        _ => return Err(Reason::MalformedField),
    }
    let mut end = control;
    while end > start && is_space(end - 1) {
        end -= 1;
    }
    let known = if has_underscore { Known::Dropped } else { known(&bytes[..name]) };
    Ok(Some(FieldLine { known, name, value: start..end, length: control + 2 }))
}

/// How many bytes of a token these begin with, and whether there is an underscore among them.
#[inline]
fn token(bytes: &[u8]) -> (usize, bool) {
    let class = |byte: &u8| CLASSES[usize::from(*byte)];
    let mut plain = 0;
    // Eight at a time, so that the end is looked for once: names are short, and this is most of a head.
    while let Some(chunk) = bytes.get(plain..).and_then(<[u8]>::first_chunk::<8>) {
        match chunk.iter().position(|byte| class(byte) != TOKEN) {
            None => plain += chunk.len(),
            Some(place) if chunk[place] != b'_' => return (plain + place, false),
            Some(_) => break,
        }
    }
    let rest = &bytes[plain..];
    let length = rest.iter().take_while(|byte| class(byte) & TOKEN != 0).count();
    (plain + length, rest[..length].contains(&b'_'))
}

/// The place of the first control character but the tab, from a place on.
fn control(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let found = controls(u64::from_le_bytes(*word));
        if found == 0 {
            at += 8;
            continue;
        }
        at += found.trailing_zeros() as usize / 8;
        if bytes[at] != b'\t' {
            return Some(at);
        }
        at += 1;
    }
    let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    bytes.get(at..)?.iter().position(is_control).map(|place| at + place)
}

/// Eight bytes at once: of those that are control characters the highest bit is set. A set bit may also mark a
/// byte above a control character that is none; the lowest one is always right.
fn controls(word: u64) -> u64 {
    let all = |byte: u8| u64::from_le_bytes([byte; 8]);
    let low = word.wrapping_sub(all(b' ')) & !word;
    let delete = word ^ all(0x7f);
    let is_delete = delete.wrapping_sub(all(1)) & !delete;
    (low | is_delete) & all(0x80)
}

/// What a name means; its length and first letter leave one candidate. The name is a token.
#[inline]
fn known(name: &[u8]) -> Known {
    let first = name.first().map_or(0, |byte| byte | 0x20);
    let found = match (name.len(), first) {
        (2, b't') => is(name, b"te", Known::Te),
        (4, b'h') => is(name, b"host", Known::Host),
        (6, b'c') => is(name, b"cookie", Known::Cookie),
        (6, b'e') => is(name, b"expect", Known::Expect),
        (7, b'u') => is(name, b"upgrade", Known::Upgrade),
        (7, b't') => is(name, b"trailer", Known::Trailer),
        (9, b'f') => is(name, b"forwarded", Known::Forwarding),
        (9, b'x') => is(name, b"x-real-ip", Known::Forwarding),
        (10, b'c') => is(name, b"connection", Known::Connection),
        (10, b'k') => is(name, b"keep-alive", Known::HopByHop),
        (14, b'c') => is(name, b"content-length", Known::ContentLength),
        (14, b'h') => is(name, b"http2-settings", Known::Http2Settings),
        (15, b'x') => is(name, b"x-forwarded-for", Known::Forwarding),
        (16, b'x') => is(name, b"x-forwarded-host", Known::Forwarding)
            .or_else(|| is(name, b"x-forwarded-port", Known::Forwarding)),
        (16, b'p') => is(name, b"proxy-connection", Known::HopByHop),
        (17, b't') => is(name, b"transfer-encoding", Known::TransferEncoding),
        (17, b'x') => is(name, b"x-forwarded-proto", Known::Forwarding),
        (18, b'p') => is(name, b"proxy-authenticate", Known::HopByHop),
        (19, b'p') => is(name, b"proxy-authorization", Known::HopByHop),
        _ => None,
    };
    found.unwrap_or_default()
}

/// What a name means if it is that one. Of two tokens that differ in the case bit alone one at most is made of
/// letters, digits and hyphens, as all these names are.
fn is<const N: usize>(name: &[u8], lower: &[u8; N], known: Known) -> Option<Known> {
    let differ = |all, (byte, lower): (&u8, &u8)| all | ((*byte | 0x20) ^ *lower);
    (name.as_array::<N>()?.iter().zip(lower).fold(0, differ) == 0).then_some(known)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What [`line`] reads, said at length: split at the line feed, then at the colon.
    fn expected(bytes: &[u8]) -> Option<FieldLine> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let text = bytes[..end].strip_suffix(b"\r")?;
        let colon = text.iter().position(|byte| *byte == b':')?;
        let known = check(&text[..colon], &text[colon + 1..]).ok()?;
        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t');
        let start = colon + 1 + text[colon + 1..].iter().take_while(is_space).count();
        let after = text[start..].iter().rev().take_while(is_space).count();
        Some(FieldLine { known, name: colon, value: start..text.len() - after, length: end + 1 })
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_its_parts_are_checked(
            bytes in prop::collection::vec(prop::sample::select(&b"aB-_:: \t\r\n\r\n\x7f\0\x80"[..]), 0..40),
        ) {
            prop_assert_eq!(line(&bytes).ok().flatten(), expected(&bytes));
        }

        #[test]
        fn a_control_character_is_found_wherever_it_is(before in 0..40_usize, byte: u8, after in 0..20_usize) {
            let value = [&vec![b'\xc3'; before][..], &[byte], &vec![b'~'; after]].concat();
            let is_control = byte != b'\t' && byte.is_ascii_control();
            prop_assert_eq!(control(&value, 0), is_control.then_some(before));
            prop_assert_eq!(control(&value, before + 1), None);
        }
    }

    #[test]
    fn a_line_is_refused_as_soon_as_it_can_be() {
        let check = |text: &str, want: Result<bool, Reason>| {
            assert_eq!(line(text.as_bytes()).map(|line| line.is_some()), want, "{text:?}");
        };
        check("X-A: 1\r\n", Ok(true));
        check("X-A: 1\r", Ok(false));
        check("X-A", Ok(false));
        check("X-A\n", Err(Reason::MalformedLineEnd));
        check("X-A: 1\n", Err(Reason::MalformedLineEnd));
        check("X-A: 1\rb", Err(Reason::MalformedField));
        check("X-A : ", Err(Reason::MalformedField));
        check(" folded", Err(Reason::MalformedField));
        check(":", Err(Reason::MalformedField));
    }

    #[test]
    fn an_underscore_hides_no_name_that_means_something() {
        for name in
            ["Content_Length", "transfer_encoding", "X_Forwarded-For", "x-real_ip", "proxy_authorization"]
        {
            assert!(is_disguised(name.as_bytes()), "{name}");
        }
        for name in ["my_key", "x_forwarded_past", "content_length_of_something_else", "_"] {
            assert!(!is_disguised(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn names_are_known_in_any_case() {
        let check = |name: &str, want: Known| assert_eq!(known(name.as_bytes()), want, "{name}");
        check("Host", Known::Host);
        check("hosT", Known::Host);
        check("hort", Known::Other);
        check("CONTENT-LENGTH", Known::ContentLength);
        check("content-lengthy", Known::Other);
        check("X-Forwarded-Host", Known::Forwarding);
        check("X-Forwarded-Port", Known::Forwarding);
        check("X-Forwarded-Past", Known::Other);
    }
}
