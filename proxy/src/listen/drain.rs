//! Drain: how a proxy stops without losing a request.
//!
//! Owns the two switches that everything watches, and knows when the last connection has ended. Called by
//! the command when it gets a SIGTERM (or by a pushed cordon). Refuses to know about signals and about
//! protocols: HTTP/1.1 answers with `Connection: close` and HTTP/2 with GOAWAY because they watch
//! [`Drain::draining`].

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::AcqRel, Ordering::Acquire};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::admission::{Admission, Refused};
use crate::limits::Limits;

/// How long a drain takes.
#[derive(Clone, Copy, Debug)]
pub struct DrainSettings {
    /// New connections are still accepted for this long, while health checks and DNS take the node out.
    pub accept_for: Duration,
    /// Connections that are open so long after the start of the drain are cut.
    pub finish_within: Duration,
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self { accept_for: Duration::from_secs(10), finish_within: Duration::from_secs(60) }
    }
}

/// What a drain came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open at the deadline.
    pub cut: u32,
}

/// What is not over yet.
#[derive(Debug)]
struct Open {
    admission: Arc<Admission>,
    accept_loops: AtomicU32,
    ended: Notify,
}

impl Open {
    async fn all_ended(&self) {
        loop {
            let ended = self.ended.notified();
            // Loops first: the last thing that one does is to admit connections.
            if self.accept_loops.load(Acquire) == 0 && self.admission.open() == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// One connection's share of the limits, until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    open: Arc<Open>,
    peer: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.open.admission.end(self.peer) {
            self.open.ended.notify_waiters();
        }
    }
}

/// An accept loop that may still admit connections, until it is dropped.
#[derive(Debug)]
pub struct Accepting(Arc<Open>);

impl Drop for Accepting {
    fn drop(&mut self) {
        if self.0.accept_loops.fetch_sub(1, AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

/// The switches of a drain and who is let in. Made beside the tree, one per proxy.
#[derive(Debug)]
pub struct Drain {
    draining: watch::Sender<bool>,
    accepting: watch::Sender<bool>,
    open: Arc<Open>,
}

impl Drain {
    /// Not draining; with as many connections at a time as the limits say.
    pub fn new(limits: &Limits) -> Self {
        let admission = Admission::new(limits);
        Self {
            draining: watch::Sender::new(false),
            accepting: watch::Sender::new(true),
            open: Arc::new(Open { admission, accept_loops: AtomicU32::new(0), ended: Notify::new() }),
        }
    }

    /// True once the proxy wants to be rid of its connections.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// False once nothing new is accepted.
    pub fn accepting(&self) -> watch::Receiver<bool> {
        self.accepting.subscribe()
    }

    /// Lets a connection of this client in.
    ///
    /// # Errors
    /// Why it is not: a limit is reached.
    pub fn admit(&self, peer: IpAddr) -> Result<Admitted, Refused> {
        self.open.admission.begin(peer)?;
        Ok(Admitted { open: self.open.clone(), peer })
    }

    /// How many connections are open.
    pub fn open(&self) -> u32 {
        self.open.admission.open()
    }

    /// Says that an accept loop is at work; a drain waits for it.
    pub fn accept_loop(&self) -> Accepting {
        self.open.accept_loops.fetch_add(1, AcqRel);
        Accepting(self.open.clone())
    }

    /// Begins to drain at once, with nothing new accepted: another process does that.
    pub fn begin(&self) {
        self.draining.send_replace(true);
        self.accepting.send_replace(false);
    }

    /// Drains: says so, accepts for a while, then waits until the last connection has ended, or for the
    /// deadline. Calling it again starts over with the waiting.
    pub async fn run(&self, settings: DrainSettings) -> Drained {
        let deadline = Instant::now() + settings.finish_within;
        self.draining.send_replace(true);
        info!(connections = self.open(), "draining");
        tokio::time::sleep(settings.accept_for.min(settings.finish_within)).await;
        self.accepting.send_replace(false);
        let all_ended = timeout_at(deadline, self.open.all_ended()).await;
        let cut = if all_ended.is_ok() { 0 } else { self.open() };
        info!(cut, "drained");
        Drained { cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: DrainSettings =
        DrainSettings { accept_for: Duration::from_secs(10), finish_within: Duration::from_secs(60) };

    fn admit(drain: &Drain) -> Admitted {
        drain.admit([192, 0, 2, 1].into()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_accepts_for_a_while_then_ends_with_the_last_connection() {
        let drain = Arc::new(Drain::new(&Limits::new(100)));
        let admitted = admit(&drain);
        let (begun, run) = (
            Instant::now(),
            tokio::spawn({
                let drain = drain.clone();
                async move { drain.run(SETTINGS).await }
            }),
        );
        drain.draining().wait_for(|draining| *draining).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drain.accepting().wait_for(|accepting| !*accepting).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!run.is_finished());
        drop(admitted);
        assert_eq!(run.await.unwrap(), Drained { cut: 0 });
        assert_eq!(begun.elapsed(), Duration::from_secs(15));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_open_at_the_deadline_is_cut() {
        let drain = Drain::new(&Limits::new(100));
        let _two = (admit(&drain), admit(&drain));
        let begun = Instant::now();
        assert_eq!(drain.run(SETTINGS).await, Drained { cut: 2 });
        assert_eq!(begun.elapsed(), Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_accept_loop_still_finds_in_its_queue_is_admitted_and_waited_for() {
        let drain = Arc::new(Drain::new(&Limits::new(2)));
        let accepting = drain.accept_loop();
        let run = tokio::spawn({
            let drain = drain.clone();
            async move { drain.run(DrainSettings { accept_for: Duration::ZERO, ..SETTINGS }).await }
        });
        drain.accepting().wait_for(|accepting| !*accepting).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!run.is_finished(), "the loop may still find something");
        let late = admit(&drain);
        drop(accepting);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!run.is_finished());
        drop(late);
        assert_eq!(run.await.unwrap(), Drained { cut: 0 });
    }
}
