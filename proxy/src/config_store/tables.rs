//! The table in force and those before it, which are dropped here and not on a worker that happens to
//! let go of one last.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::metrics::Metrics;
use crate::table::{SharedTable, Table};

pub(super) struct Tables {
    shared: SharedTable,
    metrics: Arc<Metrics>,
    replaced: Vec<Arc<Table>>,
}

impl Tables {
    pub(super) fn new(shared: SharedTable, metrics: Arc<Metrics>) -> Self {
        Self { shared, metrics, replaced: Vec::new() }
    }

    /// Puts a table in force: one pointer.
    pub(super) fn swap(&mut self, table: Arc<Table>) {
        self.replaced.push(self.shared.swap(table));
        self.metrics.pushes.swaps.fetch_add(1, Relaxed);
    }

    /// Drops the tables that no worker reads any more; whether none is left. A worker that is idle may
    /// hold on to one until its next request.
    pub(super) fn tidy(&mut self) -> bool {
        self.replaced.retain(|table| Arc::strong_count(table) > 1);
        self.replaced.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_table_stays_for_as_long_as_somebody_reads_it() {
        let shared: SharedTable = Arc::new(arc_swap::ArcSwap::from_pointee(Table::default()));
        let mut tables = Tables::new(shared.clone(), Metrics::new(1));
        let first = Arc::downgrade(&shared.load_full());
        let mut reader = arc_swap::Cache::new(shared);
        reader.load();
        tables.swap(Arc::default());
        assert!(!tables.tidy());
        reader.load();
        assert!(first.upgrade().is_some(), "the reader has let go, but did not drop it");
        assert!(tables.tidy());
        assert!(first.upgrade().is_none());
    }
}
