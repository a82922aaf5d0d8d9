//! The config store's memory on disk: what it notes there, and how often. A disk that fails costs the
//! memory, never the configuration.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proxy_config::name::UnitId;
use proxy_config::unit::EncodedUnit;
use tokio::time::Instant;
use tracing::warn;

use super::in_force::InForce;
use crate::last_good::{Change, LastGood, Remembered};
use crate::metrics::Metrics;

/// A configuration that a controller only confirms is noted at most this often.
const CONFIRM_EVERY: Duration = Duration::from_secs(60);

/// The journal, where there is one.
#[derive(Debug)]
pub(super) struct Journal {
    last_good: Option<LastGood>,
    noted: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl Journal {
    /// Opens the journal of a folder, and says what it holds.
    pub(super) fn open(folder: Option<&Path>, metrics: Arc<Metrics>) -> (Self, Option<Remembered>) {
        let opened = folder.map(LastGood::open).transpose().unwrap_or_else(|error| {
            warn!(error = %chain(&error), "no last good configuration");
            None
        });
        let (last_good, remembered) = opened.map_or((None, None), |(open, known)| (Some(open), known));
        let journal = Self { last_good, noted: None, metrics };
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
