//! What became of configurations: counted by the config store, shown by [`super::text`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proxy_config::wire::{NackReason, Reply, Version};

/// The outcomes of a push, as the label `outcome` names them.
pub const OUTCOMES: [&str; 7] =
    ["ack", "need_units", "stale", "unknown_wire", "wrong_proxy", "malformed", "hash_mismatch"];

/// Counts of pushes and swaps, and what is in force.
#[derive(Debug, Default)]
pub struct Pushes {
    outcomes: [AtomicU64; OUTCOMES.len()],
    /// Tables put in force.
    pub swaps: AtomicU64,
    /// Units in force that can't be used.
    pub broken: AtomicU64,
    /// When the last good configuration was written or confirmed, in seconds since 1970; 0: never.
    pub last_good: AtomicU64,
    term: AtomicU64,
    generation: AtomicU64,
}

impl Pushes {
    /// Counts a push by what it was answered.
    pub fn answered(&self, reply: &Reply) {
        let outcome = match reply {
            Reply::Ack(_) => 0,
            Reply::NeedUnits(_) => 1,
            Reply::Nack(nack) => match nack.reason {
                NackReason::Stale => 2,
                NackReason::UnknownWire => 3,
                NackReason::WrongProxy => 4,
                NackReason::Malformed(_) => 5,
                NackReason::HashMismatch(_) => 6,
            },
        };
        self.outcomes[outcome].fetch_add(1, Relaxed);
    }

    /// Counts a swap and notes what is in force.
    pub fn swapped(&self, version: Version, broken: usize) {
        self.swaps.fetch_add(1, Relaxed);
        self.in_force(version, broken);
    }

    /// Notes what is in force.
    pub fn in_force(&self, version: Version, broken: usize) {
        self.term.store(version.term, Relaxed);
        self.generation.store(version.generation, Relaxed);
        self.broken.store(broken as u64, Relaxed);
    }

    /// What is in force.
    pub fn version(&self) -> Version {
        Version { term: self.term.load(Relaxed), generation: self.generation.load(Relaxed) }
    }

    /// How many pushes had each outcome, in the order of [`OUTCOMES`].
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.into_iter().zip(self.outcomes.iter().map(|count| count.load(Relaxed)))
    }
}
