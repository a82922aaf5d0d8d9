//! Owns the memory that connections read into. A connection has a buffer only while there is something
//! in it: idle ones give theirs back to the worker.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::http::body::BodyReader;
use crate::http::head::Head;
use crate::http::respond::Reason;

/// The size of a buffer: more than the largest head, so that a head that is too large is seen to be.
const SIZE: usize = 64 << 10;

/// The most free buffers that a worker keeps.
const MAX_FREE: usize = 64;

/// The most free scratches that a worker keeps, while they are small.
const MAX_FREE_SMALL: usize = 512;

/// A scratch that holds no more than this is small.
const SMALL: usize = 16 << 10;

/// What is larger than this is not kept for the next exchange.
const MAX_KEPT: usize = 128 << 10;

/// What one exchange works with, beside read buffers.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The request's head, frozen.
    pub bytes: Vec<u8>,
    /// The places in it.
    pub head: Head,
    /// The response's head.
    pub response: Head,
    /// What is sent to the upstream, or as an answer of our own.
    pub out: Vec<u8>,
    /// What is sent to the client of the upstream's answer.
    pub reply: Vec<u8>,
}

/// The free buffers of a worker.
#[derive(Default)]
pub struct Buffers {
    /// What was given back last: mostly taken next.
    spare: Cell<Option<Box<[u8]>>>,
    free: RefCell<Vec<Box<[u8]>>>,
    // The boxes are what is handed round: moving a scratch would copy it.
    #[expect(clippy::vec_box, reason = "a box is handed out and taken back, never the value")]
    scratches: RefCell<Vec<Box<Scratch>>>,
    in_use: Cell<usize>,
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("in_use", &self.in_use).finish_non_exhaustive()
    }
}

impl Buffers {
    #[inline]
    fn take(&self) -> Box<[u8]> {
        self.in_use.set(self.in_use.get() + 1);
        self.spare.take().unwrap_or_else(|| self.other())
    }

    #[cold]
    fn other(&self) -> Box<[u8]> {
        self.free.borrow_mut().pop().unwrap_or_else(|| vec![0; SIZE].into_boxed_slice())
    }

    #[inline]
    fn give_back(&self, buffer: Box<[u8]>) {
        self.in_use.set(self.in_use.get() - 1);
        if let Some(other) = self.spare.replace(Some(buffer)) {
            let mut free = self.free.borrow_mut();
            if free.len() < MAX_FREE {
                free.push(other);
            }
        }
    }

    /// How many buffers connections hold.
    pub fn in_use(&self) -> usize {
        self.in_use.get()
    }

    /// A scratch, empty.
    #[inline]
    pub fn scratch(&self) -> Box<Scratch> {
        self.scratches.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a scratch back.
    #[inline]
    pub fn give_back_scratch(&self, mut scratch: Box<Scratch>) {
        scratch.bytes.clear();
        scratch.out.clear();
        scratch.reply.clear();
        scratch.head.reset();
        scratch.response.reset();
        scratch.bytes.shrink_to(MAX_KEPT);
        scratch.out.shrink_to(MAX_KEPT);
        scratch.reply.shrink_to(MAX_KEPT);
        let held = scratch.bytes.capacity() + scratch.out.capacity() + scratch.reply.capacity();
        let most = if held <= SMALL { MAX_FREE_SMALL } else { MAX_FREE };
        let mut scratches = self.scratches.borrow_mut();
        if scratches.len() < most {
            scratches.push(scratch);
        }
    }
}

/// What was read and not yet used.
#[derive(Debug)]
pub struct ReadBuffer<'a> {
    buffers: &'a Buffers,
    bytes: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl<'a> ReadBuffer<'a> {
    /// An empty one.
    pub fn new(buffers: &'a Buffers) -> Self {
        Self { buffers, bytes: None, start: 0, end: 0 }
    }

    /// What was read and not yet used.
    pub fn data(&self) -> &[u8] {
        self.bytes.as_deref().map_or(&[], |bytes| &bytes[self.start..self.end])
    }

    /// Whether there is no room for more.
    pub fn is_full(&self) -> bool {
        self.end - self.start == SIZE
    }

    /// Uses up the first bytes.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            self.release();
        }
    }

    /// Moves what there is of content behind what was read of it before.
    ///
    /// # Errors
    /// Where it is malformed.
    pub fn take_content(&mut self, reader: &mut BodyReader, content: &mut Vec<u8>) -> Result<(), Reason> {
        while !reader.is_done() {
            let step = reader.read(self.data())?;
            if step.consumed == 0 {
                break;
            }
            content.extend_from_slice(&self.data()[step.data]);
            self.consume(step.consumed);
        }
        Ok(())
    }

    #[inline]
    fn release(&mut self) {
        (self.start, self.end) = (0, 0);
        if let Some(bytes) = self.bytes.take() {
            self.buffers.give_back(bytes);
        }
    }

    /// Reads once, behind what is there; 0 is the end of the stream. There must be room.
    pub fn poll_fill<S>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        let bytes = self.bytes.get_or_insert_with(|| self.buffers.take());
        if self.end == SIZE {
            bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let mut room = ReadBuf::new(&mut bytes[self.end..]);
        let polled = Pin::new(stream).poll_read(cx, &mut room);
        let read = room.filled().len();
        self.end += read;
        if self.start == self.end {
            self.release();
        }
        ready!(polled)?;
        Poll::Ready(Ok(read))
    }
}

impl Drop for ReadBuffer<'_> {
    fn drop(&mut self) {
        self.release();
    }
}
