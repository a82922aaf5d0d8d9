//! Owns the bytes of a client's connection on their way to and from the `h2` crate: what passes is looked
//! at, nothing is changed.
//!
//! The crate hides what the connection has to know to defend and to end itself: how many frames carry
//! nothing (it bounds resets, CONTINUATION and small DATA, but not PING, SETTINGS, WINDOW_UPDATE, PRIORITY,
//! unknown frames and empty DATA), whether its own bytes are stuck, whether the client is alive, and which
//! paths had a fragment, which it cuts off. Knows nothing of requests beyond that.
//! Source: RFC 9113 sections 4.1 and 10.5.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

mod flood;
mod frames;
mod paths;

use flood::Flood;
use frames::{CONTINUATION, DATA, END_HEADERS, Frames, HEADERS, Header, Part};
use paths::Paths;

/// What a client sends first (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// Compressed bytes of a head. The `h2` crate bounds its frames and what they become.
const MAX_BLOCK: usize = 64 << 10;
/// Streams whose path had a fragment and that were not asked about: refused before they were served.
const MAX_FRAGMENTS: usize = 256;

/// What has been seen of a connection. Lives beside the wire, for those who ask.
#[derive(Debug)]
pub(super) struct Seen {
    inbound: RefCell<Inbound>,
    outbound: RefCell<Frames>,
    is_flooded: Cell<bool>,
    is_stuck: Cell<bool>,
    received: Cell<u64>,
    written: Cell<u64>,
}

#[derive(Debug)]
struct Inbound {
    frames: Frames,
    flood: Flood,
    paths: Paths,
    /// The block of the head that is being received, and its stream.
    block: Vec<u8>,
    stream: u32,
    fragments: Vec<u32>,
}

impl Default for Seen {
    fn default() -> Self {
        let inbound = Inbound {
            frames: Frames::after(PREFACE),
            flood: Flood::default(),
            paths: Paths::default(),
            block: Vec::new(),
            stream: 0,
            fragments: Vec::new(),
        };
        Self {
            inbound: RefCell::new(inbound),
            outbound: RefCell::new(Frames::after(0)),
            is_flooded: Cell::new(false),
            is_stuck: Cell::new(false),
            received: Cell::new(0),
            written: Cell::new(0),
        }
    }
}

impl Seen {
    /// Whether the client has sent more frames that carry nothing than is borne. Nothing more is read.
    pub(super) fn is_flooded(&self) -> bool {
        self.is_flooded.get()
    }

    /// Whether bytes that are to be sent wait for the client to take others.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck.get()
    }

    /// Bytes that have come.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Bytes that have gone.
    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Whether the path of a stream's request had a fragment; asked once.
    pub(super) fn had_fragment(&self, stream: u32) -> bool {
        let fragments = &mut self.inbound.borrow_mut().fragments;
        let place = fragments.iter().position(|other| *other == stream);
        place.map(|place| fragments.swap_remove(place)).is_some()
    }

    fn read(&self, bytes: &[u8]) {
        self.received.set(self.received.get() + bytes.len() as u64);
        if !self.inbound.borrow_mut().read(bytes) {
            self.is_flooded.set(true);
        }
    }

    fn wrote(&self, count: usize, parts: &[IoSlice<'_>]) {
        self.written.set(self.written.get() + count as u64);
        let mut left = count;
        for part in parts {
            let part = &part[..left.min(part.len())];
            left -= part.len();
            self.outbound.borrow_mut().read(part, |part| {
                if let Part::Header(Header { kind: DATA | HEADERS, .. }) = part {
                    self.inbound.borrow_mut().flood.exchanged();
                }
            });
        }
    }
}

impl Inbound {
    /// Whether what is read is borne.
    fn read(&mut self, bytes: &[u8]) -> bool {
        let Self { frames, flood, paths, block, stream, fragments } = self;
        let mut is_borne = true;
        frames.read(bytes, |part| match part {
            Part::Header(header) => {
                is_borne &= flood.received(&header);
                if header.kind == HEADERS {
                    block.clear();
                    *stream = header.stream;
                }
            }
            Part::Payload(header, payload) if matches!(header.kind, HEADERS | CONTINUATION) => {
                block.extend_from_slice(payload);
                is_borne &= block.len() <= MAX_BLOCK;
            }
            Part::Payload(..) => {}
            Part::End(header) => {
                let is_head = matches!(header.kind, HEADERS | CONTINUATION);
                if is_head && header.flags & END_HEADERS != 0 && paths.has_fragment(block) {
                    fragments.push(*stream);
                    is_borne &= fragments.len() <= MAX_FRAGMENTS;
                }
            }
        });
        is_borne
    }
}

/// A stream as the `h2` crate is given it.
pub(super) struct Wire<'w, S> {
    stream: &'w mut S,
    seen: &'w Seen,
}

impl<'w, S> Wire<'w, S> {
    pub(super) fn new(stream: &'w mut S, seen: &'w Seen) -> Self {
        Self { stream, seen }
    }

    fn written(&self, polled: Poll<io::Result<usize>>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.seen.is_stuck.set(polled.is_pending());
        if let Poll::Ready(Ok(count)) = &polled {
            self.seen.wrote(*count, parts);
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.is_flooded() {
            // Who polled this looks at that next, and ends the connection.
            return Poll::Pending;
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut *self.stream).poll_read(cx, into);
        self.seen.read(&into.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.stream).poll_write(cx, from);
        self.written(polled, &[IoSlice::new(from)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.stream).poll_write_vectored(cx, from);
        self.written(polled, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut *self.stream).poll_flush(cx);
        self.seen.is_stuck.set(polled.is_pending());
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}
