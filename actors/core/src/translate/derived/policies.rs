//! The results of policies, and which of them are for a Service.

use std::collections::BTreeSet;
use std::sync::Arc;

use proxy_config::name::ObjectName;

use super::indexes::{forget, replace};
use super::{Derived, Effects, Key, PolicyView, Task, TrafficView};

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
        let services = |view: &Option<Arc<TrafficView>>| -> BTreeSet<ObjectName> {
            view.as_ref().map(|view| view.services.clone()).unwrap_or_default()
        };
        let (before, after) = (services(&old), services(&new));
        for service in before.difference(&after) {
            forget(&mut self.shaping, service, name);
        }
        for service in after.difference(&before) {
            self.shaping.entry(service.clone()).or_default().insert(name.clone());
        }
        effects.keys.extend(before.union(&after).cloned().map(Key::Traffic));
    }
}
