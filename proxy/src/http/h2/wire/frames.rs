//! Owns where frames begin and end in a stream of bytes. Source: RFC 9113 section 4.1.
//!
//! Pure, and holds no payload: what is not looked at costs nothing per byte. Padding and priority of HEADERS
//! are not part of what it hands over. What is malformed is left to who reads the frames in earnest.

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const HEADER: usize = 9;

/// The header of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Self {
        let [high, middle, low, kind, flags, stream @ ..] = *bytes;
        Self {
            length: u32::from_be_bytes([0, high, middle, low]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
        }
    }
}

/// What of a frame was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'b> {
    Header(Header),
    /// Bytes of its payload; of HEADERS, of the block alone.
    Payload(Header, &'b [u8]),
    End(Header),
}

/// Finds frames.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes before the first frame.
    skip: usize,
    header: [u8; HEADER],
    have: usize,
    /// The frame that is being read, and how many bytes of its payload have been.
    frame: Option<(Header, usize)>,
    padding: usize,
}

impl Frames {
    /// Frames that begin after so many bytes.
    pub(super) fn after(skip: usize) -> Self {
        Self { skip, header: [0; HEADER], have: 0, frame: None, padding: 0 }
    }

    /// Reads bytes, and tells what begins, passes and ends.
    pub(super) fn read<'b>(&mut self, mut bytes: &'b [u8], mut found: impl FnMut(Part<'b>)) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            let Some((header, at)) = self.frame else {
                bytes = self.begin(bytes, &mut found);
                continue;
            };
            let (payload, rest) = bytes.split_at((header.length - at).min(bytes.len()));
            self.payload(header, at, payload, &mut found);
            bytes = rest;
        }
    }

    fn begin<'b>(&mut self, bytes: &'b [u8], found: &mut impl FnMut(Part<'b>)) -> &'b [u8] {
        let (taken, rest) = bytes.split_at((HEADER - self.have).min(bytes.len()));
        self.header[self.have..][..taken.len()].copy_from_slice(taken);
        self.have += taken.len();
        if self.have == HEADER {
            self.have = 0;
            self.padding = 0;
            let header = Header::parse(&self.header);
            found(Part::Header(header));
            if header.length == 0 {
                found(Part::End(header));
            } else {
                self.frame = Some((header, 0));
            }
        }
        rest
    }

    fn payload<'b>(
        &mut self,
        header: Header,
        at: usize,
        payload: &'b [u8],
        found: &mut impl FnMut(Part<'b>),
    ) {
        let end = at + payload.len();
        let is_padded = header.kind == HEADERS && header.flags & PADDED != 0;
        if is_padded && at == 0 {
            self.padding = usize::from(payload[0]);
        }
        // The length of the padding and the priority stand before the block, the padding behind it.
        let has_priority = header.kind == HEADERS && header.flags & PRIORITY != 0;
        let start = usize::from(is_padded) + if has_priority { 5 } else { 0 };
        let stop = header.length.saturating_sub(self.padding);
        // Padding may claim to be longer than the frame.
        let (from, to) = (start.max(at), stop.min(end));
        if from < to {
            found(Part::Payload(header, &payload[from - at..to - at]));
        }
        self.frame = (end < header.length).then_some((header, end));
        if self.frame.is_none() {
            found(Part::End(header));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// The headers, payloads and number of ends in bytes that arrive in pieces of these sizes.
    fn read(bytes: &[u8], pieces: &[usize]) -> (Vec<Header>, Vec<u8>, usize) {
        let (mut headers, mut payload, mut ends) = (Vec::new(), Vec::new(), 0);
        let mut frames = Frames::after(3);
        let (mut at, mut sizes) = (0, pieces.iter().cycle());
        while at < bytes.len() {
            let end = bytes.len().min(at + sizes.next().unwrap());
            frames.read(&bytes[at..end], |part| match part {
                Part::Header(header) => headers.push(header),
                Part::Payload(_, part) => payload.extend_from_slice(part),
                Part::End(_) => ends += 1,
            });
            at = end;
        }
        (headers, payload, ends)
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_arrive(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..6),
            pieces in prop::collection::vec(1..20_usize, 1..5),
        ) {
            let mut bytes = b"PRI".to_vec();
            for (index, payload) in payloads.iter().enumerate() {
                bytes.extend(frame(CONTINUATION, 0, index as u32, payload));
            }
            let (headers, payload, ends) = read(&bytes, &pieces);
            let streams: Vec<u32> = headers.iter().map(|header| header.stream).collect();
            prop_assert_eq!(streams, (0..payloads.len() as u32).collect::<Vec<_>>());
            prop_assert_eq!(payload, payloads.concat());
            prop_assert_eq!(ends, payloads.len());
        }

        #[test]
        fn nothing_that_arrives_makes_it_panic(
            bytes in prop::collection::vec(prop::sample::select(&[0, 1, 2, 8, 9, 40, 44][..]), 0..200),
            pieces in prop::collection::vec(1..20_usize, 1..5),
        ) {
            prop_assert_eq!(read(&bytes, &pieces), read(&bytes, &[200]));
        }
    }

    #[test]
    fn padding_and_priority_are_no_part_of_a_block() {
        let bytes = [b"PRI".to_vec(), frame(HEADERS, PADDED | PRIORITY, 1, b"\x0300000block000")].concat();
        for piece in 1..bytes.len() {
            assert_eq!(read(&bytes, &[piece]).1, b"block", "{piece}");
        }
    }

    #[test]
    fn padding_that_leaves_no_room_for_a_block_leaves_none() {
        for payload in [&b"\xff00000block"[..], b"\x0600000block", b"\x0b00000block", b"\x01", b"\0"] {
            let bytes = [b"PRI".to_vec(), frame(HEADERS, PADDED | PRIORITY, 1, payload)].concat();
            for piece in 1..bytes.len() {
                let (headers, block, ends) = read(&bytes, &[piece]);
                assert!((headers.len(), ends) == (1, 1) && block.len() < 5, "{payload:?} {piece}");
            }
        }
    }
}
