//! The results of policies and XBackends, and which policies are for a backend.

use std::collections::BTreeSet;

use proxy_config::name::ObjectName;

use crate::snapshot::meta::ObjectRef;

use super::indexes::{parts, recount, reindex, replace};
use super::{Derived, Effects, Key, PolicyView, Role, Task, TrafficView};

impl Derived {
    /// Replaces what follows from a BackendTLSPolicy.
    pub(super) fn put_policy(&mut self, name: &ObjectName, view: Option<PolicyView>, effects: &mut Effects) {
        effects.tasks.push(Task::PolicyStatus(name.clone()));
        let Some((old, new)) = replace(&mut self.policies, name, view) else { return };
        let (before, after) = parts(&old, &new, PolicyView::services);
        reindex(&mut self.targeting, name, &before, &after);
        effects.keys.extend(before.union(&after).cloned().map(Key::Policies));
        let (before, after) = parts(&old, &new, |view| view.wanted.clone());
        self.count_wanted(&before, &after, effects);
    }

    /// Replaces what follows from an XBackendTrafficPolicy.
    pub(super) fn put_traffic(
        &mut self,
        name: &ObjectName,
        view: Option<TrafficView>,
        effects: &mut Effects,
    ) {
        effects.tasks.push(Task::TrafficStatus(name.clone()));
        let Some((old, new)) = replace(&mut self.traffic, name, view) else { return };
        let (before, after) = parts(&old, &new, |view| view.targets.clone());
        reindex(&mut self.shaping, name, &before, &after);
        effects.keys.extend(before.union(&after).cloned().map(Key::Traffic));
    }

    /// Counts the routes that lead to each XBackend.
    pub(super) fn count_destinations(
        &mut self,
        before: &BTreeSet<ObjectName>,
        after: &BTreeSet<ObjectName>,
        effects: &mut Effects,
    ) {
        recount(&mut self.destinations, before, after);
        effects.tasks.extend(before.symmetric_difference(after).cloned().map(Task::External));
    }

    /// Replaces what may be read for an XBackend.
    pub(super) fn put_external(
        &mut self,
        name: &ObjectName,
        wanted: Option<BTreeSet<(ObjectRef, Role)>>,
        effects: &mut Effects,
    ) {
        let Some((old, new)) = replace(&mut self.externals, name, wanted) else { return };
        let (before, after) = parts(&old, &new, BTreeSet::clone);
        self.count_wanted(&before, &after, effects);
    }
}
