//! Pruning of unknown fields and defaulting, in the order of the real API server.
//!
//! Owns nothing. Called before validation. It refuses to judge: what does not fit the schema is left for `check`.

use serde_json::{Map, Value};

use super::Schema;

impl Schema {
    /// Drops what the schema does not know and answers the dropped paths. `apiVersion`, `kind` and `metadata` stay.
    pub(crate) fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut dropped = Vec::new();
        if let Some(map) = object.as_object_mut() {
            self.prune_map(map, "", true, &mut dropped);
        }
        dropped
    }

    fn prune_value(&self, value: &mut Value, path: &str, dropped: &mut Vec<String>) {
        match value {
            Value::Object(map) => self.prune_map(map, path, false, dropped),
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    schema.prune_value(item, &format!("{path}[{index}]"), dropped);
                }
            }
            _ => {}
        }
    }

    fn prune_map(&self, map: &mut Map<String, Value>, path: &str, is_root: bool, dropped: &mut Vec<String>) {
        map.retain(|name, value| {
            if is_root && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                return true;
            }
            let path = join(path, name);
            match self.field(name) {
                Some(schema) => schema.prune_value(value, &path, dropped),
                None if self.preserve_unknown => {}
                None => {
                    dropped.push(path);
                    return false;
                }
            }
            true
        });
    }

    /// Fills in defaults; a null that may not be one counts as absent.
    pub(crate) fn fill_defaults(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, schema) in &self.properties {
                    schema.fill_field(map, name);
                }
                if let Some(schema) = &self.additional {
                    let rest = map.iter_mut().filter(|(name, _)| !self.properties.contains_key(*name));
                    for (_, inner) in rest {
                        schema.fill_defaults(inner);
                    }
                }
            }
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                items.iter_mut().for_each(|item| schema.fill_defaults(item));
            }
            _ => {}
        }
    }

    fn fill_field(&self, map: &mut Map<String, Value>, name: &str) {
        let absent = match map.get(name) {
            None => true,
            Some(Value::Null) => !self.nullable,
            Some(_) => false,
        };
        if absent {
            match &self.default {
                Some(default) => map.insert(name.to_owned(), default.clone()),
                None => map.remove(name),
            };
        }
        if let Some(inner) = map.get_mut(name) {
            self.fill_defaults(inner);
        }
    }
}

pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let schema = Schema::read(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "weight": {"type": "integer", "default": 1},
                "named": {"type": "object", "additionalProperties": {"type": "object", "properties": {
                    "on": {"type": "boolean", "default": true},
                }}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "list": {"type": "array", "items": {"type": "object", "properties": {
                    "port": {"type": "integer", "default": 80},
                }}},
            }},
        }}))
        .unwrap();
        let mut object = json!({
            "apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a"},
            "spec": {"weight": null, "typo": 1, "named": {"x": {"off": 1}}, "free": {"any": 1}, "list": [{"p": 1}]},
        });
        let dropped = schema.prune(&mut object);
        schema.fill_defaults(&mut object);
        assert_eq!(dropped, ["spec.list[0].p", "spec.named.x.off", "spec.typo"]);
        assert_eq!(
            object["spec"],
            json!({"weight": 1, "named": {"x": {"on": true}}, "free": {"any": 1}, "list": [{"port": 80}]})
        );
    }
}
