//! Owns a stream that has become a tunnel: extended CONNECT (RFC 8441) as a connection of bytes.
//!
//! Called after the upstream has switched protocols; [`tunnel`](crate::http::tunnel) moves the bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Both directions of a stream.
pub(super) struct Tunnelled<'s> {
    body: &'s mut RecvStream,
    to: SendStream<Bytes>,
    chunk: Bytes,
}

impl<'s> Tunnelled<'s> {
    pub(super) fn new(body: &'s mut RecvStream, to: SendStream<Bytes>) -> Self {
        Self { body, to, chunk: Bytes::new() }
    }
}

impl AsyncRead for Tunnelled<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() {
            let Some(data) = ready!(self.body.poll_data(cx)) else { return Poll::Ready(Ok(())) };
            self.chunk = data.map_err(io::Error::other)?;
            let length = self.chunk.len();
            self.body.flow_control().release_capacity(length).map_err(io::Error::other)?;
        }
        let length = self.chunk.len().min(into.remaining());
        into.put_slice(&self.chunk[..length]);
        self.chunk.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnelled<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            self.to.reserve_capacity(from.len());
            match self.to.capacity() {
                0 => match ready!(self.to.poll_capacity(cx)) {
                    Some(room) => room.map(drop).map_err(io::Error::other)?,
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                },
                room => {
                    let length = room.min(from.len());
                    let part = Bytes::copy_from_slice(&from[..length]);
                    self.to.send_data(part, false).map_err(io::Error::other)?;
                    return Poll::Ready(Ok(length));
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.to.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
