//! Owns: all that a controller must be told before it starts.
//! Called by the command, which fills it, and by `tree.rs`, which hands it out.
//! Refuses to know: flags, environment and files. Several controllers run in one process.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use actors_core::translate::Settings as Translate;
use kube::Client;

use crate::observe::resource::ProxyPods;
use crate::push::authority::Lives;
use crate::push::credentials::Trust;
use crate::push::link::Dial;

/// The usual time between two resyncs.
const RESYNC: Duration = Duration::from_secs(5);

/// All that a controller must be told.
#[derive(Clone)]
pub struct Settings {
    /// How this controller is called on pages and in logs.
    pub name: String,
    /// The API server, for watches and writes.
    pub client: Client,
    /// What the translation needs to know besides the cluster.
    pub translate: Translate,
    /// Which proxies there are.
    pub fleet: Fleet,
    /// The Lease that this controller stands for; `None`: whoever holds the edges says who leads.
    pub lease: Option<LeaseSettings>,
    /// Where this controller's identity comes from.
    pub trust: Trust,
    /// How long the authority and an own certificate live.
    pub lives: Lives,
    /// How long after a full resync the next one is. Changes never wait for it.
    pub resync: Duration,
    /// How proxies are dialled.
    pub dial: Dial,
    /// Where /healthz, /readyz, /metrics and /supervision are served; `None`: nowhere.
    pub status_bind: Option<SocketAddr>,
    /// Where /config and /reload are served by mutual TLS; `None`: nowhere.
    pub admin_bind: Option<SocketAddr>,
    /// Where proxies that are Pods get their identity; `None`: nowhere.
    pub enrol_bind: Option<SocketAddr>,
}

impl Settings {
    /// A controller with the usual settings and no ports.
    pub fn new(name: impl Into<String>, client: Client, translate: Translate, trust: Trust) -> Self {
        Self {
            name: name.into(),
            client,
            translate,
            fleet: Fleet::Named(BTreeMap::new()),
            lease: None,
            trust,
            lives: Lives::default(),
            resync: RESYNC,
            dial: Dial::tcp(),
            status_bind: None,
            admin_bind: None,
            enrol_bind: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name)
            .field("fleet", &self.fleet)
            .finish_non_exhaustive()
    }
}

/// The Lease and who stands for it.
#[derive(Clone)]
pub struct LeaseSettings {
    /// For the Lease alone: a connection of its own, without retries.
    pub client: Client,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// This process, as no other ever is: see [`crate::lease_leader::identity`].
    pub identity: String,
}

/// Which proxies there are.
#[derive(Clone, Debug)]
pub enum Fleet {
    /// The Pods that match; all take pushes on this port of their node's internal address.
    Pods(ProxyPods, u16),
    /// These names, each with the address that it takes pushes on.
    Named(BTreeMap<String, SocketAddr>),
}
