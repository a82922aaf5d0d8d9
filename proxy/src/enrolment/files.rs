//! The identity's files: for their owner alone, each whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::admin::identity::{Identity, IdentityError, TlsSource};

/// The folder.
pub(super) struct Files<'a>(&'a Path);

impl<'a> Files<'a> {
    pub(super) fn new(folder: &'a Path) -> Self {
        Self(folder)
    }

    pub(super) fn read(&self) -> Result<Identity, IdentityError> {
        TlsSource::Files(self.0.to_owned()).read()
    }

    /// The chain last: who sees a new one sees its key too.
    pub(super) fn write(&self, identity: &Identity) -> io::Result<()> {
        if !self.0.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(self.0)?;
        }
        self.put("ca.crt", &identity.authorities)?;
        self.put("tls.key", &identity.key)?;
        self.put("tls.crt", &identity.chain)
    }

    fn put(&self, name: &str, text: &str) -> io::Result<()> {
        let partial = self.0.join(format!("{name}.partial"));
        if partial.exists() {
            fs::remove_file(&partial)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&partial, self.0.join(name))
    }
}
