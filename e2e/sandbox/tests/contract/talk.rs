//! A conversation with an API server, kept as a transcript that is the same for every server that answers alike.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use http::Request;
use http_body_util::BodyExt as _;
use kube::Client;
use serde_json::{Map, Value, json};

/// The CRDs that the cases use.
pub(crate) fn definitions() -> impl Iterator<Item = &'static str> {
    sandbox::Channel::Standard.documents().iter().copied().chain([include_str!("widgets.yaml")])
}

pub(crate) struct Talk {
    client: Client,
    pub(crate) namespace: String,
    lines: Vec<Value>,
    named: BTreeMap<String, String>,
    with_managers: bool,
}

/// The path of a collection below a group and version.
pub(crate) const CORE: &str = "/api/v1";
pub(crate) const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1";
pub(crate) const WIDGETS: &str = "/apis/test.portreeve.dev/v1";

pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

impl Talk {
    /// Begins in a namespace of its own.
    pub(crate) async fn begin(client: Client, case: &str) -> Self {
        let namespace = format!("contract-{case}");
        let talk = Self {
            client,
            namespace: namespace.clone(),
            lines: Vec::new(),
            named: BTreeMap::new(),
            with_managers: false,
        };
        let body = json!({"metadata": {"name": namespace}});
        let (code, answer) = talk.raw("POST", "/api/v1/namespaces", JSON, &body.to_string()).await;
        assert_eq!(code, 201, "{answer}");
        talk
    }

    pub(crate) fn end(self) -> Vec<Value> {
        self.lines
    }

    /// Keeps `managedFields` in the transcript from here on.
    pub(crate) fn show_managers(&mut self) {
        self.with_managers = true;
    }

    /// The path of a namespaced collection in this conversation's namespace.
    pub(crate) fn path(&self, root: &str, plural: &str) -> String {
        format!("{root}/namespaces/{}/{plural}", self.namespace)
    }

    /// What the next lines are about.
    pub(crate) fn note(&mut self, text: &str) {
        self.lines.push(json!({ "note": text }));
    }

    async fn raw(&self, method: &str, path: &str, content_type: &str, body: &str) -> (u16, Value) {
        let accept = if path.contains("metadata-only") {
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        } else {
            JSON
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .header("accept", accept)
            .header("user-agent", "contract/1.0")
            .body(kube::client::Body::from(body.as_bytes().to_vec()))
            .unwrap();
        let answer = self.client.send(request).await.unwrap();
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Asks, notes the answer, and gives it back as it was.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, content_type: &str, body: &Value) -> Value {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let (code, answer) = self.raw(method, path, content_type, &text).await;
        let shown = self.cleaned(&answer);
        let shown_path = self.cleaned_text(path);
        self.lines.push(json!({"ask": format!("{method} {shown_path}"), "code": code, "answer": shown}));
        answer
    }

    pub(crate) async fn get(&mut self, path: &str) -> Value {
        self.ask("GET", path, JSON, &Value::Null).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Value {
        self.ask("POST", path, JSON, body).await
    }

    pub(crate) async fn put(&mut self, path: &str, body: &Value) -> Value {
        self.ask("PUT", path, JSON, body).await
    }

    pub(crate) async fn patch(&mut self, path: &str, content_type: &str, body: &Value) -> Value {
        self.ask("PATCH", path, content_type, body).await
    }

    pub(crate) async fn delete(&mut self, path: &str, options: &Value) -> Value {
        self.ask("DELETE", path, JSON, options).await
    }

    /// Asks without a line in the transcript, for answers that are never twice the same.
    pub(crate) async fn silently_post(&mut self, path: &str, body: &Value) -> Value {
        self.raw("POST", path, JSON, &body.to_string()).await.1
    }

    /// Deletes and notes the code alone.
    pub(crate) async fn silently_delete(&mut self, path: &str) {
        let (code, _) = self.raw("DELETE", path, JSON, "").await;
        self.lines.push(json!({"ask": format!("DELETE {path}"), "code": code}));
    }

    /// Lists and notes the names.
    pub(crate) async fn names(&mut self, path: &str) {
        let (code, answer) = self.raw("GET", path, JSON, "").await;
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        let names: Vec<&Value> = items.iter().map(|item| &item["metadata"]["name"]).collect();
        self.lines.push(json!({"ask": format!("GET {path}"), "code": code, "names": names}));
    }

    /// Reads discovery documents, without what only the real server's storage knows.
    pub(crate) async fn documents(&mut self, paths: &[&str]) {
        for path in paths {
            let (code, mut answer) = self.raw("GET", path, JSON, "").await;
            for resource in answer.get_mut("resources").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(map) = resource.as_object_mut() {
                    map.retain(|field, _| {
                        ["name", "singularName", "namespaced", "kind", "shortNames", "categories"]
                            .contains(&field.as_str())
                    });
                }
            }
            if let Some(resources) = answer.get_mut("resources").and_then(Value::as_array_mut) {
                resources.sort_by_key(|resource| resource["name"].to_string());
                // Alpha and beta kinds that a server serves are its own affair.
                resources.retain(|resource| resource["kind"] != "LeaseCandidate");
            }
            self.lines.push(json!({"ask": format!("GET {path}"), "code": code, "answer": answer}));
        }
    }

    /// Follows a watch until `count` events have come, or it ends, or nothing comes for 3 s.
    pub(crate) async fn watch(&mut self, path: &str, accept: &str, count: usize) {
        let request =
            Request::builder().uri(path).header("accept", accept).body(kube::client::Body::empty()).unwrap();
        let answer = self.client.send(request).await.unwrap();
        let code = answer.status().as_u16();
        let mut stream = answer.into_body().into_data_stream();
        let (mut text, mut seen) = (String::new(), Vec::new());
        while seen.len() < count {
            let chunk = tokio::time::timeout(Duration::from_secs(3), stream.next()).await;
            let Ok(Some(Ok(chunk))) = chunk else { break };
            text.push_str(&String::from_utf8_lossy(&chunk));
            while let Some((line, rest)) = text.split_once('\n') {
                seen.push(serde_json::from_str::<Value>(line).unwrap());
                text = rest.to_owned();
            }
        }
        if let Ok(refusal) = serde_json::from_str::<Value>(&text) {
            seen.push(refusal);
        }
        seen.truncate(count);
        let events: Vec<Value> = seen.iter().map(|event| self.cleaned_event(event)).collect();
        let shown_path = self.cleaned_text(path);
        self.lines.push(json!({"watch": shown_path, "code": code, "events": events}));
    }

    fn cleaned_event(&mut self, event: &Value) -> Value {
        if event["kind"] == "Status" {
            return self.cleaned(event);
        }
        let mut event = event.clone();
        if event["type"] == "BOOKMARK" {
            // Its revision is some revision; which one, and whether it is that of an object, is the server's affair.
            event["object"]["metadata"]["resourceVersion"] = Value::Null;
        }
        json!({"type": event["type"], "object": self.cleaned(&event["object"])})
    }

    /// An answer without what differs from run to run, and without what we do not rely on.
    fn cleaned(&mut self, answer: &Value) -> Value {
        let mut shown = answer.clone();
        if shown["kind"] == "Status" {
            return cleaned_status(&shown);
        }
        let is_list = shown.get("items").is_some();
        if is_list {
            // A list's revision is the whole server's: others write too.
            shown["metadata"]["resourceVersion"] = Value::Null;
        }
        self.clean(&mut shown);
        if let Some(items) = shown.get_mut("items").and_then(Value::as_array_mut) {
            for item in &mut *items {
                self.clean(item);
            }
            match shown["metadata"]["continue"].as_str() {
                Some("") | None => shown["metadata"]["continue"] = Value::Null,
                Some(_) => shown["metadata"]["continue"] = "token".into(),
            }
        }
        shown
    }

    fn clean(&mut self, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            // Events carry the fields of an older form, empty.
            map.retain(|field, _| !field.starts_with("deprecated"));
        }
        let with_managers = self.with_managers;
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        for field in ["uid", "resourceVersion"] {
            if let Some(Value::String(text)) = metadata.get_mut(field) {
                *text = self.name(field, text);
            }
        }
        for field in ["creationTimestamp", "deletionTimestamp"] {
            if metadata.get(field).is_some_and(Value::is_string) {
                metadata.insert(field.to_owned(), "time".into());
            }
        }
        if !with_managers {
            metadata.remove("managedFields");
        }
        for entry in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            entry["time"] = "time".into();
            if entry["operation"] == "Update" {
                forget_containers(&mut entry["fieldsV1"]);
            }
        }
    }

    /// The same name for the same text.
    fn name(&mut self, what: &str, text: &str) -> String {
        let next = self.named.len();
        self.named.entry(text.to_owned()).or_insert_with(|| format!("{what} {next}")).clone()
    }

    /// A path with known revisions and uids named, and tokens left out.
    fn cleaned_text(&self, path: &str) -> String {
        let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
        let parameters: Vec<String> = query
            .split('&')
            .map(|parameter| match parameter.split_once('=') {
                Some(("continue", _)) => "continue=token".to_owned(),
                Some(("resourceVersion", value)) => {
                    let named = self.named.get(value).map_or(value, String::as_str);
                    format!("resourceVersion={named}")
                }
                _ => parameter.to_owned(),
            })
            .collect();
        format!("{path}?{}", parameters.join("&"))
    }
}

/// Whether an update owns the maps around its fields is nothing that we rely on.
fn forget_containers(fields: &mut Value) {
    if let Some(map) = fields.as_object_mut() {
        map.remove(".");
        map.values_mut().for_each(forget_containers);
    }
}

/// Code, reason, and which fields: the words may differ.
fn cleaned_status(status: &Value) -> Value {
    let mut shown = Map::new();
    for field in ["status", "reason", "code"] {
        if let Some(value) = status.get(field) {
            shown.insert(field.to_owned(), value.clone());
        }
    }
    let details = &status["details"];
    for field in ["name", "group", "kind", "retryAfterSeconds"] {
        if field == "group" && details["kind"] == "Event" {
            // The real one keeps both kinds of Events as one and names the group of neither.
            continue;
        }
        if let Some(value) = details.get(field) {
            shown.insert(field.to_owned(), value.clone());
        }
    }
    let mut causes: Vec<String> = details["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|cause| {
            let text = |field: &str| cause[field].as_str().unwrap_or_default().to_owned();
            format!("{} {}", text("field"), text("reason"))
        })
        .collect();
    causes.sort();
    causes.dedup();
    if !causes.is_empty() {
        shown.insert("causes".to_owned(), causes.into());
    }
    Value::Object(shown)
}
