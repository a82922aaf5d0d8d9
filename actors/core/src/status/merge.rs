//! How a status is merged into the one that stands: nothing is written that would change nothing.
//!
//! Source: Gateway API, and metav1.Condition: lastTransitionTime is when the status last flipped;
//! `status.parents` of routes is shared with other controllers, whose entries stay as they are.

use jiff::Timestamp;
use proxy_config::name::ObjectName;
use serde_json::{Map, Value, json};

use super::{Condition, ConditionStatus, DesiredStatus, GatewayStatus, StatusContent};
use crate::snapshot::http_route::ParentRef;
use crate::snapshot::meta::GATEWAY_GROUP;

/// Conditions that are ours to set and to remove. Others stay as they are.
const OURS: &[&str] = &[
    "Accepted",
    "Programmed",
    "ResolvedRefs",
    "Conflicted",
    "PartiallyInvalid",
    "SupportedVersion",
    "InsecureFrontendValidationMode",
];

/// The `status` to write, made from the one that stands (null where there is none); `None` where nothing
/// would change.
///
/// `current` must belong to an object with the uid and generation of `desired`, or to a later state of
/// it; the caller writes with its resourceVersion.
pub fn merge_status(desired: &DesiredStatus, current: &Value, now: Timestamp) -> Option<Value> {
    let merge = Merge { generation: desired.observed_generation, now };
    let mut status = current.as_object().cloned().unwrap_or_default();
    match &desired.content {
        StatusContent::GatewayClass { conditions, supported_features } => {
            merge.put_conditions(&mut status, conditions);
            let features: Vec<_> = supported_features.iter().map(|name| json!({ "name": name })).collect();
            put_list(&mut status, "supportedFeatures", features);
        }
        StatusContent::Gateway(gateway) => {
            merge.put_gateway(&mut status, gateway);
            // None is as good as nothing said: a schema that does not know the field drops it.
            let known = status.contains_key("attachedListenerSets");
            if known || gateway.attached_sets > 0 {
                status.insert("attachedListenerSets".into(), json!(gateway.attached_sets));
            }
        }
        StatusContent::ListenerSet(set) => merge.put_gateway(&mut status, set),
        StatusContent::Policy { controller, ancestors } => {
            let entries = ancestors.iter().map(|one| (ancestor_ref(&one.gateway), &*one.conditions));
            let lists = Entries { list: "ancestors", reference: "ancestorRef", limit: MAX_ANCESTORS };
            merge.put_entries(&mut status, controller, &lists, entries);
        }
        StatusContent::Backend { controller, parents } => {
            let entries = parents.iter().map(|one| (ancestor_ref(&one.gateway), &*one.conditions));
            let lists = Entries { list: "parents", reference: "parentRef", limit: MAX_PARENTS };
            merge.put_entries(&mut status, controller, &lists, entries);
        }
        StatusContent::Route { controller, parents } => {
            let entries = parents.iter().map(|one| (parent_ref(&one.parent), &*one.conditions));
            let lists = Entries { list: "parents", reference: "parentRef", limit: MAX_PARENTS };
            merge.put_entries(&mut status, controller, &lists, entries);
        }
    }
    let merged = Value::Object(status);
    let unchanged = merged == *current || (current.is_null() && merged == json!({}));
    (!unchanged).then_some(merged)
}

/// An empty list is as good as none: neither is written over the other.
fn put_list(object: &mut Map<String, Value>, key: &str, list: Vec<Value>) {
    let is_empty = object.get(key).is_none_or(|old| old.as_array().is_none_or(Vec::is_empty));
    if !(list.is_empty() && is_empty) {
        object.insert(key.into(), Value::Array(list));
    }
}

fn list<'a>(object: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

struct Merge {
    generation: i64,
    now: Timestamp,
}

impl Merge {
    fn put_conditions(&self, object: &mut Map<String, Value>, desired: &[Condition]) {
        let current = list(object, "conditions");
        let kind = |condition: &Value| condition["type"].as_str().unwrap_or_default().to_owned();
        let find = |wanted: &Condition| current.iter().find(|known| kind(known) == wanted.kind);
        let mut merged: Vec<_> = desired.iter().map(|wanted| self.condition(wanted, find(wanted))).collect();
        let foreign = current.iter().filter(|known| {
            let kind = kind(known);
            !OURS.contains(&&*kind) && !kind.starts_with("portreeve.dev/")
        });
        merged.extend(foreign.cloned());
        put_list(object, "conditions", merged);
    }

    fn condition(&self, desired: &Condition, current: Option<&Value>) -> Value {
        let status = match desired.status {
            ConditionStatus::True => "True",
            ConditionStatus::False => "False",
            ConditionStatus::Unknown => "Unknown",
            ConditionStatus::Keep => match current {
                Some(known) if known["observedGeneration"] == self.generation => return known.clone(),
                _ => "Unknown",
            },
        };
        let since =
            current.filter(|known| known["status"] == status).map(|known| &known["lastTransitionTime"]);
        let since = since.cloned().filter(Value::is_string);
        json!({
            "type": desired.kind,
            "status": status,
            "reason": desired.reason,
            "message": desired.message,
            "observedGeneration": self.generation,
            "lastTransitionTime": since.unwrap_or_else(|| self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()),
        })
    }

    fn put_gateway(&self, status: &mut Map<String, Value>, gateway: &GatewayStatus) {
        let addresses = gateway.addresses.iter().map(|(kind, value)| json!({ "type": kind, "value": value }));
        put_list(status, "addresses", addresses.collect());
        let mut listeners = Vec::new();
        for listener in &gateway.listeners {
            let current = list(status, "listeners").iter().find(|known| known["name"] == *listener.name);
            let mut entry = current.and_then(Value::as_object).cloned().unwrap_or_default();
            let kinds = listener.supported_kinds.iter();
            let kinds: Vec<_> = kinds.map(|(group, kind)| json!({ "group": group, "kind": kind })).collect();
            entry.insert("name".into(), json!(listener.name));
            entry.insert("supportedKinds".into(), json!(kinds));
            entry.insert("attachedRoutes".into(), json!(listener.attached_routes));
            self.put_conditions(&mut entry, &listener.conditions);
            listeners.push(Value::Object(entry));
        }
        put_list(status, "listeners", listeners);
        self.put_conditions(status, &gateway.conditions);
    }

    /// Each entry stays in its place: of two controllers that put theirs in different ones, each would undo what
    /// the other did, for ever.
    fn put_entries<'d>(
        &self,
        status: &mut Map<String, Value>,
        controller: &str,
        names: &Entries,
        desired: impl Iterator<Item = (Value, &'d [Condition])>,
    ) {
        let mut wanted: Vec<_> = desired.collect();
        let mut entries = Vec::new();
        for entry in list(status, names.list) {
            if entry["controllerName"] != *controller {
                entries.push(entry.clone());
            } else if let Some(at) = wanted.iter().position(|(known, _)| entry[names.reference] == *known) {
                let (reference, conditions) = wanted.remove(at);
                entries.push(self.entry(entry.as_object(), controller, names, (reference, conditions)));
            }
        }
        let room = names.limit.saturating_sub(entries.len());
        let new = wanted.into_iter().take(room);
        entries.extend(new.map(|wanted| self.entry(None, controller, names, wanted)));
        put_list(status, names.list, entries);
        // The schema wants the list to be there, if only empty.
        if !status.is_empty() {
            status.entry(names.list).or_insert_with(|| json!([]));
        }
    }

    fn entry(
        &self,
        known: Option<&Map<String, Value>>,
        controller: &str,
        names: &Entries,
        (reference, conditions): (Value, &[Condition]),
    ) -> Value {
        let mut entry = known.cloned().unwrap_or_default();
        entry.insert(names.reference.into(), reference);
        entry.insert("controllerName".into(), json!(controller));
        self.put_conditions(&mut entry, conditions);
        Value::Object(entry)
    }
}

/// A list that controllers share: its name, that of the field which tells entries apart, and its length.
struct Entries {
    list: &'static str,
    reference: &'static str,
    limit: usize,
}

/// How many ancestors a status holds at most. Source: the CRD, `status.ancestors`.
const MAX_ANCESTORS: usize = 16;
/// How many parents the status of a route or an XBackend holds at most: one with more is refused as a whole. A route
/// may have more that asks for default Gateways. Source: the CRDs, `status.parents`.
const MAX_PARENTS: usize = 32;

fn ancestor_ref(gateway: &ObjectName) -> Value {
    json!({
        "group": GATEWAY_GROUP,
        "kind": "Gateway",
        "name": &*gateway.name,
        "namespace": &*gateway.namespace,
    })
}

fn parent_ref(parent: &ParentRef) -> Value {
    let mut reference = json!({ "group": parent.group, "kind": parent.kind, "name": parent.name });
    let optional = [
        ("namespace", parent.namespace.as_ref().map(|namespace| json!(namespace))),
        ("sectionName", parent.section_name.as_ref().map(|name| json!(name))),
        ("port", parent.port.map(|port| json!(port))),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            reference[key] = value;
        }
    }
    reference
}

#[cfg(test)]
mod tests;
