//! The whole scene of a suite: a cluster of two nodes with echo backends, three controllers, a proxy on each node, and
//! a client. What it logs stays in `e2e/results/logs/<name>`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::{Channel, Cluster, Machine};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::ListParams;

use crate::fleet::{self, Portreeve};
use crate::manifests;
use crate::traffic::{Answer, Client, Load};
use crate::wait;

/// Where Lease and CA are kept.
pub const SYSTEM: &str = "portreeve-system";
/// How long something may take that a test waits for, where the time itself is not what is tested.
pub const SOON: Duration = Duration::from_secs(30);

/// A cluster with Portreeve beside it.
pub struct Testbed {
    /// Where requests come from.
    pub client: Client,
    /// The controllers, by name.
    pub controllers: Vec<Portreeve>,
    /// The proxies; the one at `i` serves at the address of node `i`.
    pub proxies: Vec<Portreeve>,
    /// The machines of the controllers, in their order.
    pub machines: Vec<Machine>,
    /// The cluster: dropped last, it takes the rest with it.
    pub cluster: Cluster,
    logs: PathBuf,
    /// What the proxies find at /etc/resolv.conf: nothing at first.
    name_servers: PathBuf,
}

impl Testbed {
    /// Brings everything up, as [`Testbed::restore`] has it.
    pub async fn up(name: &str) -> Result<Self> {
        // The client logs each answer that says "not yet" as an error.
        let filter = tracing_subscriber::EnvFilter::new("info,kube_client=off");
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter(filter).try_init();
        let logs = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/logs").join(name);
        if logs.exists() {
            std::fs::remove_dir_all(&logs)?;
        }
        std::fs::create_dir_all(&logs)?;
        let program = tokio::task::spawn_blocking(fleet::build).await??;
        let cluster = Cluster::builder().nodes(2).channel(Channel::Experimental).up().await?;
        cluster.kubectl(&["create", "namespace", SYSTEM])?;
        let testbed = Self::with_fleet(cluster, &program, logs)?;
        testbed.restore().await?;
        Ok(testbed)
    }

    /// Makes everything as it was at first: every process runs, the backends have two pods each, all traffic of
    /// [`manifests::HOST`] goes to `blue`, and each node serves that.
    pub async fn restore(&self) -> Result<()> {
        let everything = [
            manifests::backend("blue", 2),
            manifests::backend("green", 2),
            manifests::CLASS.to_owned(),
            manifests::edge(),
            manifests::route(&[("blue", 1), ("green", 0)]),
        ];
        self.cluster.apply(&everything.concat())?;
        for process in self.processes().filter(|process| !process.is_started()) {
            process.start(&self.cluster)?;
        }
        for deployment in ["deployment/blue", "deployment/green"] {
            self.cluster.kubectl(&["rollout", "status", deployment, "--timeout=60s"])?;
        }
        self.all_serve("blue").await
    }

    /// Gives all traffic of [`manifests::HOST`] to `blue` or to `green`, and waits until each node serves that.
    pub async fn moves_to(&self, deployment: &str) -> Result<()> {
        let share = |name| (name, u32::from(name == deployment));
        self.cluster.apply(&manifests::route(&[share("blue"), share("green")]))?;
        self.all_serve(deployment).await
    }

    /// Waits until each node answers with a pod of `deployment`.
    pub async fn all_serve(&self, deployment: &str) -> Result<()> {
        for node in 0..self.proxies.len() {
            self.serves(node, deployment).await?;
        }
        Ok(())
    }

    /// The proxies and the controllers.
    pub fn processes(&self) -> impl Iterator<Item = &Portreeve> {
        self.proxies.iter().chain(&self.controllers)
    }

    /// Fails if a process that was started has ended by itself.
    pub fn all_live(&self) -> Result<()> {
        for process in self.processes().filter(|process| process.is_started()) {
            let ended = process.ended()?;
            ensure!(ended.is_none(), "{} has ended: {ended:?}", process.name());
        }
        Ok(())
    }

    /// Keeps the cluster's own logs, which would go with it, and says where.
    pub fn keep_logs(&self) {
        let mut copy = std::process::Command::new("cp");
        if let Err(error) = cluster::process::run(copy.arg("-r").arg(self.cluster.logs()).arg(&self.logs)) {
            eprintln!("the logs of the cluster are lost: {error:#}");
        }
        eprintln!("see the logs in {}", self.logs.display());
    }

    fn with_fleet(cluster: Cluster, program: &Path, logs: PathBuf) -> Result<Self> {
        let names: Vec<&str> = cluster.nodes().iter().map(|node| node.name.as_str()).collect();
        let identities = logs.join("tls");
        fleet::issue_certificates(program, &identities, &names)?;
        let client = Client::new(cluster.add_machine("client")?.namespace);
        let (mut controllers, mut machines) = (Vec::new(), Vec::new());
        for index in 1..=3 {
            let name = format!("controller-{index}");
            let arguments = controller_arguments(&cluster, &name, &identities);
            let machine = cluster.add_machine(&name)?;
            controllers.push(Portreeve::new(&name, machine.namespace.clone(), program, arguments, &logs));
            machines.push(machine);
        }
        let name_servers = logs.join("resolv.conf");
        std::fs::write(&name_servers, "")?;
        let proxy = |node: &cluster::Node| {
            let state = logs.join(format!("{}-state", node.name));
            let arguments = proxy_arguments(&node.name, node.internal_ip, &identities, &state);
            let name = format!("proxy-{}", node.name);
            Portreeve::new(&name, node.namespace.clone(), program, arguments, &logs)
                .with_name_servers(&name_servers)
        };
        let proxies = cluster.nodes().iter().map(proxy).collect();
        Ok(Self { client, controllers, proxies, machines, cluster, logs, name_servers })
    }

    /// Has the proxies ask this name server for the hosts outside the cluster.
    pub fn resolve_by(&self, server: Ipv4Addr) -> Result<()> {
        // In place: what has been mounted is this file, not its name.
        std::fs::write(&self.name_servers, format!("nameserver {server}\n")).map_err(Into::into)
    }

    /// Where node `index` serves HTTP.
    pub fn address(&self, index: usize) -> SocketAddr {
        (self.cluster.node(index).internal_ip, 80).into()
    }

    /// Asks node `index` for `path` of [`manifests::HOST`].
    pub async fn get(&self, index: usize, path: &str) -> Result<Answer> {
        self.client.get(self.address(index), manifests::HOST, path).await
    }

    /// Steady requests to node `index`: 4 connections, a request every 20 ms on each.
    pub fn load(&self, index: usize) -> Load {
        self.client.load(self.address(index), manifests::HOST, "/load", 4, Duration::from_millis(20))
    }

    /// Waits until node `index` answers with a pod of `deployment`.
    pub async fn serves(&self, index: usize, deployment: &str) -> Result<()> {
        wait::until(&format!("node {index} serves {deployment}"), SOON, async || {
            let answer = self.get(index, "/").await?;
            ensure!(answer.status == 200, "it answers {}: {}", answer.status, answer.body);
            ensure!(answer.deployment() == deployment, "{:?} answers", answer.deployment());
            Ok(())
        })
        .await
    }

    /// The controllers' Lease: the only one of their namespace.
    pub async fn lease(&self) -> Result<Lease> {
        let leases = Api::namespaced(self.cluster.client(), SYSTEM).list(&ListParams::default()).await?;
        leases.items.into_iter().next().context("there is no Lease yet")
    }

    /// The index of the controller that holds the Lease.
    pub async fn leader(&self) -> Result<usize> {
        let holder = self.lease().await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        let holds = |controller: &Portreeve| holder.starts_with(controller.name());
        self.controllers
            .iter()
            .position(holds)
            .with_context(|| format!("nobody leads: the holder is {holder:?}"))
    }

    /// Waits until another controller than `before` leads, and says which.
    pub async fn new_leader(&self, before: usize, deadline: Duration) -> Result<usize> {
        wait::until("another leader", deadline, async || {
            let leader = self.leader().await?;
            ensure!(leader != before, "{before} still holds the Lease");
            Ok(leader)
        })
        .await
    }

    /// What a process tells about itself at /supervision.
    pub async fn supervision(&self, process: &Portreeve) -> Result<serde_json::Value> {
        let here = Client::new(process.namespace().clone());
        let answer =
            here.get((Ipv4Addr::LOCALHOST, 9902).into(), "localhost", "/supervision?format=json").await?;
        serde_json::from_str(&answer.body).context("/supervision is JSON")
    }

    /// The conditions of an object's part: type to "status reason".
    pub async fn conditions(
        &self,
        kind: &str,
        name: &str,
        pointer: &str,
    ) -> Result<BTreeMap<String, String>> {
        let object = self.cluster.kubectl(&["get", kind, name, "-o", "json"])?;
        let object: serde_json::Value = serde_json::from_str(&object)?;
        let list = object.pointer(pointer).and_then(serde_json::Value::as_array);
        let list = list.with_context(|| format!("{kind} {name} has no {pointer}: {}", object["status"]))?;
        let text =
            |condition: &serde_json::Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        let pair = |one| (text(one, "type"), format!("{} {}", text(one, "status"), text(one, "reason")));
        Ok(list.iter().map(pair).collect())
    }

    /// Waits until a condition of an object's part, as "status reason", begins with `wanted`.
    pub async fn says(
        &self,
        kind: &str,
        name: &str,
        pointer: &str,
        condition: &str,
        wanted: &str,
    ) -> Result<()> {
        wait::until(&format!("{kind} {name} says {condition} {wanted}"), SOON, async || {
            let conditions = self.conditions(kind, name, pointer).await?;
            let said = conditions.get(condition).map_or("nothing", String::as_str);
            ensure!(said.starts_with(wanted), "{conditions:?}");
            Ok(())
        })
        .await
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
    }
}

/// The arguments of the controller called `name`, which reaches the cluster and all nodes' proxies.
pub fn controller_arguments(cluster: &Cluster, name: &str, identities: &Path) -> Vec<String> {
    let mut arguments = vec![
        "controller".to_owned(),
        format!("--kubeconfig={}", cluster.inner_kubeconfig().display()),
        format!("--namespace={SYSTEM}"),
        format!("--name={name}"),
        format!("--tls-dir={}", identities.join("controller").display()),
        "--log=info".to_owned(),
    ];
    arguments.extend(
        cluster.nodes().iter().map(|node| format!("--proxy={}={}:9901", node.name, node.internal_ip)),
    );
    arguments
}

/// The arguments of the proxy called `name` on the node at `address`.
pub fn proxy_arguments(name: &str, address: Ipv4Addr, identities: &Path, state: &Path) -> Vec<String> {
    vec![
        "proxy".to_owned(),
        format!("--name={name}"),
        format!("--node-address={address}"),
        format!("--tls-dir={}", identities.join(format!("proxy-{name}")).display()),
        format!("--state-dir={}", state.display()),
        "--log=info".to_owned(),
    ]
}
