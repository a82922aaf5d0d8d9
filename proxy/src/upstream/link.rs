//! Owns a connection to an endpoint, in clear or over TLS, and knows whether it may be used again.
//!
//! Made by [`pool`](super::pool). Knows nothing of what is said.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use crate::tcp::Tcp;

/// A connection to an endpoint.
#[derive(Debug)]
pub enum Link {
    /// In clear.
    Plain(Tcp),
    /// Over TLS.
    Secured(Box<TlsStream<Tcp>>),
}

impl Link {
    /// Whether nothing has arrived since the last exchange; an end or unasked bytes make a connection
    /// useless. Reads what the runtime knows, without a system call and without waiting for more.
    pub(super) fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_quiet(),
            Self::Secured(stream) => {
                let (socket, session) = stream.get_mut();
                let is_over =
                    |state: rustls::IoState| state.plaintext_bytes_to_read() > 0 || state.peer_has_closed();
                socket.is_quiet() && session.process_new_packets().is_ok_and(|state| !is_over(state))
            }
        }
    }

    /// The socket, for another worker to take; what is secure stays with the worker that made it.
    pub(super) fn into_std(self) -> Option<StdTcpStream> {
        match self {
            Self::Plain(stream) => stream.into_std().ok(),
            Self::Secured(_) => None,
        }
    }

    /// Whether another worker can take it.
    pub(super) fn can_move(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Its socket.
    #[cfg(test)]
    pub(super) fn socket(&self) -> &tokio::net::TcpStream {
        match self {
            Self::Plain(stream) => stream.as_tokio(),
            Self::Secured(stream) => stream.get_ref().0.as_tokio(),
        }
    }
}

impl AsyncRead for Link {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Secured(stream) => Pin::new(&mut **stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Link {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, from),
            Self::Secured(stream) => Pin::new(&mut **stream).poll_write(cx, from),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, from),
            Self::Secured(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, from),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secured(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secured(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
