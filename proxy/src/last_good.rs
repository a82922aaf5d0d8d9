//! The last good configuration on disk: what a restarted proxy serves before any controller speaks to it.
//!
//! Owns the state folder (0700): an append-only journal of what was put in force, and beside it a file of
//! its own (0600) for private keys. Each record carries a checksum and the root hash that it leads to.
//! At twice its size a journal is written anew beside it ([`rewriting`]), under the next number; the one before is kept.
//! Called by `config_store`, which never fails because of it. Refuses to know what units mean.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proxy_config::name::{UnitId, UnitKind};
use proxy_config::set::{RootHash, UnitSet};
use proxy_config::unit::{ContentHash, EncodedUnit};
use proxy_config::wire::Version;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

mod frame;
mod rewriting;

use rewriting::{DRAFT, Draft, Rewriting};

/// A journal is not written anew before it has grown by this much, in bytes.
const LEAST_GROWTH: u64 = 256 << 10;

/// Why the folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    /// A file or the folder can't be read or written.
    #[error("{path} can't be used: give this process the folder for itself")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What was in force.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// The units.
    pub units: UnitSet,
    /// Their place in time.
    pub version: Version,
    /// When a controller last said so.
    pub confirmed: SystemTime,
}

/// A change of what is in force.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// The place in time of the result.
    pub version: Version,
    /// When a controller said so.
    pub at: SystemTime,
    /// Units put.
    pub put: &'a [EncodedUnit],
    /// Units deleted.
    pub delete: &'a [UnitId],
}

/// A record of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    version: Version,
    root: RootHash,
    /// Seconds since 1970.
    at: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    put: Vec<EncodedUnit>,
    /// Private keys that are put: their bytes are in the file of the keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    keys: BTreeMap<UnitId, ContentHash>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    delete: Vec<UnitId>,
}

/// The journal, open for appending.
#[derive(Debug)]
pub struct LastGood {
    folder: PathBuf,
    /// The number of the newest journal, written by this process or one before.
    number: u64,
    /// `None` until this process has written a journal of its own: it never appends to a file that
    /// another process may have left half written.
    open: Option<Open>,
    /// The next one, while it is being written.
    rewriting: Option<Rewriting>,
}

/// The two files of a journal.
#[derive(Debug)]
struct Open {
    journal: File,
    keys: File,
    base: u64,
    size: u64,
}

impl LastGood {
    /// Opens the folder, and reads what was in force: from the newest journal up to its first damage;
    /// where nothing of it can be used, from the one before.
    ///
    /// # Errors
    /// Where the folder can't be made or listed. Damaged files are no error.
    pub fn open(folder: &Path) -> Result<(Self, Option<Remembered>), LastGoodError> {
        let fail = |source| LastGoodError::File { path: folder.to_owned(), source };
        private_folder(folder).map_err(fail)?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            numbers.extend(entry.file_name().to_str().and_then(number_of));
            if entry.path().extension().is_some_and(|end| end == DRAFT) {
                // Of a process that has ended; one that has not begins anew.
                let _ = fs::remove_file(entry.path());
            }
        }
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let remembered = numbers.iter().find_map(|number| load(folder, *number));
        let number = numbers.first().copied().unwrap_or(0);
        Ok((Self { folder: folder.to_owned(), number, open: None, rewriting: None }, remembered))
    }

    /// Remembers a change; `units` is its result.
    ///
    /// # Errors
    /// Where it can't be written. The next call then writes everything anew.
    pub fn save(&mut self, units: &UnitSet, change: &Change<'_>) -> Result<(), LastGoodError> {
        self.append(units, change).map_err(|source| {
            // What may lack this change must not be gone on with.
            (self.open, self.rewriting) = (None, None);
            LastGoodError::File { path: journal_path(&self.folder, self.number), source }
        })
    }

    fn append(&mut self, units: &UnitSet, change: &Change<'_>) -> io::Result<()> {
        if let Some(rewritten) = self.rewriting.take_if(|rewriting| rewriting.is_finished()) {
            let draft = rewritten.finish()?;
            self.open = Some(self.publish(draft)?);
        }
        let Some(mut open) = self.open.take() else {
            let whole = Draft::write(&self.folder, units, change.version, change.at)?;
            self.open = Some(self.publish(whole)?);
            return Ok(());
        };
        let record = Encoded::of(change, units.root())?;
        open.append(&record)?;
        match &mut self.rewriting {
            Some(rewriting) => rewriting.add(record),
            None if open.has_grown() => {
                self.rewriting = Some(Rewriting::start(&self.folder, units, change)?);
            }
            None => {}
        }
        self.open = Some(open);
        Ok(())
    }

    /// Gives a journal that is written its place: the next number. The one before the newest goes.
    fn publish(&mut self, draft: Draft) -> io::Result<Open> {
        let open = draft.publish(&self.folder, self.number + 1)?;
        if let Some(gone) = self.number.checked_sub(1).filter(|gone| *gone > 0) {
            // They may be gone already; a leftover costs space only until the next time.
            let _ = fs::remove_file(journal_path(&self.folder, gone));
            let _ = fs::remove_file(keys_path(&self.folder, gone));
        }
        self.number += 1;
        Ok(open)
    }
}

/// Makes a folder for this user alone, or makes the one that is there so.
///
/// # Errors
/// Where the folder can't be made, or is another user's.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // It may have been there before, open to others.
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

impl Open {
    fn append(&mut self, record: &Encoded) -> io::Result<()> {
        if !record.keys.is_empty() {
            self.keys.write_all(&record.keys)?;
        }
        self.journal.write_all(&record.journal)?;
        self.size += (record.keys.len() + record.journal.len()) as u64;
        Ok(())
    }

    fn has_grown(&self) -> bool {
        self.size - self.base >= self.base.max(LEAST_GROWTH)
    }
}

/// A record as it is written: the keys first, so that a record never names keys that are not there.
#[derive(Debug)]
struct Encoded {
    keys: Vec<u8>,
    journal: Vec<u8>,
}

impl Encoded {
    fn of(change: &Change<'_>, root: RootHash) -> io::Result<Self> {
        let Change { version, at, put, delete } = *change;
        let is_key = |unit: &&EncodedUnit| unit.id.kind() == Some(UnitKind::Key);
        let private: Vec<&EncodedUnit> = put.iter().filter(is_key).collect();
        let record = Record {
            version,
            root,
            at: at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            put: put.iter().filter(|unit| !is_key(unit)).cloned().collect(),
            keys: private.iter().map(|unit| (unit.id.clone(), unit.hash)).collect(),
            delete: delete.to_vec(),
        };
        let framed = |payload: Vec<u8>| frame::encode(&payload);
        let keys = if private.is_empty() { Vec::new() } else { framed(serde_json::to_vec(&private)?) };
        Ok(Self { keys, journal: framed(serde_json::to_vec(&record)?) })
    }
}

/// Replays a journal up to its first damage; `None` where no record of it can be used.
fn load(folder: &Path, number: u64) -> Option<Remembered> {
    let path = journal_path(folder, number);
    let bytes = fs::read(&path).inspect_err(|error| warn!(?path, %error, "can't read the journal")).ok()?;
    let keys = load_keys(&keys_path(folder, number));
    let mut remembered: Option<Remembered> = None;
    let mut frames = frame::decode(&bytes);
    let mut records = 0_usize;
    for payload in &mut frames {
        let before = remembered.as_ref().map(|known| known.units.clone()).unwrap_or_default();
        let Some(next) = replay(before, payload, &keys) else {
            warn!(?path, record = records, "a record of the journal can't be used: what follows is left out");
            return remembered;
        };
        remembered = Some(next);
        records += 1;
    }
    if frames.damaged() {
        warn!(?path, records, "the journal is damaged after these records");
    }
    if let Some(known) = &remembered {
        info!(?path, records, term = known.version.term, generation = known.version.generation, "loaded");
    }
    remembered
}

fn replay(
    mut units: UnitSet,
    payload: &[u8],
    keys: &HashMap<(UnitId, ContentHash), EncodedUnit>,
) -> Option<Remembered> {
    let record: Record = serde_json::from_slice(payload).ok()?;
    let private = record.keys.into_iter().map(|named| keys.get(&named).cloned());
    let put: Vec<EncodedUnit> = record.put.into_iter().map(Some).chain(private).collect::<Option<_>>()?;
    if !put.iter().all(EncodedUnit::is_intact) {
        return None;
    }
    units.apply(put, record.delete);
    let confirmed = UNIX_EPOCH + Duration::from_secs(record.at);
    (units.root() == record.root).then_some(Remembered { units, version: record.version, confirmed })
}

/// The keys that can be read; those that can't are missed by the record that names them.
fn load_keys(path: &Path) -> HashMap<(UnitId, ContentHash), EncodedUnit> {
    let bytes = fs::read(path).unwrap_or_default();
    let lists = frame::decode(&bytes).filter_map(|payload| serde_json::from_slice(payload).ok());
    lists.flat_map(|list: Vec<EncodedUnit>| list).map(|unit| ((unit.id.clone(), unit.hash), unit)).collect()
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn journal_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.journal"))
}

fn keys_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.keys"))
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".journal")?.parse().ok()
}

#[cfg(test)]
mod tests;
