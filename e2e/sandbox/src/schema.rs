//! Structural OpenAPI schemas, as CustomResourceDefinitions carry them.
//!
//! Owns: the schema as a typed value. Called when a CRD is installed and on every write of its objects.
//! `fill` prunes and defaults, `check` validates, `shapes` says how the lists of built-in kinds merge.
//! It refuses to know HTTP and storage.

mod check;
mod fill;
mod shapes;

use std::{collections::BTreeMap, sync::OnceLock};

use regex_automata::meta::Regex;
use serde_json::Value;
use thiserror::Error;

pub(crate) use shapes::shapes;

/// Why a schema can not be used.
#[derive(Debug, Error)]
pub(crate) enum SchemaError {
    /// There is none, or it is no object.
    #[error("{path}: a schema must be an object")]
    NotAnObject {
        /// Where in the schema.
        path: String,
    },
    /// A pattern is no regular expression.
    #[error("{path}: the pattern {pattern:?} is no regular expression")]
    Pattern {
        /// Where in the schema.
        path: String,
        /// The pattern.
        pattern: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// How a list merges in server-side apply and strategic merge (`x-kubernetes-list-type`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<MapKey>),
}

/// A key of a list's items, and what it is when it is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapKey {
    pub(crate) name: String,
    pub(crate) default: Option<Value>,
}

/// A regular expression that is compiled when it is first needed.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// Whether it matches anywhere in `text`; one that does not compile matches nothing.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.compiled
            .get_or_init(|| Regex::new(&self.text).ok())
            .as_ref()
            .is_some_and(|regex| regex.is_match(text))
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    pub(crate) kind: Option<Type>,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) properties: BTreeMap<String, Schema>,
    pub(crate) additional: Option<Box<Schema>>,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) required: Vec<String>,
    pub(crate) default: Option<Value>,
    pub(crate) choices: Vec<Value>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) format: Option<String>,
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) exclusive_maximum: bool,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) list: ListType,
    pub(crate) atomic_map: bool,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Box<Schema>>,
}

impl Schema {
    /// Reads `openAPIV3Schema`.
    pub(crate) fn read(document: &Value) -> Result<Self, SchemaError> {
        Self::read_at(document, "openAPIV3Schema")
    }

    fn read_at(document: &Value, path: &str) -> Result<Self, SchemaError> {
        let Some(map) = document.as_object() else {
            return Err(SchemaError::NotAnObject { path: path.to_owned() });
        };
        let below = |field: &str| -> Result<Option<Box<Self>>, SchemaError> {
            let Some(inner) = map.get(field).filter(|inner| inner.is_object()) else {
                return Ok(None);
            };
            Self::read_at(inner, &format!("{path}.{field}")).map(|inner| Some(Box::new(inner)))
        };
        let several = |field: &str| -> Result<Vec<Self>, SchemaError> {
            let alternatives = map.get(field).and_then(Value::as_array);
            let read = |inner: &Value| Self::read_at(inner, &format!("{path}.{field}"));
            alternatives.into_iter().flatten().map(read).collect()
        };
        let mut properties = BTreeMap::new();
        for (name, inner) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            properties.insert(name.clone(), Self::read_at(inner, &format!("{path}.{name}"))?);
        }
        let additional = match map.get("additionalProperties") {
            Some(Value::Bool(true)) => Some(Box::new(Self::anything())),
            _ => below("additionalProperties")?,
        };
        Ok(Self {
            properties,
            additional,
            items: below("items")?,
            all_of: several("allOf")?,
            any_of: several("anyOf")?,
            one_of: several("oneOf")?,
            not: below("not")?,
            ..Self::scalars(document, path)?
        })
    }

    /// The keywords that hold no schema.
    fn scalars(document: &Value, path: &str) -> Result<Self, SchemaError> {
        let flag = |field: &str| document[field].as_bool().unwrap_or(false);
        let texts = |field: &str| -> Vec<String> {
            let all = document[field].as_array().into_iter().flatten();
            all.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let list = match document["x-kubernetes-list-type"].as_str() {
            Some("set") => ListType::Set,
            Some("map") => {
                let default = |name: &str| document["items"]["properties"][name].get("default").cloned();
                let keys = texts("x-kubernetes-list-map-keys").into_iter();
                ListType::Map(keys.map(|name| MapKey { default: default(&name), name }).collect())
            }
            _ => ListType::Atomic,
        };
        Ok(Self {
            kind: document["type"].as_str().and_then(Type::named),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            required: texts("required"),
            default: document.get("default").cloned(),
            choices: document["enum"].as_array().cloned().unwrap_or_default(),
            pattern: pattern(document["pattern"].as_str(), path)?,
            format: document["format"].as_str().map(str::to_owned),
            minimum: document["minimum"].as_f64(),
            maximum: document["maximum"].as_f64(),
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            min_length: document["minLength"].as_u64(),
            max_length: document["maxLength"].as_u64(),
            min_items: document["minItems"].as_u64(),
            max_items: document["maxItems"].as_u64(),
            min_properties: document["minProperties"].as_u64(),
            max_properties: document["maxProperties"].as_u64(),
            list,
            atomic_map: document["x-kubernetes-map-type"] == "atomic",
            ..Self::default()
        })
    }

    /// Any value, kept as it is.
    pub(crate) fn anything() -> Self {
        Self { preserve_unknown: true, ..Self::default() }
    }

    /// The schema that only says how some lists merge: pairs of a path and the keys of its items (none: a set).
    pub(crate) fn of_lists<'a>(lists: impl Iterator<Item = (&'a str, &'a [&'a str])>) -> Self {
        let mut root = Self::anything();
        for (path, keys) in lists {
            let mut here = &mut root;
            for step in path.split('.') {
                here = match step {
                    "[]" => here.items.get_or_insert_with(|| Box::new(Self::anything())),
                    name => here.properties.entry(name.to_owned()).or_insert_with(Self::anything),
                };
            }
            here.list = match keys {
                [] => ListType::Set,
                keys => ListType::Map(keys.iter().copied().map(MapKey::built_in).collect()),
            };
        }
        root
    }

    /// The schema of a field, if one is known.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional.as_deref())
    }
}

impl MapKey {
    /// Of a built-in kind: there a protocol that is left out is TCP.
    fn built_in(name: &str) -> Self {
        Self { name: name.to_owned(), default: (name == "protocol").then(|| "TCP".into()) }
    }
}

impl Type {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// Only the syntax is read now: compiling all patterns of a CRD takes longer than most tests.
fn pattern(text: Option<&str>, path: &str) -> Result<Option<Pattern>, SchemaError> {
    let Some(text) = text else {
        return Ok(None);
    };
    regex_automata::util::syntax::parse(text)
        .map_err(|_| SchemaError::Pattern { path: path.to_owned(), pattern: text.to_owned() })?;
    Ok(Some(Pattern { text: text.to_owned(), compiled: OnceLock::new() }))
}
