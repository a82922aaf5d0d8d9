//! Server-side apply: what one manager wants, merged into what is there.
//!
//! Owns nothing. Called by the write path. It refuses to know admission: the merged object is written like any other.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{
    managed::{self, Fields, Manager, Managers, Path, Step},
    schema::{ListType, Schema},
};

/// The outcome of an apply.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) object: Value,
    pub(crate) managers: Managers,
}

/// Fields of other managers that an apply would change: (manager, field).
pub(crate) type Conflicts = Vec<(String, String)>;

/// Who applies, when, in which version, and whether conflicts are overruled.
#[derive(Debug)]
pub(crate) struct Applier<'a> {
    pub(crate) manager: Manager,
    pub(crate) api_version: &'a str,
    pub(crate) time: &'a str,
    pub(crate) force: bool,
}

/// Merges `wanted` into `live`; fields that the manager applied before and no longer wants go, unless another owns them.
pub(crate) fn apply(
    applier: Applier<'_>,
    live: &Value,
    wanted: &Value,
    schema: &Schema,
) -> Result<Applied, Conflicts> {
    let manager = applier.manager;
    let mut managers = Managers::of(live);
    let fields = Fields::of(wanted, schema);
    let mut conflicts = Conflicts::new();
    let mut overruled = BTreeSet::new();
    for path in &fields.0 {
        let (there, here) = (managed::at(live, path), managed::at(wanted, path));
        let is_item = matches!(path.last(), Some(Step::Key(_)));
        if is_item || there.is_none() || there == here {
            continue;
        }
        for other in managers.others(&manager, path) {
            conflicts.push((other.name.clone(), managed::shown(path)));
            overruled.insert(path.clone());
        }
    }
    if !conflicts.is_empty() && !applier.force {
        return Err(conflicts);
    }
    managers.take(&manager, &overruled);
    let before = managers.fields(&manager).cloned().unwrap_or_default();
    let mut object = live.clone();
    merge(&mut object, wanted, Some(schema));
    // What holds comes before its parts: an item goes while its keys still name it.
    for path in before.0.difference(&fields.0) {
        if !managers.owned_by_others(&manager, path) {
            remove(&mut object, path);
        }
    }
    if before != fields {
        managers.set(manager, applier.api_version, applier.time, fields);
    }
    Ok(Applied { object, managers })
}

fn merge(live: &mut Value, wanted: &Value, schema: Option<&Schema>) {
    let atomic = schema.is_some_and(|schema| schema.atomic_map);
    match wanted {
        Value::Object(fields) if !atomic => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            let Some(map) = live.as_object_mut() else { return };
            for (name, value) in fields {
                let inner = schema.and_then(|schema| schema.field(name));
                merge(map.entry(name.clone()).or_insert(Value::Null), value, inner);
            }
        }
        Value::Array(items) => merge_list(live, items, schema),
        value => *live = value.clone(),
    }
}

fn merge_list(live: &mut Value, wanted: &[Value], schema: Option<&Schema>) {
    let list = schema.map_or(ListType::Atomic, |schema| schema.list.clone());
    let (Some(items), true) = (live.as_array_mut(), list != ListType::Atomic) else {
        *live = Value::Array(wanted.to_vec());
        return;
    };
    let inner = schema.and_then(|schema| schema.items.as_deref());
    for item in wanted {
        let identity = list.identity(item);
        match items.iter_mut().find(|there| list.identity(there) == identity) {
            Some(there) => merge(there, item, inner),
            None => items.push(item.clone()),
        }
    }
}

/// Takes a path out of an object, and the maps that it leaves empty.
fn remove(object: &mut Value, path: &Path) {
    let [steps @ .., last] = path.as_slice() else { return };
    if let Some(parent) = at_mut(object, steps) {
        match last {
            Step::Field(name) => {
                if let Some(map) = parent.as_object_mut() {
                    map.remove(name);
                }
            }
            Step::Key(keys) => retain(parent, |item| !managed::has_keys(item, keys)),
            Step::Item(text) => retain(parent, |item| !managed::is_item(item, text)),
        }
        let emptied = match &*parent {
            Value::Object(map) => map.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if emptied && matches!(steps.last(), Some(Step::Field(_))) {
            remove(object, &steps.to_vec());
        }
    }
}

fn retain(list: &mut Value, keep: impl Fn(&Value) -> bool) {
    if let Some(items) = list.as_array_mut() {
        items.retain(|item| keep(item));
    }
}

fn at_mut<'a>(object: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(object, |value, step| match step {
        Step::Field(name) => value.get_mut(name),
        Step::Key(keys) => value.as_array_mut()?.iter_mut().find(|item| managed::has_keys(item, keys)),
        Step::Item(text) => value.as_array_mut()?.iter_mut().find(|item| managed::is_item(item, text)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::shapes;
    use serde_json::json;

    fn step(live: &Value, who: &str, force: bool, wanted: &Value) -> Result<Value, Conflicts> {
        let manager = Manager { name: who.to_owned(), applies: true, subresource: None };
        let applier = Applier { manager, api_version: "v1", time: "t", force };
        let schema = Schema::of_lists(shapes("Service"));
        let applied = apply(applier, live, wanted, &schema)?;
        let mut object = applied.object;
        object["metadata"]["managedFields"] = applied.managers.encode();
        Ok(object)
    }

    #[test]
    fn a_manager_changes_and_removes_only_what_is_its_own() {
        let ports = |all: Value| json!({"metadata": {}, "spec": {"ports": all}});
        let live = json!({"metadata": {}});
        let live =
            step(&live, "a", false, &ports(json!([{"port": 80, "protocol": "TCP", "name": "a"}]))).unwrap();
        let mine = json!([{"port": 81, "protocol": "TCP", "name": "b"}]);
        let live = step(&live, "b", false, &ports(mine)).unwrap();
        assert_eq!(live["spec"]["ports"].as_array().unwrap().len(), 2);
        let live = step(&live, "a", false, &json!({"metadata": {"labels": {"x": "y"}}})).unwrap();
        assert_eq!(live["spec"]["ports"], json!([{"port": 81, "protocol": "TCP", "name": "b"}]));
    }

    #[test]
    fn another_managers_field_is_a_conflict_unless_forced() {
        let live =
            step(&json!({"metadata": {}}), "a", false, &json!({"spec": {"type": "NodePort"}})).unwrap();
        let other = json!({"spec": {"type": "ClusterIP"}});
        let conflicts = step(&live, "b", false, &other).unwrap_err();
        assert_eq!(conflicts, [("a".to_owned(), ".spec.type".to_owned())]);
        let live = step(&live, "b", true, &other).unwrap();
        assert_eq!(live["spec"]["type"], "ClusterIP");
        let managers = live["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!(managers.len(), 1, "a owns nothing any more");
        // Who applies the same value shares the field.
        let live = step(&live, "a", false, &other).unwrap();
        let live = step(&live, "b", false, &json!({})).unwrap();
        assert_eq!(live["spec"]["type"], "ClusterIP");
    }
}
