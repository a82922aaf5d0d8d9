//! The hand-off: which worker gets an accepted connection.
//!
//! Owns the seats, one per worker: its load and the sender of its inbox. They are made beside the tree,
//! so they outlive restarts of workers and listeners. Called by the accept loops (they hand over), by the
//! workers (they sit down and stand up) and by the connections (a [`Held`] counts one until it is dropped).
//! Refuses to know what is spoken on a connection.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::runtime::RuntimeMetrics;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::drain::Admitted;

/// A connection as it comes from the listening socket: non-blocking, TCP_NODELAY set.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, registered with no runtime yet.
    pub stream: TcpStream,
    /// The address and port that it was accepted on.
    pub local: SocketAddr,
    /// The client.
    pub peer: SocketAddr,
    /// When it was accepted: the deadlines of the handshake and of the first head count from here.
    pub at: Instant,
    /// Its share of the limit on connections.
    pub admitted: Admitted,
}

/// A connection that a worker got.
#[derive(Debug)]
pub struct Handed {
    /// The socket, registered with no runtime yet.
    pub stream: TcpStream,
    /// The address and port that it was accepted on.
    pub local: SocketAddr,
    /// The client.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub at: Instant,
    /// Counts the connection for as long as it lives.
    pub held: Held,
}

/// Counts one connection of a worker and holds its share of the limit until it is dropped.
#[derive(Debug)]
pub struct Held {
    load: Arc<Load>,
    admitted: Option<Admitted>,
}

impl Held {
    /// The share of the limit, of a connection that no worker got.
    fn into_admitted(mut self) -> Option<Admitted> {
        self.admitted.take()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.load.connections.fetch_sub(1, Relaxed);
    }
}

/// How busy a worker is. The listen thread reads it, the worker writes it.
#[derive(Debug, Default)]
pub struct Load {
    connections: AtomicU32,
    streams: AtomicU32,
    busy_percent: AtomicU32,
    busy_before: AtomicU64,
}

impl Load {
    /// Its open connections, those on their way to it included.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Its open HTTP/2 streams.
    pub fn streams(&self) -> u32 {
        self.streams.load(Relaxed)
    }

    /// Counts a stream until the guard is dropped.
    pub fn stream(self: &Arc<Self>) -> StreamHeld {
        self.streams.fetch_add(1, Relaxed);
        StreamHeld(self.clone())
    }

    /// What the choice compares: connections + streams + busy time, where a percent of a core weighs as
    /// much as a connection.
    fn score(&self) -> u32 {
        self.connections() + self.streams() + self.busy_percent.load(Relaxed)
    }

    fn sample(&self, busy: Duration, every: Duration) {
        let now = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
        let before = self.busy_before.swap(now, Relaxed);
        let spent = u128::from(now.saturating_sub(before));
        let percent = spent * 100 / every.as_micros().max(1);
        self.busy_percent.store(u32::try_from(percent.min(100)).unwrap_or(100), Relaxed);
    }
}

/// Counts one stream of a worker until it is dropped.
#[derive(Debug)]
pub struct StreamHeld(Arc<Load>);

impl Drop for StreamHeld {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

/// A worker's place: what stays while the worker itself may be restarted.
#[derive(Debug, Default)]
pub struct Seat {
    load: Arc<Load>,
    taken: ArcSwapOption<Taken>,
}

#[derive(Debug)]
struct Taken {
    inbox: mpsc::UnboundedSender<Handed>,
    metrics: RuntimeMetrics,
}

impl Seat {
    /// A worker is up: from now on it gets connections. `metrics` are its runtime's.
    pub fn take(&self, metrics: RuntimeMetrics) -> mpsc::UnboundedReceiver<Handed> {
        let (inbox, connections) = mpsc::unbounded_channel();
        self.load.busy_before.store(0, Relaxed);
        self.taken.store(Some(Arc::new(Taken { inbox, metrics })));
        connections
    }

    /// The worker's load.
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// Whether a worker is up.
    pub fn is_taken(&self) -> bool {
        self.taken.load().as_ref().is_some_and(|taken| !taken.inbox.is_closed())
    }
}

/// Every worker's seat.
#[derive(Debug)]
pub struct Seats(Box<[Arc<Seat>]>);

impl Seats {
    /// Seats for so many workers, at least one.
    pub fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Arc::default()).collect())
    }

    /// How many workers there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The seats, by the number of the worker.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Seat>> {
        self.0.iter()
    }

    /// Gives a connection to the less loaded of two workers that `random` picks.
    ///
    /// # Errors
    /// Gives the connection back while no worker is up.
    pub fn hand_over(&self, accepted: Accepted, random: u64) -> Result<(), Accepted> {
        let score = |index: usize| {
            let seat = &self.0[index];
            seat.is_taken().then(|| seat.load.score())
        };
        let Some(chosen) = choose(self.0.len(), random, score) else { return Err(accepted) };
        let seat = &self.0[chosen];
        let taken = seat.taken.load();
        let Some(taken) = taken.as_ref() else { return Err(accepted) };
        if taken.inbox.is_closed() {
            return Err(accepted);
        }
        let Accepted { stream, local, peer, at, admitted } = accepted;
        seat.load.connections.fetch_add(1, Relaxed);
        let held = Held { load: seat.load.clone(), admitted: Some(admitted) };
        let Err(back) = taken.inbox.send(Handed { stream, local, peer, at, held }) else { return Ok(()) };
        // The worker ended just now.
        let Handed { stream, local, peer, at, held } = back.0;
        held.into_admitted().map_or(Ok(()), |admitted| Err(Accepted { stream, local, peer, at, admitted }))
    }

    /// Notes how busy each worker was since the call before, `every` ago.
    pub fn sample(&self, every: Duration) {
        for seat in &self.0 {
            if let Some(taken) = seat.taken.load().as_ref() {
                seat.load.sample(taken.metrics.worker_total_busy_duration(0), every);
            }
        }
    }
}

/// The power of two choices: of two different workers the one with the lower score; `score` is `None` for
/// one that is not up. Where both are down, the best of all the others.
fn choose(workers: usize, random: u64, score: impl Fn(usize) -> Option<u32>) -> Option<usize> {
    let count = workers as u64;
    let first = random % count;
    let second = if count > 1 { (first + 1 + (random >> 32) % (count - 1)) % count } else { first };
    let best = |candidates: &mut dyn Iterator<Item = usize>| {
        candidates.filter_map(|index| Some((score(index)?, index))).min_by_key(|(score, _)| *score)
    };
    let pair = [first as usize, second as usize];
    best(&mut pair.into_iter()).or_else(|| best(&mut (0..workers))).map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_loaded_of_two_gets_it_and_one_that_is_down_never_does() {
        let loads = [Some(5), None, Some(9), Some(1)];
        for random in (0..4000_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
            let chosen = choose(4, random, |index| loads[index]).unwrap();
            assert_ne!(chosen, 1, "it is down");
        }
        assert_eq!(choose(2, 7, |index| [Some(3), Some(2)][index]), Some(1));
        assert_eq!(choose(1, 7, |_| Some(3)), Some(0));
        assert_eq!(choose(3, 7, |_| None), None);
        assert_eq!(choose(4, 7, |index| (index == 2).then_some(0)), Some(2), "the only one that is up");
    }

    #[test]
    fn long_lived_connections_spread_evenly() {
        let mut loads = [0_u32; 16];
        let mut random = 1_u64;
        for _ in 0..1600 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let chosen = choose(16, random.rotate_left(29), |index| Some(loads[index])).unwrap();
            loads[chosen] += 1;
        }
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        assert!(*least >= 95 && *most <= 105, "{loads:?}");
    }

    #[test]
    fn busy_time_counts_as_a_share_of_the_time_that_passed() {
        let load = Load::default();
        load.sample(Duration::from_millis(500), Duration::from_secs(1));
        assert_eq!(load.score(), 50);
        load.sample(Duration::from_millis(510), Duration::from_secs(1));
        assert_eq!(load.score(), 1);
    }

    #[test]
    fn a_stream_counts_for_as_long_as_it_lives() {
        let load = Arc::new(Load::default());
        let stream = load.stream();
        assert_eq!((load.streams(), load.score()), (1, 1));
        drop(stream);
        assert_eq!(load.score(), 0);
    }
}
