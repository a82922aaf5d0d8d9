//! Owns how a message's content is delimited, as its fields say.
//!
//! Pure. Source: RFC 9112 section 6.3, stricter where it allows to be: of two ways to read a message
//! none is taken.

use super::super::respond::Reason;
use super::Version;

/// How content is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// All that comes until the connection ends; responses only.
    UntilClose,
}

/// Content-Length and Transfer-Encoding of a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct FramingFields<'a> {
    length: Option<u64>,
    coding: Option<&'a [u8]>,
}

impl<'a> FramingFields<'a> {
    /// Takes a Content-Length.
    ///
    /// # Errors
    /// Where it is not the first one, or no decimal number that can be counted to.
    pub fn content_length(&mut self, value: &[u8]) -> Result<(), Reason> {
        let length = decimal(value).ok_or(Reason::MalformedContentLength)?;
        if self.length.replace(length).is_some() {
            return Err(Reason::MalformedContentLength);
        }
        Ok(())
    }

    /// Takes a Transfer-Encoding.
    ///
    /// # Errors
    /// Where it is not the first one.
    pub fn transfer_encoding(&mut self, value: &'a [u8]) -> Result<(), Reason> {
        if self.coding.replace(value).is_some() {
            return Err(Reason::MalformedTransferEncoding);
        }
        Ok(())
    }

    /// The framing of a request.
    ///
    /// # Errors
    /// Where the fields contradict each other, or name a coding other than chunked.
    pub fn request(&self, version: Version) -> Result<Framing, Reason> {
        match (self.length, self.coding) {
            (Some(_), Some(_)) => Err(Reason::ConflictingFraming),
            (None, None) | (Some(0), None) if version != Version::Http2 => Ok(self.empty()),
            (Some(length), None) => Ok(Framing::Length(length)),
            (None, None) => Ok(Framing::None),
            (None, Some(_)) if version == Version::Http10 => Err(Reason::MalformedTransferEncoding),
            (None, Some(coding)) => chunked(coding),
        }
    }

    /// No content; a Content-Length of 0 is forwarded as it is.
    fn empty(&self) -> Framing {
        self.length.map_or(Framing::None, Framing::Length)
    }

    /// The framing that a response's fields name, before method and status are looked at.
    ///
    /// # Errors
    /// As for a request.
    #[inline]
    pub fn response(&self, version: Version) -> Result<Framing, Reason> {
        match (self.length, self.coding) {
            (Some(_), Some(_)) => Err(Reason::ConflictingFraming),
            (Some(length), None) => Ok(Framing::Length(length)),
            (None, None) => Ok(Framing::UntilClose),
            (None, Some(_)) if version == Version::Http10 => Err(Reason::MalformedTransferEncoding),
            (None, Some(coding)) => chunked(coding),
        }
    }
}

/// A number of digits alone. Source: RFC 9110 section 8.6.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Chunked alone is served; a known or unknown coding beside it is 501, what is no list of codings,
/// or names chunked anywhere but once and last, is 400.
fn chunked(value: &[u8]) -> Result<Framing, Reason> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let is_list = value.iter().all(|byte| super::field::is_token(&[*byte]) || b", \t".contains(byte));
    let codings = || value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if !is_list || codings().any(<[u8]>::is_empty) {
        return Err(Reason::MalformedTransferEncoding);
    }
    let count = codings().count();
    let misplaced = codings().take(count - 1).any(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    Err(if misplaced { Reason::MalformedTransferEncoding } else { Reason::UnknownTransferCoding })
}
