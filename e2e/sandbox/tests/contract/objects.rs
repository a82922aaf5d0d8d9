//! Objects of a built-in kind: their life, patches, deletion, and paths that are none.

use serde_json::{Value, json};

use crate::talk::{CORE, JSON_PATCH, MERGE, STRATEGIC, Talk};

fn config(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": value}})
}

pub(crate) async fn life(talk: &mut Talk) {
    let all = talk.path(CORE, "configmaps");
    let one = format!("{all}/a");
    talk.get(&one).await;
    let made = talk.post(&all, &config("a", "1")).await;
    talk.post(&all, &config("a", "1")).await;
    talk.get(&one).await;

    talk.note("replaced with the revision that was read, then with the same, which is stale by then");
    let mut next = made.clone();
    next["data"]["key"] = "2".into();
    talk.put(&one, &next).await;
    talk.put(&one, &next).await;
    talk.note("replaced without a revision, then by what is there already");
    talk.put(&one, &config("a", "3")).await;
    talk.put(&one, &config("a", "3")).await;
    talk.note("identity must agree");
    talk.put(&one, &config("b", "3")).await;
    let mut elsewhere = config("a", "3");
    elsewhere["metadata"]["namespace"] = "default".into();
    talk.put(&one, &elsewhere).await;
    let mut other = config("a", "3");
    other["metadata"]["uid"] = "00000000-0000-4000-8000-000000000000".into();
    talk.put(&one, &other).await;
    let mut kind = config("a", "3");
    kind["kind"] = "Secret".into();
    talk.put(&one, &kind).await;
    talk.put(&format!("{all}/none"), &config("none", "1")).await;

    talk.note("new objects come without a revision; names are made");
    let mut versioned = config("v", "1");
    versioned["metadata"]["resourceVersion"] = "5".into();
    talk.post(&all, &versioned).await;
    let generated = json!({"metadata": {"generateName": "made-"}});
    let request = talk.post(&format!("{all}?dryRun=All"), &config("dry", "1")).await;
    assert_eq!(request["data"]["key"], "1");
    talk.get(&format!("{all}/dry")).await;
    let before = talk.namespace.clone();
    let made = talk.silently_post(&all, &generated).await;
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("made-") && name.len() == 10, "{name} in {before}");
}

pub(crate) async fn patches(talk: &mut Talk) {
    let all = talk.path(CORE, "services");
    let one = format!("{all}/web");
    let service = json!({"metadata": {"name": "web", "labels": {"a": "1"}}, "spec": {
        "clusterIP": "None", "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80}, {"name": "more", "port": 81, "targetPort": "x"}],
    }});
    talk.post(&all, &service).await;
    talk.patch(&one, MERGE, &json!({"metadata": {"labels": {"a": null, "b": "2"}}})).await;
    talk.note("a merge patch that changes nothing, then one with a stale revision");
    talk.patch(&one, MERGE, &json!({"metadata": {"labels": {"b": "2"}}})).await;
    talk.patch(&one, MERGE, &json!({"metadata": {"resourceVersion": "1", "labels": {"b": "3"}}})).await;
    let ports = json!({"spec": {"ports": [{"port": 81, "targetPort": 8081}, {"name": "new", "port": 82}]}});
    talk.patch(&one, STRATEGIC, &ports).await;
    talk.patch(&one, STRATEGIC, &json!({"spec": {"ports": [{"port": 81, "$patch": "delete"}]}})).await;
    talk.patch(
        &one,
        JSON_PATCH,
        &json!([{"op": "add", "path": "/metadata/annotations", "value": {"x": "y"}}]),
    )
    .await;
    talk.patch(&one, JSON_PATCH, &json!([{"op": "test", "path": "/metadata/name", "value": "none"}])).await;
    talk.patch(&one, "application/json", &json!({})).await;
    talk.patch(&format!("{all}/none"), MERGE, &json!({})).await;
    talk.note("what a patch can not change");
    talk.patch(&one, MERGE, &json!({"metadata": {"uid": "00000000-0000-4000-8000-000000000000"}})).await;
    talk.patch(&one, MERGE, &json!({"metadata": {"name": "other"}})).await;
    talk.patch(&one, MERGE, &json!({"metadata": {"creationTimestamp": null, "generation": 7}})).await;
}

pub(crate) async fn deletion(talk: &mut Talk) {
    let all = talk.path(CORE, "configmaps");
    let made = talk.post(&all, &config("a", "1")).await;
    let one = format!("{all}/a");
    let wrong = "00000000-0000-4000-8000-000000000000";
    talk.delete(&one, &json!({"preconditions": {"uid": wrong}})).await;
    talk.delete(&one, &json!({"preconditions": {"resourceVersion": "1"}})).await;
    let right = json!({"preconditions": {"uid": made["metadata"]["uid"]}});
    talk.delete(&one, &right).await;
    talk.delete(&one, &Value::Null).await;

    talk.note("a finalizer holds an object, and no new one may come");
    let mut held = config("held", "1");
    held["metadata"]["finalizers"] = json!(["test.portreeve.dev/hold"]);
    talk.post(&all, &held).await;
    let one = format!("{all}/held");
    talk.delete(&one, &Value::Null).await;
    talk.delete(&one, &Value::Null).await;
    let more = json!({"metadata": {"finalizers": ["test.portreeve.dev/hold", "test.portreeve.dev/more"]}});
    talk.patch(&one, MERGE, &more).await;
    talk.patch(&one, MERGE, &json!({"data": {"still": "writable"}})).await;
    talk.patch(&one, MERGE, &json!({"metadata": {"finalizers": null}})).await;
    talk.get(&one).await;

    talk.note("a collection by its labels");
    for (name, app) in [("x", "one"), ("y", "one"), ("z", "two")] {
        let mut object = config(name, "1");
        object["metadata"]["labels"] = json!({ "app": app });
        talk.post(&all, &object).await;
    }
    talk.silently_delete(&format!("{all}?labelSelector=app%3Done")).await;
    talk.get(&format!("{all}?labelSelector=app")).await;
}

pub(crate) async fn paths(talk: &mut Talk) {
    let all = talk.path(CORE, "configmaps");
    for path in [
        "/api/v1/nothings",
        "/apis/none.example/v1/things",
        "/apis/gateway.networking.k8s.io/v9/gateways",
        &format!("{all}/a/status"),
        &format!("{CORE}/configmaps/a"),
        &format!("{CORE}/namespaces/none/configmaps"),
        &format!("{CORE}/namespaces/none/configmaps/a"),
    ] {
        talk.get(path).await;
    }
    talk.post(&format!("{CORE}/namespaces/none/configmaps"), &config("a", "1")).await;
    talk.post(&format!("{CORE}/configmaps"), &config("a", "1")).await;
    talk.put(&all, &config("a", "1")).await;
    talk.post(&format!("{all}/a"), &config("a", "1")).await;
    talk.ask("POST", &all, "application/json", &json!("text")).await;
}
