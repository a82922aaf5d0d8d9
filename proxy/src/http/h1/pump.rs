//! Owns the movement of content from one connection to another, in the framing of each.
//!
//! Holds at most one buffer of input and what it became as output: what can't be written is not read.
//! Called by the exchange with both connections; knows neither head nor status.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::buffer::ReadBuffer;
use crate::http::body::{BodyReader, BodyWriter};
use crate::http::mirror::Sinks;
use crate::http::respond::Reason;
use crate::http::validate::framing::Framing;

/// Output is written once it is this long.
const FULL: usize = 64 << 10;

/// Why content stopped moving.
#[derive(Debug)]
pub enum PumpError {
    /// The sender's connection failed or ended before the content did.
    Read(io::Error),
    /// The receiver's connection failed.
    Write(io::Error),
    /// The content is malformed.
    Malformed(Reason),
}

/// Content on its way.
#[derive(Debug)]
pub struct Pump<'a> {
    reader: BodyReader,
    writer: BodyWriter,
    out: &'a mut Vec<u8>,
    written: usize,
    /// The end of the content is in `out`, or has been written.
    is_ended: bool,
    /// Content has been read that is not in the first output.
    is_moving: bool,
    /// What was written stays in the output for another attempt while there is room.
    keeps: bool,
    sinks: Sinks,
    moved: u64,
}

impl<'a> Pump<'a> {
    /// Moves content; `out` may hold a head that goes before it.
    pub fn new(reader: BodyReader, writer: BodyWriter, out: &'a mut Vec<u8>) -> Self {
        Self {
            reader,
            writer,
            out,
            written: 0,
            is_ended: false,
            is_moving: false,
            keeps: false,
            sinks: Sinks::default(),
            moved: 0,
        }
    }

    /// Moves `out`, which holds all of a message.
    pub fn ended(out: &'a mut Vec<u8>) -> Self {
        let none = Framing::None;
        Self { is_ended: true, ..Self::new(BodyReader::new(none), BodyWriter::new(none), out) }
    }

    /// Takes what is in the buffer as far as there is room.
    ///
    /// # Errors
    /// Where the content is malformed.
    #[inline]
    pub fn take(&mut self, from: &mut ReadBuffer<'_>) -> Result<(), Reason> {
        let before = self.out.len();
        while !self.reader.is_done() && self.out.len() < FULL {
            let step = self.reader.read(from.data())?;
            if step.consumed == 0 {
                break;
            }
            self.writer.data(&from.data()[step.data], self.out);
            from.consume(step.consumed);
        }
        let is_new = !self.is_ended;
        if self.reader.is_done() {
            self.end();
        }
        self.sinks.push(&self.out[before..]);
        if is_new && self.is_ended {
            self.sinks.end();
        }
        Ok(())
    }

    #[inline]
    fn end(&mut self) {
        if !self.is_ended {
            self.is_ended = true;
            self.writer.end(self.reader.trailers(), self.out);
        }
    }

    /// Whether all of the content is in the output.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// What reads the content: to read past the rest of it.
    pub fn reader(&mut self) -> &mut BodyReader {
        &mut self.reader
    }

    /// Whether the first output still holds all that was taken: it can be sent again.
    pub fn is_replayable(&self) -> bool {
        !self.is_moving
    }

    /// Has what is taken from now on copied.
    pub fn copy(&mut self, sinks: Sinks) {
        self.sinks = sinks;
    }

    /// Keeps what is written, up to the size of one output, so that it can be sent again.
    pub fn keep(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// Begins the output again, for another attempt; see [`Self::is_replayable`].
    pub fn rewind(&mut self) {
        self.written = 0;
    }

    /// Whether what was taken waits for the receiver, and no more of it for the sender.
    pub fn is_blocked(&self) -> bool {
        self.written < self.out.len()
    }

    /// How many bytes have been written, over all attempts.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether anything of the output has been written.
    pub fn is_begun(&self) -> bool {
        self.written > 0
    }

    /// Writes the output.
    pub fn poll_flush<W>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        while self.written < self.out.len() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.out[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.moved += written as u64;
        }
        // A TLS stream may still hold what it took.
        Pin::new(to).poll_flush(cx)
    }

    /// Moves content until all of it is written.
    pub fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: (&mut R, &mut ReadBuffer<'_>),
        to: &mut W,
    ) -> Poll<Result<(), PumpError>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (stream, buffer) = from;
        loop {
            ready!(self.poll_flush(cx, to)).map_err(PumpError::Write)?;
            if self.is_ended {
                return Poll::Ready(Ok(()));
            }
            if buffer.data().is_empty() {
                let read = ready!(buffer.poll_fill(cx, stream)).map_err(PumpError::Read)?;
                if read == 0 {
                    if !self.reader.ends_with_connection() {
                        return Poll::Ready(Err(PumpError::Read(io::ErrorKind::UnexpectedEof.into())));
                    }
                    self.out.clear();
                    self.written = 0;
                    self.end();
                    continue;
                }
            }
            if !self.keeps || self.out.len() >= FULL {
                self.is_moving = true;
                self.out.clear();
                self.written = 0;
            }
            self.take(buffer).map_err(PumpError::Malformed)?;
        }
    }
}
