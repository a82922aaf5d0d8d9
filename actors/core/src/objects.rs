//! The Services that Gateways own: how each is called, what it carries, and what has to be changed.
//!
//! The actor `gateway_objects` carries it out. It refuses to know how objects are written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::unit::ContentHash;

use crate::snapshot::cluster::{GATEWAY_NAME, GatewayService, MANAGED_BY, Service};
use crate::snapshot::gateway::Gateway;
use crate::snapshot::{Store, key_of};

/// How long a label's value and a Service's name may be. Source: RFC 1035 section 2.3.1, Kubernetes.
const MAX_LABEL: usize = 63;

/// How many digits of a hash keep names apart.
const DIGITS: usize = 10;

/// The Services that are wanted, by name.
pub type Services = OrdMap<ObjectName, Arc<GatewayService>>;

/// A change to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make it, or change it.
    Apply(Arc<GatewayService>),
    /// Take it away.
    Delete,
}

/// The Service of a Gateway, and its name.
///
/// The Gateway's name may be longer than a Service's and hold dots, so a hash keeps two apart.
pub fn of_gateway(gateway: &Gateway) -> (ObjectName, GatewayService) {
    let name = &gateway.meta.name;
    let hash = ContentHash::of(&UnitId::listener(name, ""), "").to_string();
    let hash = &hash[..DIGITS];
    let stem: String = name.name.replace('.', "-").chars().take(40).collect();
    let service = ObjectName::new(name.namespace.clone(), format!("gateway-{stem}-{hash}"));
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let mut labels = infrastructure.map(|made| made.labels.clone()).unwrap_or_default();
    labels.insert(GATEWAY_NAME.into(), label_value(&name.name, hash));
    labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    let annotations = infrastructure.map(|made| made.annotations.clone()).unwrap_or_default();
    let (gateway, owner) = (name.name.clone(), gateway.meta.uid.clone());
    (service, GatewayService { gateway, owner, labels, annotations })
}

fn label_value(name: &str, hash: &str) -> String {
    if name.len() <= MAX_LABEL {
        return name.into();
    }
    format!("{}-{hash}", &name[..MAX_LABEL - DIGITS - 1])
}

/// What has to be changed, kept from one look to the next: a look costs what has changed since.
#[derive(Debug, Default)]
pub struct Plan {
    wanted: Services,
    standing: Store<Service>,
    changes: BTreeMap<ObjectName, Change>,
    looked_at: usize,
}

impl Plan {
    /// What leads from the Services that stand to those that are wanted. One of such a name that we did not make
    /// stays as it is.
    pub fn update(&mut self, wanted: &Services, standing: &Store<Service>) -> &BTreeMap<ObjectName, Change> {
        let wished = self.wanted.diff(wanted).map(|change| key_of(&change).clone());
        let seen = self.standing.diff(standing).map(|change| key_of(&change).clone());
        let names: BTreeSet<_> = wished.chain(seen).collect();
        (self.wanted, self.standing) = (wanted.clone(), standing.clone());
        self.looked_at = names.len();
        for name in names {
            match change(wanted.get(&name), standing.get(&name)) {
                Some(change) => drop(self.changes.insert(name, change)),
                None => drop(self.changes.remove(&name)),
            }
        }
        &self.changes
    }

    /// At how many Services the last update looked.
    pub fn looked_at(&self) -> usize {
        self.looked_at
    }
}

fn change(wanted: Option<&Arc<GatewayService>>, standing: Option<&Arc<Service>>) -> Option<Change> {
    let made = standing.map(|service| service.made.as_ref());
    match (wanted, made) {
        (Some(wanted), None) => Some(Change::Apply(wanted.clone())),
        (Some(wanted), Some(Some(made))) if made != wanted => Some(Change::Apply(wanted.clone())),
        // Labels alone may be a copy's: what we made has an owner.
        (None, Some(Some(made))) if !made.owner.is_empty() => Some(Change::Delete),
        (Some(_) | None, Some(_)) | (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::observe::observe;
    use crate::snapshot::meta::Kind;
    use crate::snapshot::{Object, Snapshot};

    fn gateway(name: &str) -> Arc<Gateway> {
        let raw = json!({
            "metadata": { "name": name, "namespace": "shop", "uid": "u1" },
            "spec": { "gatewayClassName": "us", "infrastructure": { "labels": { "a": "b" } } },
        });
        let Ok(Object::Gateway(gateway)) = observe(Kind::Gateway, &raw) else { panic!("a Gateway") };
        gateway
    }

    fn standing(name: &ObjectName, labels: serde_json::Value) -> Snapshot {
        let owner = labels[GATEWAY_NAME].as_str().unwrap_or("edge").to_owned();
        let metadata = json!({
            "name": &*name.name, "namespace": "shop", "labels": labels,
            "ownerReferences": [{ "name": owner, "uid": "u1" }],
        });
        let mut snapshot = Snapshot::default();
        snapshot.put(observe(Kind::Service, &json!({ "metadata": metadata, "spec": {} })));
        snapshot
    }

    #[test]
    fn names_and_labels_fit_whatever_the_gateway_is_called() {
        let (long, dotted) = ("a".repeat(253), "a.".repeat(100) + "b");
        let mut names = std::collections::BTreeSet::new();
        for name in ["edge", &long, &dotted, &dotted.replace('.', "-")] {
            let (service, made) = of_gateway(&gateway(name));
            assert!(service.name.len() <= MAX_LABEL && !service.name.contains('.'), "{service}");
            assert!(made.labels[GATEWAY_NAME].len() <= MAX_LABEL);
            assert!(names.insert(service), "{name}");
        }
        assert_eq!(of_gateway(&gateway("edge")).1.labels[GATEWAY_NAME], "edge");
    }

    fn plan(wanted: &Services, standing: &Store<Service>) -> Vec<(ObjectName, Change)> {
        Plan::default().update(wanted, standing).clone().into_iter().collect()
    }

    #[test]
    fn what_stands_as_wanted_is_left_alone_and_so_is_what_is_not_ours() {
        let (name, service) = of_gateway(&gateway("edge"));
        let wanted = Services::unit(name.clone(), Arc::new(service.clone()));
        let good = standing(&name, json!(service.labels));
        assert_eq!(plan(&wanted, &good.services), []);
        let service_labels = json!(service.labels);
        let mut labels = service_labels.clone();
        labels["a"] = json!("other");
        let apply = [(name.clone(), Change::Apply(Arc::new(service)))];
        assert_eq!(plan(&wanted, &standing(&name, labels).services), apply);
        assert_eq!(plan(&wanted, &Store::new()), apply);
        assert_eq!(plan(&wanted, &standing(&name, json!({ "theirs": "" })).services), []);
        assert_eq!(plan(&Services::new(), &good.services), [(name, Change::Delete)]);
        let copy = json!({ "name": "copy", "namespace": "shop", "labels": service_labels });
        let mut copied = Snapshot::default();
        copied.put(observe(Kind::Service, &json!({ "metadata": copy, "spec": {} })));
        assert_eq!(
            plan(&Services::new(), &copied.services),
            [],
            "labels that were copied make it none of ours"
        );
    }

    #[test]
    fn a_change_costs_itself_however_many_services_there_are() {
        let mut standing = Store::new();
        let mut wanted = Services::new();
        for number in 0..300 {
            let (name, service) = of_gateway(&gateway(&format!("g{number}")));
            standing.extend(self::standing(&name, json!(service.labels)).services);
            wanted.insert(name, Arc::new(service));
        }
        let mut plan = Plan::default();
        assert!(plan.update(&wanted, &standing).is_empty());
        assert_eq!(plan.looked_at(), 300);
        let (name, _) = of_gateway(&gateway("g7"));
        standing.remove(&name);
        assert_eq!(plan.update(&wanted, &standing).keys().collect::<Vec<_>>(), [&name]);
        assert_eq!(plan.looked_at(), 1);
        assert_eq!(plan.update(&wanted, &standing).len(), 1, "it is still to be made");
        wanted.remove(&name);
        assert!(plan.update(&wanted, &standing).is_empty());
        let (name, _) = of_gateway(&gateway("g8"));
        wanted.remove(&name);
        assert_eq!(plan.update(&wanted, &standing).get(&name), Some(&Change::Delete));
    }
}
