//! Owns the head of an HTTP/1 message as bytes: where its lines and fields are.
//!
//! Pure. Called by the HTTP/1 codec with whatever has arrived so far; each field passes
//! [`validate::field`](super::validate::field) as it is read. Keeps places, not copies: the bytes stay
//! where they were read to.
//! Source: RFC 9112 sections 2 to 5.

use super::respond::Reason;
use super::validate::field::{self, FieldLine, FieldRef, Known};
use super::validate::framing::{Framing, FramingFields};
use super::validate::{Connection, Line, MAX_FIELD_LINE, MAX_FIELDS, MAX_HEAD, MAX_REQUEST_LINE, Version};

/// A place in the head.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The head is at most [`MAX_HEAD`] long.
    fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// Places are of the bytes that they are asked of; that nothing can go wrong here lets the compiler leave out
    /// what a caller does not look at.
    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug)]
struct RawField {
    known: Known,
    /// Whether its line is as a proxy writes it.
    is_canonical: bool,
    name: Span,
    value: Span,
}

impl RawField {
    fn of<'a>(&self, bytes: &'a [u8]) -> FieldRef<'a> {
        let line = match self.is_canonical {
            true => Span { start: self.name.start, end: self.value.end + 2 }.of(bytes),
            false => b"",
        };
        FieldRef { known: self.known, name: self.name.of(bytes), value: self.value.of(bytes), line }
    }
}

/// The places of a head; used again for the next one.
#[derive(Debug)]
pub struct Head {
    start_line: Option<Span>,
    fields: Vec<RawField>,
    /// Where the next line starts.
    at: usize,
}

impl Default for Head {
    fn default() -> Self {
        Self { start_line: None, fields: Vec::with_capacity(MAX_FIELDS), at: 0 }
    }
}

impl Head {
    /// Makes ready for another head.
    pub fn reset(&mut self) {
        self.start_line = None;
        self.fields.clear();
        self.at = 0;
    }

    /// Reads the lines of a head that have arrived; `bytes` starts where the message does. Returns the
    /// length of the head once it is complete.
    ///
    /// # Errors
    /// As soon as what has arrived can't become an acceptable head.
    #[inline]
    pub fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, Reason> {
        while self.start_line.is_none() {
            if !self.start(bytes)? {
                return self.incomplete(&bytes[self.at..], bytes.len());
            }
        }
        loop {
            let rest = &bytes[self.at..];
            let line = match rest {
                [b'\r', b'\n', ..] => {
                    self.advance(2)?;
                    return Ok(Some(self.at));
                }
                [b'\r'] => None,
                _ => field::line(rest)?,
            };
            match line {
                Some(line) => self.field(line)?,
                None => return self.incomplete(rest, bytes.len()),
            }
        }
    }

    fn advance(&mut self, length: usize) -> Result<(), Reason> {
        self.at += length;
        if self.at > MAX_HEAD { Err(Reason::FieldsTooLarge) } else { Ok(()) }
    }

    /// Reads a line before the fields; false while its end has not arrived.
    fn start(&mut self, bytes: &[u8]) -> Result<bool, Reason> {
        let start = self.at;
        let rest = &bytes[start..];
        let Some(length) = memchr::memchr(b'\n', rest) else { return Ok(false) };
        let line = rest[..length].strip_suffix(b"\r").ok_or(Reason::MalformedLineEnd)?;
        self.advance(length + 1)?;
        self.first(line, start)?;
        Ok(true)
    }

    /// One empty line before a request is overlooked (RFC 9112 section 2.2).
    fn first(&mut self, line: &[u8], start: usize) -> Result<(), Reason> {
        if line.len() + 2 > MAX_REQUEST_LINE {
            return Err(Reason::TargetTooLong);
        }
        if line.is_empty() {
            return if start == 0 { Ok(()) } else { Err(Reason::MalformedRequestLine) };
        }
        self.start_line = Some(Span::new(start, start + line.len()));
        Ok(())
    }

    #[cold]
    fn incomplete(&self, rest: &[u8], total: usize) -> Result<Option<usize>, Reason> {
        if self.start_line.is_none() {
            let is_text = |byte: &u8| field::is_token(&[*byte]) || *byte == b'\r';
            if rest.first().is_some_and(|byte| !is_text(byte)) {
                return Err(Reason::MalformedRequestLine);
            }
            if rest.len() >= MAX_REQUEST_LINE {
                return Err(Reason::TargetTooLong);
            }
        }
        if rest.len() >= MAX_FIELD_LINE || total >= MAX_HEAD {
            return Err(Reason::FieldsTooLarge);
        }
        Ok(None)
    }

    fn field(&mut self, line: FieldLine) -> Result<(), Reason> {
        let start = self.at;
        if line.length > MAX_FIELD_LINE || self.fields.len() == MAX_FIELDS {
            return Err(Reason::FieldsTooLarge);
        }
        self.advance(line.length)?;
        self.fields.push(RawField {
            known: line.known,
            is_canonical: line.is_canonical(),
            name: Span::new(start, start + line.name),
            value: Span::new(start + line.value.start, start + line.value.end),
        });
        Ok(())
    }

    /// The length of a complete head.
    pub fn len(&self) -> usize {
        self.at
    }

    /// Whether nothing of a head has been read.
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// The fields, in order.
    pub fn fields<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = FieldRef<'a>> + Clone {
        self.fields.iter().map(|field| field.of(bytes))
    }

    /// The first line, without its end.
    pub(super) fn start_line<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        self.start_line.unwrap_or_default().of(bytes)
    }

    /// The request line of a complete head.
    ///
    /// # Errors
    /// Where it is not `method SP target SP version` of HTTP/1.
    #[inline]
    pub fn request_line<'a>(&self, bytes: &'a [u8]) -> Result<Line<'a>, Reason> {
        let malformed = Reason::MalformedRequestLine;
        let line = self.start_line(bytes);
        let (line, version_text) = line.split_last_chunk::<8>().ok_or(malformed)?;
        let line = line.strip_suffix(b" ").ok_or(malformed)?;
        let space = line.iter().position(|byte| *byte == b' ').ok_or(malformed)?;
        let (method, target) = (&line[..space], &line[space + 1..]);
        Ok(Line { method, target, version: version(version_text)?, authority: None })
    }

    /// The status line and framing of a complete response head.
    ///
    /// # Errors
    /// Where it is not a response that can be passed on.
    #[inline]
    pub fn response(&self, bytes: &[u8]) -> Result<Response, Reason> {
        let line = self.start_line(bytes);
        let malformed = Reason::UpstreamMalformed;
        let (version_text, rest) = line.split_at_checked(9).ok_or(malformed)?;
        let version = version(&version_text[..8]).map_err(|_| malformed)?;
        let (digits, reason) = rest.split_at_checked(3).ok_or(malformed)?;
        let is_well_formed = version_text[8] == b' '
            && digits.iter().all(u8::is_ascii_digit)
            && matches!(reason.first(), None | Some(b' '))
            && field::is_value(reason);
        let status = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit.wrapping_sub(b'0')));
        if !is_well_formed || !(100..600).contains(&status) {
            return Err(malformed);
        }
        let (mut framing, mut connection) = (FramingFields::default(), Connection::default());
        for field in self.fields.iter().filter(|field| field.known != Known::Other) {
            let value = field.value.of(bytes);
            match field.known {
                Known::ContentLength => framing.content_length(value).map_err(|_| malformed)?,
                Known::TransferEncoding => framing.transfer_encoding(value).map_err(|_| malformed)?,
                Known::Connection => connection.add(value),
                _ => {}
            }
        }
        Ok(Response {
            status,
            reason: Span::new(line.len() - reason.len(), line.len()),
            framing: framing.response(version).map_err(|_| malformed)?,
            close: connection.close || (version == Version::Http10 && !connection.keep_alive),
            nominates: connection.nominates,
            upgrades: connection.upgrade,
        })
    }

    /// The reason phrase of a response, with the space before it.
    pub fn reason<'a>(&self, response: &Response, bytes: &'a [u8]) -> &'a [u8] {
        response.reason.of(self.start_line(bytes))
    }
}

/// What a response's head says of the exchange.
#[derive(Clone, Copy, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    reason: Span,
    /// How the content is delimited, as far as the fields say.
    pub framing: Framing,
    /// Whether the connection ends with this response.
    pub close: bool,
    /// Whether Connection names other fields.
    pub nominates: bool,
    /// Whether Connection has `upgrade`.
    pub upgrades: bool,
}

fn version(text: &[u8]) -> Result<Version, Reason> {
    match text {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Reason::VersionNotSupported)
        }
        _ => Err(Reason::MalformedRequestLine),
    }
}

#[cfg(test)]
mod tests;
