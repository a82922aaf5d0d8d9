//! The world as it really is: a real API server, and the processes of a contender beside it.
//! Called by `world.rs`. It uses contenders by their command lines and their ports alone. Needs root.

mod portreeve;
pub(crate) mod traefik;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::namespace::Namespace;
use cluster::process::Process;
use cluster::{Channel, Cluster, Machine};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::{Contender, PORTREEVE, Resident, backend, name, resident_of};

/// Where a process of Portreeve tells about itself, in its own namespace.
const STATUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9902);
/// What such an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The ports of the backends.
const BACKENDS: [u16; 2] = [8080, 8081];

/// Everything that runs.
pub(crate) struct Real {
    contender: Contender,
    /// Proxies first, then controllers, as the machines are.
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
    pub(super) fn start(contender: &Contender) -> Result<Self> {
        let own = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let builder = Cluster::builder().nodes(0).without_controllers().channel(Channel::Standard);
        let cluster = own.block_on(builder.up())?;
        let plug = |role: &str, count: u8| {
            (1..=count)
                .map(|number| cluster.add_machine(&format!("{role}{number}")))
                .collect::<Result<Vec<_>>>()
        };
        let (proxies, controllers) = match contender {
            Contender::Memory { proxies } => (*proxies, 0),
            Contender::Portreeve { proxies, controllers } => (*proxies, *controllers),
            Contender::Traefik { .. } => (1, 0),
        };
        let (proxies, controllers) = (plug("p", proxies)?, plug("c", controllers)?);
        let (backend, visitors) = (cluster.add_machine("backend")?, cluster.add_machine("visitors")?);
        for port in BACKENDS {
            let on = SocketAddr::from((backend.address, port));
            backend::serve(backend.namespace.enter(|| TcpListener::bind(on).map_err(Into::into))?);
        }
        let (processes, folder) = (Vec::new(), tempfile::tempdir()?);
        let contender = contender.clone();
        let mut real =
            Self { contender, processes, controllers, proxies, backend, visitors, cluster, folder, own };
        real.processes = real.start_processes()?;
        Ok(real)
    }

    fn start_processes(&self) -> Result<Vec<Process>> {
        match &self.contender {
            Contender::Traefik { program, throttle } => {
                let [machine] = &*self.proxies else { anyhow::bail!("there is one Traefik") };
                let mut command = machine.namespace.command(program);
                command.args(traefik::arguments(machine.address, *throttle));
                command.env("KUBECONFIG", self.cluster.inner_kubeconfig());
                Ok(vec![self.start_process(&machine.name, command)?])
            }
            Contender::Memory { .. } | Contender::Portreeve { .. } => self.start_portreeve(),
        }
    }

    fn start_portreeve(&self) -> Result<Vec<Process>> {
        let (program, folder) = (portreeve::program()?, self.folder.path());
        let names: Vec<String> = (1..).map(name).take(self.proxies.len()).collect();
        portreeve::certificates(&program, folder, &names)?;
        let mut processes = Vec::new();
        for (name, machine) in names.iter().zip(&self.proxies) {
            let mut command = machine.namespace.command(&program);
            command.args(portreeve::proxy(name, machine.address, folder));
            processes.push(self.start_process(name, command)?);
        }
        let known: Vec<_> = names.iter().zip(self.proxies.iter().map(|machine| machine.address)).collect();
        for machine in &self.controllers {
            let mut command = machine.namespace.command(&program);
            command.args(portreeve::controller(
                &machine.name,
                &self.cluster.inner_kubeconfig(),
                folder,
                &known,
            ));
            processes.push(self.start_process(&machine.name, command)?);
        }
        Ok(processes)
    }

    fn start_process(&self, name: &str, command: Command) -> Result<Process> {
        self.cluster.start_process(name, command, &self.cluster.logs().join(format!("{name}.log")))
    }

    /// The name by which classes know the contender.
    pub(super) fn controller_name(&self) -> &'static str {
        match self.contender {
            Contender::Traefik { .. } => traefik::CONTROLLER,
            Contender::Memory { .. } | Contender::Portreeve { .. } => PORTREEVE,
        }
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.proxies.iter().map(|machine| machine.address.into()).collect()
    }

    pub(super) fn visitors(&self) -> Namespace {
        self.visitors.namespace.clone()
    }

    pub(super) fn backends(&self) -> [SocketAddr; 2] {
        BACKENDS.map(|port| (self.backend.address, port).into())
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

    pub(super) fn resident(&self) -> Option<Resident> {
        let sizes: Vec<u64> = self.processes.iter().filter_map(|process| resident_of(process.id())).collect();
        let (proxies, controllers) = sizes.split_at_checked(self.proxies.len())?;
        Some(Resident { proxy: *proxies.iter().max()?, controller: controllers.iter().max().copied() })
    }
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
