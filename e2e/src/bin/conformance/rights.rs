//! What the chart lets controllers do, and what they did: every right is used by the end of a run, and none was missing.
//!
//! Owns the comparison of the roles with the API server's audit log, and what a run has no use for, with
//! its reason.

use std::fmt;

use anyhow::{Context, Result};
use cluster::Cluster;
use cluster::audit::Event;
use e2e::installation::RELEASE;
use e2e::testbed::SYSTEM;
use serde_json::Value;

/// Rights that a run of the suite need not use: verb, resources, why they are needed all the same.
const RARE: &[(&str, &[&str], &str)] = &[
    (
        "get",
        &[
            "gatewayclasses",
            "gateways",
            "listenersets",
            "httproutes",
            "grpcroutes",
            "tlsroutes",
            "tcproutes",
            "udproutes",
            "backendtlspolicies",
            "xbackendtrafficpolicies",
            "xbackends",
        ],
        "an object is read again where another controller has written its status in between",
    ),
    ("list", &["xbackendtrafficpolicies", "xbackends"], "the standard channel has none"),
    ("watch", &["xbackendtrafficpolicies", "xbackends"], "the standard channel has none"),
    ("patch", &["xbackendtrafficpolicies/status", "xbackends/status"], "the suite makes none"),
];

/// One right: a verb on a resource of a group, of one object or of all, in a namespace or in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Right {
    namespace: Option<String>,
    group: String,
    resource: String,
    name: Option<String>,
    verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, group, resource, name, verb } = self;
        write!(f, "{verb} {resource}")?;
        for (before, part) in [(".", Some(group)), (" ", name.as_ref()), (" in ", namespace.as_ref())] {
            if let Some(part) = part.filter(|part| !part.is_empty()) {
                write!(f, "{before}{part}")?;
            }
        }
        Ok(())
    }
}

impl Right {
    fn covers(&self, event: &Event) -> bool {
        let (namespace, name) = match event.object.split_once('/') {
            Some((namespace, name)) => (namespace, name),
            // A list of a namespace, or an object without one; names of namespaces are not asked for here.
            None => (event.object.as_str(), event.object.as_str()),
        };
        // What is applied and was not there is made, which takes the right to both.
        let made = event.verb == "patch" && event.status == 201;
        (self.verb == event.verb || (self.verb == "create" && made))
            && self.group == event.group
            && self.resource == event.resource
            && self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
    }

    fn is_rare(&self) -> bool {
        RARE.iter().any(|(verb, resources, _)| self.verb == *verb && resources.contains(&&*self.resource))
    }
}

/// The rights that the release gives to controllers.
pub(crate) fn granted(cluster: &Cluster) -> Result<Vec<Right>> {
    let ours = format!("{RELEASE}-controller");
    let mut rights = Vec::new();
    for (kind, namespace) in [("clusterrole", None), ("role", Some(SYSTEM))] {
        let role = cluster.kubectl(&["-n", SYSTEM, "get", kind, &ours, "-o", "json"])?;
        let role: Value = serde_json::from_str(&role).with_context(|| format!("{kind} {ours} is JSON"))?;
        for rule in role["rules"].as_array().into_iter().flatten() {
            rights.extend(expand(rule, namespace));
        }
    }
    Ok(rights)
}

/// The rights of one rule.
fn expand(rule: &Value, namespace: Option<&str>) -> Vec<Right> {
    let texts = |key: &str| -> Vec<String> {
        let all = rule[key].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut names: Vec<_> = texts("resourceNames").into_iter().map(Some).collect();
    if names.is_empty() {
        names.push(None);
    }
    let mut rights = Vec::new();
    for group in texts("apiGroups") {
        for resource in texts("resources") {
            for name in &names {
                rights.extend(texts("verbs").into_iter().map(|verb| Right {
                    namespace: namespace.map(str::to_owned),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                    verb,
                }));
            }
        }
    }
    rights
}

/// What is wrong with these rights, by what the API server was asked.
pub(crate) fn complaints(granted: &[Right], events: &[Event]) -> Vec<String> {
    let account = |name: &str| format!("system:serviceaccount:{SYSTEM}:{RELEASE}-{name}");
    let (controllers, proxies) = (account("controller"), account("proxy"));
    let theirs: Vec<_> = events.iter().filter(|event| event.user == controllers).collect();
    let unused = granted.iter().filter(|right| !theirs.iter().any(|event| right.covers(event)));
    let unused = unused.filter(|right| !right.is_rare()).map(|right| format!("never used: {right}"));
    let denied = theirs.iter().filter(|event| event.denied);
    let denied = denied.map(|event| format!("denied: {} {} {}", event.verb, event.resource, event.object));
    let proxies = events.iter().filter(|event| event.user == proxies);
    let proxies = proxies.map(|event| format!("a proxy asked: {} {}", event.verb, event.resource));
    let mut complaints: Vec<_> = unused.chain(denied).chain(proxies).collect();
    complaints.sort();
    complaints.dedup();
    complaints
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(verb: &str, resource: &str, object: &str) -> Event {
        Event {
            source: "10.244.1.2".to_owned(),
            user: "system:serviceaccount:portreeve-system:portreeve-controller".to_owned(),
            verb: verb.to_owned(),
            group: String::new(),
            resource: resource.to_owned(),
            object: object.to_owned(),
            status: 200,
            denied: false,
        }
    }

    fn rights() -> Vec<Right> {
        let all = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]});
        let one =
            json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["ca"], "verbs": ["get"]});
        [expand(&all, None), expand(&one, Some("portreeve-system"))].concat()
    }

    #[test]
    fn a_right_is_used_by_a_request_within_it_alone() {
        let used = [event("list", "pods", ""), event("watch", "pods", "shop")];
        let beside = [event("get", "secrets", "portreeve-system/other"), event("get", "secrets", "shop/ca")];
        let asked = [&used[..], &beside].concat();
        assert_eq!(complaints(&rights(), &asked), ["never used: get secrets ca in portreeve-system"]);
        let all = [&asked[..], &[event("get", "secrets", "portreeve-system/ca")]].concat();
        assert_eq!(complaints(&rights(), &all), Vec::<String>::new());
        assert_eq!(complaints(&rights(), &[]).len(), 3);
    }

    #[test]
    fn what_is_applied_may_be_made() {
        let rule = json!({"apiGroups": [""], "resources": ["services"], "verbs": ["create", "patch"]});
        let rights = expand(&rule, None);
        let applied = event("patch", "services", "shop/one");
        assert_eq!(complaints(&rights, std::slice::from_ref(&applied)), ["never used: create services"]);
        let made = Event { status: 201, ..applied };
        assert_eq!(complaints(&rights, &[made]), Vec::<String>::new());
    }

    #[test]
    fn what_was_denied_and_what_a_proxy_asks_is_told_once() {
        let denied = Event { denied: true, ..event("delete", "pods", "shop/one") };
        let proxy = "system:serviceaccount:portreeve-system:portreeve-proxy".to_owned();
        let proxy = Event { user: proxy, ..event("get", "nodes", "") };
        let said = complaints(&[], &[denied.clone(), denied, proxy]);
        assert_eq!(said, ["a proxy asked: get nodes", "denied: delete pods shop/one"]);
    }
}
