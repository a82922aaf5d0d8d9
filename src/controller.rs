//! `portreeve controller`: watches a cluster, stands for the Lease, and if it leads tells the proxies.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use actors::lease_leader;
use actors::observe::resource::ProxyPods;
use actors::push::credentials::Trust;
use actors::settings::{Fleet, LeaseSettings, Settings};
use actors_core::translate;
use anyhow::{Context, Result};
use clap::ArgMatches;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tracing::{error, info};

use crate::addresses::Bind;
use crate::cli;
use crate::proxies::Named;
use crate::runtime::{self, Ending};
use crate::settings::{Problems, Values};

/// The name of the Lease that replicas stand for.
pub(crate) const LEASE: &str = "portreeve-leader";

/// Which Pods are our proxies.
const PROXY_SELECTOR: &str = "app.kubernetes.io/name=portreeve,app.kubernetes.io/component=proxy";

/// What the settings say.
struct Wanted {
    kubeconfig: Option<PathBuf>,
    namespace: String,
    name: String,
    uid: String,
    proxies: Vec<Named>,
    tls: Option<PathBuf>,
    admin: Option<SocketAddr>,
    port: u16,
    status: Option<SocketAddr>,
    resync: Duration,
    enrol: Option<SocketAddr>,
}

/// The least time between two resyncs.
const RESYNC_LEAST: u64 = 100;

/// Runs a controller.
pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let mut values = Values::read(matches, cli::CONTROLLER);
    let logging = runtime::logging(&mut values);
    let wanted = wanted(values)?;
    runtime::run(logging, control(wanted))
}

fn wanted(mut values: Values) -> Result<Wanted, Problems> {
    let admin: Option<IpAddr> = values.get("admin-bind");
    let port: Option<u16> = values.get("admin-port");
    let resync: Option<u64> = values.get("reconcile-interval-ms");
    let wanted = Wanted {
        kubeconfig: values.get("kubeconfig"),
        namespace: values.get("namespace").unwrap_or_default(),
        name: values.require("name").unwrap_or_default(),
        uid: values.get("uid").unwrap_or_default(),
        proxies: values.all("proxy"),
        tls: values.get("tls-dir"),
        admin: admin.zip(port).map(SocketAddr::from),
        port: port.unwrap_or_default(),
        status: values.get("status-bind").map(|Bind(address)| address),
        resync: Duration::from_millis(resync.unwrap_or_default()),
        enrol: values.get("enrol-bind").map(|Bind(address)| address),
    };
    let mut problems = values.into_problems();
    if resync.is_some_and(|ms| ms < RESYNC_LEAST) {
        problems.add("reconcile-interval-ms", format_args!("must be at least {RESYNC_LEAST}"));
    }
    problems.into_result(wanted)
}

/// Runs until a signal asks for the end, or the tree gives up.
async fn control(wanted: Wanted) -> Result<ExitCode> {
    let mut ending = Ending::new()?;
    let config = cluster(wanted.kubeconfig.as_deref()).await?;
    let controller = actors::tree::run(settings(wanted, config)?).await?;
    let mut overrun = controller.edges.overrun.subscribe();
    tokio::select! {
        stopped = controller.running.stopped() => return stopped.map(|()| ExitCode::SUCCESS).map_err(Into::into),
        _ = overrun.wait_for(|overrun| *overrun) => exit(),
        () = ending.asked() => info!("asked to end"),
    }
    tokio::select! {
        stopped = controller.running.stop() => stopped?,
        _ = overrun.wait_for(|overrun| *overrun) => exit(),
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the process at once: something that only a leader runs goes on though its term is over. Most likely
/// it holds a thread, so that an orderly end of the runtime would wait for it for ever.
fn exit() -> ! {
    error!("what only a leader runs did not stop in time: this process ends");
    std::process::exit(1)
}

/// How the cluster is reached: by a kubeconfig, or as a pod.
async fn cluster(kubeconfig: Option<&std::path::Path>) -> Result<Config> {
    let Some(path) = kubeconfig else {
        return Config::incluster().context("no --kubeconfig is given, and this is no pod");
    };
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("{} names no cluster that can be used", path.display()))
}

fn settings(wanted: Wanted, config: Config) -> Result<Settings> {
    let client = Client::try_from(config.clone()).context("making a client of the cluster")?;
    let trust = match wanted.tls {
        Some(folder) => Trust::Files(folder),
        None => Trust::Secret(client.clone(), wanted.namespace.clone()),
    };
    let fleet = if wanted.proxies.is_empty() {
        let pods = ProxyPods { namespace: wanted.namespace.clone(), selector: PROXY_SELECTOR.to_owned() };
        Fleet::Pods(pods, wanted.port)
    } else {
        Fleet::Named(
            wanted.proxies.into_iter().map(|proxy| (proxy.name, proxy.address)).collect::<BTreeMap<_, _>>(),
        )
    };
    let lease = LeaseSettings {
        client: lease_client(config)?,
        namespace: wanted.namespace,
        name: LEASE.to_owned(),
        identity: lease_leader::identity(&wanted.name, &wanted.uid),
    };
    let mut settings = Settings::new(wanted.name, client, translate::Settings::default(), trust);
    settings.fleet = fleet;
    settings.lease = Some(lease);
    settings.status_bind = wanted.status;
    settings.admin_bind = wanted.admin;
    settings.resync = wanted.resync;
    settings.enrol_bind = wanted.enrol;
    Ok(settings)
}

/// A client for the Lease alone: its own connection, and what fails is not repeated behind its back.
fn lease_client(mut config: Config) -> Result<Client> {
    config.default_retry = false;
    Client::try_from(config).context("making a client of the Lease")
}
