//! Which parts of an object a write may change: the spec or the status, never what only the server writes.
//!
//! Owns nothing. Called by the write path. It refuses to look at the store.

use serde_json::Value;

use super::Subject;
use crate::{
    object::{finalizers, is_terminating, set_meta},
    refusal::{Cause, Refusal},
};

/// Fields of `metadata` that only the server writes.
pub(super) const SYSTEM: [&str; 5] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

pub(super) fn remove_status(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
}

/// A write to the status path changes the status alone.
pub(super) fn with_status_of(old: &Value, new: &Value) -> Value {
    let mut merged = old.clone();
    match new.get("status") {
        Some(status) => merged["status"] = status.clone(),
        None => remove_status(&mut merged),
    }
    merged
}

/// A write to the main path leaves the status alone.
pub(super) fn with_spec_of(old: &Value, mut new: Value) -> Value {
    match old.get("status") {
        Some(status) => new["status"] = status.clone(),
        None => remove_status(&mut new),
    }
    new
}

/// What a client can not change.
pub(super) fn carry_over(on: &Subject, old: &Value, new: &mut Value) {
    for field in SYSTEM.into_iter().chain(["resourceVersion", "generateName"]) {
        set_meta(new, field, old["metadata"].get(field).cloned());
    }
    if new["metadata"]["finalizers"].as_array().is_some_and(Vec::is_empty) {
        set_meta(new, "finalizers", None);
    }
    if on.kind.kind == "Service" && new["spec"]["clusterIP"].is_null() {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if let Some(ip) = old["spec"].get(field) {
                new["spec"][field] = ip.clone();
            }
        }
    }
}

/// Whether anything differs that `metadata.generation` counts.
pub(super) fn spec_differs(on: &Subject, old: &Value, new: &Value) -> bool {
    let counted = |object: &Value| {
        let mut rest = object.clone();
        if let Some(map) = rest.as_object_mut() {
            map.remove("metadata");
            map.remove("apiVersion");
            if on.version.has_status {
                map.remove("status");
            }
        }
        rest
    };
    counted(old) != counted(new)
}

pub(super) fn check_finalizers(on: &Subject, old: &Value, new: &Value) -> Result<(), Refusal> {
    let known = finalizers(old);
    let added: Vec<&str> =
        finalizers(new).into_iter().filter(|finalizer| !known.contains(finalizer)).collect();
    if added.is_empty() || !is_terminating(old) {
        return Ok(());
    }
    let words = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
    );
    let cause = Cause::forbidden("metadata.finalizers", &words);
    Err(Refusal::invalid(&on.kind, &on.name, &[cause]))
}
