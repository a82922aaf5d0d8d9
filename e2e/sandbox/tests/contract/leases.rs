//! The Lease as a lock: who may write over what.

use serde_json::{Value, json};

use crate::talk::{MERGE, Talk};

fn lease(holder: &str, revision: Option<&Value>) -> Value {
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "leader"},
        "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": 6, "leaseTransitions": 1,
            "acquireTime": "2026-01-01T00:00:00.500000Z", "renewTime": "2026-01-01T00:00:00.123456Z",
        },
    });
    if let Some(revision) = revision {
        lease["metadata"]["resourceVersion"] = revision.clone();
    }
    lease
}

pub(crate) async fn locking(talk: &mut Talk) {
    let all = talk.path("/apis/coordination.k8s.io/v1", "leases");
    let one = format!("{all}/leader");
    talk.note("made by PUT");
    let made = talk.put(&one, &lease("a", None)).await;
    let first = made["metadata"]["resourceVersion"].clone();
    talk.note("without a revision nothing is replaced");
    talk.put(&one, &lease("b", None)).await;
    let renewed = talk.put(&one, &lease("b", Some(&first))).await;
    talk.put(&one, &lease("c", Some(&first))).await;
    talk.note("a patch with a revision is a lock too, one without is none");
    let locked = |revision: &Value, holder: &str| json!({"metadata": {"resourceVersion": revision}, "spec": {"holderIdentity": holder}});
    talk.patch(&one, MERGE, &locked(&first, "c")).await;
    talk.patch(&one, MERGE, &locked(&renewed["metadata"]["resourceVersion"], "c")).await;
    talk.patch(&one, MERGE, &json!({"spec": {"holderIdentity": null}})).await;
    talk.patch(&one, MERGE, &json!({"metadata": {"annotations": {"portreeve.dev/term": "4"}}})).await;
    talk.note("what no Lease may say");
    for spec in [
        json!({"leaseDurationSeconds": 0}),
        json!({"leaseTransitions": -1}),
        json!({"renewTime": "yesterday"}),
        json!({"renewTime": "2026-01-01T00:00:00.5Z"}),
        json!({"holderIdentity": ""}),
        json!({"leaseDurationSeconds": "6"}),
    ] {
        talk.patch(&one, MERGE, &json!({ "spec": spec })).await;
    }
    talk.note(
        "gone, and then replaced as if it were there: a revision does not keep a Lease from being made anew",
    );
    let last = talk.get(&one).await;
    talk.delete(&one, &Value::Null).await;
    talk.put(&one, &lease("d", Some(&last["metadata"]["resourceVersion"]))).await;
}
