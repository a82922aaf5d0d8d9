//! The control plane: etcd, the API server, the controller manager and the scheduler, in the namespace of the bridge.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::Client;
use rustix::process::Signal;

use crate::audit;
use crate::binaries::Binaries;
use crate::namespace::Namespace;
use crate::network::{CONTROL_PLANE, PODS, SERVICES};
use crate::pki::Authority;
use crate::process::Process;
use crate::state::State;

const ETCD: &str = "http://127.0.0.1:2379";
/// How long an API server may take until it is ready: 4 s when nothing else runs.
const READY: Duration = Duration::from_secs(120);

/// The API server's process, which a test may stop and start. What it kept is in etcd, which goes on.
#[derive(Debug)]
pub struct ApiServer {
    namespace: Namespace,
    program: PathBuf,
    arguments: Vec<String>,
    state: State,
    process: Mutex<Option<Process>>,
}

impl ApiServer {
    /// The address that it serves, in the namespaces of the cluster.
    pub fn address() -> SocketAddr {
        SocketAddr::from((CONTROL_PLANE, 6443))
    }

    /// Kills it (SIGKILL); connections to it are refused from then on.
    pub fn kill(&self) -> Result<()> {
        let mut process = self.process();
        process.as_mut().context("the API server does not run")?.kill()?;
        *process = None;
        Ok(())
    }

    /// Starts it again after [`ApiServer::kill`]. It is ready some seconds later: see `Cluster::wait_ready`.
    pub fn start(&self) -> Result<()> {
        let mut process = self.process();
        if process.is_some() {
            bail!("the API server runs already");
        }
        let mut command = self.namespace.command(&self.program);
        command.args(&self.arguments);
        let log = self.state.log("kube-apiserver");
        *process = Some(Process::start("kube-apiserver", command, &log, &self.state.path("processes"))?);
        Ok(())
    }

    /// Stops it in its tracks (SIGSTOP): connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.process().as_mut().context("the API server does not run")?.signal(Signal::STOP)
    }

    /// Lets it go on after [`ApiServer::pause`].
    pub fn resume(&self) -> Result<()> {
        self.process().as_mut().context("the API server does not run")?.signal(Signal::CONT)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget(&self) {
        if let Some(process) = self.process().take() {
            process.forget();
        }
    }
}

/// Starts etcd and the API server.
pub(crate) fn start(
    state: &State,
    binaries: &Binaries,
    namespace: &Namespace,
    authority: &Authority,
) -> Result<(Process, ApiServer)> {
    let mut etcd = namespace.command(binaries.path("etcd"));
    etcd.args(["--unsafe-no-fsync", "--log-level=warn", "--listen-peer-urls=http://127.0.0.1:2380"])
        .args([format!("--listen-client-urls={ETCD}"), format!("--advertise-client-urls={ETCD}")])
        .arg(format!("--data-dir={}", state.path("etcd").display()));
    let etcd = Process::start("etcd", etcd, &state.log("etcd"), &state.path("processes"))?;
    let server = ApiServer {
        namespace: namespace.clone(),
        program: binaries.path("kube-apiserver"),
        arguments: api_server_arguments(state, authority)?,
        state: state.clone(),
        process: Mutex::new(None),
    };
    server.start()?;
    Ok((etcd, server))
}

fn api_server_arguments(state: &State, authority: &Authority) -> Result<Vec<String>> {
    let own = CONTROL_PLANE.to_string();
    let names =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", "10.96.0.1"];
    let serving = authority.server("kube-apiserver", &[&names[..], &[&own]].concat())?;
    let kubelets = authority.user("kube-apiserver-kubelet-client", "system:masters")?;
    let (token_key, token_public) = authority.token_keys()?;
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    let [audit_policy, audit_log] = audit::arguments(state)?;
    Ok(vec![
        audit_policy,
        audit_log,
        format!("--etcd-servers={ETCD}"),
        format!("--advertise-address={own}"),
        format!("--bind-address={own}"),
        format!("--secure-port={}", ApiServer::address().port()),
        format!("--service-cluster-ip-range={SERVICES}"),
        file("tls-cert-file", &serving.certificate),
        file("tls-private-key-file", &serving.key),
        file("client-ca-file", &authority.certificate()),
        file("service-account-signing-key-file", &token_key),
        file("service-account-key-file", &token_public),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        file("kubelet-client-certificate", &kubelets.certificate),
        file("kubelet-client-key", &kubelets.key),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--enable-priority-and-fairness=true".to_owned(),
    ])
}

/// Starts the controller manager, and the scheduler where there are nodes. The API server must be ready: before its
/// RBAC bootstrap they are forbidden everything, and exit for good.
pub(crate) fn start_controllers(
    state: &State,
    binaries: &Binaries,
    namespace: &Namespace,
    authority: &Authority,
    kubeconfig: &Path,
    with_scheduler: bool,
) -> Result<Vec<Process>> {
    let start = |name: &str, arguments: Vec<String>| {
        let mut command = namespace.command(binaries.path(name));
        command
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg("--leader-elect=false")
            .args(arguments);
        Process::start(name, command, &state.log(name), &state.path("processes"))
    };
    let manager = vec![
        format!("--cluster-cidr={PODS}"),
        "--use-service-account-credentials".to_owned(),
        format!("--root-ca-file={}", authority.certificate().display()),
        format!("--service-account-private-key-file={}", state.path("pki/tokens.key").display()),
        // No kubelet can say that its node is well while the API server is away. A test that takes it away for a minute
        // would find every endpoint not ready once it is back: what Kubernetes does by itself, and not what is tested.
        "--node-monitor-grace-period=5m".to_owned(),
    ];
    let mut started = vec![start("kube-controller-manager", manager)?];
    if with_scheduler {
        started.push(start("kube-scheduler", Vec::new())?);
    }
    Ok(started)
}

/// Waits until the API server says that it is ready.
pub(crate) async fn wait_ready(client: &Client) -> Result<()> {
    let ask = async || {
        // As bytes: the client's parsing would log every "not yet" as an error.
        let request = http::Request::get("/readyz").body(kube::client::Body::empty())?;
        let answer = tokio::time::timeout(Duration::from_secs(2), client.send(request)).await??;
        anyhow::ensure!(answer.status() == http::StatusCode::OK, "it answers {}", answer.status());
        anyhow::Ok(())
    };
    let deadline = tokio::time::Instant::now() + READY;
    loop {
        match ask().await {
            Ok(()) => return Ok(()),
            Err(error) if tokio::time::Instant::now() > deadline => {
                return Err(error.context(format!("the API server was not ready within {READY:?}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
