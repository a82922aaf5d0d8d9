//! Owns the target of a request: its forms, its bytes, and the one path that is matched and sent.
//!
//! Pure. Source: RFC 9112 section 3.2, RFC 3986 sections 5.2.4 and 6.2.2.

use std::borrow::Cow;

use proxy_config::path::{PathError, check_encoding, normalise};

use super::super::respond::Reason;

/// A target, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The authority of the absolute form.
    pub authority: Option<&'a [u8]>,
    /// Whether the absolute form names https.
    pub is_https: bool,
    /// The normalised path, or `*`.
    pub path: Cow<'a, [u8]>,
    /// The query with its question mark; empty where there is none.
    pub query: &'a [u8],
}

const REFUSED: u8 = 1;
const SPECIAL: u8 = 2;

/// For each byte: whether no target may hold it, and whether a path with it has to be looked at.
const CLASSES: [u8; 256] = {
    let mut classes = [REFUSED; 256];
    let mut byte = b'!';
    while byte < 0x7f {
        classes[byte as usize] = match byte {
            b'#' => REFUSED,
            b'%' | b'.' | b'?' => SPECIAL,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

impl<'a> Target<'a> {
    /// Reads a target in origin form, absolute form, or (OPTIONS alone) asterisk form.
    ///
    /// # Errors
    /// Where it has another form, holds a byte that no target may, is badly percent-encoded, or climbs
    /// above the root.
    #[inline]
    pub fn parse(target: &'a [u8], method: &[u8]) -> Result<Self, Reason> {
        let seen = target.iter().fold(0, |seen, byte| seen | CLASSES[usize::from(*byte)]);
        if seen & REFUSED != 0 {
            return Err(Reason::MalformedTarget);
        }
        if target.first() == Some(&b'/') {
            if seen & SPECIAL == 0 {
                return Ok(Self {
                    authority: None,
                    is_https: false,
                    path: Cow::Borrowed(target),
                    query: b"",
                });
            }
            return Self::with(None, false, target);
        }
        if target == b"*" && method == b"OPTIONS" {
            return Ok(Self { authority: None, is_https: false, path: Cow::Borrowed(b"*"), query: b"" });
        }
        let (is_https, rest) = absolute(target).ok_or(Reason::MalformedTarget)?;
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if path.is_empty() && method == b"OPTIONS" {
            let path = Cow::Borrowed(&b"*"[..]);
            return Ok(Self { authority: Some(authority), is_https, path, query: b"" });
        }
        Self::with(Some(authority), is_https, path)
    }

    fn with(authority: Option<&'a [u8]>, is_https: bool, target: &'a [u8]) -> Result<Self, Reason> {
        let (path, query) = target.split_at(memchr::memchr(b'?', target).unwrap_or(target.len()));
        check_encoding(query)?;
        let path = if path.is_empty() { Cow::Borrowed(&b"/"[..]) } else { normalise(path)? };
        Ok(Self { authority, is_https, path, query })
    }

    /// The port that an authority without one names.
    pub fn default_port(&self) -> u16 {
        if self.is_https { 443 } else { 80 }
    }
}

fn absolute(target: &[u8]) -> Option<(bool, &[u8])> {
    let starts = |scheme: &[u8]| {
        let start = target.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &target[scheme.len()..])
    };
    starts(b"http://").map(|rest| (false, rest)).or_else(|| starts(b"https://").map(|rest| (true, rest)))
}

impl From<PathError> for Reason {
    fn from(error: PathError) -> Self {
        match error {
            PathError::Relative => Self::MalformedTarget,
            PathError::MalformedEncoding => Self::MalformedPercentEncoding,
            PathError::AboveRoot => Self::PathAboveRoot,
        }
    }
}
