//! Bundles of authorities. One that becomes unusable keeps its last good form.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use proxy_config::certificate::Authority;
use proxy_config::name::UnitId;

use super::{Dirty, Problems};
use crate::table::authority::Bundle;

#[derive(Debug, Default)]
pub(super) struct AuthorityStage {
    good: HashMap<UnitId, Arc<Bundle>>,
    dirty: Dirty<UnitId>,
}

impl AuthorityStage {
    pub(super) fn put(&mut self, id: &UnitId, unit: &Authority, broken: &mut Problems) {
        match Bundle::compile(unit) {
            Ok(bundle) => {
                self.good.insert(id.clone(), Arc::new(bundle));
                self.dirty.insert(id.clone());
            }
            Err(error) => {
                let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
                broken.insert(id.clone(), format!("{error}{cause}"));
            }
        }
    }

    pub(super) fn delete(&mut self, id: &UnitId) {
        self.good.remove(id);
        self.dirty.insert(id.clone());
    }

    /// The ids of bundles that are not what they were.
    pub(super) fn rebuild(&mut self) -> Dirty<UnitId> {
        std::mem::take(&mut self.dirty)
    }

    /// The bundle of an id: as it is, or as it last could be used.
    pub(super) fn get(&self, id: &UnitId) -> Option<&Arc<Bundle>> {
        self.good.get(id)
    }
}
