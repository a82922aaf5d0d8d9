//! Owns how many connections to endpoints a proxy has open, idle ones included.
//!
//! Clients that open many streams each could else use up the open files of the process, and with them
//! the connections of all other clients. Made beside the tree; every connection that is dialled holds a
//! [`Share`]. Knows nothing of endpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The connections to endpoints that a proxy may have.
#[derive(Debug)]
pub struct Budget {
    limit: u32,
    open: AtomicU32,
}

impl Budget {
    /// So many at a time.
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self { limit, open: AtomicU32::new(0) })
    }

    /// The right to one more connection; `None` while there are as many as may be.
    pub fn take(self: &Arc<Self>) -> Option<Share> {
        let share = Share(Arc::clone(self));
        // A share that is too many gives itself back.
        (self.open.fetch_add(1, Relaxed) < self.limit).then_some(share)
    }

    /// Whether so few are left that none should be idle.
    pub fn is_scarce(&self) -> bool {
        self.limit.saturating_sub(self.open()) < self.limit / 8
    }

    /// How many are open.
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }
}

/// The right to one connection, until it is dropped.
#[derive(Debug)]
pub struct Share(Arc<Budget>);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_shares_are_out_than_may_be() {
        let budget = Budget::new(16);
        let mut shares: Vec<Share> = std::iter::from_fn(|| budget.take()).collect();
        assert_eq!((shares.len(), budget.open()), (16, 16));
        shares.truncate(14);
        assert!(!budget.is_scarce());
        shares.extend(budget.take());
        assert!(budget.is_scarce());
    }
}
