//! A journal that is written anew: whole, in files with names of their own until it takes its place.
//!
//! Owns the thread that writes it, so that the configuration of a large fleet does not wait for it, and what is saved
//! meanwhile. Called by [`super::LastGood`]. Refuses to know which number it gets.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use proxy_config::set::UnitSet;
use proxy_config::unit::EncodedUnit;
use proxy_config::wire::Version;

use super::{Change, Encoded, Open, create, journal_path, keys_path};

/// The extension of files that have not taken their place.
pub(super) const DRAFT: &str = "draft";

/// A whole journal that has not taken its place yet.
#[derive(Debug)]
pub(super) struct Draft {
    journal: PathBuf,
    keys: PathBuf,
    open: Open,
}

impl Draft {
    /// Writes all units, down to the disk.
    pub(super) fn write(
        folder: &Path,
        units: &UnitSet,
        version: Version,
        at: SystemTime,
    ) -> io::Result<Self> {
        // The processes of a node share the folder, and may each be the first of its own container.
        let name = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let [journal, keys] = ["journal", "keys"].map(|what| folder.join(format!("{name}.{what}.{DRAFT}")));
        let write = || {
            let mut open = Open { journal: create(&journal)?, keys: create(&keys)?, base: 0, size: 0 };
            let whole: Vec<EncodedUnit> = units.iter().cloned().collect();
            open.append(&Encoded::of(&Change { version, at, put: &whole, delete: &[] }, units.root())?)?;
            open.base = open.size;
            open.journal.sync_data()?;
            open.keys.sync_data()?;
            Ok(open)
        };
        let open = write().inspect_err(|_: &io::Error| {
            // Half a file is of no use to anybody, least of all where the disk is full.
            let _ = (fs::remove_file(&journal), fs::remove_file(&keys));
        })?;
        Ok(Self { journal, keys, open })
    }

    /// Takes its place, after its keys: it appears whole or not at all.
    pub(super) fn publish(self, folder: &Path, number: u64) -> io::Result<Open> {
        fs::rename(&self.keys, keys_path(folder, number))?;
        fs::rename(&self.journal, journal_path(folder, number))?;
        Ok(self.open)
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub(super) struct Rewriting {
    thread: JoinHandle<io::Result<Draft>>,
    /// What was saved since it began.
    since: Vec<Encoded>,
}

impl Rewriting {
    /// Begins with what is in force after a change.
    pub(super) fn start(folder: &Path, units: &UnitSet, change: &Change<'_>) -> io::Result<Self> {
        let (folder, units, version, at) = (folder.to_owned(), units.clone(), change.version, change.at);
        let write = move || Draft::write(&folder, &units, version, at);
        Ok(Self { thread: thread::Builder::new().name("journal".into()).spawn(write)?, since: Vec::new() })
    }

    /// Whether the thread has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Notes what has been saved in the one before meanwhile.
    pub(super) fn add(&mut self, record: Encoded) {
        self.since.push(record);
    }

    /// The whole journal, with what was saved meanwhile.
    pub(super) fn finish(self) -> io::Result<Draft> {
        let panicked = |_| io::Error::other("the thread that writes the journal anew has panicked");
        let mut draft = self.thread.join().map_err(panicked)??;
        for record in &self.since {
            draft.open.append(record)?;
        }
        Ok(draft)
    }
}
