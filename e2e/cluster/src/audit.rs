//! What the API server was asked, by whom: its audit log, one event for each request that has ended.
//!
//! Called by the builder, which has the API server write it, and by tests, which read it. Bodies are not kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::state::State;

/// Every request once, at its end, without bodies.
const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules: [{level: Metadata}]
"#;

/// A request to the API server that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The address that it came from.
    pub source: String,
    /// The user, as authenticated.
    pub user: String,
    /// What was done: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` ...
    pub verb: String,
    /// Of which API group; empty for the core's.
    pub group: String,
    /// To which resource, with its subresource where there is one: `httproutes/status`. Empty for other paths.
    pub resource: String,
    /// Namespace and name, as far as the request names them: `default/echo`.
    pub object: String,
    /// The status that answered it.
    pub status: u16,
    /// Whether the user had no right to it. A status of 403 may have other reasons.
    pub denied: bool,
}

impl Event {
    /// Whether it was meant to change something.
    pub fn writes(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str())
    }

    fn read(line: &str) -> Result<Self> {
        let event: Value = serde_json::from_str(line).context("an audit event is JSON")?;
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let joined = |first: &str, second: &str| {
            let parts = [text(first), text(second)];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
        };
        let status = event["responseStatus"]["code"].as_u64().unwrap_or_default();
        Ok(Self {
            source: text("/sourceIPs/0").to_owned(),
            user: text("/user/username").to_owned(),
            verb: text("/verb").to_owned(),
            group: text("/objectRef/apiGroup").to_owned(),
            resource: joined("/objectRef/resource", "/objectRef/subresource"),
            object: joined("/objectRef/namespace", "/objectRef/name"),
            status: u16::try_from(status).unwrap_or_default(),
            denied: text("/annotations/authorization.k8s.io~1decision") == "forbid",
        })
    }
}

/// What makes an API server keep its audit log.
pub(crate) fn arguments(state: &State) -> Result<[String; 2]> {
    let policy = state.path("audit-policy.yaml");
    fs::write(&policy, POLICY)?;
    Ok([
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", path(state).display()),
    ])
}

/// Where it is kept.
pub(crate) fn path(state: &State) -> PathBuf {
    state.log("audit")
}

/// All events so far.
pub(crate) fn read(log: &Path) -> Result<Vec<Event>> {
    let text = fs::read_to_string(log).with_context(|| format!("read {}", log.display()))?;
    // The last line may still be being written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(Event::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_who_did_what_and_a_line_that_is_half_written_is_left_for_later() {
        let line = r#"{"kind":"Event","verb":"patch","user":{"username":"admin"},"sourceIPs":["172.30.1.2"],
            "objectRef":{"apiGroup":"gateway.networking.k8s.io","resource":"httproutes","namespace":"default","name":"echo","subresource":"status"},
            "responseStatus":{"code":403},"annotations":{"authorization.k8s.io/decision":"forbid"}}"#
            .replace('\n', "");
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        fs::write(&log, format!("{line}\n{{\"verb\":")).unwrap();
        let events = read(&log).unwrap();
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.resource.as_str(), event.object.as_str()), ("httproutes/status", "default/echo"));
        assert_eq!((event.source.as_str(), event.status), ("172.30.1.2", 403));
        assert_eq!(event.group, "gateway.networking.k8s.io");
        assert!(event.writes() && event.denied);
        assert!(!Event { verb: "watch".into(), ..event.clone() }.writes());
    }
}
