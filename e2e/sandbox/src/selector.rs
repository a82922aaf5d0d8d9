//! Label and field selectors of lists and watches.
//!
//! Owns the two languages. Called for each list and watch. It refuses field names that the kind does not index, as the real one does.

use serde_json::Value;

use crate::{call::Call, kinds::Kind, object::meta, refusal::Refusal};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

/// What a list or watch is narrowed to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<(String, Requirement)>,
    fields: Vec<(String, Requirement)>,
}

impl Selector {
    pub(crate) fn read(call: &Call, kind: &Kind) -> Result<Self, Refusal> {
        let labels = labels(call.param("labelSelector").unwrap_or_default())?;
        let fields = fields(call.param("fieldSelector").unwrap_or_default())?;
        for (field, _) in &fields {
            let known = matches!(field.as_str(), "metadata.name" | "metadata.namespace")
                || kind.traits.selectable.contains(&field.as_str());
            if !known {
                return Err(Refusal::bad_request(format!("field label not supported: {field}")));
            }
        }
        Ok(Self { labels, fields })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|(key, requirement)| requirement.holds(labels[key].as_str()))
            && self.fields.iter().all(|(path, requirement)| requirement.holds(Some(&field(object, path))))
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let among = |all: &[String]| value.is_some_and(|value| all.iter().any(|one| one == value));
        match self {
            Self::In(all) => among(all),
            Self::NotIn(all) => !among(all),
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
        }
    }
}

/// A field as its selector sees it: absent is empty.
fn field(object: &Value, path: &str) -> String {
    if let Some(name) = path.strip_prefix("metadata.") {
        return meta(object, name).to_owned();
    }
    let found = path.split('.').fold(object, |value, step| &value[step]);
    match found {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn fields(text: &str) -> Result<Vec<(String, Requirement)>, Refusal> {
    text.split(',')
        .filter(|term| !term.is_empty())
        .map(|term| {
            equality(term).ok_or_else(|| {
                Refusal::bad_request(format!("invalid selector: '{text}'; can't understand '{term}'"))
            })
        })
        .collect()
}

fn labels(text: &str) -> Result<Vec<(String, Requirement)>, Refusal> {
    terms(text).into_iter().map(|term| label(term).ok_or_else(|| unreadable(text))).collect()
}

fn unreadable(text: &str) -> Refusal {
    Refusal::bad_request(format!("unable to parse requirement: {text}"))
}

/// Splits at commas outside of parentheses.
fn terms(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
    .collect()
}

fn label(term: &str) -> Option<(String, Requirement)> {
    if let Some(key) = term.strip_prefix('!') {
        return Some((key.trim().to_owned(), Requirement::Absent));
    }
    if let Some((head, values)) = term.split_once('(') {
        let all: Vec<String> =
            values.strip_suffix(')')?.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        let (key, operator) = (words.next()?, words.next()?);
        let requirement = match operator {
            "in" => Requirement::In(all),
            "notin" => Requirement::NotIn(all),
            _ => return None,
        };
        return Some((key.to_owned(), requirement));
    }
    if let Some(found) = equality(term) {
        return Some(found);
    }
    let is_key = !term.contains(char::is_whitespace);
    is_key.then(|| (term.to_owned(), Requirement::Exists))
}

fn equality(term: &str) -> Option<(String, Requirement)> {
    let one = |value: &str| vec![value.trim().to_owned()];
    let (key, requirement) = if let Some((key, value)) = term.split_once("!=") {
        (key, Requirement::NotIn(one(value)))
    } else if let Some((key, value)) = term.split_once("==") {
        (key, Requirement::In(one(value)))
    } else {
        let (key, value) = term.split_once('=')?;
        (key, Requirement::In(one(value)))
    };
    Some((key.trim().to_owned(), requirement))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(selector: &str, expected: bool) {
        let object = json!({"metadata": {"labels": {"app": "edge", "tier": "front"}}});
        let selector = Selector {
            labels: labels(selector).unwrap_or_else(|_| panic!("{selector}")),
            fields: Vec::new(),
        };
        assert_eq!(selector.matches(&object), expected, "{selector:?}");
    }

    #[test]
    fn every_form_of_a_label_selector() {
        check("", true);
        check("app=edge,tier==front", true);
        check("app=other", false);
        check("app!=other,none!=x", true);
        check("app in (other, edge),tier", true);
        check("app notin (edge)", false);
        check("none notin (edge)", true);
        check("!app", false);
        check("!none", true);
        check("none", false);
        assert!(labels("app near (edge)").is_err());
    }

    #[test]
    fn fields_are_read_by_path() {
        let object = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}});
        let selector =
            |text| Selector { labels: Vec::new(), fields: fields(text).unwrap_or_else(|_| panic!("{text}")) };
        assert!(selector("metadata.name=a,spec.nodeName!=m").matches(&object));
        assert!(!selector("metadata.name=b").matches(&object));
        assert!(selector("metadata.namespace=").matches(&object));
        assert!(fields("metadata.name").is_err());
    }
}
