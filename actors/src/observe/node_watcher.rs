//! Says which proxies there are and where they are reached.
//!
//! Owns: nothing.
//! Reads: the proxies and nodes in the stores, or the names that the command line gives.
//! Writes: the known proxies.
//! Rebuilt from: the stores.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use actors_core::snapshot::cluster::Proxy;
use actors_core::snapshot::meta::{Kind, Meta, ObjectRef};
use actors_core::snapshot::{Object, Snapshot};
use proxy_config::name::ObjectName;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use super::stores::{ObjectVersion, Observed, Stores};
use crate::task::{Task, on_change};

/// A proxy and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownProxy {
    /// Who it is on the wire: its pod's uid, or the name on the command line.
    pub identity: String,
    /// How messages and metrics name it, and no other: by its node; with its Pod's name where another one
    /// is on that node; outside a cluster by its own name.
    pub name: String,
    /// Where it takes pushes.
    pub admin: SocketAddr,
    /// Whether it is ready to serve.
    pub ready: bool,
}

/// The known proxies, by identity.
pub type KnownProxies = Arc<BTreeMap<String, KnownProxy>>;

/// Where proxies take pushes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminPorts {
    /// All of them on this port of their node's internal address.
    Same(u16),
    /// Each where the command line says, by name.
    Named(BTreeMap<String, SocketAddr>),
}

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// Something in the stores has changed.
    Changed,
}

supervisor::message_names!(Msg { Changed });

/// What it needs.
#[derive(Clone, Debug)]
pub struct Args {
    /// What is known.
    pub stores: Stores,
    /// Where proxies take pushes.
    pub admin: AdminPorts,
    /// The known proxies.
    pub proxies: watch::Sender<KnownProxies>,
}

/// What it holds.
#[derive(Debug)]
pub struct State {
    args: Args,
    changes: watch::Receiver<u64>,
    waiting: Option<Task>,
}

/// The actor.
#[derive(Debug)]
pub struct NodeWatcher;

impl Actor for NodeWatcher {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let changes = args.stores.changes();
        let mut state = State { args, changes, waiting: None };
        state.publish(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Changed => state.publish(&myself),
        }
        Ok(())
    }
}

impl State {
    fn publish(&mut self, myself: &ActorRef<Msg>) {
        self.changes.borrow_and_update();
        if let Some(snapshot) = self.args.stores.snapshot() {
            let known = known(&snapshot, &self.args.admin);
            self.args.proxies.send_if_modified(|proxies| {
                let changed = **proxies != known;
                if changed {
                    tracing::info!(proxies = known.len(), "the known proxies have changed");
                    *proxies = Arc::new(known);
                }
                changed
            });
        }
        self.waiting = Some(on_change(myself, &self.changes, || Msg::Changed));
    }
}

/// Proxies that the command line names, as objects: they are always taken to be ready.
pub fn named(names: &BTreeMap<String, SocketAddr>) -> Vec<Observed> {
    let proxy = |(name, admin): (&String, &SocketAddr)| {
        let object_name = ObjectName::new("", name.as_str());
        let (uid, resource_version): (Arc<str>, Arc<str>) = (name.as_str().into(), "1".into());
        let meta = Meta {
            name: object_name.clone(),
            uid: uid.clone(),
            generation: 1,
            resource_version: resource_version.clone(),
            created: 0,
        };
        let (identity, address) = (name.clone(), Some(admin.ip()));
        let proxy = Proxy { meta, identity, node: None, address, ready: true };
        Observed {
            reference: ObjectRef::new(Kind::Proxy, object_name),
            version: ObjectVersion { uid, resource_version },
            generation: 1,
            status: None,
            object: Ok(Object::Proxy(Arc::new(proxy))),
        }
    };
    names.iter().map(proxy).collect()
}

/// The proxies that can be dialled: those of which an address is known.
fn known(snapshot: &Snapshot, admin: &AdminPorts) -> BTreeMap<String, KnownProxy> {
    let reach = |proxy: &Proxy| match admin {
        AdminPorts::Same(port) => Some(SocketAddr::new(address(snapshot, proxy)?, *port)),
        AdminPorts::Named(names) => names.get(&proxy.identity).copied(),
    };
    let mut on_node: BTreeMap<&str, usize> = BTreeMap::new();
    for node in snapshot.proxies.values().filter_map(|proxy| proxy.node.as_deref()) {
        *on_node.entry(node).or_default() += 1;
    }
    let name = |proxy: &Proxy| match proxy.node.as_deref() {
        Some(node) if on_node.get(node) == Some(&1) => node.to_owned(),
        Some(node) => format!("{node}/{}", proxy.meta.name.name),
        None => proxy.meta.name.name.to_string(),
    };
    let entry = |proxy: &Arc<Proxy>| {
        let known = KnownProxy {
            identity: proxy.identity.clone(),
            name: name(proxy),
            admin: reach(proxy)?,
            ready: proxy.ready,
        };
        Some((known.identity.clone(), known))
    };
    snapshot.proxies.values().filter_map(entry).collect()
}

/// The internal address of the proxy's node; what its Pod says where the node is not known.
fn address(snapshot: &Snapshot, proxy: &Proxy) -> Option<IpAddr> {
    let node = proxy.node.as_deref().and_then(|name| {
        snapshot.nodes.iter().find(|(node, _)| &*node.name == name).map(|(_, node)| node.clone())
    });
    node.and_then(|node| node.addresses.first().copied()).or(proxy.address)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::observe::convert::convert;

    #[test]
    fn two_pods_on_one_node_are_two_proxies_with_names_of_their_own() {
        let stores = Stores::new([]);
        let pod = |name: &str, node: &str| {
            let metadata = json!({"name": name, "namespace": "ns", "uid": format!("uid-{name}")});
            let status = json!({"hostIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": "True"}]});
            let raw = json!({"metadata": metadata, "spec": {"nodeName": node}, "status": status});
            convert(&stores, Kind::Proxy, &raw)
        };
        stores.writer(Kind::Proxy).replace(vec![pod("old", "n1"), pod("new", "n1"), pod("other", "n2")]);
        let known = known(&stores.snapshot().unwrap(), &AdminPorts::Same(9901));
        let names: Vec<_> = known.iter().map(|(identity, known)| (&**identity, &*known.name)).collect();
        assert_eq!(names, [("uid-new", "n1/new"), ("uid-old", "n1/old"), ("uid-other", "n2")]);
    }

    #[test]
    fn a_pod_that_makes_no_sense_is_left_out_and_changes_no_other() {
        let stores = Stores::new([]);
        let pod = |raw| convert(&stores, Kind::Proxy, &raw);
        let sound = || {
            let metadata = json!({"name": "sound", "namespace": "ns", "uid": "u-1"});
            let status = json!({"hostIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": "True"}]});
            pod(json!({"metadata": metadata, "spec": {"nodeName": "n1"}, "status": status}))
        };
        stores.writer(Kind::Proxy).replace(vec![sound()]);
        let alone = known(&stores.snapshot().unwrap(), &AdminPorts::Same(9901));
        assert_eq!(alone.keys().collect::<Vec<_>>(), ["u-1"]);

        let named = |name: &str| json!({"name": name, "namespace": "ns", "uid": format!("u-{name}")});
        let senseless = [
            json!({"metadata": named("pending"), "spec": {"nodeName": null}, "status": {"phase": "Pending"}}),
            json!({"metadata": named("nowhere"), "spec": {"nodeName": "no-such-node"}}),
            json!({"metadata": named("host-name"), "spec": {"nodeName": "n1"}, "status": {"hostIP": "edge.example"}}),
            json!({"metadata": named("empty"), "spec": {"nodeName": "n2"}, "status": {"hostIP": ""}}),
            json!({"metadata": named("number"), "spec": {"nodeName": 7}, "status": {"hostIP": "10.0.0.9"}}),
            json!({"metadata": named("conditions"), "status": {"hostIP": "10.0.0.9", "conditions": [{"type": true}]}}),
            json!({"metadata": {"name": "no-uid", "namespace": "ns"}, "status": {"hostIP": "10.0.0.9"}}),
            json!({"metadata": {"name": "odd-uid", "namespace": "ns", "uid": {}}, "status": {"hostIP": "10.0.0.9"}}),
            json!({"metadata": {"name": "labels", "namespace": "ns", "uid": "u-l", "labels": "none"}, "spec": []}),
            json!({"metadata": "none"}),
            json!({}),
        ];
        let all = senseless.map(pod).into_iter().chain([sound()]).collect();
        stores.writer(Kind::Proxy).replace(all);
        assert_eq!(known(&stores.snapshot().unwrap(), &AdminPorts::Same(9901)), alone);
    }

    #[test]
    fn a_pod_is_reached_on_its_nodes_internal_address_by_its_uid() {
        let stores = Stores::new([]);
        let put = |kind, raw| {
            let observed = convert(&stores, kind, &raw);
            stores.writer(kind).replace(vec![observed]);
        };
        put(
            Kind::Node,
            json!({"metadata": {"name": "n1", "uid": "x"}, "status": {"addresses": [
                {"type": "ExternalIP", "address": "203.0.113.9"},
                {"type": "InternalIP", "address": "10.0.0.5"},
            ]}}),
        );
        put(
            Kind::Proxy,
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u-1"}, "spec": {"nodeName": "n1"},
                "status": {"hostIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": "True"}]}}),
        );
        let known = known(&stores.snapshot().unwrap(), &AdminPorts::Same(9901));
        let want = KnownProxy {
            identity: "u-1".into(),
            name: "n1".into(),
            admin: "10.0.0.5:9901".parse().unwrap(),
            ready: true,
        };
        assert_eq!(known, BTreeMap::from([("u-1".to_owned(), want)]));
    }
}
