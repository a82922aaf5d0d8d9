//! Knowing that nothing of an instance is left, however it ended.
//!
//! A killed supervisor takes its descendants along, but nobody waits for them. So everything that
//! lives below an instance holds a [`Token`] of its [`Census`]: actors (handler and state) and the
//! tasks that keep them. Used by `keeper`. Refuses to know what the holders are.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

/// Counts what is alive below one instance.
pub(crate) struct Census {
    gone: mpsc::Receiver<Infallible>,
}

/// Held by whatever lives below an instance. It also holds the tokens of all levels above.
#[derive(Clone)]
pub(crate) struct Token {
    _inner: Arc<Held>,
}

struct Held {
    _alive: mpsc::Sender<Infallible>,
    _above: Option<Token>,
    _counted: Option<Counted>,
}

/// Counted for as long as anything of the instance exists.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(count: watch::Sender<usize>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

impl Census {
    /// A census of one instance, below the instance that holds `above`; it adds itself to `count`.
    pub(crate) fn new(above: Option<Token>, count: Option<watch::Sender<usize>>) -> (Self, Token) {
        let (alive, gone) = mpsc::channel(1);
        let held = Held { _alive: alive, _above: above, _counted: count.map(Counted::new) };
        (Self { gone }, Token { _inner: Arc::new(held) })
    }

    /// Returns when the last token is gone.
    pub(crate) async fn empty(&mut self) {
        // Nothing can be sent: the only answer is that all senders are gone.
        let _ = self.gone.recv().await;
    }
}
