//! Lists: revisions, paging, selectors, metadata alone.

use serde_json::{Value, json};

use crate::talk::{CORE, MERGE, Talk, WIDGETS};

async fn fill(talk: &mut Talk, all: &str, count: usize) -> Vec<String> {
    let mut revisions = Vec::new();
    for number in 0..count {
        let parity = if number % 2 == 0 { "even" } else { "odd" };
        let object = json!({
            "metadata": {"name": format!("item-{number}"), "labels": {"parity": parity, "number": number.to_string()}},
            "data": {"key": "value"},
        });
        let made = talk.post(all, &object).await;
        revisions.push(made["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned());
    }
    revisions
}

pub(crate) async fn reading(talk: &mut Talk) {
    let all = talk.path(CORE, "configmaps");
    let revisions = fill(talk, &all, 2).await;
    let (first, last) = (&revisions[0], &revisions[1]);
    talk.get(&all).await;
    talk.get(&format!("{all}?resourceVersion={last}")).await;
    talk.get(&format!("{all}?resourceVersion={last}&resourceVersionMatch=NotOlderThan")).await;
    talk.get(&format!("{all}?resourceVersion={first}&resourceVersionMatch=Exact")).await;
    for bad in [
        "resourceVersion=x",
        "resourceVersionMatch=Exact",
        "resourceVersion=0&resourceVersionMatch=Exact",
        "resourceVersion=1&resourceVersionMatch=Nearly",
        "limit=-1",
        "limit=x",
        "continue=x",
    ] {
        talk.get(&format!("{all}?{bad}")).await;
    }
    talk.get(&format!("{all}/item-0?resourceVersion={last}")).await;
    talk.get(&format!("{all}/item-9?resourceVersion={last}")).await;
    talk.note("metadata alone, and a custom kind's list");
    talk.get(&format!("{all}?note=metadata-only")).await;
    let widgets = talk.path(WIDGETS, "widgets");
    talk.post(&widgets, &json!({
        "apiVersion": "test.portreeve.dev/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1},
    }))
    .await;
    talk.get(&widgets).await;
    talk.get(&format!("{widgets}?note=metadata-only")).await;
}

pub(crate) async fn paging(talk: &mut Talk) {
    let all = talk.path(CORE, "configmaps");
    fill(talk, &all, 5).await;
    let page = talk.get(&format!("{all}?limit=2")).await;
    let token = |page: &Value| page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
    let second = token(&page);
    talk.note("what comes and goes between pages is not seen");
    talk.delete(&format!("{all}/item-4"), &Value::Null).await;
    talk.post(&all, &json!({"metadata": {"name": "item-25"}})).await;
    let page = talk.get(&format!("{all}?limit=2&continue={second}")).await;
    talk.get(&format!("{all}?limit=2&continue={}", token(&page))).await;
    talk.note("a page of what is selected does not count what remains");
    talk.get(&format!("{all}?limit=1&labelSelector=parity%3Deven")).await;
    talk.note("a token and a revision contradict each other");
    talk.get(&format!("{all}?limit=2&continue={second}&resourceVersion=5")).await;
    talk.get(&format!("{all}?limit=100")).await;
}

pub(crate) async fn selectors(talk: &mut Talk) {
    let all = talk.path(CORE, "configmaps");
    fill(talk, &all, 3).await;
    for selector in [
        "labelSelector=parity%3Deven",
        "labelSelector=parity%21%3Deven",
        "labelSelector=number+in+%281%2C2%29%2Cparity",
        "labelSelector=number+notin+%281%2C2%29",
        "labelSelector=%21none%2Cnumber%3D1",
        "labelSelector=a+near+b",
        "fieldSelector=metadata.name%3Ditem-1",
        "fieldSelector=metadata.name%21%3Ditem-1",
        "fieldSelector=metadata.name%3Ditem-1%2Cmetadata.namespace%3Dnone",
        "fieldSelector=data.key%3Dvalue",
    ] {
        let path = format!("{all}?{selector}");
        talk.names(&path).await;
    }
    let secrets = talk.path(CORE, "secrets");
    talk.post(&secrets, &json!({"metadata": {"name": "plain"}, "stringData": {"a": "b"}})).await;
    talk.names(&format!("{secrets}?fieldSelector=type%3DOpaque")).await;
    talk.names(&format!("{secrets}?fieldSelector=type%21%3DOpaque")).await;
    talk.patch(&format!("{all}/item-1"), MERGE, &json!({"metadata": {"labels": {"parity": "even"}}})).await;
    talk.names(&format!("{all}?labelSelector=parity%3Deven")).await;
}
