//! PATCH of the apply kind: makes what is not there, merges into what is.
//!
//! Owns nothing. Called for apply patches. The merge is in `crate::apply`, the write in `write`.

use serde_json::{Value, json};

use super::{Done, State, Subject, write::Tracking};
use crate::{
    admission,
    apply::{self, Applier},
    call::Call,
    managed::Manager,
    object::{self, meta, set_meta},
    refusal::{Cause, Refusal},
};

impl State {
    pub(super) fn apply(&mut self, on: &Subject, call: &Call, body: &[u8]) -> Result<Done, Refusal> {
        if call.param("fieldManager").is_none() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(Refusal::invalid_options("PatchOptions", &[cause]));
        }
        let mut wanted = read(body)?;
        super::write::check_identity(on, &mut wanted)?;
        if !wanted["metadata"]["managedFields"].is_null() {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        let given = object::revision(&wanted);
        // Decoding proves the types; what it would normalise is left to the write.
        let unknown = admission::decode(&on.kind, &on.version, &mut wanted.clone())?;
        super::write::refuse_unknown(call, &unknown)?;
        narrow(on, &mut wanted);
        let old = self.store.get(&on.kind.key, &on.key()).cloned();
        if old.is_none() && on.on_status {
            return Err(Refusal::not_found(&on.kind, &on.name));
        }
        if let Some(old) = old.as_ref().filter(|old| given != 0 && given != object::revision(old)) {
            return Err(Refusal::modified(&on.kind, meta(old, "name")));
        }
        let nothing = json!({"metadata": {}});
        let live = old.as_ref().map_or(nothing, |old| on.present(old));
        let time = self.clock.stamp();
        let applier = Applier {
            manager: manager(on, call, true),
            api_version: &on.kind.api_version(&on.version.name),
            time: &time,
            force: call.flag("force"),
        };
        let applied = apply::apply(applier, &live, &wanted, &on.version.schema)
            .map_err(|conflicts| Refusal::apply_conflict(&conflicts))?;
        let mut object = applied.object;
        let tracking = Tracking::Done(applied.managers);
        match old {
            None => self.create_object(&mut on.clone(), call, object, tracking),
            Some(old) => {
                admission::decode(&on.kind, &on.version, &mut object)?;
                self.replace(on, call, &old, object, tracking)
            }
        }
    }
}

/// Who writes, and through which path.
pub(super) fn manager(on: &Subject, call: &Call, applies: bool) -> Manager {
    Manager {
        name: call.manager().to_owned(),
        applies,
        subresource: on.on_status.then(|| "status".to_owned()),
    }
}

/// Apply bodies are YAML, of which JSON is a part.
fn read(body: &[u8]) -> Result<Value, Refusal> {
    let text = std::str::from_utf8(body);
    let text = text.map_err(|error| Refusal::bad_request(format!("error decoding YAML: {error}")))?;
    let object: Value = serde_saphyr::from_str(text)
        .map_err(|error| Refusal::bad_request(format!("error decoding YAML: {error}")))?;
    if object.is_object() {
        return Ok(object);
    }
    Err(Refusal::bad_request("error decoding YAML: the object must be a map"))
}

/// Leaves what this path may write, and no field that nobody owns.
fn narrow(on: &Subject, wanted: &mut Value) {
    for field in ["resourceVersion", "uid", "creationTimestamp", "generation"] {
        set_meta(wanted, field, None);
    }
    let (on_status, has_status) = (on.on_status, on.version.has_status);
    if let Some(map) = wanted.as_object_mut() {
        map.retain(|field, _| match field.as_str() {
            "apiVersion" | "kind" => true,
            "status" => on_status || !has_status,
            "metadata" => true,
            _ => !on_status,
        });
    }
    if on_status {
        let metadata = json!({"name": on.name, "namespace": on.namespace});
        wanted["metadata"] = metadata;
    }
}
