//! Certificates and their keys. A certificate that becomes unusable keeps its last good form.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::sync::Arc;

use proxy_config::certificate::{Certificate, PrivateKey};
use proxy_config::name::UnitId;

use super::{Dirty, Problems, leave};
use crate::table::certificate::ServerCertificate;

#[derive(Debug, Default)]
pub(super) struct CertificateStage {
    keys: HashMap<UnitId, PrivateKey>,
    units: HashMap<UnitId, Certificate>,
    by_key: BTreeMap<UnitId, BTreeSet<UnitId>>,
    good: BTreeMap<UnitId, Arc<ServerCertificate>>,
    dirty: Dirty<UnitId>,
}

impl CertificateStage {
    pub(super) fn put_key(&mut self, id: &UnitId, key: Option<PrivateKey>) {
        match key {
            Some(key) => self.keys.insert(id.clone(), key),
            None => self.keys.remove(id),
        };
        self.dirty.extend(self.by_key.get(id).into_iter().flatten().cloned());
    }

    pub(super) fn put(&mut self, id: &UnitId, unit: Certificate) {
        self.forget(id);
        self.by_key.entry(unit.key.clone()).or_default().insert(id.clone());
        self.units.insert(id.clone(), unit);
    }

    pub(super) fn delete(&mut self, id: &UnitId) {
        self.forget(id);
        self.good.remove(id);
    }

    /// The unit can't be read: what it was last stays in force.
    pub(super) fn keep_last_good(&mut self, id: &UnitId) {
        self.forget(id);
    }

    fn forget(&mut self, id: &UnitId) {
        self.dirty.insert(id.clone());
        if let Some(old) = self.units.remove(id) {
            leave(&mut self.by_key, &old.key, id);
        }
    }

    /// Compiles what changed; the ids of certificates that are not what they were.
    pub(super) fn rebuild(&mut self, broken: &mut Problems) -> Dirty<UnitId> {
        let dirty = std::mem::take(&mut self.dirty);
        for id in &dirty {
            let Some(unit) = self.units.get(id) else { continue };
            match ServerCertificate::compile(unit, self.keys.get(&unit.key)) {
                Ok(certificate) => {
                    broken.remove(id);
                    self.good.insert(id.clone(), Arc::new(certificate));
                }
                Err(error) => {
                    let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
                    broken.insert(id.clone(), format!("{error}{cause}"));
                }
            }
        }
        dirty
    }

    /// The certificate of an id: as it is, or as it last could be used.
    pub(super) fn get(&self, id: &UnitId) -> Option<&Arc<ServerCertificate>> {
        self.good.get(id)
    }
}
