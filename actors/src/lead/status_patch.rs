//! Owns: one write of one status: a patch that names the version which it changes; where that has moved on,
//! the object is read, merged and tried once more.
//! Called by the status writer. Refuses to know when.

use std::sync::Arc;
use std::time::Duration;

use actors_core::snapshot::meta::ObjectRef;
use actors_core::status::DesiredStatus;
use actors_core::status::merge::merge_status;
use actors_core::status::news::News;
use jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::observe::resource::Resource;
use crate::observe::stores::ObjectVersion;
use crate::retry::chain;
use crate::term::Term;

/// How long one request may take; the term must run for as long.
const DEADLINE: Duration = Duration::from_secs(2);
/// Who changes the status, in managed fields.
const MANAGER: &str = "portreeve";

/// A write to do.
#[derive(Debug)]
pub struct Write {
    /// Of which object.
    pub object: ObjectRef,
    /// On top of which version.
    pub version: ObjectVersion,
    /// What the status should say.
    pub desired: Arc<DesiredStatus>,
    /// The status as a merge patch.
    pub status: Value,
    /// What it tells that the one before did not.
    pub news: Vec<News>,
}

/// How a write ended.
#[derive(Debug)]
pub enum Outcome {
    /// It stands.
    Written,
    /// It stood already.
    Unneeded,
    /// The object is gone, or another one has its name.
    Gone,
    /// Somebody else keeps writing it.
    Conflict,
    /// This process leads no longer, or not for long enough; nothing was sent.
    Expired,
    /// The API server is overloaded, unwell or does not answer, and why.
    Failed(String),
    /// The API server is well and does not take this status, and why.
    Refused(String),
}

impl Outcome {
    /// Its name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Unneeded => "unneeded",
            Self::Gone => "gone",
            Self::Conflict => "conflict",
            Self::Expired => "expired",
            Self::Failed(_) => "failed",
            Self::Refused(_) => "refused",
        }
    }
}

impl Write {
    /// Writes, as long as the term runs.
    pub async fn run(self, client: &Client, term: &Term) -> Outcome {
        let resource = Resource::of(self.object.kind).api_resource();
        let namespace = &self.object.name.namespace;
        let api: Api<DynamicObject> = if namespace.is_empty() {
            Api::all_with(client.clone(), &resource)
        } else {
            Api::namespaced_with(client.clone(), namespace, &resource)
        };
        match self.patch(&api, term, &self.version.resource_version, &self.status).await {
            Outcome::Conflict => self.again(&api, term).await,
            outcome => outcome,
        }
    }

    async fn patch(&self, api: &Api<DynamicObject>, term: &Term, version: &str, status: &Value) -> Outcome {
        if term.check(DEADLINE).is_err() {
            return Outcome::Expired;
        }
        let body = json!({
            "metadata": { "resourceVersion": version, "uid": &*self.version.uid },
            "status": status,
        });
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(&body);
        let request = api.patch_status(&self.object.name.name, &params, &patch);
        match tokio::time::timeout(DEADLINE, request).await {
            Ok(Ok(_)) => Outcome::Written,
            Ok(Err(error)) => failed(&error),
            Err(_) => Outcome::Failed(format!("no answer within {DEADLINE:?}")),
        }
    }

    /// The version has moved on: reads what stands there and merges with that.
    async fn again(&self, api: &Api<DynamicObject>, term: &Term) -> Outcome {
        let current = match tokio::time::timeout(DEADLINE, api.get(&self.object.name.name)).await {
            Ok(Ok(current)) => current,
            Ok(Err(error)) => return failed(&error),
            Err(_) => return Outcome::Failed(format!("no answer within {DEADLINE:?}")),
        };
        if current.uid().as_deref() != Some(&*self.version.uid) {
            return Outcome::Gone;
        }
        if overtaken(&self.desired, current.metadata.generation) {
            // The translation of what stands there now is about to follow, if it has not been written already.
            return Outcome::Unneeded;
        }
        let before = current.data.get("status").cloned().unwrap_or(Value::Null);
        let Some(merged) = merge_status(&self.desired, &before, Timestamp::now()) else {
            return Outcome::Unneeded;
        };
        let version = current.resource_version().unwrap_or_default();
        self.patch(api, term, &version, &as_patch(&before, merged)).await
    }
}

/// The status as a merge patch: what stands there and is not wanted is named as null.
pub fn as_patch(before: &Value, mut status: Value) -> Value {
    if let (Value::Object(before), Value::Object(after)) = (before, &mut status) {
        for key in before.keys() {
            after.entry(key.clone()).or_insert(Value::Null);
        }
    }
    status
}

/// Whether an object has changed since the translation that a status is from. One that was not made from
/// any generation, as where our entries leave a route, is never overtaken.
pub fn overtaken(desired: &DesiredStatus, current: Option<i64>) -> bool {
    let made_from = desired.observed_generation;
    made_from > 0 && current.is_some_and(|current| current > made_from)
}

fn failed(error: &kube::Error) -> Outcome {
    match error {
        kube::Error::Api(status) => match status.code {
            409 => Outcome::Conflict,
            404 => Outcome::Gone,
            408 | 429 | 500.. => Outcome::Failed(chain(error)),
            _ => Outcome::Refused(chain(error)),
        },
        error => Outcome::Failed(chain(error)),
    }
}

#[cfg(test)]
mod tests {
    use actors_core::status::StatusContent;

    use super::*;

    #[test]
    fn a_status_made_from_an_older_generation_is_overtaken() {
        let content = StatusContent::Route { controller: "us".into(), parents: Vec::new() };
        let mut desired = DesiredStatus { observed_generation: 3, uid: "u".into(), content };
        assert!(overtaken(&desired, Some(4)));
        assert!(!overtaken(&desired, Some(3)));
        assert!(!overtaken(&desired, None));
        desired.observed_generation = 0;
        assert!(!overtaken(&desired, Some(4)), "our entries still have to go");
    }

    #[test]
    fn only_a_server_that_is_unwell_counts_as_failed() {
        let outcome = |code| {
            let status = kube::core::Status { code, ..Default::default() };
            failed(&kube::Error::Api(Box::new(status))).name()
        };
        for (code, name) in [(400, "refused"), (403, "refused"), (422, "refused"), (404, "gone")] {
            assert_eq!(outcome(code), name, "{code}");
        }
        for (code, name) in [(409, "conflict"), (429, "failed"), (500, "failed"), (503, "failed")] {
            assert_eq!(outcome(code), name, "{code}");
        }
    }

    #[test]
    fn what_is_not_wanted_any_more_is_taken_out() {
        let before = json!({"conditions": [1], "addresses": [2]});
        let patch = as_patch(&before, json!({"conditions": [3]}));
        assert_eq!(patch, json!({"conditions": [3], "addresses": null}));
        assert_eq!(as_patch(&Value::Null, json!({"a": 1})), json!({"a": 1}));
    }
}
