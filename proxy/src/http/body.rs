//! Owns content as HTTP/1 delimits it: reading it strictly, writing it anew.
//!
//! Pure. Called by the codecs with what has arrived; what is written never holds a byte of framing that
//! was read: chunk extensions, trailers that are not allowed and spellings of sizes end here.
//! Source: RFC 9112 sections 6 and 7.

use std::ops::Range;

use super::respond::Reason;
use super::trailers;
use super::validate::field;
use super::validate::framing::Framing;

/// The most bytes of all chunk extensions of a message.
const MAX_EXTENSIONS: usize = 4 << 10;

/// The most bytes of all trailer lines of a message.
const MAX_TRAILERS: usize = 16 << 10;

/// What a step of reading found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many bytes of the input are done with.
    pub consumed: usize,
    /// The content among them.
    pub data: Range<usize>,
}

/// Reads content.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
    /// The size of a chunk while its extension is read.
    size: u64,
    extensions: usize,
    /// Made when the first one comes: there mostly is none.
    trailers: Option<Box<Trailers>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    Size {
        value: u64,
        digits: u8,
    },
    /// Space after the size, which only an extension may follow.
    Space,
    Extension,
    SizeEnd {
        value: u64,
    },
    Data(u64),
    DataReturn,
    DataEnd,
    Trailer,
    Done,
}

impl BodyReader {
    /// A reader of content that is framed like this.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, size: 0, extensions: 0, trailers: None }
    }

    /// Whether the content has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether an end of the connection is the end of the content.
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// The trailers that may be passed on, as field lines; complete once the content has ended.
    pub fn trailers(&self) -> &[u8] {
        self.trailers.as_deref().map_or(&[], |trailers| &trailers.allowed)
    }

    /// Reads up to the end of the next piece of content. With nothing consumed, more input is needed, or
    /// the content has ended.
    ///
    /// # Errors
    /// Where the chunks are malformed.
    #[inline]
    pub fn read(&mut self, input: &[u8]) -> Result<Step, Reason> {
        let mut at = 0;
        while at < input.len() {
            let available = input.len() - at;
            match &mut self.state {
                State::Done => break,
                State::UntilClose => return Ok(Step { consumed: input.len(), data: at..input.len() }),
                State::Length(left) | State::Data(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
                    *left -= take as u64;
                    let is_over = *left == 0;
                    if is_over {
                        let is_chunk = matches!(self.state, State::Data(_));
                        self.state = if is_chunk { State::DataReturn } else { State::Done };
                    }
                    return Ok(Step { consumed: at + take, data: at..at + take });
                }
                State::Trailer => at += self.trailer(&input[at..])?,
                _ => {
                    self.state = self.framing_byte(input[at])?;
                    at += 1;
                }
            }
        }
        Ok(Step { consumed: at, data: at..at })
    }

    /// One byte of a chunk's framing.
    fn framing_byte(&mut self, byte: u8) -> Result<State, Reason> {
        let malformed = Err(Reason::MalformedChunk);
        Ok(match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == 16 {
                    return malformed;
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return malformed,
            (State::Size { value, .. }, b'\r') => State::SizeEnd { value },
            (State::Size { value, .. }, b';' | b' ' | b'\t') => {
                self.size = value;
                if byte == b';' { State::Extension } else { State::Space }
            }
            (State::Space | State::Extension, _) if self.extensions == MAX_EXTENSIONS => return malformed,
            (State::Space, b' ' | b'\t') => self.extended(State::Space),
            (State::Space, b';') => self.extended(State::Extension),
            (State::Extension, b'\r') => State::SizeEnd { value: self.size },
            (State::Extension, _) if field::is_value(&[byte]) => self.extended(State::Extension),
            (State::SizeEnd { value: 0 }, b'\n') => State::Trailer,
            (State::SizeEnd { value }, b'\n') => State::Data(value),
            (State::DataReturn, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => State::Size { value: 0, digits: 0 },
            _ => return malformed,
        })
    }
}

impl BodyReader {
    fn extended(&mut self, state: State) -> State {
        self.extensions += 1;
        state
    }

    /// Reads of a trailer line what is there; returns how much that was.
    fn trailer(&mut self, input: &[u8]) -> Result<usize, Reason> {
        if self.trailers.is_none() && input.starts_with(b"\r\n") {
            self.state = State::Done;
            return Ok(2);
        }
        let end = memchr::memchr(b'\n', input).map_or(input.len(), |at| at + 1);
        let Trailers { line, length, allowed } = &mut **self.trailers.get_or_insert_default();
        line.extend_from_slice(&input[..end]);
        *length += end;
        if *length > MAX_TRAILERS {
            return Err(Reason::FieldsTooLarge);
        }
        let Some(without_feed) = line.strip_suffix(b"\n") else { return Ok(end) };
        let Some(without_end) = without_feed.strip_suffix(b"\r") else { return Err(Reason::MalformedChunk) };
        if without_end.is_empty() {
            self.state = State::Done;
        } else if may_pass(without_end)? {
            allowed.extend_from_slice(line);
        }
        line.clear();
        Ok(end)
    }
}

#[derive(Debug, Default)]
struct Trailers {
    /// The line that is being read.
    line: Vec<u8>,
    /// The length of all lines, those that are dropped included.
    length: usize,
    allowed: Vec<u8>,
}

/// Whether a trailer line is passed on.
///
/// # Errors
/// Where the line is no field.
fn may_pass(line: &[u8]) -> Result<bool, Reason> {
    let colon = memchr::memchr(b':', line).ok_or(Reason::MalformedChunk)?;
    let name = &line[..colon];
    field::check(name, &line[colon + 1..]).map_err(|_| Reason::MalformedChunk)?;
    Ok(trailers::may_pass(name))
}

/// Writes content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyWriter {
    /// As it is: its length was announced, or the connection ends with it.
    Plain,
    /// In chunks.
    Chunked,
}

impl BodyWriter {
    /// A writer of content that is framed like this.
    pub fn new(framing: Framing) -> Self {
        if framing == Framing::Chunked { Self::Chunked } else { Self::Plain }
    }

    /// Appends a piece of content.
    #[inline]
    pub fn data(self, data: &[u8], out: &mut Vec<u8>) {
        if data.is_empty() {
            return;
        }
        if self == Self::Plain {
            out.extend_from_slice(data);
            return;
        }
        push_hex(data.len(), out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the end of the content, with trailers as field lines.
    #[inline]
    pub fn end(self, trailers: &[u8], out: &mut Vec<u8>) {
        if self == Self::Chunked {
            out.extend_from_slice(b"0\r\n");
            out.extend_from_slice(trailers);
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn push_hex(number: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[number >> (place * 4) & 0xf]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a message that arrives in pieces of these sizes; returns content, trailers and what is left.
    fn read(framing: Framing, bytes: &[u8], pieces: &[usize]) -> Result<(Vec<u8>, Vec<u8>, usize), Reason> {
        let mut reader = BodyReader::new(framing);
        let (mut content, mut arrived, mut used) = (Vec::new(), 0, 0);
        let mut sizes = pieces.iter().cycle();
        while !reader.is_done() {
            let step = reader.read(&bytes[used..arrived])?;
            content.extend_from_slice(&bytes[used..arrived][step.data]);
            used += step.consumed;
            if step.consumed == 0 {
                assert_eq!(used, arrived, "it must use what it gets");
                if arrived == bytes.len() {
                    break;
                }
                arrived = bytes.len().min(arrived + sizes.next().unwrap());
            }
        }
        Ok((content, reader.trailers().to_vec(), bytes.len() - used))
    }

    fn written(writer: BodyWriter, pieces: &[Vec<u8>], trailers: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        pieces.iter().for_each(|piece| writer.data(piece, &mut out));
        writer.end(trailers, &mut out);
        out
    }

    proptest! {
        #[test]
        fn what_is_written_in_chunks_is_read_back_however_it_arrives(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
            arriving in prop::collection::vec(1..40_usize, 1..5),
        ) {
            let mut bytes = written(BodyWriter::Chunked, &pieces, b"X-Sum: 1\r\n");
            bytes.extend_from_slice(b"GET / HTTP/1.1");
            let (content, trailers, left) = read(Framing::Chunked, &bytes, &arriving).unwrap();
            prop_assert_eq!(content, pieces.concat());
            prop_assert_eq!(trailers, b"X-Sum: 1\r\n");
            prop_assert_eq!(left, b"GET / HTTP/1.1".len());
        }

        #[test]
        fn what_a_reader_says_of_bytes_does_not_depend_on_how_they_arrive(
            bytes in prop::collection::vec(prop::sample::select(&b"0123;aX: \t\r\n\0"[..]), 0..60),
            arriving in prop::collection::vec(1..9_usize, 1..5),
        ) {
            prop_assert_eq!(read(Framing::Chunked, &bytes, &arriving), read(Framing::Chunked, &bytes, &[60]));
        }

        #[test]
        fn content_with_a_length_ends_there(length in 0..200_u64, arriving in 1..50_usize) {
            let bytes = [b'x'; 300];
            let (content, _, left) = read(Framing::Length(length), &bytes, &[arriving]).unwrap();
            prop_assert_eq!(content.len() as u64, length);
            prop_assert!(left as u64 <= 300 - length);
        }
    }

    #[test]
    fn extensions_and_trailers_are_limited() {
        let extension = |length: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(length)).into_bytes();
        assert!(read(Framing::Chunked, &extension(MAX_EXTENSIONS - 1), &[1000]).is_ok());
        assert_eq!(read(Framing::Chunked, &extension(MAX_EXTENSIONS), &[1000]), Err(Reason::MalformedChunk));
        let drip = "1;eeee\r\nx\r\n".repeat(MAX_EXTENSIONS / 4);
        assert_eq!(read(Framing::Chunked, drip.as_bytes(), &[1000]), Err(Reason::MalformedChunk));
        let trailers = format!("0\r\n{}\r\n", "X-Sum: 1\r\n".repeat(MAX_TRAILERS / 10 + 1));
        assert_eq!(read(Framing::Chunked, trailers.as_bytes(), &[1000]), Err(Reason::FieldsTooLarge));
    }

    #[test]
    fn an_empty_piece_is_not_written_as_the_last_chunk() {
        assert_eq!(written(BodyWriter::Chunked, &[vec![], vec![b'x'; 255]], b"")[..4], *b"ff\r\n");
    }
}
