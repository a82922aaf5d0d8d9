//! Server-side apply: owners, conflicts, removal.

use serde_json::{Value, json};

use crate::talk::{APPLY, CORE, MERGE, Talk, WIDGETS};

fn widget(spec: &Value) -> Value {
    json!({"apiVersion": "test.portreeve.dev/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": spec})
}

pub(crate) async fn managers(talk: &mut Talk) {
    talk.show_managers();
    let one = format!("{}/a", talk.path(WIDGETS, "widgets"));
    talk.patch(&one, APPLY, &widget(&json!({"size": 1}))).await;
    let by = |manager: &str| format!("{one}?fieldManager={manager}");
    talk.patch(&by("a"), APPLY, &widget(&json!({"size": 1, "parts": [{"name": "x", "weight": 2}]}))).await;
    talk.note("the same again writes nothing");
    talk.patch(&by("a"), APPLY, &widget(&json!({"size": 1, "parts": [{"name": "x", "weight": 2}]}))).await;
    talk.note("another manager shares a value, adds to lists by key, and may not change what is owned");
    let more = json!({"size": 1, "parts": [{"name": "y"}], "tags": ["t"], "labels": {"k": "v"}});
    talk.patch(&by("b"), APPLY, &widget(&more)).await;
    talk.patch(&by("b"), APPLY, &widget(&json!({"size": 2}))).await;
    talk.note("forced, what is no longer wanted goes, what another owns stays");
    talk.patch(&format!("{}&force=true", by("b")), APPLY, &widget(&json!({"size": 2}))).await;
    talk.note("an ordinary write takes what it changes");
    talk.patch(&by("hand"), MERGE, &json!({"spec": {"size": 3}})).await;
    talk.patch(&by("b"), APPLY, &widget(&json!({"size": 2}))).await;
    talk.patch(&by("a"), APPLY, &widget(&json!({"parts": []}))).await;
    let mut owned = widget(&json!({"size": 3}));
    owned["metadata"]["managedFields"] = json!([]);
    talk.patch(&by("a"), APPLY, &owned).await;

    let one = format!("{}/settings?fieldManager=a", talk.path(CORE, "configmaps"));
    let settings = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data});
    talk.patch(&one, APPLY, &settings(json!({"a": "1", "b": "2"}))).await;
    talk.patch(&one, APPLY, &settings(json!({"b": "2"}))).await;
}

pub(crate) async fn services(talk: &mut Talk) {
    let one = format!("{}/web", talk.path(CORE, "services"));
    let service = |ports: Value| {
        let spec = json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": ports});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
    };
    let by = |manager: &str| format!("{one}?fieldManager={manager}");
    talk.note("a port is the same with and without the protocol that it has anyway");
    talk.patch(&by("a"), APPLY, &service(json!([{"name": "http", "port": 80}]))).await;
    let both = json!([
        {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "http3", "port": 80, "protocol": "UDP"},
    ]);
    talk.patch(&by("b"), APPLY, &service(both)).await;
    talk.patch(&by("a"), APPLY, &service(json!([{"name": "other", "port": 80}]))).await;
    talk.patch(&by("b"), APPLY, &service(json!([]))).await;
}

pub(crate) async fn status(talk: &mut Talk) {
    talk.show_managers();
    let all = talk.path(WIDGETS, "widgets");
    let status = |value: Value| {
        json!({
            "apiVersion": "test.portreeve.dev/v1", "kind": "Widget", "metadata": {"name": "a"}, "status": value,
        })
    };
    let path = format!("{all}/a/status?fieldManager=status");
    talk.patch(&path, APPLY, &status(json!({"ready": true}))).await;
    talk.post(&format!("{all}?fieldManager=maker"), &widget(&json!({"size": 1}))).await;
    talk.patch(&path, APPLY, &status(json!({"ready": true}))).await;
    let other = format!("{all}/a/status?fieldManager=other");
    talk.patch(&other, APPLY, &status(json!({"ready": false}))).await;
    talk.patch(&format!("{other}&force=true"), APPLY, &status(json!({"ready": false, "count": 1}))).await;
    talk.patch(&other, APPLY, &status(json!({"ready": false}))).await;
}
