//! Custom resources: pruning, defaults, generation, status, discovery.

use serde_json::{Value, json};

use crate::talk::{GATEWAY, JSON, MERGE, STRATEGIC, Talk, WIDGETS};

fn widget(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "test.portreeve.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

pub(crate) async fn fields(talk: &mut Talk) {
    let all = talk.path(WIDGETS, "widgets");
    let one = format!("{all}/a");
    talk.note("unknown fields go, defaults come, nulls count as absent");
    let spec = json!({
        "size": 1, "typo": true, "mode": null, "color": null, "maybe": null, "nested": {},
        "free": {"any": {"thing": null}}, "parts": [{"name": "p"}], "either": "50%",
    });
    let made = talk.post(&all, &widget("a", &spec)).await;
    talk.post(&format!("{all}?fieldValidation=Strict"), &widget("strict", &spec)).await;
    talk.note("the generation counts changes of the spec alone");
    talk.patch(&one, MERGE, &json!({"spec": {"size": 2}})).await;
    talk.patch(&one, MERGE, &json!({"metadata": {"labels": {"a": "b"}}})).await;
    talk.patch(&one, MERGE, &json!({"spec": {"size": 2, "typo": 3}})).await;
    talk.note("no replacement without a revision, nor with a stale one; no strategic patch");
    talk.put(&one, &widget("a", &json!({"size": 3}))).await;
    let mut stale = made.clone();
    stale["spec"]["size"] = 4.into();
    talk.put(&one, &stale).await;
    talk.patch(&one, STRATEGIC, &json!({"spec": {"size": 3}})).await;
    talk.note("held by a finalizer, the generation counts the deletion");
    talk.patch(&one, MERGE, &json!({"metadata": {"finalizers": ["test.portreeve.dev/hold"]}})).await;
    talk.delete(&one, &Value::Null).await;
    talk.patch(&one, MERGE, &json!({"metadata": {"finalizers": []}})).await;
    talk.get(&one).await;
    talk.post(&all, &widget("b", &json!({"size": 1}))).await;
    talk.delete(&format!("{all}/b"), &Value::Null).await;
}

pub(crate) async fn status(talk: &mut Talk) {
    let all = talk.path(WIDGETS, "widgets");
    let one = format!("{all}/a");
    let mut with_status = widget("a", &json!({"size": 1}));
    with_status["status"] = json!({"ready": true});
    talk.note("a status is not made with the object");
    let made = talk.post(&all, &with_status).await;
    let both = json!({
        "metadata": {"labels": {"a": "b"}}, "spec": {"size": 9}, "status": {"ready": true, "typo": 1},
    });
    talk.note("the status path writes the status alone");
    talk.patch(&format!("{one}/status"), MERGE, &both).await;
    talk.get(&format!("{one}/status")).await;
    talk.note("the main path writes all but the status");
    talk.patch(&one, MERGE, &json!({"spec": {"size": 2}, "status": {"ready": false}})).await;
    talk.note("a PUT of the status is locked like any other");
    talk.put(&format!("{one}/status"), &made).await;
    let mut current = talk.get(&one).await;
    current["status"] = json!({"count": 3});
    talk.put(&format!("{one}/status"), &current).await;
    talk.note("the same again writes nothing; a wrong one is refused");
    talk.patch(&format!("{one}/status"), MERGE, &json!({"status": {"count": 3}})).await;
    talk.patch(&format!("{one}/status"), MERGE, &json!({"status": {"count": "3"}})).await;
    talk.patch(&format!("{all}/none/status"), MERGE, &json!({"status": {"count": 3}})).await;
}

pub(crate) async fn versions(talk: &mut Talk) {
    const BETA: &str = "/apis/gateway.networking.k8s.io/v1beta1";
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"},
        "spec": {"parentRefs": [{"name": "edge"}]},
    });
    let stable = talk.path(GATEWAY, "httproutes");
    let beta = talk.path(BETA, "httproutes");
    talk.post(&stable, &route).await;
    talk.note("one object in two versions");
    talk.get(&format!("{beta}/web")).await;
    talk.get(&beta).await;
    talk.post(&beta, &route).await;
    talk.patch(&format!("{beta}/web"), MERGE, &json!({"spec": {"hostnames": ["example.org"]}})).await;
    talk.get(&format!("{stable}/web")).await;
    talk.watch(&format!("{beta}?watch=true&resourceVersion=0"), JSON, 1).await;
}

pub(crate) async fn discovery(talk: &mut Talk) {
    talk.documents(&["/apis/test.portreeve.dev/v1", "/apis/gateway.networking.k8s.io/v1"]).await;
    talk.documents(&["/apis/coordination.k8s.io/v1", "/apis/test.portreeve.dev"]).await;
}
