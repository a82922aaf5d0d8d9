//! Validation of `metadata`: names, labels, and the types of its fields.
//!
//! Owns the name formats of RFC 1123 and RFC 1035. Called for every kind.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize as _;
use serde_json::Value;

use crate::{kinds::Kind, object::meta, refusal::Cause};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// Whether `metadata` has the types of ObjectMeta.
pub(super) fn check_metadata_types(metadata: &Value) -> Result<(), String> {
    ObjectMeta::deserialize(metadata).map(|_| ()).map_err(|error| error.to_string())
}

pub(super) fn check(kind: &Kind, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = meta(object, "name");
    let (fits, words) = match kind.kind.as_str() {
        "Namespace" | "Service" => (is_label(name), LABEL),
        _ => (is_subdomain(name), SUBDOMAIN),
    };
    if name.is_empty() {
        let detail = "name or generateName is required";
        causes.push(Cause::required("metadata.name", detail));
    } else if !fits {
        causes.push(Cause::invalid("metadata.name", &name.into(), words));
    }
    let labels = object["metadata"]["labels"].as_object();
    for value in labels.into_iter().flatten().map(|(_, value)| value) {
        if !value.as_str().is_some_and(is_label_value) {
            causes.push(Cause::invalid("metadata.labels", value, VALUE));
        }
    }
    causes
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_word)
}

fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_dns_word(name)
}

fn is_dns_word(word: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !word.is_empty() && word.chars().all(inner) && !word.starts_with('-') && !word.ends_with('-')
}

fn is_label_value(value: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = value.starts_with(|c: char| c.is_ascii_alphanumeric())
        && value.ends_with(|c: char| c.is_ascii_alphanumeric());
    value.is_empty() || (value.len() <= 63 && ends && value.chars().all(inner))
}
