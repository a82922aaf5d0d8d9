//! Label selectors. Source: meta/v1 LabelSelector; an empty one selects everything.

use std::collections::BTreeMap;

use crate::snapshot::gateway::{AllowedNamespaces, From, LabelSelector};

use super::reader::Reader;

/// Whether objects of a namespace are let in by one in the namespace `home`.
pub(super) fn admits(reader: &Reader<'_>, allowed: &AllowedNamespaces, home: &str, namespace: &str) -> bool {
    match allowed.from {
        From::All => true,
        From::Same => namespace == home,
        From::None => false,
        From::Selector => allowed.selector.as_ref().is_some_and(|selector| {
            reader.namespace_labels(namespace).is_some_and(|labels| matches(selector, labels))
        }),
    }
}

/// Whether labels are selected; a requirement with an unknown operator selects nothing.
fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            let is_in = value.is_some_and(|value| requirement.values.contains(value));
            match &*requirement.operator {
                "In" => is_in,
                "NotIn" => !is_in,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_requirements_must_all_hold() {
        let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
        let check = |selector: serde_json::Value, want: bool| {
            let read: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(matches(&read, &labels), want, "{selector}");
        };
        let requires = |operator: &str, key: &str, values: &[&str]| serde_json::json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        check(serde_json::json!({}), true);
        check(serde_json::json!({"matchLabels": {"env": "prod"}}), true);
        check(serde_json::json!({"matchLabels": {"env": "test"}}), false);
        check(requires("In", "env", &["test", "prod"]), true);
        check(requires("In", "env", &["test"]), false);
        check(requires("NotIn", "env", &["prod"]), false);
        check(requires("NotIn", "team", &["a"]), true);
        check(requires("Exists", "env", &[]), true);
        check(requires("DoesNotExist", "env", &[]), false);
        check(requires("Like", "env", &[]), false);
    }
}
