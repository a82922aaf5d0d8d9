//! The last good configuration on disk: what a restarted proxy serves before any controller speaks to it.
//!
//! Owns the state folder (0700): an append-only journal of what was put in force, and beside it a file of
//! its own (0600) for private keys. Each record carries a checksum and the root hash that it leads to.
//! At twice its size a journal is written anew under the next number; the one before is kept.
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
}

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
            numbers.extend(entry.map_err(fail)?.file_name().to_str().and_then(number_of));
        }
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let remembered = numbers.iter().find_map(|number| load(folder, *number));
        let number = numbers.first().copied().unwrap_or(0);
        Ok((Self { folder: folder.to_owned(), number, open: None }, remembered))
    }

    /// Remembers a change; `units` is its result.
    ///
    /// # Errors
    /// Where it can't be written. The next call then writes everything anew.
    pub fn save(&mut self, units: &UnitSet, change: &Change<'_>) -> Result<(), LastGoodError> {
        let grown = |open: &Open| open.size - open.base >= open.base.max(LEAST_GROWTH);
        let open = self.open.take().filter(|open| !grown(open));
        let saved = match open {
            Some(mut open) => open.append(change, units.root()).map(|()| open),
            None => self.rewrite(units, change),
        };
        let open = saved.map_err(|source| LastGoodError::File {
            path: journal_path(&self.folder, self.number),
            source,
        })?;
        self.open = Some(open);
        Ok(())
    }

    /// Writes everything into the next journal. It appears whole or not at all, after its keys.
    fn rewrite(&mut self, units: &UnitSet, change: &Change<'_>) -> io::Result<Open> {
        let number = self.number + 1;
        let whole: Vec<EncodedUnit> = units.iter().cloned().collect();
        let mut keys = create(&keys_path(&self.folder, number))?;
        let draft = self.folder.join("journal.draft");
        let mut journal = create(&draft)?;
        let change = Change { put: &whole, delete: &[], ..change.clone() };
        let base = write(&mut journal, &mut keys, &change, units.root())?;
        journal.sync_data()?;
        keys.sync_data()?;
        fs::rename(&draft, journal_path(&self.folder, number))?;
        if let Some(gone) = self.number.checked_sub(1).filter(|gone| *gone > 0) {
            // They may be gone already; a leftover costs space only until the next time.
            let _ = fs::remove_file(journal_path(&self.folder, gone));
            let _ = fs::remove_file(keys_path(&self.folder, gone));
        }
        self.number = number;
        Ok(Open { journal, keys, base, size: base })
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
    fn append(&mut self, change: &Change<'_>, root: RootHash) -> io::Result<()> {
        let (journal, keys) = (&mut self.journal, &mut self.keys);
        self.size += write(journal, keys, change, root)?;
        Ok(())
    }
}

/// Appends a record: the keys first, so that a record never names keys that are not there.
fn write(journal: &mut File, keys: &mut File, change: &Change<'_>, root: RootHash) -> io::Result<u64> {
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
    let mut written = 0;
    if !private.is_empty() {
        let frame = frame::encode(&serde_json::to_vec(&private)?);
        keys.write_all(&frame)?;
        written += frame.len() as u64;
    }
    let frame = frame::encode(&serde_json::to_vec(&record)?);
    journal.write_all(&frame)?;
    Ok(written + frame.len() as u64)
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
