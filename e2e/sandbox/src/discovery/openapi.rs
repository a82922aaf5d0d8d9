//! OpenAPI v3, as much of it as `kubectl apply` asks for: that this server validates fields itself.
//!
//! Owns nothing. Called for the paths below `/openapi`. It refuses to describe objects.

use serde_json::{Map, Value, json};

use super::{Document, served, versions};
use crate::kinds::Kinds;

/// `/openapi/v3`, or the document of one group and version below it.
pub(super) fn document(kinds: &Kinds, words: &[&str]) -> Option<Document> {
    Some(Document::Json(match words {
        ["openapi", "v3"] => index(kinds),
        ["openapi", "v3", "api", version] => paths(kinds, "", version),
        ["openapi", "v3", "apis", group, version] => paths(kinds, group, version),
        _ => return None,
    }))
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn index(kinds: &Kinds) -> Value {
    let groups = super::groups(kinds).into_iter().chain([""]);
    let all = groups.flat_map(|group| versions(kinds, group).into_iter().map(move |v| root(group, v)));
    let entries: Map<String, Value> = all
        .map(|root| {
            let url = format!("/openapi/v3/{root}");
            (root, json!({ "serverRelativeURL": url }))
        })
        .collect();
    json!({ "paths": entries })
}

fn paths(kinds: &Kinds, group: &str, version: &str) -> Value {
    let validated = json!([{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]);
    let entries: Map<String, Value> = served(kinds, group, version)
        .map(|(kind, _)| {
            let scope = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
            let path = format!("/{}/{scope}{}/{{name}}", root(group, version), kind.key.plural);
            let of = json!({"group": group, "version": version, "kind": kind.kind});
            let patch = json!({"parameters": validated, "x-kubernetes-group-version-kind": of});
            (path, json!({ "patch": patch }))
        })
        .collect();
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.3"}, "paths": entries})
}
