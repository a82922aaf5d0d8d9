//! What runs: the API server in memory, a controller, proxies and a backend, each with threads of its own.
//! Called by the story in `main.rs`, and by `cluster.rs` for the API server. It knows nothing of routes.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use actors::lease_leader;
use actors::push::authority::Authority;
use actors::push::credentials::Trust;
use actors::push::identity::Role;
use actors::settings::{Fleet, LeaseSettings};
use actors::tree::Controller;
use actors_core::translate;
use anyhow::{Context, Result, ensure};
use proxy::admin::identity::{Identity, TlsSource};
use proxy::limits::Limits;
use proxy::listen::drain::DrainSettings;
use proxy::tree::Proxy;
use proxy_config::set::UnitSet;
use proxy_config::wire::{Push, WIRE_VERSION};
use sandbox::{Channel, Faults, Options, Sandbox};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::cluster;

/// Longer than any run.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Statuses are written when none has been for this long.
const QUIET: Duration = Duration::from_secs(2);
/// The port that pushes are taken on.
const ADMIN: u16 = 9901;

/// Everything that runs. It ends with this value, as a killed process would.
pub(crate) struct World {
    sandbox: Sandbox,
    backend: u16,
    /// The visitor's side: what the API server is asked here is no controller's request.
    own: Runtime,
    controller: Process<Controller>,
    proxies: Vec<Process<Proxy>>,
    _folder: tempfile::TempDir,
}

/// What runs on threads of its own.
struct Process<H> {
    handle: H,
    runtime: Option<Runtime>,
}

impl<H: Send + 'static> Process<H> {
    fn start<E>(name: &str, tree: impl Future<Output = Result<H, E>> + Send + 'static) -> Result<Self>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()?;
        let handle = runtime.block_on(tree).with_context(|| format!("starting {name}"))?;
        Ok(Self { handle, runtime: Some(runtime) })
    }
}

impl<H> Drop for Process<H> {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl World {
    /// Starts all of it, without Gateways and routes.
    pub(crate) fn start(proxies: u8) -> Result<Self> {
        let options = Options {
            loopback_endpoints: true,
            // All that a run writes: nobody is to list anew.
            history: 1_000_000,
            access_log: 1,
            ..Options::default()
        };
        let own = Builder::new_current_thread().enable_all().build()?;
        let sandbox = Sandbox::new(options);
        own.block_on(sandbox.install_gateway_api(Channel::Standard))?;
        let authority = Arc::new(Authority::generate(SystemTime::now(), LIFE)?);
        let folder = tempfile::tempdir()?;
        let nodes: Vec<_> = (1..=proxies).collect();
        let started = nodes.iter().map(|number| {
            let settings = proxy_settings(*number, &authority, folder.path())?;
            Process::start(&name(*number), proxy::tree::run(settings))
        });
        let proxies = started.collect::<Result<Vec<_>>>()?;
        // The client of an API server works on the threads that it is made on.
        let api = sandbox.clone();
        let tree = async move { actors::tree::run(controller_settings(&api, authority, &nodes)).await };
        let controller = Process::start("controller", tree)?;
        Ok(Self { sandbox, backend: backend()?, own, controller, proxies, _folder: folder })
    }

    /// Where visitors reach each proxy.
    pub(crate) fn proxies(&self) -> Vec<SocketAddr> {
        (1..).take(self.proxies.len()).map(|number| (address(number), cluster::HTTP).into()).collect()
    }

    /// A client of the API server that is not the controller's.
    pub(crate) fn client(&self) -> kube::Client {
        let _inside = self.own.enter();
        self.sandbox.client_with("visitor", Faults::none())
    }

    /// Waits for an answer of the API server.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.own.block_on(future)
    }

    /// Makes or replaces an object.
    pub(crate) fn apply(&self, object: Value) -> Result<()> {
        Ok(self.own.block_on(self.sandbox.apply_object(object))?)
    }

    /// What the cluster holds besides Gateways and routes.
    pub(crate) fn manifests(&self) -> Result<Vec<Value>> {
        let nodes = (1..).take(self.proxies.len());
        let nodes = nodes.map(|number| cluster::node(&name(number), &address(number).to_string()));
        Ok(cluster::base(self.backend).into_iter().chain(nodes).collect())
    }

    /// The controller's metrics as text.
    pub(crate) fn metrics(&self) -> String {
        let Controller { edges, running, .. } = &self.controller.handle;
        edges.metrics.render(&running.live.snapshot())
    }

    /// What is being pushed.
    pub(crate) fn units(&self) -> UnitSet {
        let outgoing = self.controller.handle.edges.outgoing.borrow().clone();
        outgoing.map(|outgoing| outgoing.target.units.clone()).unwrap_or_default()
    }

    /// The bytes of a push that leads from these units, or from none, to those that are being pushed.
    pub(crate) fn push_size(&self, base: Option<&UnitSet>) -> usize {
        let (empty, units) = (UnitSet::default(), self.units());
        let base = base.unwrap_or(&empty);
        let (put, delete) = units.diff(base);
        let push = Push {
            wire: WIRE_VERSION,
            proxy: name(1),
            version: Default::default(),
            base: base.root(),
            root: units.root(),
            replace: Vec::new(),
            put,
            delete,
            traceparent: None,
        };
        serde_json::to_vec(&push).map_or(0, |bytes| bytes.len())
    }

    /// Waits until no status has been written for a while; when the last one was, counted from `began`.
    pub(crate) fn wait_for_statuses(&self, began: Instant, within: Duration) -> Result<Duration> {
        let metrics = &self.controller.handle.edges.metrics;
        let count = || {
            ["HTTPRoute", "Gateway"].map(|kind| metrics.status_writes(kind, "written")).iter().sum::<u64>()
        };
        let deadline = Instant::now() + within;
        let (mut last, mut at) = (count(), Instant::now());
        while at.elapsed() < QUIET {
            ensure!(Instant::now() < deadline, "statuses are still being written: {last} so far");
            std::thread::sleep(Duration::from_millis(20));
            let now = count();
            if now != last {
                (last, at) = (now, Instant::now());
            }
        }
        eprintln!("{last} statuses written");
        Ok(at - began)
    }
}

fn name(number: u8) -> String {
    format!("node-{number}")
}

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 1, number).into()
}

fn proxy_settings(
    number: u8,
    authority: &Authority,
    folder: &std::path::Path,
) -> Result<proxy::settings::Settings> {
    let issued = authority.issue(&Role::Proxy(name(number)), SystemTime::now(), LIFE)?;
    let identity = Identity {
        authorities: issued.authorities.as_str().into(),
        chain: issued.chain.as_str().into(),
        key: issued.key.clone(),
    };
    Ok(proxy::settings::Settings {
        identity: name(number),
        node_address: address(number),
        admin_bind: (address(number), ADMIN).into(),
        status_bind: (address(number), 0).into(),
        tls: TlsSource::Held(watch::Sender::new(Arc::new(identity)).subscribe()),
        state_dir: Some(folder.join(name(number))),
        workers: 1,
        limits: Limits::new(1_000),
        drain: DrainSettings::default(),
    })
}

fn controller_settings(
    sandbox: &Sandbox,
    authority: Arc<Authority>,
    nodes: &[u8],
) -> actors::settings::Settings {
    let client = || sandbox.client_with("controller", Faults::none());
    let trust = Trust::Memory(authority);
    let mut settings =
        actors::settings::Settings::new("controller", client(), translate::Settings::default(), trust);
    let named = nodes.iter().map(|number| (name(*number), (address(*number), ADMIN).into()));
    settings.fleet = Fleet::Named(named.collect::<BTreeMap<_, _>>());
    settings.lease = Some(LeaseSettings {
        client: client(),
        namespace: "portreeve-system".to_owned(),
        name: "portreeve-leader".to_owned(),
        identity: lease_leader::identity("controller", "bench"),
    });
    settings
}

/// Starts a backend that answers every request with 200 and nothing, and returns its port.
fn backend() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is the proxy's to notice.
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(port)
}

/// Requests come one at a time and without bodies: each ends with its head.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..read]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
    }
}
