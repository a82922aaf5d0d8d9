//! Owns: the finalised statuses of the newest translation, kept so that what proxies answer costs what it changes.
//! Called by the status writer. It refuses to know what follows from a verdict ([`super`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use proxy_config::name::UnitId;

use super::answers::{Answers, few};
use super::expiry::Endings;
use super::{DesiredStatus, Fleet, StatusContent, finalise_gateway, finalise_set, route_of, with_broken};
use crate::snapshot::meta::{Kind, ObjectRef};
use crate::translate::Translation;

/// Statuses by object.
type Statuses = OrdMap<ObjectRef, Arc<DesiredStatus>>;

/// The statuses of the newest translation with what depends on the proxies. It works out anew only those that what
/// has changed may change.
#[derive(Debug, Default)]
pub struct Finaliser {
    translated: Statuses,
    finalised: Statuses,
    /// The Gateways and ListenerSets of whose listeners each unit is.
    holders: BTreeMap<UnitId, BTreeSet<ObjectRef>>,
    heard: Heard,
    endings: Endings,
    worked_out: usize,
}

/// What the proxies last said, as far as verdicts depend on it.
#[derive(Debug, Default)]
struct Heard {
    /// How many are ready, which are silent, and what those refused of which nothing is known: of matter to all.
    of_all: (usize, Vec<String>, Option<Vec<String>>),
    broken: BTreeMap<UnitId, Vec<String>>,
    /// Units of listeners that some proxy lacks.
    lacking: BTreeSet<UnitId>,
}

impl Finaliser {
    /// Takes a translation and what the fleet says of it; the objects whose statuses are now others.
    pub fn update(&mut self, translation: &Translation, fleet: &Fleet) -> Vec<ObjectRef> {
        let answers = Answers::new(&translation.units, fleet);
        let mut due = self.take(&translation.statuses);
        self.hear(&answers, &mut due);
        for unit in self.endings.update(&translation.expiries, fleet.now) {
            due.extend(self.holders.get(&unit).into_iter().flatten().cloned());
        }
        self.worked_out = due.len();
        due.retain(|object| self.work_out(object, &answers));
        due.into_iter().collect()
    }

    /// The statuses as they should be.
    pub fn statuses(&self) -> &OrdMap<ObjectRef, Arc<DesiredStatus>> {
        &self.finalised
    }

    /// How many statuses the last update worked out.
    pub fn worked_out(&self) -> usize {
        self.worked_out
    }

    /// Takes the statuses of a translation; the objects where they differ.
    fn take(&mut self, statuses: &Statuses) -> BTreeSet<ObjectRef> {
        let old = std::mem::replace(&mut self.translated, statuses.clone());
        let mut due = BTreeSet::new();
        for change in old.diff(statuses) {
            let (object, before, after) = match change {
                DiffItem::Add(object, after) => (object, None, Some(after)),
                DiffItem::Remove(object, before) => (object, Some(before), None),
                DiffItem::Update { old: (object, before), new: (_, after) } => {
                    (object, Some(before), Some(after))
                }
            };
            for unit in before.into_iter().flat_map(|status| units(status)) {
                if let Some(holders) = self.holders.get_mut(unit) {
                    holders.remove(object);
                    if holders.is_empty() {
                        self.holders.remove(unit);
                    }
                }
            }
            for unit in after.into_iter().flat_map(|status| units(status)) {
                self.holders.entry(unit.clone()).or_default().insert(object.clone());
            }
            due.insert(object.clone());
        }
        due
    }

    /// Adds the objects about which the proxies may say something else than before.
    fn hear(&mut self, answers: &Answers<'_>, due: &mut BTreeSet<ObjectRef>) {
        let broken = answers.broken.iter().map(|(unit, said)| (UnitId::clone(unit), said.clone()));
        let new = Heard {
            of_all: answers.of_all(),
            broken: broken.collect(),
            lacking: answers.lacking().filter(|unit| self.holders.contains_key(*unit)).cloned().collect(),
        };
        let old = std::mem::replace(&mut self.heard, new);
        let new = &self.heard;
        if old.of_all != new.of_all {
            due.extend(self.holders.values().flatten().cloned());
        }
        let said = old.broken.keys().chain(new.broken.keys());
        let broken: BTreeSet<_> =
            said.filter(|unit| old.broken.get(*unit) != new.broken.get(*unit)).collect();
        due.extend(broken.iter().filter_map(|unit| route_of(unit)));
        let doubtful = broken.into_iter().chain(&old.lacking).chain(&new.lacking);
        due.extend(doubtful.filter_map(|unit| self.holders.get(unit)).flatten().cloned());
    }

    /// Works out the status of an object; whether it is another one than before.
    fn work_out(&mut self, object: &ObjectRef, answers: &Answers<'_>) -> bool {
        let Some(translated) = self.translated.get(object) else {
            return self.finalised.remove(object).is_some();
        };
        let with = |content| Arc::new(DesiredStatus { content, ..DesiredStatus::clone(translated) });
        let status = match &translated.content {
            StatusContent::Gateway(gateway) => {
                with(StatusContent::Gateway(finalise_gateway(gateway, answers, self.endings.now())))
            }
            StatusContent::ListenerSet(set) => {
                with(StatusContent::ListenerSet(finalise_set(set, answers, self.endings.now())))
            }
            _ => match broken(object, answers) {
                Some(said) => Arc::new(with_broken(translated, &few(said, "; "))),
                None => translated.clone(),
            },
        };
        let changed = self.finalised.get(object) != Some(&status);
        if changed {
            self.finalised.insert(object.clone(), status);
        }
        changed
    }
}

/// The units without which the listeners of a status are not Programmed.
fn units(status: &DesiredStatus) -> impl Iterator<Item = &UnitId> {
    let listeners = match &status.content {
        StatusContent::Gateway(holder) | StatusContent::ListenerSet(holder) => &*holder.listeners,
        StatusContent::GatewayClass { .. }
        | StatusContent::Policy { .. }
        | StatusContent::Backend { .. }
        | StatusContent::Route { .. } => &[],
    };
    listeners.iter().flat_map(|listener| &listener.units)
}

/// What proxies say that can't use a route.
fn broken<'a>(object: &ObjectRef, answers: &'a Answers<'_>) -> Option<&'a Vec<String>> {
    if answers.broken.is_empty() || !Kind::ROUTES.contains(&object.kind) {
        return None;
    }
    answers.broken.get(&UnitId::route(object.kind.as_str(), &object.name))
}
