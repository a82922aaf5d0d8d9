//! Portreeve as a user installs it on a cluster: the image from `image/build`, helm, its pods on the nodes.
//!
//! Owns what has to be done beforehand (building helm and the image, loading it on the nodes) and the release. It knows
//! the chart by its values alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use cluster::Cluster;
use cluster::binaries::GoProgram;
use cluster::process::run;

use crate::testbed::SYSTEM;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const HELM: GoProgram<'static> = GoProgram {
    name: "helm",
    module: concat!(env!("CARGO_MANIFEST_DIR"), "/helm"),
    sources: &["tools.go"],
    arguments: &["build", "helm.sh/helm/v3/cmd/helm"],
};
/// The image that [`Installation::prepare`] loads.
pub const IMAGE: &str = "docker.io/local/portreeve";
/// Its tag.
pub const TAG: &str = "test";
/// The release: all that is named by the chart begins with this.
pub const RELEASE: &str = "portreeve";

/// A release of the chart, in the namespace [`SYSTEM`].
#[derive(Debug, Clone)]
pub struct Installation {
    helm: PathBuf,
    kubeconfig: PathBuf,
}

impl Installation {
    /// Builds helm, if it is missing, and the image of `program`, and gives that to all nodes of the cluster.
    pub fn prepare(cluster: &Cluster, program: &Path) -> Result<Self> {
        let building = |name: &str| tracing::info!("building {name} (once: see e2e/cluster/src/binaries.rs)");
        let helm = cluster.binaries().add(&HELM, building)?;
        load_image(cluster, program, TAG)?;
        Ok(Self { helm, kubeconfig: cluster.kubeconfig() })
    }

    /// Runs helm in the release's namespace and gives its output back.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut helm = Command::new(&self.helm);
        helm.arg("--kubeconfig").arg(&self.kubeconfig).args(["--namespace", SYSTEM]);
        run(helm.args(arguments))
    }

    /// Installs the chart with these flags for helm besides, and waits until its pods are ready.
    pub fn install(&self, more: &[&str]) -> Result<String> {
        self.release("install", &[&["--create-namespace", "--wait", "--timeout", "180s"], more].concat())
    }

    /// Changes the release to the chart with these flags for helm.
    pub fn upgrade(&self, more: &[&str]) -> Result<String> {
        self.release("upgrade", more)
    }

    fn release(&self, verb: &str, more: &[&str]) -> Result<String> {
        let chart = format!("{ROOT}/helm/portreeve");
        let (image, tag) = (format!("image.repository={IMAGE}"), format!("image.tag={TAG}"));
        let arguments = [verb, RELEASE, &chart, "--set", &image, "--set", &tag];
        self.helm(&[&arguments[..], more].concat())
    }

    /// Takes the release away and waits until helm says that it is gone.
    pub fn uninstall(&self) -> Result<()> {
        self.helm(&["uninstall", RELEASE, "--wait", "--timeout", "180s"]).map(|_| ())
    }
}

/// What `--set` takes to give the chart's class a pool of these ranges of addresses.
pub fn pool_of(ranges: &[&str]) -> String {
    format!("addressProvider.type=pool,addressProvider.pool.cidrs={{{}}}", ranges.join(","))
}

/// Gives all nodes an image of `program` that is called [`IMAGE`], with this tag.
pub fn load_image(cluster: &Cluster, program: &Path, tag: &str) -> Result<()> {
    let work = tempfile::tempdir()?;
    let archive = work.path().join("portreeve.tar");
    let mut build = Command::new(Path::new(ROOT).join("image/build"));
    run(build.arg("--program").arg(program).args(["--tag", &format!("{IMAGE}:{tag}")]).arg(&archive))?;
    cluster.load_archive(&archive)
}

/// Has all controllers end, and waits until their pods are gone. Proxies go on.
pub fn end_controllers(cluster: &Cluster) -> Result<()> {
    let deployment = format!("deployment/{RELEASE}-controller");
    cluster.kubectl(&["-n", SYSTEM, "scale", &deployment, "--replicas=0"])?;
    let pods = "app.kubernetes.io/component=controller";
    cluster.kubectl(&["-n", SYSTEM, "wait", "--for=delete", "pod", "-l", pods, "--timeout=60s"]).map(|_| ())
}

/// Everything of the release's namespace and of the cluster that carries its name.
pub fn left(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let mut left = BTreeSet::new();
    let namespaced = "all,lease,secret,configmap,serviceaccount,role,rolebinding,poddisruptionbudget";
    let cluster_wide = "clusterrole,clusterrolebinding,flowschema,gatewayclass,edgeparameters";
    for kinds in [namespaced, cluster_wide] {
        let found = cluster.kubectl(&["-n", SYSTEM, "get", kinds, "-o", "name"])?;
        left.extend(found.lines().filter(|name| name.contains(RELEASE)).map(str::to_owned));
    }
    Ok(left)
}

/// What explains why the release does not do as it should: its pods, their events, and the last `lines` of their logs (-1: all).
pub fn evidence(cluster: &Cluster, lines: i32) -> String {
    let get = |arguments: &[&str]| cluster.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}\n"));
    let tail = format!("--tail={lines}");
    let ours = ["-l", "app.kubernetes.io/name=portreeve"];
    let logs = [&["-n", SYSTEM, "logs", "--all-containers", "--prefix", &tail], &ours[..]].concat();
    get(&["-n", SYSTEM, "get", "pods", "-o", "wide"]) + &get(&["-n", SYSTEM, "get", "events"]) + &get(&logs)
}
