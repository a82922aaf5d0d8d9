//! DELETE of objects and collections: preconditions, finalizers, and what goes with a namespace or a CRD.
//!
//! Owns nothing. Called for deletions. It refuses to wait: an object without finalizers is gone in the same instant, a Pod too.

use serde_json::{Value, json};

use super::{Done, State, Subject, read::in_namespace};
use crate::{
    call::Call,
    kinds::Kind,
    object::{self, Key, finalizers, is_terminating, meta, set_meta},
    refusal::Refusal,
    selector::Selector,
    store::ResourceKey,
};

impl State {
    /// DELETE of one object.
    pub(crate) fn delete(&mut self, on: &Subject, call: &Call, body: &[u8]) -> Result<Done, Refusal> {
        let options: Value = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(body)
                .map_err(|error| Refusal::bad_request(format!("invalid DeleteOptions: {error}")))?
        };
        let Some(old) = self.store.get(&on.kind.key, &on.key()).cloned() else {
            return Err(Refusal::not_found(&on.kind, &on.name));
        };
        check_preconditions(on, &old, &options["preconditions"])?;
        if call.is_dry_run() || options["dryRun"] == json!(["All"]) {
            return Ok(Done::ok(on.present(&old)));
        }
        let left = self.remove(&on.kind, &on.key(), &old);
        Ok(Done::ok(match left {
            Some(terminating) => on.present(&terminating),
            None => success(on, &old),
        }))
    }

    /// DELETE of a collection: the objects that the selectors choose, in order.
    pub(crate) fn delete_collection(&mut self, on: &Subject, call: &Call) -> Result<Done, Refusal> {
        let selector = Selector::read(call, &on.kind)?;
        let doomed = self.store.at(&on.kind.key, self.store.revision());
        let doomed = doomed.unwrap_or_default();
        let mut items = Vec::new();
        for (key, object) in &doomed {
            if in_namespace(on, key) && selector.matches(object) {
                self.remove(&on.kind, key, object);
                items.push(on.present(object));
            }
        }
        Ok(Done::ok(json!({
            "kind": on.kind.list_kind,
            "apiVersion": on.kind.api_version(&on.version.name),
            "metadata": {"resourceVersion": self.store.revision().to_string()},
            "items": items,
        })))
    }

    /// Removes an object, or marks it when finalizers hold it: then it is answered.
    fn remove(&mut self, kind: &Kind, key: &Key, old: &Value) -> Option<Value> {
        if kind.kind == "Namespace" && kind.key.group.is_empty() {
            self.empty_namespace(&key.name);
            if self.holds_objects(&key.name) {
                return Some(self.mark(kind, key, old));
            }
        }
        if kind.kind == "CustomResourceDefinition" {
            self.remove_all_of(old);
        }
        if finalizers(old).is_empty() {
            self.erase(kind, key);
            return None;
        }
        Some(self.mark(kind, key, old))
    }

    /// Sets the deletion time, once.
    fn mark(&mut self, kind: &Kind, key: &Key, old: &Value) -> Value {
        if is_terminating(old) {
            return old.clone();
        }
        let mut marked = old.clone();
        let now = self.clock.stamp();
        set_meta(&mut marked, "deletionTimestamp", Some(now.into()));
        set_meta(&mut marked, "deletionGracePeriodSeconds", Some(0.into()));
        if let Some(generation) = marked["metadata"]["generation"].as_u64() {
            set_meta(&mut marked, "generation", Some((generation + 1).into()));
        }
        if kind.kind == "Namespace" {
            marked["status"]["phase"] = "Terminating".into();
        }
        let stored = self.store.put(&kind.key, key.clone(), marked);
        Value::clone(&stored)
    }

    /// Takes an object out of the store, and with it what waited for it.
    pub(super) fn erase(&mut self, kind: &Kind, key: &Key) -> Option<Value> {
        let gone = self.store.remove(&kind.key, key)?;
        if kind.kind == "CustomResourceDefinition" {
            self.kinds.uninstall(&defined_by(&gone));
        }
        if kind.namespaced {
            self.finish_namespace(&key.namespace);
        }
        Some(gone)
    }

    /// A terminating namespace goes with the last object in it.
    fn finish_namespace(&mut self, namespace: &str) {
        let namespaces = ResourceKey { group: String::new(), plural: "namespaces".to_owned() };
        let own = Key::new("", namespace);
        let found = self.store.get(&namespaces, &own);
        if found.is_some_and(|found| is_terminating(found)) && !self.holds_objects(namespace) {
            self.store.remove(&namespaces, &own);
        }
    }

    fn holds_objects(&self, namespace: &str) -> bool {
        let mut namespaced = self.kinds.all().filter(|kind| kind.namespaced);
        namespaced.any(|kind| {
            let mut objects = self.store.current(&kind.key);
            objects.any(|(key, _)| key.namespace == namespace)
        })
    }

    /// What the namespace controller does.
    fn empty_namespace(&mut self, namespace: &str) {
        let kinds: Vec<_> = self.kinds.all().filter(|k| k.namespaced).cloned().collect();
        for kind in kinds {
            let now = self.store.revision();
            for (key, object) in self.store.at(&kind.key, now).unwrap_or_default() {
                if key.namespace == namespace {
                    self.remove(&kind, &key, &object);
                }
            }
        }
    }

    /// The objects of a CRD go with it, finalizers or not.
    fn remove_all_of(&mut self, crd: &Value) {
        let defined = defined_by(crd);
        let now = self.store.revision();
        for key in self.store.at(&defined, now).unwrap_or_default().keys() {
            self.store.remove(&defined, key);
        }
    }
}

/// The resource that a CRD defines.
fn defined_by(crd: &Value) -> ResourceKey {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ResourceKey { group: text(&crd["spec"]["group"]), plural: text(&crd["spec"]["names"]["plural"]) }
}

fn check_preconditions(on: &Subject, old: &Value, wanted: &Value) -> Result<(), Refusal> {
    for (field, words) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let actual = match field {
            "resourceVersion" => object::revision(old).to_string(),
            _ => meta(old, field).to_owned(),
        };
        if let Some(wanted) = wanted[field].as_str().filter(|wanted| *wanted != actual) {
            let detail = format!(
                "Precondition failed: {words} in precondition: {wanted}, {words} in object meta: {actual}"
            );
            return Err(Refusal::precondition(&on.kind, &on.name, &detail));
        }
    }
    Ok(())
}

/// A few kinds answer their deletion with the object, the rest with a Status.
fn success(on: &Subject, old: &Value) -> Value {
    if matches!(on.kind.kind.as_str(), "Pod" | "Service") {
        return on.present(old);
    }
    let mut details = json!({"name": on.name, "kind": on.kind.key.plural, "uid": meta(old, "uid")});
    if !on.kind.key.group.is_empty() {
        details["group"] = on.kind.key.group.clone().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
