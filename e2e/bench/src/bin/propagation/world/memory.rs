//! The world in one process: the API server in memory, a controller, proxies and a backend, each with threads of its own.
//! Called by `world.rs`.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
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
use proxy::admin::identity::{Identity, TlsSource};
use proxy::limits::Limits;
use proxy::listen::drain::DrainSettings;
use proxy::tree::Proxy;
use proxy_config::set::UnitSet;
use sandbox::{Channel, Faults, Options, Sandbox};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::{ADMIN, backend, name};

/// Longer than any run.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// Everything that runs. It ends with this value, as a killed process would.
pub(crate) struct Memory {
    sandbox: Sandbox,
    backends: [SocketAddr; 2],
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

impl Memory {
    pub(super) fn start(proxies: u8) -> Result<Self> {
        let options = Options {
            loopback_endpoints: true,
            // All that a run writes: nobody is to list anew.
            history: 1_000_000,
            access_log: 1,
            ..Options::default()
        };
        let own = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
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
        let backends = [start_backend()?, start_backend()?];
        Ok(Self { sandbox, backends, own, controller, proxies, _folder: folder })
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        (1..).take(self.proxies.len()).map(address).collect()
    }

    pub(super) fn backends(&self) -> [SocketAddr; 2] {
        self.backends
    }

    pub(super) fn client(&self) -> kube::Client {
        let _inside = self.own.enter();
        self.sandbox.client_with("visitor", Faults::none())
    }

    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.own.block_on(future)
    }

    pub(super) fn apply(&self, objects: Vec<Value>) -> Result<()> {
        for object in objects {
            self.own.block_on(self.sandbox.apply_object(object))?;
        }
        Ok(())
    }

    pub(super) fn metrics(&self) -> String {
        let Controller { edges, running, .. } = &self.controller.handle;
        edges.metrics.render(&running.live.snapshot())
    }

    pub(super) fn units(&self) -> UnitSet {
        let outgoing = self.controller.handle.edges.outgoing.borrow().clone();
        outgoing.map(|outgoing| outgoing.target.units.clone()).unwrap_or_default()
    }
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
        status_socket: None,
        tls: TlsSource::Held(watch::Sender::new(Arc::new(identity)).subscribe()),
        state_dir: Some(folder.join(name(number))),
        workers: 1,
        limits: Limits::new(1_000),
        drain: DrainSettings::default(),
        resolver: proxy::resolver::ResolverSettings::default(),
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

/// Starts the backend.
fn start_backend() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    backend::serve(listener);
    Ok(address)
}
