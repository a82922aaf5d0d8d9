//! What the suite runs against: a cluster of two nodes on which Portreeve is installed with helm, three controllers and a
//! proxy on each node, a class whose Gateways get addresses from a pool that is routed to the nodes, and a machine that
//! the suite runs on.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use cluster::binaries::{Binaries, GoProgram};
use cluster::process::run;
use cluster::{Channel, Cluster, Machine};
use e2e::installation::{self, Installation, pool_of};
use e2e::site::Site;
use e2e::testbed::SOON;
use e2e::wait;

/// The class that the suite's Gateways are of: the chart's own.
pub(crate) const CLASS: &str = "portreeve";
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
    /// Dropped last: it takes the rest with it.
    pub(crate) cluster: Cluster,
}

impl Scene {
    /// Brings everything up and waits until the class says what it supports.
    pub(crate) async fn up(channel: Channel, results: &Path) -> Result<Self> {
        let Site { installation, machine, cluster, .. } = Site::up(channel, &POOL).await?;
        let suite = tokio::task::block_in_place(|| furnish(&cluster))?;
        let scene = Self { suite, machine, results: results.to_owned(), cluster };
        let outcome = scene.install(&installation).await;
        outcome.inspect_err(|_| eprintln!("{}", installation::evidence(&scene.cluster, 30)))?;
        Ok(scene)
    }

    async fn install(&self, installation: &Installation) -> Result<()> {
        tokio::task::block_in_place(|| installation.install(&["--set", &pool_of(&POOL)]))?;
        self.class_is_accepted().await
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

    /// Keeps what our pods have logged so far.
    pub(crate) fn keep_logs(&self) -> Result<()> {
        std::fs::write(self.results.join("pods.log"), installation::evidence(&self.cluster, -1))?;
        Ok(())
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
