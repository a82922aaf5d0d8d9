//! The one form of a path: what requests are brought to before they are matched and sent, and what the
//! paths of matches are brought to, so that both sides of the contract agree on what a path is.
//!
//! Source: RFC 3986 sections 5.2.4 and 6.2.2.

use std::borrow::Cow;
use std::fmt;

/// Why a text is not a path that a request can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with a slash.
    Relative,
    /// A percent sign does not stand before two hexadecimal digits, or they stand for NUL.
    MalformedEncoding,
    /// Its dot segments lead above the root.
    AboveRoot,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relative => "it must begin with /",
            Self::MalformedEncoding => "each % must stand before two hexadecimal digits that are not 00",
            Self::AboveRoot => "its dot segments lead above the root",
        })
    }
}

impl std::error::Error for PathError {}

/// The path of a match as a request that means it will have it: what no path may hold is
/// percent-encoded, then it is normalised as requests are.
///
/// # Errors
/// Where no request can have it.
pub fn pattern(path: &str) -> Result<Vec<u8>, PathError> {
    let mut encoded = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'?' && byte != b'#' => encoded.push(byte),
            _ => encoded.extend(format!("%{byte:02X}").into_bytes()),
        }
    }
    if !encoded.starts_with(b"/") {
        return Err(PathError::Relative);
    }
    normalise(&encoded).map(Cow::into_owned)
}

/// Every percent sign must stand before two hexadecimal digits.
///
/// # Errors
/// Where one does not.
pub fn check_encoding(bytes: &[u8]) -> Result<(), PathError> {
    for at in memchr::memchr_iter(b'%', bytes) {
        encoded_byte(bytes, at).ok_or(PathError::MalformedEncoding)?;
    }
    Ok(())
}

/// The byte that is encoded at a percent sign; `None` where two hexadecimal digits do not follow it.
pub fn encoded_byte(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (high, low) = (digit(bytes.get(at + 1)?)?, digit(bytes.get(at + 2)?)?);
    u8::try_from(high * 16 + low).ok()
}

/// A path that begins with a slash, in its one form: unreserved characters decoded (once), other encodings
/// in upper case, dot segments removed. An encoded slash stays encoded, and empty segments stay.
///
/// # Errors
/// Where an encoding is malformed or hides a NUL, or dot segments lead above the root.
pub fn normalise(path: &[u8]) -> Result<Cow<'_, [u8]>, PathError> {
    if memchr::memchr(b'%', path).is_none() {
        let may_have_dots = memchr::memchr_iter(b'.', path).any(|at| at > 0 && path[at - 1] == b'/');
        return if may_have_dots {
            remove_dot_segments(path).map(Cow::Owned)
        } else {
            Ok(Cow::Borrowed(path))
        };
    }
    let decoded = decode_unreserved(path)?;
    if memchr::memmem::find(&decoded, b"/.").is_some() {
        return remove_dot_segments(&decoded).map(Cow::Owned);
    }
    Ok(if decoded == path { Cow::Borrowed(path) } else { Cow::Owned(decoded) })
}

/// A path with its unreserved characters decoded, and other encodings in upper case.
///
/// # Errors
/// Where an encoding is malformed or hides a NUL.
pub fn decode_unreserved(path: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = path.get(at) {
        if *byte != b'%' {
            decoded.push(*byte);
            at += 1;
            continue;
        }
        match encoded_byte(path, at) {
            None | Some(0) => return Err(PathError::MalformedEncoding),
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => decoded.push(byte),
            Some(_) => decoded.extend(path[at..at + 3].to_ascii_uppercase()),
        }
        at += 3;
    }
    Ok(decoded)
}

/// Source: RFC 3986 section 5.2.4; but what would climb above the root is refused.
fn remove_dot_segments(path: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_in_folder = false;
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        ends_in_folder = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => {
                kept.pop().ok_or(PathError::AboveRoot)?;
            }
            _ => kept.push(segment),
        }
    }
    let mut normal = Vec::with_capacity(path.len());
    for segment in &kept {
        normal.push(b'/');
        normal.extend_from_slice(segment);
    }
    if ends_in_folder || normal.is_empty() {
        normal.push(b'/');
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(written: &str, want: Result<&str, PathError>) {
        assert_eq!(pattern(written), want.map(|path| path.as_bytes().to_vec()), "{written}");
    }

    #[test]
    fn a_pattern_has_the_one_form_that_requests_are_brought_to() {
        check("/a/b", Ok("/a/b"));
        check("/%7euser/caf%c3%a9", Ok("/~user/caf%C3%A9"));
        check("/café?", Ok("/caf%C3%A9%3F"));
        check("/a/./b/../c", Ok("/a/c"));
        check("/a%2fb", Ok("/a%2Fb"));
        check("/../a", Err(PathError::AboveRoot));
        check("/%2e%2e", Err(PathError::AboveRoot));
        check("/%4", Err(PathError::MalformedEncoding));
        check("/%zz", Err(PathError::MalformedEncoding));
        check("/%00", Err(PathError::MalformedEncoding));
        check("a", Err(PathError::Relative));
    }
    proptest! {
        #[test]
        fn a_normalised_path_is_its_own_normal_form(path in "/[a-c./%2eE5f~]{0,20}") {
            if let Ok(normal) = normalise(path.as_bytes()) {
                let normal = normal.into_owned();
                prop_assert!(normal.starts_with(b"/"));
                let segments: Vec<&[u8]> = normal.split(|byte| *byte == b'/').collect();
                prop_assert!(!segments.contains(&&b"."[..]) && !segments.contains(&&b".."[..]));
                let again = normalise(&normal);
                prop_assert_eq!(again.map(Cow::into_owned), Ok(normal));
            }
        }
    }
}
