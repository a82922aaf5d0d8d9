//! Bringing a cluster up, using it, and its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::apply::Channel;
use crate::audit;
use crate::binaries::{self, Binaries};
use crate::control_plane::{self, ApiServer};
use crate::image;
use crate::kubeconfig;
use crate::machine::Machine;
use crate::namespace::Namespace;
use crate::network;
use crate::node::Node;
use crate::pki::Authority;
use crate::process::{Process, run};
use crate::relay::Relay;
use crate::state::{Guard, State, sweep};

/// How long nodes may take until they are ready: 4 s when nothing else runs.
const NODES_READY: Duration = Duration::from_secs(120);

/// What a cluster is to be.
#[derive(Debug, Clone)]
pub struct Builder {
    name: Option<String>,
    nodes: u8,
    channel: Channel,
    controllers: bool,
}

/// A cluster that is up. Dropping it takes it down, and so does the death of the process that holds it.
pub struct Cluster {
    state: State,
    binaries: Binaries,
    control_plane: Namespace,
    api_server: ApiServer,
    nodes: Vec<Node>,
    machines: Mutex<u8>,
    client: Client,
    relay: Relay,
    services: Vec<Process>,
    /// Last, so that it is dropped last.
    guard: Option<Guard>,
}

impl Cluster {
    /// A cluster of one node with the experimental channel, unless told otherwise.
    pub fn builder() -> Builder {
        Builder { name: None, nodes: 1, channel: Channel::default(), controllers: true }
    }

    /// Its name.
    pub fn id(&self) -> &str {
        self.state.id()
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig that works outside of the cluster's namespaces, for as long as this value lives.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.path("kubeconfig")
    }

    /// A kubeconfig that works inside of the cluster's namespaces.
    pub fn inner_kubeconfig(&self) -> PathBuf {
        self.state.path("inner.kubeconfig")
    }

    /// The folder of the cluster's programs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The namespace that the API server and the bridge are in.
    pub fn control_plane(&self) -> &Namespace {
        &self.control_plane
    }

    /// The API server, to stop and start it.
    pub fn api_server(&self) -> &ApiServer {
        &self.api_server
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Node `index`, from 0. Panics if there are not so many.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The logs of its processes.
    pub fn logs(&self) -> PathBuf {
        self.state.path("logs")
    }

    /// Plugs in another machine. It goes with the cluster.
    pub fn add_machine(&self, name: &str) -> Result<Machine> {
        let mut machines = self.machines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *machines += 1;
        let address = network::machine_address(*machines);
        let namespace = network::plug(&self.state, name, address, None)?;
        Ok(Machine { name: name.to_owned(), address, namespace })
    }

    /// Starts `command` as a process that ends with the cluster at the latest, its output going to `log`.
    pub fn start_process(&self, name: &str, command: Command, log: &Path) -> Result<Process> {
        Process::start(name, command, log, &self.state.path("processes"))
    }

    /// What the API server was asked since it was first started, in the order in which it answered. A watch is there
    /// once it has ended.
    pub fn audit(&self) -> Result<Vec<audit::Event>> {
        audit::read(&audit::path(&self.state))
    }

    /// Waits until the API server answers, after it was started again.
    pub async fn wait_ready(&self) -> Result<()> {
        control_plane::wait_ready(&self.client).await
    }

    /// Runs kubectl with these arguments and gives its output back.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut kubectl = Command::new(self.binaries.path("kubectl"));
        run(kubectl.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments))
    }

    /// Gives all nodes an image called `tag` that holds `program`, one of [`Cluster::binaries`], and runs it.
    pub fn load_image(&self, program: &str, tag: &str) -> Result<()> {
        self.load(|archive| image::write(&self.binaries.path(program), &[tag], archive))
    }

    /// Gives all nodes the images of a docker archive.
    pub fn load_archive(&self, archive: &Path) -> Result<()> {
        self.load(|copy| Ok(std::fs::copy(archive, copy).map(|_| ())?))
    }

    /// Has an archive made where the nodes see it, loads it, and takes it away.
    fn load(&self, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let archive = self.binaries.images().join(format!("{}.tar", self.id()));
        make(&archive)?;
        let loaded = self.nodes.iter().try_for_each(|node| node.load_image(&archive));
        std::fs::remove_file(archive)?;
        loaded
    }

    /// Applies YAML, as kubectl does (server side).
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), yaml)?;
        let file = file.path().to_string_lossy();
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file]).map(|_| ())
    }

    /// Takes the cluster down and waits until nothing of it is left.
    pub fn down(self) -> Result<()> {
        let state = self.state.clone();
        drop(self);
        if state.path("boot").exists() {
            bail!("cluster {} could not be taken down: see {}", state.id(), state.path("").display());
        }
        Ok(())
    }

    /// Leaves a named cluster up after this process, until [`State::tear_down`]. The relay goes on at the same address
    /// in the process that `relay` describes: it is given the cluster's name, where to accept and where to relay to.
    pub fn leave_up(self, relay: impl FnOnce(&str, SocketAddr, SocketAddr) -> Result<Command>) -> Result<()> {
        let Self { state, api_server, nodes, services, guard, relay: own, .. } = self;
        if guard.is_some() {
            bail!("cluster {} has an owner and ends with it: give it a name to leave it up", state.id());
        }
        let on = own.address;
        drop(own);
        let command = relay(state.id(), on, ApiServer::address())?;
        Process::start("relay", command, &state.log("relay"), &state.path("processes"))?.forget();
        api_server.forget();
        nodes.into_iter().for_each(Node::forget);
        services.into_iter().for_each(Process::forget);
        Ok(())
    }

    async fn install(&self, channel: Channel) -> Result<()> {
        let Some(folder) = channel.folder() else { return Ok(()) };
        let folder = folder.to_string_lossy().into_owned();
        let kubectl = |arguments: &[&str]| self.kubectl(arguments).map(|_| ());
        tokio::task::block_in_place(|| {
            kubectl(&["apply", "--server-side", "-f", &folder])?;
            kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])
        })
        .context("install the CRDs of Gateway API")
    }

    async fn nodes_ready(&self) -> Result<()> {
        let api: Api<NodeObject> = Api::all(self.client());
        let ready = |node: &NodeObject| {
            let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
        };
        let deadline = tokio::time::Instant::now() + NODES_READY;
        loop {
            let list = api.list(&ListParams::default()).await?;
            if list.items.iter().filter(|node| ready(node)).count() == self.nodes.len() {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("not all nodes were ready within {NODES_READY:?}: see {}", self.logs().display());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Builder {
    /// A name, for a cluster that a person uses and that outlives this process (see [`Cluster::leave_up`]).
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// How many nodes. None is a control plane alone.
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// Which CRDs of Gateway API to install.
    pub fn channel(mut self, channel: Channel) -> Self {
        self.channel = channel;
        self
    }

    /// No controller manager, no scheduler: nothing writes but the API server's clients.
    pub fn without_controllers(mut self) -> Self {
        self.controllers = false;
        self
    }

    /// Builds what is missing, brings the cluster up, and waits until it is ready. Needs root, and a tokio runtime of
    /// several threads.
    pub async fn up(self) -> Result<Cluster> {
        if !rustix::process::geteuid().is_root() {
            bail!("a test cluster makes namespaces and runs containers: run this as root");
        }
        sweep()?;
        let binaries = tokio::task::block_in_place(|| {
            binaries::build(|name| tracing::info!("building {name} (once; see e2e/cluster/src/binaries.rs)"))
        })?;
        let state = State::create(&self.name.clone().unwrap_or_else(State::fresh_id), self.name.is_none())?;
        let guard = if self.name.is_none() { Some(state.guard()?) } else { None };
        let outcome = self.bring_up(&state, binaries, guard).await;
        if outcome.is_err() && self.name.is_some() {
            state.tear_down()?;
        }
        outcome
    }

    async fn bring_up(&self, state: &State, binaries: Binaries, guard: Option<Guard>) -> Result<Cluster> {
        let control_plane = network::lay(state, self.nodes)?;
        let authority = Authority::new(&state.path("pki"))?;
        let (etcd, api_server) = control_plane::start(state, &binaries, &control_plane, &authority)?;

        let server = format!("https://{}", ApiServer::address());
        let admin = authority.user("admin", "system:masters")?;
        let inner = kubeconfig::write(&state.path("inner.kubeconfig"), &server, &authority, &admin)?;
        let relay = Relay::start(control_plane.clone(), ApiServer::address())?;
        let outer = format!("https://{}", relay.address);
        let outer = kubeconfig::write(&state.path("kubeconfig"), &outer, &authority, &admin)?;

        let client = client(&outer).await?;
        let nodes = tokio::task::block_in_place(|| start_nodes(state, &binaries, self.nodes))?;
        control_plane::wait_ready(&client).await?;
        let mut services = vec![etcd];
        if self.controllers {
            let with_scheduler = self.nodes > 0;
            let all = (state, &binaries, &control_plane, &authority);
            services.extend(control_plane::start_controllers(
                all.0,
                all.1,
                all.2,
                all.3,
                &inner,
                with_scheduler,
            )?);
        }
        let machines = Mutex::new(0);
        let mut cluster = Cluster {
            state: state.clone(),
            binaries,
            control_plane,
            api_server,
            nodes,
            machines,
            client,
            relay,
            services,
            guard,
        };
        let api: Api<NodeObject> = Api::all(cluster.client());
        for node in &mut cluster.nodes {
            api.create(&PostParams::default(), &serde_json::from_value(node.object())?).await?;
            node.join(state, &server, &authority)?;
        }
        cluster.install(self.channel).await?;
        cluster.nodes_ready().await?;
        tracing::debug!(cluster = state.id(), relay = %cluster.relay.address, "the cluster is up");
        Ok(cluster)
    }
}

/// Starts the nodes side by side.
fn start_nodes(state: &State, binaries: &Binaries, nodes: u8) -> Result<Vec<Node>> {
    std::thread::scope(|scope| {
        let start = |index| scope.spawn(move || Node::start(state, binaries, index, nodes));
        let starting: Vec<_> = (1..=nodes).map(start).collect();
        starting
            .into_iter()
            .map(|node| node.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
