//! The world as it really is: a real API server, and a process for each controller and proxy.
//! Called by `world.rs`. It uses Portreeve by its command line and its ports alone. Needs root.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::namespace::Namespace;
use cluster::process::{Process, run};
use cluster::{Channel, Cluster, Machine};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::{ADMIN, backend, name};

/// Where a process tells about itself, in its own namespace.
const STATUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9902);
/// What such an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The port of the backend.
const BACKEND: u16 = 8080;

/// Everything that runs.
pub(crate) struct Real {
    processes: Vec<Process>,
    controllers: Vec<Machine>,
    proxies: Vec<Machine>,
    backend: Machine,
    visitors: Machine,
    cluster: Cluster,
    folder: tempfile::TempDir,
    own: Runtime,
}

impl Real {
    pub(super) fn start(proxies: u8, controllers: u8) -> Result<Self> {
        let own = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let builder = Cluster::builder().nodes(0).without_controllers().channel(Channel::Standard);
        let cluster = own.block_on(builder.up())?;
        let plug = |role: &str, count: u8| {
            (1..=count)
                .map(|number| cluster.add_machine(&format!("{role}{number}")))
                .collect::<Result<Vec<_>>>()
        };
        let (proxies, controllers) = (plug("p", proxies)?, plug("c", controllers)?);
        let (backend, visitors) = (cluster.add_machine("backend")?, cluster.add_machine("visitors")?);
        let on = SocketAddr::from((backend.address, BACKEND));
        backend::serve(backend.namespace.enter(|| TcpListener::bind(on).map_err(Into::into))?);
        let folder = tempfile::tempdir()?;
        let mut real =
            Self { processes: Vec::new(), controllers, proxies, backend, visitors, cluster, folder, own };
        real.processes = real.start_processes()?;
        Ok(real)
    }

    fn start_processes(&self) -> Result<Vec<Process>> {
        let (program, folder) = (program()?, self.folder.path());
        let names: Vec<String> = (1..).map(name).take(self.proxies.len()).collect();
        let mut certificates = Command::new(&program);
        certificates.arg("certificates").arg("--tls-dir").arg(folder);
        run(certificates.args(names.iter().flat_map(|name| ["--proxy", name])))?;
        let proxies = names.iter().zip(&self.proxies).map(|(name, machine)| {
            self.start_process(&program, machine, name, proxy_arguments(name, machine.address, folder))
        });
        let proxies = proxies.collect::<Result<Vec<_>>>()?;
        let known: Vec<String> = (names.iter().zip(&self.proxies))
            .map(|(name, machine)| format!("--proxy={name}={}:{ADMIN}", machine.address))
            .collect();
        let controllers = self.controllers.iter().map(|machine| {
            let mut arguments = vec![
                "controller".to_owned(),
                format!("--kubeconfig={}", self.cluster.inner_kubeconfig().display()),
                format!("--name={}", machine.name),
                format!("--tls-dir={}", folder.join("controller").display()),
                "--log=warn".to_owned(),
            ];
            arguments.extend(known.iter().cloned());
            self.start_process(&program, machine, &machine.name, arguments)
        });
        Ok(proxies.into_iter().chain(controllers.collect::<Result<Vec<_>>>()?).collect())
    }

    fn start_process(
        &self,
        program: &Path,
        machine: &Machine,
        name: &str,
        arguments: Vec<String>,
    ) -> Result<Process> {
        let mut command = machine.namespace.command(program);
        command.args(arguments);
        self.cluster.start_process(name, command, &self.cluster.logs().join(format!("{name}.log")))
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.proxies.iter().map(|machine| machine.address.into()).collect()
    }

    pub(super) fn visitors(&self) -> Namespace {
        self.visitors.namespace.clone()
    }

    pub(super) fn backend(&self) -> SocketAddr {
        (self.backend.address, BACKEND).into()
    }

    pub(super) fn client(&self) -> kube::Client {
        self.cluster.client()
    }

    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.own.block_on(future)
    }

    pub(super) fn apply(&self, objects: &[Value]) -> Result<()> {
        let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
        self.cluster.apply(&documents.join("\n---\n"))
    }

    pub(super) fn metrics(&self) -> Result<String> {
        let of = |machine: &Machine| {
            get(&machine.namespace, "/metrics").with_context(|| format!("metrics of {}", machine.name))
        };
        self.controllers.iter().map(of).collect()
    }

    pub(super) fn processes(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }
}

/// The command, beside this program.
fn program() -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("portreeve");
    ensure!(program.exists(), "{} is not there: cargo build --release -p portreeve", program.display());
    Ok(program)
}

fn proxy_arguments(name: &str, address: Ipv4Addr, folder: &Path) -> Vec<String> {
    vec![
        "proxy".to_owned(),
        format!("--name={name}"),
        format!("--node-address={address}"),
        format!("--tls-dir={}", folder.join(format!("proxy-{name}")).display()),
        format!("--state-dir={}", folder.join(format!("state-{name}")).display()),
        "--workers=1".to_owned(),
        "--log=warn".to_owned(),
    ]
}

/// What a process tells about itself.
fn get(namespace: &Namespace, path: &str) -> Result<String> {
    let mut stream = namespace.enter(|| TcpStream::connect_timeout(&STATUS, PATIENCE).map_err(Into::into))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an HTTP answer has a head")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}
