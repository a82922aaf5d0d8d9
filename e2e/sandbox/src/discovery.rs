//! The documents below `/api`, `/apis` and `/version`, and the health checks.
//!
//! Owns nothing. Called for every path that names no resource. Of OpenAPI it says no more than that fields are validated.

mod openapi;

use std::collections::{BTreeMap, BTreeSet};

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    kinds::{Kind, Kinds, Version},
    service::{Body, response},
};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// An answer that is about the API itself.
pub(crate) enum Document {
    Json(Value),
    /// `APIGroupDiscoveryList`: its media type tells clients that it is not the older form.
    Aggregated(Value),
    Text(&'static str),
}

impl Document {
    pub(crate) fn into_response(self) -> Response<Body> {
        const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let (media_type, text) = match self {
            Self::Json(value) => ("application/json", value.to_string()),
            Self::Aggregated(value) => (AGGREGATED, value.to_string()),
            Self::Text(text) => ("text/plain; charset=utf-8", text.to_owned()),
        };
        response(StatusCode::OK, media_type, text)
    }
}

/// The document at a path, if there is one.
pub(crate) fn document(kinds: &Kinds, path: &[String], accept: &str) -> Option<Document> {
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    let aggregated = accept.contains("as=APIGroupDiscoveryList") && accept.contains("v=v2;");
    Some(match words.as_slice() {
        ["healthz" | "readyz" | "livez"] => Document::Text("ok"),
        ["version"] => Document::Json(version()),
        ["api"] if aggregated => Document::Aggregated(aggregate(kinds, true)),
        ["apis"] if aggregated => Document::Aggregated(aggregate(kinds, false)),
        ["api"] => Document::Json(json!({
            "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [],
        })),
        ["apis"] => Document::Json(group_list(kinds)),
        ["apis", group] => Document::Json(group_document(kinds, group)?),
        ["api", version] => Document::Json(resource_list(kinds, "", version)?),
        ["apis", group, version] => Document::Json(resource_list(kinds, group, version)?),
        ["openapi", ..] => openapi::document(kinds, &words)?,
        _ => return None,
    })
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": "v1.36.3",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": "",
        "compiler": "",
        "platform": "sandbox",
    })
}

/// The served versions of a group, stable ones first.
fn versions<'a>(kinds: &'a Kinds, group: &str) -> Vec<&'a str> {
    let all: BTreeSet<&str> = kinds
        .all()
        .filter(|kind| kind.key.group == group)
        .flat_map(|kind| &kind.versions)
        .filter(|version| version.served)
        .map(|version| version.name.as_str())
        .collect();
    let mut all: Vec<&str> = all.into_iter().collect();
    all.sort_by_key(|version| {
        let rank = if version.contains("alpha") { 2 } else { u8::from(version.contains("beta")) };
        (rank, std::cmp::Reverse(version.to_owned()))
    });
    all
}

fn groups(kinds: &Kinds) -> BTreeSet<&str> {
    let all = kinds.all().map(|kind| kind.key.group.as_str());
    all.filter(|group| !group.is_empty()).collect()
}

fn group_document(kinds: &Kinds, group: &str) -> Option<Value> {
    let versions: Vec<Value> = versions(kinds, group)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": versions,
        "preferredVersion": preferred,
    }))
}

fn group_list(kinds: &Kinds) -> Value {
    let groups: Vec<Value> =
        groups(kinds).into_iter().filter_map(|group| group_document(kinds, group)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// The kinds served in a version of a group.
fn served<'a>(
    kinds: &'a Kinds,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = (&'a Kind, &'a Version)> {
    kinds
        .all()
        .filter(move |kind| kind.key.group == group)
        .filter_map(move |kind| Some((kind.as_ref(), kind.version(version)?)))
}

fn resource_list(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    let mut api_version = None;
    for (kind, served) in served(kinds, group, version) {
        api_version = Some(kind.api_version(version));
        let mut resource = json!({
            "name": kind.key.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": VERBS,
        });
        if !kind.short_names.is_empty() {
            resource["shortNames"] = kind.short_names.clone().into();
        }
        if !kind.categories.is_empty() {
            resource["categories"] = kind.categories.clone().into();
        }
        resources.push(resource);
        if served.has_status {
            resources.push(json!({
                "name": format!("{}/status", kind.key.plural),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                "verbs": ["get", "patch", "update"],
            }));
        }
    }
    let group_version = api_version?;
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }))
}

/// The aggregated form, of the core group or of all others.
fn aggregate(kinds: &Kinds, core: bool) -> Value {
    let groups: Vec<&str> = if core { vec![""] } else { groups(kinds).into_iter().collect() };
    let items: Vec<Value> = groups
        .into_iter()
        .map(|group| {
            let versions: Vec<Value> = versions(kinds, group)
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> = served(kinds, group, version)
                        .map(|(kind, served)| aggregated_resource(kind, served))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let mut metadata = BTreeMap::from([("creationTimestamp", Value::Null)]);
            if !group.is_empty() {
                metadata.insert("name", group.into());
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(kind: &Kind, version: &Version) -> Value {
    let of = json!({"group": kind.key.group, "version": version.name, "kind": kind.kind});
    let mut resource = json!({
        "resource": kind.key.plural,
        "responseKind": of,
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": VERBS,
        "shortNames": kind.short_names,
        "categories": kind.categories,
    });
    if version.has_status {
        resource["subresources"] = json!([{
            "subresource": "status",
            "responseKind": of,
            "verbs": ["get", "patch", "update"],
        }]);
    }
    resource
}
