//! Owns what a codec writes requests to and reads responses from, in HTTP/1: a connection, or a stand-in
//! for one that speaks HTTP/2 to the endpoint.
//!
//! Made by [`pool`](super::pool). Knows nothing of what is said.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
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

/// What an endpoint says of an exchange for which HTTP/1 has no words.
#[derive(Debug, Default)]
pub struct Aside {
    /// It has not looked at the request.
    pub is_unprocessed: AtomicBool,
    /// The length of the content, which comes in chunks because there may be trailers behind it.
    pub length: OnceLock<u64>,
}

/// One exchange over a stream of HTTP/2.
#[derive(Debug)]
pub struct Exchange {
    /// What is said.
    pub stream: DuplexStream,
    /// What is said for which HTTP/1 has no words.
    pub aside: Arc<Aside>,
    /// What carries it.
    pub translator: AbortOnDropHandle<()>,
}

impl Stream {
    /// Whether the endpoint has said that it did not look at the request, before it ended this.
    pub fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Exchange(exchange) if exchange.aside.is_unprocessed.load(Relaxed))
    }

    /// The length of a response's content that comes in chunks all the same, once its head has come.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Connection(..) => None,
            Self::Exchange(exchange) => exchange.aside.length.get().copied(),
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_read(cx, into),
            Self::Exchange(exchange) => Pin::new(&mut exchange.stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(stream, _) => Pin::new(stream).poll_write(cx, from),
            Self::Exchange(exchange) => Pin::new(&mut exchange.stream).poll_write(cx, from),
        }
    }

    #[inline]
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
