//! Owns what a codec writes requests to and reads responses from, in HTTP/1: a connection, or a stand-in
//! for one that speaks HTTP/2 to the endpoint.
//!
//! Made by [`pool`](super::pool). Knows nothing of what is said.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_util::task::AbortOnDropHandle;

use super::budget::Share;
use super::link::Link;

/// A way to an endpoint, for one exchange after the other or for one alone.
#[derive(Debug)]
pub enum Stream {
    /// A connection of HTTP/1.
    Connection(Link, Share),
    /// One exchange; its translator ends with it.
    Exchange(Exchange),
}

/// One exchange over a stream of HTTP/2.
#[derive(Debug)]
pub struct Exchange {
    /// What is said.
    pub stream: DuplexStream,
    /// Set where the endpoint says that it has not looked at the request.
    pub is_unprocessed: Arc<AtomicBool>,
    /// What carries it.
    pub translator: AbortOnDropHandle<()>,
}

impl Stream {
    /// Whether the endpoint has said that it did not look at the request, before it ended this.
    pub fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Exchange(exchange) if exchange.is_unprocessed.load(Relaxed))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_read(cx, into),
            Self::Exchange(exchange) => Pin::new(&mut exchange.stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_write(cx, from),
            Self::Exchange(exchange) => Pin::new(&mut exchange.stream).poll_write(cx, from),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Exchange(exchange) => Pin::new(&mut exchange.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Exchange(exchange) => Pin::new(&mut exchange.stream).poll_shutdown(cx),
        }
    }
}
