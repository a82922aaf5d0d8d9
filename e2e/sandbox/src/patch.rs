//! The patch kinds that change an object by a document: JSON patch, JSON merge patch and strategic merge patch.
//!
//! Owns nothing. Called by the write path. Server-side apply is in `apply`. It refuses to know identity and admission.

use serde_json::{Map, Value};

use crate::{
    refusal::Refusal,
    schema::{ListType, Schema},
};

pub(crate) const JSON: &str = "application/json-patch+json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// RFC 6902.
pub(crate) fn json(object: &mut Value, body: &[u8]) -> Result<(), Refusal> {
    let patch: json_patch::Patch = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
    json_patch::patch(object, &patch).map_err(|error| {
        Refusal::unprocessable(format!(
            "the server rejected our request due to an error in our request: {error}"
        ))
    })
}

/// RFC 7386.
pub(crate) fn merge(object: &mut Value, body: &[u8]) -> Result<(), Refusal> {
    json_patch::merge(object, &document(body)?);
    Ok(())
}

/// Kubernetes' merge patch whose lists merge by key, for built-in kinds.
pub(crate) fn strategic(object: &mut Value, body: &[u8], shape: &Schema) -> Result<(), Refusal> {
    let patch = document(body)?;
    merge_by_key(object, &patch, Some(shape));
    Ok(())
}

fn document(body: &[u8]) -> Result<Value, Refusal> {
    let patch: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
    if !patch.is_object() {
        return Err(Refusal::bad_request("error decoding patch: it must be a map"));
    }
    Ok(patch)
}

fn merge_by_key(target: &mut Value, patch: &Value, shape: Option<&Schema>) {
    match patch {
        Value::Object(patch) => merge_map(target, patch, shape),
        Value::Array(items) => merge_list(target, items, shape),
        scalar => *target = scalar.clone(),
    }
}

fn merge_map(target: &mut Value, patch: &Map<String, Value>, shape: Option<&Schema>) {
    if !target.is_object() || patch.get("$patch").is_some_and(|how| how == "replace") {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else {
        return;
    };
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().map_or(&[][..], Vec::as_slice);
            if let Some(items) = target.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        } else if name.starts_with('$') {
            // Order directives change nothing that is relied on.
        } else if value.is_null() {
            target.remove(name);
        } else {
            let slot = target.entry(name.clone()).or_insert(Value::Null);
            merge_by_key(slot, value, shape.and_then(|shape| shape.field(name)));
        }
    }
}

fn merge_list(target: &mut Value, patch: &[Value], shape: Option<&Schema>) {
    let list = shape.map_or(ListType::Atomic, |shape| shape.list.clone());
    let (Some(items), false) = (target.as_array_mut(), list == ListType::Atomic) else {
        *target = Value::Array(patch.to_vec());
        return;
    };
    let inner = shape.and_then(|shape| shape.items.as_deref());
    for change in patch {
        let same = |item: &Value| match &list {
            // The merge key of strategic patches is the first key alone.
            ListType::Map(keys) => keys.first().is_some_and(|key| item[&key.name] == change[&key.name]),
            _ => item == change,
        };
        let found = items.iter().position(same);
        let deleted = change.get("$patch").is_some_and(|how| how == "delete");
        match found {
            Some(index) if deleted => {
                items.remove(index);
            }
            Some(index) => merge_by_key(&mut items[index], change, inner),
            None if deleted => {}
            None => items.push(change.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::shapes;
    use serde_json::json;

    #[test]
    fn a_strategic_patch_merges_lists_by_key_and_replaces_atomic_ones() {
        let shape = Schema::of_lists(shapes("Service"));
        let mut service = json!({"spec": {
            "ports": [{"port": 80, "protocol": "TCP", "name": "a"}, {"port": 81, "name": "b"}],
            "externalIPs": ["192.0.2.1"],
            "type": "ClusterIP",
        }});
        let patch = json!({"spec": {
            "ports": [{"port": 80, "name": "c"}, {"port": 81, "$patch": "delete"}, {"port": 82}],
            "externalIPs": ["192.0.2.2"],
            "type": null,
        }});
        strategic(&mut service, patch.to_string().as_bytes(), &shape).unwrap();
        let expected = json!({"spec": {
            "ports": [{"port": 80, "protocol": "TCP", "name": "c"}, {"port": 82}],
            "externalIPs": ["192.0.2.2"],
        }});
        assert_eq!(service, expected);
    }

    #[test]
    fn a_json_patch_whose_test_fails_changes_nothing() {
        let mut object = json!({"a": 1});
        let patch =
            br#"[{"op": "replace", "path": "/a", "value": 2}, {"op": "test", "path": "/a", "value": 1}]"#;
        assert!(json(&mut object, patch).is_err());
        assert_eq!(object, json!({"a": 1}));
    }
}
