//! What the demonstration is made of, and how parts of it are lost and come back.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actors::lease_leader;
use actors::push::authority::Authority;
use actors::push::credentials::Trust;
use actors::push::identity::Role;
use actors::settings::{Fleet, LeaseSettings};
use actors::tree::Controller;
use actors_core::translate;
use anyhow::{Context, Result};
use proxy::listen::drain::DrainSettings;
use proxy::tree::Proxy;
use sandbox::{Channel, Faults, Options, Sandbox, Server};

use super::backends;
use super::process::Process;
use crate::controller::LEASE;

/// How many controllers stand for the Lease.
const CONTROLLERS: u8 = 3;
/// The nodes of the demonstration: the address of each is the proxy's.
pub(crate) const NODES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3))];
/// The port of the sample Gateway's HTTP listener.
pub(crate) const HTTP: u16 = 8080;
/// The port of its HTTPS listener.
pub(crate) const HTTPS: u16 = 8443;
/// The port of status pages.
pub(crate) const STATUS: u16 = 9902;
/// Longer than any demonstration runs.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// The namespace of the Lease.
const NAMESPACE: &str = "portreeve-system";

/// Everything that runs.
pub(crate) struct World {
    /// The Kubernetes API.
    pub(crate) sandbox: Sandbox,
    /// The controllers that live, by number from 1.
    pub(crate) controllers: BTreeMap<u8, Process<Controller>>,
    /// The proxies that live, by node.
    pub(crate) proxies: BTreeMap<IpAddr, Process<Proxy>>,
    /// Serves the Kubernetes API for kubectl and curl.
    pub(crate) api: Server,
    authority: Arc<Authority>,
    folder: tempfile::TempDir,
}

impl World {
    /// Starts all of it; what it tells the cluster is in `manifests.yaml`.
    pub(crate) async fn start() -> Result<Self> {
        let sandbox = Sandbox::new(Options { loopback_endpoints: true, ..Options::default() });
        let api = sandbox.serve((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let authority = Arc::new(Authority::generate(SystemTime::now(), LIFE)?);
        sandbox.install_gateway_api(Channel::Standard).await.context("installing the Gateway API")?;
        for definition in actors_api::crds::ours() {
            sandbox
                .apply_yaml(&serde_json::to_string(&definition)?)
                .await
                .context("installing our own kinds")?;
        }
        sandbox.apply_yaml(&manifests().await?).await.context("applying the sample manifests")?;
        let folder = tempfile::tempdir()?;
        let (controllers, proxies) = (BTreeMap::new(), BTreeMap::new());
        let mut world = Self { sandbox, controllers, proxies, api, authority, folder };
        for node in NODES {
            world.start_proxy(node).await?;
        }
        for number in 1..=CONTROLLERS {
            world.start_controller(number).await?;
        }
        Ok(world)
    }

    async fn start_controller(&mut self, number: u8) -> Result<()> {
        let name = format!("controller-{number}");
        let client = self.sandbox.client_with(&name, Faults::none());
        let trust = Trust::Memory(self.authority.clone());
        let mut settings =
            actors::settings::Settings::new(name.clone(), client, translate::Settings::default(), trust);
        settings.fleet = Fleet::Named(NODES.iter().map(|node| (name_of(*node), admin(*node))).collect());
        settings.lease = Some(LeaseSettings {
            client: self.sandbox.client_with(&name, Faults::none()),
            namespace: NAMESPACE.to_owned(),
            name: LEASE.to_owned(),
            identity: lease_leader::identity(&name, "demo"),
        });
        settings.status_bind = Some(controller_status(number));
        let process = Process::start(&name, actors::tree::run(settings)).await?;
        self.controllers.insert(number, process);
        Ok(())
    }

    /// Starts the proxy of a node; one that was killed finds what it knew in its state folder.
    pub(crate) async fn start_proxy(&mut self, node: IpAddr) -> Result<()> {
        let name = name_of(node);
        let issued = self.authority.issue(&Role::Proxy(name.clone()), SystemTime::now(), LIFE)?;
        let settings = proxy::settings::Settings {
            identity: name.clone(),
            node_address: node,
            admin_bind: admin(node),
            status_bind: SocketAddr::new(node, STATUS),
            status_socket: None,
            tls: crate::proxies::held(issued),
            state_dir: Some(self.state_dir(&name)),
            workers: 1,
            limits: proxy::limits::Limits::new(proxy::listen::socket::connection_budget()),
            drain: DrainSettings::default(),
            resolver: proxy::resolver::ResolverSettings::default(),
        };
        let process = Process::start(&name, proxy::tree::run(settings)).await?;
        self.proxies.insert(node, process);
        Ok(())
    }

    fn state_dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The controller that leads, where one does.
    pub(crate) fn leader(&self) -> Option<u8> {
        let leads = |process: &Process<Controller>| process.handle.edges.standing.borrow().leads;
        self.controllers.iter().find(|(_, process)| leads(process)).map(|(number, _)| *number)
    }

    /// The term of a controller's leadership.
    pub(crate) fn term(&self, number: u8) -> u64 {
        self.controllers.get(&number).map_or(0, |process| process.handle.edges.standing.borrow().term)
    }

    /// Ends all of it at once.
    pub(crate) fn end(self) {
        self.controllers.into_values().for_each(Process::kill);
        self.proxies.into_values().for_each(Process::kill);
    }
}

/// The name of the proxy on a node.
pub(crate) fn name_of(node: IpAddr) -> String {
    let number = NODES.iter().position(|other| *other == node).map_or(0, |index| index + 1);
    format!("node-{number}")
}

/// Where a controller's pages are.
pub(crate) fn controller_status(number: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, 10 + number), STATUS).into()
}

fn admin(node: IpAddr) -> SocketAddr {
    SocketAddr::new(node, 9901)
}

/// The sample manifests, with the ports of the sample backends and a certificate.
async fn manifests() -> Result<String> {
    let (first, second) = (backends::start("cart-v1").await?, backends::start("cart-v2").await?);
    let shown = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()])?;
    let quoted = |text: &str| serde_json::to_string(text);
    Ok(include_str!("manifests.yaml")
        .replace("CART_V1_PORT", &first.port().to_string())
        .replace("CART_V2_PORT", &second.port().to_string())
        .replace("CERTIFICATE", &quoted(&shown.cert.pem())?)
        .replace("PRIVATE_KEY", &quoted(&shown.signing_key.serialize_pem())?))
}
