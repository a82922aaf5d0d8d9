//! The results of policies and XBackends, and which policies are for a backend.

use std::collections::BTreeSet;
use std::sync::Arc;

use proxy_config::name::ObjectName;

use crate::snapshot::meta::ObjectRef;

use super::indexes::{count_down, forget, replace};
use super::{Derived, Effects, Key, PolicyView, Role, Task, TrafficView};

impl Derived {
    /// Replaces what follows from a BackendTLSPolicy.
    pub(super) fn put_policy(&mut self, name: &ObjectName, view: Option<PolicyView>, effects: &mut Effects) {
        effects.tasks.push(Task::PolicyStatus(name.clone()));
        let Some((old, new)) = replace(&mut self.policies, name, view) else { return };
        let services =
            |view: &Option<Arc<PolicyView>>| view.as_ref().map(|view| view.services()).unwrap_or_default();
        let (before, after) = (services(&old), services(&new));
        for service in before.difference(&after) {
            forget(&mut self.targeting, service, name);
        }
        for service in after.difference(&before) {
            self.targeting.entry(service.clone()).or_default().insert(name.clone());
        }
        effects.keys.extend(before.union(&after).cloned().map(Key::Policies));
        let wanted = |view: &Option<Arc<PolicyView>>| {
            view.as_ref().map(|view| view.wanted.clone()).unwrap_or_default()
        };
        self.count_wanted(&wanted(&old), &wanted(&new), effects);
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
        let targets = |view: &Option<Arc<TrafficView>>| -> BTreeSet<ObjectRef> {
            view.as_ref().map(|view| view.targets.clone()).unwrap_or_default()
        };
        let (before, after) = (targets(&old), targets(&new));
        for backend in before.difference(&after) {
            forget(&mut self.shaping, backend, name);
        }
        for backend in after.difference(&before) {
            self.shaping.entry(backend.clone()).or_default().insert(name.clone());
        }
        effects.keys.extend(before.union(&after).cloned().map(Key::Traffic));
    }

    /// Counts the routes that lead to each XBackend.
    pub(super) fn count_destinations(
        &mut self,
        before: &BTreeSet<ObjectName>,
        after: &BTreeSet<ObjectName>,
        effects: &mut Effects,
    ) {
        for name in before.difference(after) {
            count_down(&mut self.destinations, name);
        }
        for name in after.difference(before) {
            *self.destinations.entry(name.clone()).or_default() += 1;
        }
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
        let wanted = |wanted: Option<Arc<BTreeSet<_>>>| wanted.as_deref().cloned().unwrap_or_default();
        self.count_wanted(&wanted(old), &wanted(new), effects);
    }
}
