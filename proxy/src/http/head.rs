//! Owns the head of an HTTP/1 message as bytes: where its lines and fields are.
//!
//! Pure. Called by the HTTP/1 codec with whatever has arrived so far; each field passes
//! [`validate::field`](super::validate::field) as it is read. Keeps places, not copies: the bytes stay
//! where they were read to.
//! Source: RFC 9112 sections 2 to 5.

use super::respond::Reason;
use super::validate::field::{self, FieldRef, Known};
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

    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

#[derive(Clone, Copy, Debug)]
struct RawField {
    known: Known,
    name: Span,
    value: Span,
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
    pub fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, Reason> {
        loop {
            let start = self.at;
            let rest = &bytes[start..];
            let Some(length) = memchr::memchr(b'\n', rest) else {
                return self.incomplete(rest, bytes.len());
            };
            if length == 0 || rest[length - 1] != b'\r' {
                return Err(Reason::MalformedLineEnd);
            }
            let line = &rest[..length - 1];
            self.at = start + length + 1;
            if self.at > MAX_HEAD {
                return Err(Reason::FieldsTooLarge);
            }
            if self.start_line.is_none() {
                self.first(line, start)?;
            } else if line.is_empty() {
                return Ok(Some(self.at));
            } else {
                self.field(line, start)?;
            }
        }
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

    fn field(&mut self, line: &[u8], start: usize) -> Result<(), Reason> {
        if line.len() + 2 > MAX_FIELD_LINE || self.fields.len() == MAX_FIELDS {
            return Err(Reason::FieldsTooLarge);
        }
        let colon = memchr::memchr(b':', line).ok_or(Reason::MalformedField)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let known = field::check(name, value)?;
        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t');
        let before = value.iter().take_while(is_space).count();
        let after = value[before..].iter().rev().take_while(is_space).count();
        let value_start = start + colon + 1 + before;
        let value_end = start + line.len() - after;
        self.fields.push(RawField {
            known,
            name: Span::new(start, start + colon),
            value: Span::new(value_start, value_end),
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
        self.fields.iter().map(|field| FieldRef {
            known: field.known,
            name: field.name.of(bytes),
            value: field.value.of(bytes),
        })
    }

    fn start_line<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        self.start_line.unwrap_or_default().of(bytes)
    }

    /// The request line of a complete head.
    ///
    /// # Errors
    /// Where it is not `method SP target SP version` of HTTP/1.
    pub fn request_line<'a>(&self, bytes: &'a [u8]) -> Result<Line<'a>, Reason> {
        let line = self.start_line(bytes);
        let first = memchr::memchr(b' ', line).ok_or(Reason::MalformedRequestLine)?;
        let last = memchr::memrchr(b' ', line).ok_or(Reason::MalformedRequestLine)?;
        if first == last {
            return Err(Reason::MalformedRequestLine);
        }
        let version = version(&line[last + 1..])?;
        Ok(Line { method: &line[..first], target: &line[first + 1..last], version, authority: None })
    }

    /// The status line and framing of a complete response head.
    ///
    /// # Errors
    /// Where it is not a response that can be passed on.
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
        for FieldRef { known, value, .. } in self.fields(bytes) {
            match known {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\nX-One:  1 \t\r\nCookie:\r\n\r\n";

    fn fields(head: &Head, bytes: &[u8]) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        head.fields(bytes).map(|field| (text(field.name), text(field.value))).collect()
    }

    proptest! {
        #[test]
        fn what_is_read_of_a_head_does_not_depend_on_how_it_arrives(
            cuts in prop::collection::vec(0..HEAD.len(), 0..8),
        ) {
            let mut whole = Head::default();
            prop_assert_eq!(whole.parse(HEAD), Ok(Some(HEAD.len())));
            let mut piecewise = Head::default();
            let mut cuts = cuts;
            cuts.sort_unstable();
            for cut in cuts {
                prop_assert_eq!(piecewise.parse(&HEAD[..cut]), Ok(None));
            }
            prop_assert_eq!(piecewise.parse(HEAD), Ok(Some(HEAD.len())));
            prop_assert_eq!(fields(&piecewise, HEAD), fields(&whole, HEAD));
        }

        #[test]
        fn no_bytes_panic_and_what_is_accepted_holds_no_bare_line_end(
            bytes in prop::collection::vec(prop::sample::select(&b"GET / HTTP/1.1:a\r\n\0 \t\xff"[..]), 0..80),
        ) {
            let mut head = Head::default();
            if let Ok(Some(length)) = head.parse(&bytes) {
                let lines = bytes[..length].strip_suffix(b"\r\n").unwrap();
                for (at, byte) in lines.iter().enumerate() {
                    prop_assert!(*byte != b'\n' || lines[at - 1] == b'\r');
                }
                let clean = |text: &[u8]| !text.iter().any(|byte| b"\r\n\0".contains(byte));
                prop_assert!(head.fields(&bytes).all(|field| clean(field.name) && clean(field.value)));
            }
        }
    }

    #[test]
    fn names_and_values_are_found_without_the_space_around_them() {
        let mut head = Head::default();
        head.parse(HEAD).unwrap();
        let want = [("Host", "a"), ("X-One", "1"), ("Cookie", "")];
        assert_eq!(fields(&head, HEAD), want.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(head.request_line(HEAD).unwrap().target, b"/a");
    }

    #[test]
    fn what_follows_a_head_is_not_part_of_it() {
        let bytes = [HEAD, HEAD].concat();
        let mut head = Head::default();
        assert_eq!(head.parse(&bytes), Ok(Some(HEAD.len())));
        head.reset();
        assert_eq!(head.parse(&bytes[HEAD.len()..]), Ok(Some(HEAD.len())));
    }

    #[test]
    fn limits_hold_before_a_line_has_ended() {
        let endless = |start: &str, more: &str, count: usize| {
            let mut head = Head::default();
            head.parse(format!("{start}{}", more.repeat(count)).as_bytes())
        };
        let line = "GET / HTTP/1.1\r\n";
        assert_eq!(endless("GET /", "a", MAX_REQUEST_LINE), Err(Reason::TargetTooLong));
        assert_eq!(endless(&format!("{line}X: "), "a", MAX_FIELD_LINE), Err(Reason::FieldsTooLarge));
        assert_eq!(endless(line, "X: a\r\n", MAX_FIELDS + 1), Err(Reason::FieldsTooLarge));
        let large = format!("X: {}\r\n", "a".repeat(8000));
        assert_eq!(endless(line, &large, 9), Err(Reason::FieldsTooLarge));
        assert_eq!(endless(line, &large, 7), Ok(None));
    }

    #[test]
    fn a_status_line_is_taken_apart() {
        let check = |line: &str, want: Option<(u16, &str)>| {
            let bytes = format!("{line}\r\n\r\n").into_bytes();
            let mut head = Head::default();
            head.parse(&bytes).unwrap();
            let got = head.response(&bytes).ok();
            let reason =
                |response: &Response| String::from_utf8(head.reason(response, &bytes).to_vec()).unwrap();
            let got = got.map(|response| (response.status, reason(&response)));
            assert_eq!(got, want.map(|(status, reason)| (status, reason.to_owned())), "{line}");
        };
        check("HTTP/1.1 200 OK", Some((200, " OK")));
        check("HTTP/1.0 404 Not Found", Some((404, " Not Found")));
        check("HTTP/1.1 200", Some((200, "")));
        check("HTTP/1.1 099 x", None);
        check("HTTP/1.1 600 x", None);
        check("HTTP/1.1 20 x", None);
        check("HTTP/1.1 2000 x", None);
        check("HTTP/2.0 200 OK", None);
        check("HTTP/1.1  200 OK", None);
        check("200 OK", None);
    }
}
