//! Reading and writing the parts that every Kubernetes object has.
//!
//! Owns nothing. Called by the store, the write path and the patch kinds. It refuses to know any kind.

use serde_json::{Map, Value};

/// The identity of an object among those of its resource; `namespace` is empty for cluster-scoped ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// A string of `metadata`, empty when absent.
pub(crate) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata.resourceVersion` as a revision; 0 when absent.
pub(crate) fn revision(object: &Value) -> u64 {
    meta(object, "resourceVersion").parse().unwrap_or(0)
}

/// `metadata`, made when it was missing or was no map.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    let slot = &mut object["metadata"];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut().expect("made a map above")
}

/// Sets or, with `None`, removes a field of `metadata`.
pub(crate) fn set_meta(object: &mut Value, field: &str, value: Option<Value>) {
    let metadata = metadata_mut(object);
    match value {
        Some(value) => metadata.insert(field.to_owned(), value),
        None => metadata.remove(field),
    };
}

pub(crate) fn set_revision(object: &mut Value, revision: u64) {
    set_meta(object, "resourceVersion", Some(revision.to_string().into()));
}

pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"]
        .as_array()
        .map(|all| all.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

pub(crate) fn is_terminating(object: &Value) -> bool {
    !meta(object, "deletionTimestamp").is_empty()
}

/// Whether two objects differ in anything that a client wrote: revisions and the times in `managedFields` do not count.
pub(crate) fn same_but_for_revision(left: &Value, right: &Value) -> bool {
    fn normal(object: &Value) -> Value {
        let mut copy = object.clone();
        let metadata = metadata_mut(&mut copy);
        metadata.remove("resourceVersion");
        if let Some(managers) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
            for manager in managers.iter_mut().filter_map(Value::as_object_mut) {
                manager.remove("time");
            }
        }
        copy
    }
    normal(left) == normal(right)
}

/// The object as `meta.k8s.io/v1` PartialObjectMetadata.
pub(crate) fn metadata_only(object: &Value) -> Value {
    serde_json::json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}
