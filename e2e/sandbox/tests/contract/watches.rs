//! Watches: where they begin, what they tell, how they end.

use serde_json::{Value, json};

use crate::talk::{CORE, JSON, MERGE, Talk, WIDGETS};

fn config(name: &str, app: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": app}}, "data": {"key": "value"}})
}

fn revision(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

/// Writes a little history and answers its first revision.
async fn history(talk: &mut Talk, all: &str) -> String {
    let first = talk.post(all, &config("first", "a")).await;
    talk.post(all, &config("second", "b")).await;
    let change = json!({"metadata": {"labels": {"app": "a"}}});
    talk.patch(&format!("{all}/second"), MERGE, &change).await;
    talk.patch(&format!("{all}/second"), MERGE, &json!({"data": {"key": "other"}})).await;
    talk.patch(&format!("{all}/second"), MERGE, &json!({"metadata": {"labels": {"app": "b"}}})).await;
    talk.delete(&format!("{all}/second"), &Value::Null).await;
    revision(&first).to_owned()
}

pub(crate) async fn following(talk: &mut Talk) {
    let all = talk.path(CORE, "configmaps");
    let first = history(talk, &all).await;
    talk.note("from a revision on: what came behind it");
    talk.watch(&format!("{all}?watch=true&resourceVersion={first}"), JSON, 5).await;
    talk.note("a selector turns changes into arrivals and departures");
    talk.watch(&format!("{all}?watch=true&resourceVersion={first}&labelSelector=app%3Da"), JSON, 3).await;
    talk.watch(
        &format!("{all}?watch=true&resourceVersion={first}&fieldSelector=metadata.name%3Dfirst"),
        JSON,
        1,
    )
    .await;
    talk.note("from nowhere or zero: what is there");
    talk.watch(&format!("{all}?watch=true&resourceVersion=0"), JSON, 1).await;
    talk.watch(&format!("{all}?watch=true"), JSON, 1).await;
    talk.note("a watch ends when its time is up");
    talk.watch(&format!("{all}?watch=true&resourceVersion=0&timeoutSeconds=1"), JSON, 9).await;
}

pub(crate) async fn forms(talk: &mut Talk) {
    let all = talk.path(CORE, "configmaps");
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let first = history(talk, &all).await;
    let stream =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    talk.watch(&format!("{all}?{stream}"), JSON, 2).await;
    talk.watch(&format!("{all}?{stream}"), metadata, 2).await;
    talk.watch(&format!("{all}?watch=true&resourceVersion={first}"), metadata, 2).await;
    let widgets = talk.path(WIDGETS, "widgets");
    talk.post(&widgets, &json!({
        "apiVersion": "test.portreeve.dev/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1},
    }))
    .await;
    talk.watch(&format!("{widgets}?{stream}"), JSON, 2).await;
    talk.watch(&format!("{widgets}?{stream}"), metadata, 2).await;
}

/// Makes history and answers a revision at its beginning.
pub(crate) async fn before_expiry(talk: &mut Talk) -> String {
    let all = talk.path(CORE, "configmaps");
    let old = history(talk, &all).await;
    let widgets = talk.path(WIDGETS, "widgets");
    let widget = json!({
        "apiVersion": "test.portreeve.dev/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1},
    });
    talk.post(&widgets, &widget).await;
    old
}

/// Follows what is gone, then what is there.
pub(crate) async fn after_expiry(talk: &mut Talk, old: &str) {
    for all in [talk.path(CORE, "configmaps"), talk.path(WIDGETS, "widgets")] {
        talk.watch(&format!("{all}?watch=true&resourceVersion={old}"), JSON, 9).await;
        let stream =
            "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        talk.watch(&format!("{all}?{stream}&resourceVersion={old}"), JSON, 2).await;
    }
}

pub(crate) async fn refused(talk: &mut Talk) {
    let all = talk.path(CORE, "configmaps");
    talk.note("options that contradict each other");
    talk.watch(&format!("{all}?watch=true&sendInitialEvents=true"), JSON, 1).await;
    talk.watch(&format!("{all}?watch=true&resourceVersionMatch=NotOlderThan"), JSON, 1).await;
    talk.watch(&format!("{all}?watch=true&sendInitialEvents=true&resourceVersionMatch=Exact"), JSON, 1).await;
    talk.watch(&format!("{all}?watch=true&fieldSelector=data.key%3Da"), JSON, 1).await;
}
