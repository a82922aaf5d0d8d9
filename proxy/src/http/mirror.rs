//! Owns mirrors: which requests are copied, and the copies on their way.
//!
//! Fire and forget: a copy has a connection and a task of its own on the worker, and what waits for it is
//! bounded. One that does not keep up, or is not made in time, is cut off; the request itself never waits.
//! Called by the plan (which requests) and by the codecs of both protocols (what they contain). Refuses to
//! know what comes back.
//! Source: Gateway API `HTTPRequestMirrorFilter`.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proxy_config::backend::BackendProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::debug;

use super::filters::Filters;
use super::render::{self, Origin};
use super::validate::field::FieldRef;
use super::validate::{Request, Upgrade};
use crate::table::slot::Slot;
use crate::upstream::balance::Backend;
use crate::upstream::pool::Pool;

/// Bytes of a copy that may wait for its backend.
const MAX_WAITING: usize = 128 << 10;
/// What a piece that waits costs besides its bytes.
const OVERHEAD: usize = 64;
/// How long a copy may take from its head to the end of its answer.
const LIFETIME: Duration = Duration::from_secs(30);

/// Copies to a backend, compiled.
#[derive(Debug)]
pub struct Mirror {
    target: Slot,
    /// Only of requests that go to this share of the rule.
    share: Option<usize>,
    numerator: u64,
    denominator: u64,
    turn: AtomicU64,
}

impl Mirror {
    /// Copies `numerator` of `denominator` requests.
    pub fn new(target: Slot, share: Option<usize>, numerator: u32, denominator: u32) -> Self {
        let denominator = u64::from(denominator.max(1));
        Self { target, share, numerator: u64::from(numerator), denominator, turn: AtomicU64::new(0) }
    }

    /// Where the copy of a request goes that falls to a share, if it is to be copied: of any `denominator`
    /// such requests in a row exactly `numerator`, spread evenly.
    pub fn due(&self, share: usize) -> Option<Slot> {
        if self.share.is_some_and(|only| only != share) {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.denominator;
        (turn * self.numerator % self.denominator < self.numerator).then_some(self.target)
    }
}

/// A backend that gets a copy.
#[derive(Debug)]
pub struct Copied {
    /// The backend.
    pub backend: Arc<Backend>,
    /// What it speaks.
    pub protocol: BackendProtocol,
}

/// A piece of a copy.
enum Piece {
    Data(Bytes),
    /// The request is whole.
    End,
}

/// The copies of one request. Those that are not ended when this is dropped are cut off.
#[derive(Debug, Default)]
pub struct Sinks(Vec<Sink>);

#[derive(Debug)]
struct Sink {
    to: UnboundedSender<Piece>,
    waiting: Rc<Cell<usize>>,
}

impl Sinks {
    /// Begins a copy for each backend, with the head that the rule makes of the request's.
    pub fn begin<'f>(
        copied: &[Copied],
        request: &Request<'_>,
        fields: impl Iterator<Item = FieldRef<'f>> + Clone,
        edits: (&Filters, usize),
        (origin, pool): (&Origin, &Rc<Pool>),
    ) -> Self {
        if copied.is_empty() || request.upgrade != Upgrade::None {
            return Self::default();
        }
        Self::begin_each(copied, request, fields, edits, (origin, pool))
    }

    /// Out of the way of the requests that nobody copies.
    #[cold]
    fn begin_each<'f>(
        copied: &[Copied],
        request: &Request<'_>,
        fields: impl Iterator<Item = FieldRef<'f>> + Clone,
        edits: (&Filters, usize),
        (origin, pool): (&Origin, &Rc<Pool>),
    ) -> Self {
        let mut head = Vec::new();
        let unconditional = Request { expects_continue: false, ..request.clone() };
        // One head for all: what one of them must not get, none does.
        let are_same = copied.iter().all(|copied| copied.protocol == BackendProtocol::H2c);
        let protocol = if are_same { BackendProtocol::H2c } else { BackendProtocol::Http1 };
        render::request(&unconditional, fields, edits, (origin, protocol), &mut head);
        // One exchange alone: nobody reads the answer to see where the next one would begin.
        head.truncate(head.len() - 2);
        head.extend_from_slice(b"Connection: close\r\n\r\n");
        let head = Bytes::from(head);
        Self(copied.iter().map(|copied| Sink::begin(copied, head.clone(), pool)).collect())
    }

    /// More of the content, as HTTP/1 frames it.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.0.is_empty() && !bytes.is_empty() {
            self.push_each(bytes);
        }
    }

    #[cold]
    fn push_each(&mut self, bytes: &[u8]) {
        let piece = Bytes::copy_from_slice(bytes);
        self.0.retain(|sink| {
            let waiting = sink.waiting.get() + piece.len() + OVERHEAD;
            sink.waiting.set(waiting);
            waiting <= MAX_WAITING && sink.to.send(Piece::Data(piece.clone())).is_ok()
        });
    }

    /// The request is whole.
    #[inline]
    pub fn end(&mut self) {
        if !self.0.is_empty() {
            self.end_each();
        }
    }

    #[cold]
    fn end_each(&mut self) {
        for sink in self.0.drain(..) {
            // It may have been cut off already.
            let _ = sink.to.send(Piece::End);
        }
    }
}

impl Sink {
    fn begin(copied: &Copied, head: Bytes, pool: &Rc<Pool>) -> Self {
        let (to, pieces) = unbounded_channel();
        let waiting = Rc::new(Cell::new(0));
        let delivery = Delivery {
            backend: Arc::clone(&copied.backend),
            protocol: copied.protocol,
            pool: Rc::clone(pool),
            pieces,
            waiting: Rc::clone(&waiting),
        };
        spawn_local(async move {
            let id = delivery.backend.id.clone();
            match timeout(LIFETIME, delivery.run(head)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(backend = %id, %error, "a mirrored request was cut off"),
                Err(_) => debug!(backend = %id, "a mirrored request took too long"),
            }
        });
        Self { to, waiting }
    }
}

/// A copy on its way.
struct Delivery {
    backend: Arc<Backend>,
    protocol: BackendProtocol,
    pool: Rc<Pool>,
    pieces: UnboundedReceiver<Piece>,
    waiting: Rc<Cell<usize>>,
}

impl Delivery {
    async fn run(mut self, head: Bytes) -> io::Result<()> {
        let busy = || io::Error::other("no endpoint takes it");
        let endpoint = Arc::clone(self.backend.pick(&[]).ok_or_else(busy)?);
        let _in_flight = endpoint.enter().ok_or_else(busy)?;
        let opened = self.pool.open(&endpoint, self.protocol).await.map_err(io::Error::other)?;
        let (mut from, mut to) = tokio::io::split(opened.stream);
        let write = async {
            to.write_all(&head).await?;
            to.flush().await?;
            while let Some(piece) = self.pieces.recv().await {
                match piece {
                    Piece::Data(bytes) => {
                        to.write_all(&bytes).await?;
                        to.flush().await?;
                        self.waiting.set(self.waiting.get().saturating_sub(bytes.len() + OVERHEAD));
                    }
                    Piece::End => return Ok(()),
                }
            }
            Err(io::ErrorKind::ConnectionAborted.into())
        };
        let read = async {
            let mut dropped = [0; 4096];
            while from.read(&mut dropped).await? > 0 {}
            Ok::<(), io::Error>(())
        };
        tokio::try_join!(write, read).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_percentage_is_exact_over_each_round_and_spread_evenly(
            numerator in 1..100_u32,
            more in 0..100_u32,
        ) {
            let denominator = numerator + more;
            let mirror = Mirror::new(Slot::default(), None, numerator, denominator);
            let mut count = 0;
            for turn in 1..=u64::from(denominator) * 2 {
                count += u64::from(mirror.due(0).is_some());
                let exact = turn * u64::from(numerator) / u64::from(denominator);
                prop_assert!(count.abs_diff(exact) <= 1, "{count} of {turn}");
            }
            prop_assert_eq!(count, u64::from(numerator) * 2);
        }
    }

    #[test]
    fn a_mirror_of_one_share_leaves_the_others_alone() {
        let mirror = Mirror::new(Slot::default(), Some(1), 1, 1);
        assert!(mirror.due(0).is_none() && mirror.due(1).is_some());
    }
}
