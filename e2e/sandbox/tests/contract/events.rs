//! Events: what a recorder writes, and what it may not leave out.

use serde_json::{Value, json};

use crate::talk::{MERGE, Talk};

fn event(name: &str, namespace: &str) -> Value {
    json!({
        "metadata": {"name": name}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal",
        "reason": "Accepted", "action": "Translate", "note": "accepted",
        "reportingController": "portreeve.dev/controller", "reportingInstance": "controller-0",
        "regarding": {"kind": "Gateway", "namespace": namespace, "name": "edge"},
    })
}

pub(crate) async fn recording(talk: &mut Talk) {
    let all = talk.path("/apis/events.k8s.io/v1", "events");
    let namespace = talk.namespace.clone();
    talk.post(&all, &event("a", &namespace)).await;
    talk.note("a series counts what happens again");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
    talk.patch(&format!("{all}/a"), MERGE, &series).await;
    talk.note("about another namespace, and without what every event has");
    talk.post(&all, &event("b", "elsewhere")).await;
    for field in ["eventTime", "type", "reason", "action", "reportingController", "reportingInstance", "note"]
    {
        let mut event = event("c", &namespace);
        event.as_object_mut().unwrap().remove(field);
        talk.post(&format!("{all}?dryRun=All"), &event).await;
    }
    let mut cluster_wide = event("d", "");
    cluster_wide["regarding"] = json!({"kind": "GatewayClass", "name": "portreeve"});
    talk.post(&all, &cluster_wide).await;
}
