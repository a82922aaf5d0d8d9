//! What the suite runs against: a cluster of two nodes, three controllers, a proxy on each node, a class whose
//! Gateways get addresses from a pool that is routed to the nodes, and a machine that the suite runs on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cluster::binaries::{Binaries, GoProgram};
use cluster::process::run;
use cluster::{Channel, Cluster, Machine};
use e2e::fleet::{self, Portreeve};
use e2e::pool;
use e2e::testbed::{self, SOON, SYSTEM};
use e2e::wait;

/// The class that the suite's Gateways are of: the suite's own default.
const CLASS: &str = "gateway-conformance";
/// The pool: addresses of the first range are given out unasked, as long as there are any.
const POOL: [&str; 2] = ["172.31.0.0/24", "172.31.1.0/24"];
/// An address for the Gateway that names one: of the second range, so that no other one has it.
pub(crate) const USABLE: &str = "172.31.1.1";
/// An address that is not of the pool.
pub(crate) const UNUSABLE: &str = "192.0.2.1";

/// The Go module of the suite.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance");
const SUITE: GoProgram<'static> = GoProgram {
    name: "conformance.test",
    module: MODULE,
    sources: &["conformance_test.go"],
    arguments: &["test", "-c", "."],
};
/// A backend of the suite's UDP tests, and the image by which they name it.
const COREDNS: GoProgram<'static> = GoProgram {
    name: "coredns",
    module: MODULE,
    sources: &["bin/coredns/main.go"],
    arguments: &["build", "./bin/coredns"],
};
const COREDNS_IMAGE: &str = "registry.k8s.io/coredns/coredns:v1.12.2";

/// The scene.
pub(crate) struct Scene {
    /// The suite, built.
    pub(crate) suite: PathBuf,
    /// Where the suite runs.
    pub(crate) machine: Machine,
    /// Where everything is written.
    pub(crate) results: PathBuf,
    /// Portreeve's processes, which end with this value.
    _fleet: Vec<Portreeve>,
    /// Dropped last: it takes the rest with it.
    pub(crate) cluster: Cluster,
}

impl Scene {
    /// Brings everything up and waits until the class says what it supports.
    pub(crate) async fn up(channel: Channel, results: &Path) -> Result<Self> {
        let program = tokio::task::spawn_blocking(fleet::build).await??;
        let cluster = Cluster::builder().nodes(2).channel(channel).up().await?;
        let suite = tokio::task::block_in_place(|| furnish(&cluster))?;
        let machine = cluster.add_machine("suite")?;
        for range in POOL {
            pool::make_local(&cluster, range)?;
            pool::route(&machine.namespace, range, cluster.nodes())?;
        }
        cluster.kubectl(&["create", "namespace", SYSTEM])?;
        cluster.apply(&definitions()?)?;
        cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])?;
        cluster.apply(&class())?;
        let fleet = fleet(&cluster, &program, results)?;
        let scene = Self { suite, machine, results: results.to_owned(), _fleet: fleet, cluster };
        scene.class_is_accepted().await?;
        Ok(scene)
    }

    async fn class_is_accepted(&self) -> Result<()> {
        wait::until("the class says what is supported", SOON, async || {
            let path = "jsonpath={.status.supportedFeatures[*].name}";
            let features = self.cluster.kubectl(&["get", "gatewayclass", CLASS, "-o", path])?;
            ensure!(!features.is_empty(), "it names no features");
            Ok(())
        })
        .await
    }

    /// Keeps what explains a failure: the Gateways and routes as they are, and the cluster's own logs.
    pub(crate) fn keep_evidence(&self) -> Result<()> {
        let kinds = "gatewayclasses,gateways,httproutes,services,endpointslices,pods";
        let objects = self.cluster.kubectl(&["get", kinds, "--all-namespaces", "-o", "yaml"])?;
        std::fs::write(self.results.join("objects.yaml"), objects)?;
        let mut copy = std::process::Command::new("cp");
        run(copy.arg("-r").arg(self.cluster.logs()).arg(self.results.join("cluster"))).map(|_| ())
    }
}

/// Builds the suite, and gives the nodes the image of CoreDNS.
fn furnish(cluster: &Cluster) -> Result<PathBuf> {
    let binaries: &Binaries = cluster.binaries();
    let building = |name: &str| tracing::info!("building {name} (once: see e2e/cluster/src/binaries.rs)");
    let suite = binaries.add(&SUITE, building)?;
    binaries.add(&COREDNS, building)?;
    cluster.load_image(COREDNS.name, COREDNS_IMAGE)?;
    Ok(suite)
}

fn definitions() -> Result<String> {
    let documents: Result<Vec<_>, _> = actors_api::crds::ours().iter().map(serde_json::to_string).collect();
    Ok(documents?.join("\n---\n"))
}

fn class() -> String {
    let ranges = POOL.join(", ");
    format!(
        r"
apiVersion: portreeve.dev/v1alpha1
kind: EdgeParameters
metadata: {{name: {CLASS}}}
spec: {{addressProvider: {{pool: {{cidrs: [{ranges}]}}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: {CLASS}}}
spec:
  controllerName: portreeve.dev/gateway-controller
  parametersRef: {{group: portreeve.dev, kind: EdgeParameters, name: {CLASS}}}
"
    )
}

/// Three controllers on machines of their own, and a proxy on each node.
fn fleet(cluster: &Cluster, program: &Path, results: &Path) -> Result<Vec<Portreeve>> {
    let names: Vec<&str> = cluster.nodes().iter().map(|node| node.name.as_str()).collect();
    let identities = results.join("tls");
    fleet::issue_certificates(program, &identities, &names)?;
    let mut fleet = Vec::new();
    for node in cluster.nodes() {
        let state = results.join(format!("{}-state", node.name));
        let arguments = testbed::proxy_arguments(&node.name, node.internal_ip, &identities, &state);
        let name = format!("proxy-{}", node.name);
        fleet.push(Portreeve::new(&name, node.namespace.clone(), program, arguments, results));
    }
    for index in 1..=3 {
        let name = format!("controller-{index}");
        let arguments = testbed::controller_arguments(cluster, &name, &identities);
        let machine = cluster.add_machine(&name)?;
        fleet.push(Portreeve::new(&name, machine.namespace, program, arguments, results));
    }
    fleet.iter().try_for_each(|process| process.start(cluster)).context("start Portreeve")?;
    Ok(fleet)
}
