//! The config store's memory on disk: what it notes there, and how often. A disk that fails costs the
//! memory, never the configuration.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proxy_config::name::UnitId;
use proxy_config::unit::EncodedUnit;
use tokio::time::Instant;
use tracing::warn;

use super::in_force::InForce;
use crate::handover::turn::Turns;
use crate::last_good::{Change, LastGood, Remembered};
use crate::metrics::Metrics;

/// A configuration that a controller only confirms is noted at most this often.
const CONFIRM_EVERY: Duration = Duration::from_secs(60);

/// The journal, where there is one. While it is another process's turn, that one writes.
#[derive(Debug)]
pub(super) struct Journal {
    folder: Option<PathBuf>,
    turns: Turns,
    last_good: Option<LastGood>,
    /// Something has not been noted, and another process may have written.
    is_behind: bool,
    noted: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl Journal {
    /// Opens the journal of a folder, and says what it holds.
    pub(super) fn open(
        folder: Option<&Path>,
        metrics: Arc<Metrics>,
        turns: Turns,
    ) -> (Self, Option<Remembered>) {
        let (last_good, remembered) = open(folder);
        let folder = folder.map(Path::to_owned);
        let journal = Self { folder, turns, last_good, is_behind: false, noted: None, metrics };
        if let Some(remembered) = &remembered {
            journal.show(remembered.confirmed);
        }
        (journal, remembered)
    }

    /// Shows how old the memory is.
    fn show(&self, at: SystemTime) {
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.pushes.last_good.store(at.as_secs(), Relaxed);
    }

    /// Whether a confirmation is worth a note.
    pub(super) fn is_due(&self) -> bool {
        self.noted.is_none_or(|noted| noted.elapsed() >= CONFIRM_EVERY)
    }

    /// Notes what is in force, and how it came from what was.
    pub(super) fn note(&mut self, in_force: &InForce, put: &[EncodedUnit], delete: &[UnitId]) {
        if !self.turns.is_ours() {
            self.is_behind = true;
            return;
        }
        if std::mem::take(&mut self.is_behind) {
            // It begins a journal of its own, after those that are there by now.
            self.last_good = open(self.folder.as_deref()).0;
        }
        let Some(last_good) = &mut self.last_good else { return };
        let at = in_force.confirmed.unwrap_or(UNIX_EPOCH);
        let change = Change { version: in_force.version, at, put, delete };
        match last_good.save(&in_force.units, &change) {
            Ok(()) => {
                self.noted = Some(Instant::now());
                self.show(at);
            }
            Err(error) => warn!(error = %chain(&error), "the last good configuration is not kept"),
        }
    }
}

fn open(folder: Option<&Path>) -> (Option<LastGood>, Option<Remembered>) {
    let opened = folder.map(LastGood::open).transpose().unwrap_or_else(|error| {
        warn!(error = %chain(&error), "no last good configuration");
        None
    });
    opened.map_or((None, None), |(open, known)| (Some(open), known))
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
