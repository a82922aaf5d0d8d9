//! Who owns which field: `metadata.managedFields` as sets of paths, and back.
//!
//! Owns the notation of FieldsV1. Called on every write and by server-side apply. It refuses to change objects: see `apply`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde_json::{Map, Value, json};

use crate::schema::{ListType, Schema};

/// One step from a value to a part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// A field of a map: `f:name`.
    Field(String),
    /// An item of a list by its keys, as canonical JSON: `k:{"name":"a"}`.
    Key(String),
    /// An item of a set, as JSON: `v:"a"`.
    Item(String),
}

pub(crate) type Path = Vec<Step>;

/// A set of fields, each by its whole path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) BTreeSet<Path>);

/// Fields of `metadata` that nobody owns.
const UNOWNED: [&str; 10] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generateName",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "uid",
];

impl Fields {
    /// The fields that an object sets: its leaves, and the items of its keyed lists.
    pub(crate) fn of(object: &Value, schema: &Schema) -> Self {
        let mut found = Self::default();
        for (name, value) in object.as_object().into_iter().flatten() {
            match name.as_str() {
                "apiVersion" | "kind" => {}
                "metadata" => {
                    let mut owned = value.clone();
                    if let Some(map) = owned.as_object_mut() {
                        map.retain(|field, _| !UNOWNED.contains(&field.as_str()));
                    }
                    found.collect_field(&mut Vec::new(), name, &owned, schema);
                }
                _ => found.collect_field(&mut Vec::new(), name, value, schema),
            }
        }
        found
    }

    fn collect_field(&mut self, path: &mut Path, name: &str, value: &Value, schema: &Schema) {
        let inner = schema.field(name);
        path.push(Step::Field(name.to_owned()));
        let at_root = path.len() == 1;
        let empty = value.as_object().is_some_and(Map::is_empty);
        if !(at_root && empty) {
            self.collect(path, value, inner);
        }
        path.pop();
    }

    fn collect(&mut self, path: &mut Path, value: &Value, schema: Option<&Schema>) {
        let anything = Schema::anything();
        let schema = schema.unwrap_or(&anything);
        match value {
            Value::Object(map) if !map.is_empty() && !schema.atomic_map => {
                for (name, inner) in map {
                    self.collect_field(path, name, inner, schema);
                }
            }
            Value::Array(items) if schema.list != ListType::Atomic => {
                for item in items {
                    path.push(step_to(item, &schema.list));
                    self.0.insert(path.clone());
                    if item.is_object() {
                        self.collect(path, item, schema.items.as_deref());
                    }
                    path.pop();
                }
            }
            _ => {
                self.0.insert(path.clone());
            }
        }
    }

    /// FieldsV1.
    fn encode(&self) -> Value {
        let mut root = Map::new();
        for path in &self.0 {
            let mut here = &mut root;
            for step in path {
                let name = match step {
                    Step::Field(name) => format!("f:{name}"),
                    Step::Key(keys) => format!("k:{keys}"),
                    Step::Item(item) => format!("v:{item}"),
                };
                let slot = here.entry(name).or_insert_with(|| json!({}));
                here = slot.as_object_mut().expect("only maps are put in");
            }
            let has_parts = self.0.range(path.clone()..).nth(1).is_some_and(|next| next.starts_with(path));
            if has_parts {
                here.insert(".".to_owned(), json!({}));
            }
        }
        Value::Object(root)
    }

    fn decode(value: &Value) -> Self {
        let mut fields = Self::default();
        fields.decode_into(&mut Vec::new(), value);
        fields
    }

    fn decode_into(&mut self, path: &mut Path, value: &Value) {
        let map = value.as_object();
        if !path.is_empty() && map.is_none_or(|map| map.is_empty() || map.contains_key(".")) {
            self.0.insert(path.clone());
        }
        for (name, inner) in map.into_iter().flatten() {
            let step = match name.split_once(':') {
                Some(("f", field)) => Step::Field(field.to_owned()),
                Some(("k", keys)) => Step::Key(keys.to_owned()),
                Some(("v", item)) => Step::Item(item.to_owned()),
                _ => continue,
            };
            path.push(step);
            self.decode_into(path, inner);
            path.pop();
        }
    }
}

/// How a list's item is named among its managers.
pub(crate) fn step_to(item: &Value, list: &ListType) -> Step {
    match list {
        ListType::Map(_) => Step::Key(list.identity(item).unwrap_or_default().to_string()),
        _ => Step::Item(item.to_string()),
    }
}

/// The value at a path.
pub(crate) fn at<'a>(object: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Key(keys) => {
            let items = value.as_array()?;
            let exact = items.iter().find(|item| has_keys(item, keys));
            exact.or_else(|| items.iter().find(|item| leaves_keys_out(item, keys)))
        }
        Step::Item(text) => value.as_array()?.iter().find(|item| is_item(item, text)),
    })
}

/// Whether an item of a list has these keys.
pub(crate) fn has_keys(item: &Value, keys: &str) -> bool {
    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
    keys.iter().all(|(name, value)| item.get(name) == Some(value))
}

/// Whether an item has some of these keys and leaves the rest to their defaults.
fn leaves_keys_out(item: &Value, keys: &str) -> bool {
    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
    keys.iter().all(|(name, value)| item.get(name).is_none_or(|given| given == value))
}

/// Whether an item of a set is the one that `text` writes.
pub(crate) fn is_item(item: &Value, text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|named| named == *item)
}

/// A path as conflicts name it: `.spec.ports[port=80,protocol="TCP"].name`.
pub(crate) fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Key(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(text, "[{}]", keys.join(",")).expect("text takes all");
            }
            Step::Item(item) => write!(text, "[={item}]").expect("text takes all"),
        }
    }
    text
}

/// A manager's name, how it writes, and through which path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Manager {
    pub(crate) name: String,
    pub(crate) applies: bool,
    pub(crate) subresource: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    api_version: String,
    time: String,
    fields: Fields,
}

/// All managers of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Managers(BTreeMap<Manager, Entry>);

impl Managers {
    /// Reads `metadata.managedFields`.
    pub(crate) fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self(
            entries
                .map(|entry| {
                    let manager = Manager {
                        name: text(&entry["manager"]),
                        applies: entry["operation"] == "Apply",
                        subresource: entry["subresource"].as_str().map(str::to_owned),
                    };
                    let entry = Entry {
                        api_version: text(&entry["apiVersion"]),
                        time: text(&entry["time"]),
                        fields: Fields::decode(&entry["fieldsV1"]),
                    };
                    (manager, entry)
                })
                .collect(),
        )
    }

    /// Writes `metadata.managedFields`.
    pub(crate) fn encode(&self) -> Value {
        let mut all: Vec<(&Manager, &Entry)> = self.0.iter().collect();
        all.sort_by_key(|(manager, entry)| (!manager.applies, &entry.time));
        let entries = all.into_iter().map(|(manager, entry)| {
            let mut value = json!({
                "manager": manager.name,
                "operation": if manager.applies { "Apply" } else { "Update" },
                "apiVersion": entry.api_version,
                "time": entry.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": entry.fields.encode(),
            });
            if let Some(subresource) = &manager.subresource {
                value["subresource"] = subresource.clone().into();
            }
            value
        });
        Value::Array(entries.collect())
    }

    pub(crate) fn fields(&self, manager: &Manager) -> Option<&Fields> {
        self.0.get(manager).map(|entry| &entry.fields)
    }

    /// Every other manager that owns a path.
    pub(crate) fn others<'a>(
        &'a self,
        but: &'a Manager,
        path: &'a [Step],
    ) -> impl Iterator<Item = &'a Manager> {
        self.0
            .iter()
            .filter(move |(manager, entry)| *manager != but && entry.fields.0.contains(path))
            .map(|(manager, _)| manager)
    }

    /// Whether another manager owns a path or a part of it.
    pub(crate) fn owned_by_others(&self, but: &Manager, path: &[Step]) -> bool {
        self.0.iter().filter(|(manager, _)| *manager != but).any(|(_, entry)| {
            let at_or_behind = entry.fields.0.range(path.to_vec()..);
            at_or_behind.take(1).any(|found| found.starts_with(path))
        })
    }

    /// Takes paths from all managers but one.
    pub(crate) fn take(&mut self, but: &Manager, paths: &BTreeSet<Path>) {
        for (manager, entry) in &mut self.0 {
            if manager != but {
                entry.fields.0.retain(|path| !paths.contains(path));
            }
        }
        self.0.retain(|_, entry| !entry.fields.0.is_empty());
    }

    /// Makes a manager own exactly these fields.
    pub(crate) fn set(&mut self, manager: Manager, api_version: &str, time: &str, fields: Fields) {
        if fields.0.is_empty() {
            self.0.remove(&manager);
            return;
        }
        let entry = Entry { api_version: api_version.to_owned(), time: time.to_owned(), fields };
        self.0.insert(manager, entry);
    }

    /// A write that is no apply: whoever changes a field owns it, alone.
    pub(crate) fn record_update(
        &mut self,
        manager: Manager,
        (api_version, time): (&str, &str),
        (old, new): (&Value, &Value),
        schema: &Schema,
    ) {
        let (before, after) = (Fields::of(old, schema), Fields::of(new, schema));
        let changed: BTreeSet<Path> =
            after.0.iter().filter(|path| at(old, path) != at(new, path)).cloned().collect();
        let added = changed.iter().filter(|path| is_leaf(new, path) || !before.0.contains(*path));
        let mut fields = self.fields(&manager).cloned().unwrap_or_default();
        let touched: BTreeSet<Path> = added.cloned().collect();
        let removed: BTreeSet<Path> = before.0.difference(&after.0).cloned().collect();
        self.take(&manager, &touched);
        self.take(&manager, &removed);
        fields.0.retain(|path| !removed.contains(path));
        fields.0.extend(touched);
        if self.fields(&manager) != Some(&fields) {
            self.set(manager, api_version, time, fields);
        }
    }
}

fn is_leaf(object: &Value, path: &[Step]) -> bool {
    at(object, path).is_none_or(|value| !value.is_object())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::shapes;

    #[test]
    fn fields_are_written_and_read_as_the_api_server_writes_them() {
        let schema = Schema::of_lists(shapes("Service"));
        let service = json!({
            "metadata": {"name": "a", "labels": {"app": "a"}, "finalizers": ["x/y"]},
            "spec": {"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP", "name": "http"}]},
        });
        let fields = Fields::of(&service, &schema);
        let expected = json!({
            "f:metadata": {"f:labels": {"f:app": {}}, "f:finalizers": {"v:\"x/y\"": {}}},
            "f:spec": {
                "f:type": {},
                "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {
                    ".": {}, "f:name": {}, "f:port": {}, "f:protocol": {},
                }},
            },
        });
        assert_eq!(fields.encode(), expected);
        assert_eq!(Fields::decode(&expected), fields);
    }
}
