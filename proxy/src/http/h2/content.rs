//! Owns the movement of content between a stream and a connection of HTTP/1, in the framing of each.
//!
//! What can't be written is not read: a stream's window is given back as its bytes are taken over, and an
//! upstream is read only while the client has room. Knows neither head nor status.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::http::body::{BodyReader, BodyWriter};
use crate::http::h1::buffer::ReadBuffer;
use crate::http::mirror::Sinks;
use crate::http::respond::Reason;
use crate::http::validate::field;
use crate::http::{lines, trailers};

/// No more is taken from the client before this much has been written.
const FULL: usize = 64 << 10;
/// The most that is handed to the client's stream at once.
const CHUNK: usize = 64 << 10;

/// Why content stopped moving.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The client, for this reason.
    Client(Reason),
    /// The upstream can't be written to, or ended too early.
    Upstream,
    /// The upstream's framing is malformed.
    Malformed,
}

/// A request's content on its way to the upstream, behind its head.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    body: RecvStream,
    writer: BodyWriter,
    out: &'a mut Vec<u8>,
    written: usize,
    is_ended: bool,
    is_moving: bool,
    /// What was written stays for another attempt while there is room.
    keeps: bool,
    sinks: Sinks,
    moved: u64,
}

impl<'a> Sending<'a> {
    /// Content that follows what `out` holds already.
    pub(super) fn new(body: RecvStream, writer: BodyWriter, is_whole: bool, out: &'a mut Vec<u8>) -> Self {
        Self {
            body,
            writer,
            out,
            written: 0,
            is_ended: is_whole,
            is_moving: false,
            keeps: false,
            sinks: Sinks::default(),
            moved: 0,
        }
    }

    /// Whether all of the request has been taken over.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether all that was taken over is still here, so that it can be sent again.
    pub(super) fn is_replayable(&self) -> bool {
        !self.is_moving
    }

    /// Has what is taken from now on copied; a request without content is whole already.
    pub(super) fn copy(&mut self, sinks: Sinks) {
        self.sinks = sinks;
        if self.is_ended {
            self.sinks.end();
        }
    }

    /// Keeps what is written, up to [`FULL`], so that it can be sent again.
    pub(super) fn keep(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// Starts over.
    pub(super) fn rewind(&mut self) {
        self.written = 0;
    }

    /// Whether what was taken over waits for the upstream.
    pub(super) fn is_blocked(&self) -> bool {
        self.written < self.out.len()
    }

    /// Bytes that have been written.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// The content, for what becomes of it after the head.
    pub(super) fn body(&mut self) -> &mut RecvStream {
        &mut self.body
    }

    /// Moves what can be moved; ready when all is written.
    pub(super) fn poll<W>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<Result<(), Stopped>>
    where
        W: AsyncWrite + Unpin,
    {
        if self.moved == 0 {
            // What has come with the head goes out with the head.
            if let Poll::Ready(Err(reason)) = self.poll_take(cx) {
                return Poll::Ready(Err(Stopped::Client(reason)));
            }
        }
        loop {
            while self.written < self.out.len() {
                let write = Pin::new(&mut *to).poll_write(cx, &self.out[self.written..]);
                match ready!(write).map_err(|_| Stopped::Upstream)? {
                    0 => return Poll::Ready(Err(Stopped::Upstream)),
                    written => {
                        self.written += written;
                        self.moved += written as u64;
                    }
                }
            }
            // TLS may still hold what it took.
            ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|_| Stopped::Upstream)?;
            if self.is_ended {
                return Poll::Ready(Ok(()));
            }
            let before = self.out.len();
            let taken = self.poll_take(cx).map_err(Stopped::Client)?;
            if self.out.len() > before {
                if self.keeps && self.out.len() <= FULL {
                    continue;
                }
                self.is_moving = true;
                self.out.drain(..before);
                self.written = 0;
            } else if !self.is_ended {
                ready!(taken);
            }
        }
    }

    /// Takes over what is there, until the end or until it is enough.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        while !self.is_ended && self.out.len() - self.written < FULL {
            match ready!(self.body.poll_data(cx)) {
                Some(data) => {
                    let data = data.map_err(|error| failed(&error))?;
                    let before = self.out.len();
                    self.writer.data(&data, self.out);
                    self.sinks.push(&self.out[before..]);
                    let given_back = self.body.flow_control().release_capacity(data.len());
                    given_back.map_err(|error| failed(&error))?;
                }
                None => {
                    let trailers = ready!(self.body.poll_trailers(cx)).map_err(|error| failed(&error))?;
                    let allowed = trailers.map(|trailers| allowed(&trailers)).unwrap_or_default();
                    let before = self.out.len();
                    self.writer.end(&allowed, self.out);
                    self.sinks.push(&self.out[before..]);
                    self.sinks.end();
                    self.is_ended = true;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Why a client's stream failed: it was reset, or what came on it contradicts its head (RFC 9113 section
/// 8.1.1), for which the `h2` crate resets it. Either way there is nobody to answer.
fn failed(error: &h2::Error) -> Reason {
    tracing::trace!(%error, "a request's content broke off");
    Reason::ClientGone
}

/// Trailers as HTTP/1 writes them, less those that may not be merged into the head.
pub(super) fn allowed(sent: &HeaderMap) -> Vec<u8> {
    let mut allowed = Vec::new();
    for (name, value) in sent {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        if field::check(name, value).is_ok() && trailers::may_pass(name) {
            lines::line(name, value, &mut allowed);
        }
    }
    allowed
}

/// A response's content on its way to the client.
#[derive(Debug)]
pub(super) struct Receiving {
    reader: BodyReader,
    chunk: Bytes,
    is_over: bool,
    moved: u64,
}

impl Receiving {
    /// Content that is delimited as `reader` says.
    pub(super) fn new(reader: BodyReader) -> Self {
        Self { is_over: reader.is_done(), reader, chunk: Bytes::new(), moved: 0 }
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.is_over && self.chunk.is_empty() && self.reader.trailers().is_empty()
    }

    /// Bytes that have been handed to the client's stream.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Reads what is in the buffer already.
    pub(super) fn take(&mut self, buffer: &mut ReadBuffer<'_>) -> Result<(), Stopped> {
        if !self.chunk.is_empty() || self.is_over || buffer.data().is_empty() {
            return Ok(());
        }
        let mut gathered = Vec::new();
        while !self.reader.is_done() && gathered.len() < CHUNK {
            let step = self.reader.read(buffer.data()).map_err(|_| Stopped::Malformed)?;
            if step.consumed == 0 {
                break;
            }
            gathered.extend_from_slice(&buffer.data()[step.data]);
            buffer.consume(step.consumed);
        }
        self.is_over = self.reader.is_done();
        self.chunk = gathered.into();
        Ok(())
    }

    /// Moves what can be moved; ready when the end of the stream has been handed over.
    pub(super) fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        (stream, buffer): (&mut R, &mut ReadBuffer<'_>),
        to: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), Stopped>>
    where
        R: AsyncRead + Unpin,
    {
        let gone = |_| Stopped::Client(Reason::ClientGone);
        loop {
            self.take(buffer)?;
            while !self.chunk.is_empty() {
                let room = ready!(self.poll_room(cx, to)).map_err(Stopped::Client)?;
                let part = self.chunk.split_to(room.min(self.chunk.len()));
                self.moved += part.len() as u64;
                let is_last = self.is_empty();
                to.send_data(part, is_last).map_err(gone)?;
                if is_last {
                    return Poll::Ready(Ok(()));
                }
            }
            if self.is_over {
                return Poll::Ready(self.end(to).map_err(gone));
            }
            if buffer.data().is_empty()
                && ready!(buffer.poll_fill(cx, stream)).map_err(|_| Stopped::Upstream)? == 0
            {
                if !self.reader.ends_with_connection() {
                    return Poll::Ready(Err(Stopped::Upstream));
                }
                self.is_over = true;
            }
        }
    }

    fn poll_room(&self, cx: &mut Context<'_>, to: &mut SendStream<Bytes>) -> Poll<Result<usize, Reason>> {
        loop {
            to.reserve_capacity(self.chunk.len());
            match to.capacity() {
                0 => match ready!(to.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Poll::Ready(Err(Reason::ClientGone)),
                },
                room => return Poll::Ready(Ok(room)),
            }
        }
    }

    fn end(&self, to: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
        match self.reader.trailers() {
            [] => to.send_data(Bytes::new(), true),
            lines => to.send_trailers(lines::fields(lines)),
        }
    }
}
