//! The chart, as a user installs it: the image from `image/build`, helm, pods on two nodes; what it refuses; and that
//! nothing is left of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use actors::observe::resource::Resource;
use actors_core::snapshot::meta::Kind;
use anyhow::{Context, Result, ensure};
use cluster::binaries::GoProgram;
use cluster::process::run;
use cluster::{Channel, Cluster};
use e2e::traffic::Client;
use e2e::{fleet, manifests, wait};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const HELM: GoProgram<'static> = GoProgram {
    name: "helm",
    module: concat!(env!("CARGO_MANIFEST_DIR"), "/helm"),
    sources: &["tools.go"],
    arguments: &["build", "helm.sh/helm/v3/cmd/helm"],
};
const NAMESPACE: &str = "portreeve-system";
const IMAGE: &str = "docker.io/local/portreeve";
/// How long something may take that a test waits for.
const SOON: Duration = Duration::from_secs(90);

struct Scene {
    cluster: Cluster,
    helm: PathBuf,
}

impl Scene {
    async fn up() -> Result<Self> {
        let program = tokio::task::spawn_blocking(fleet::build).await??;
        let cluster = Cluster::builder().nodes(2).channel(Channel::Standard).up().await?;
        let helm = cluster.binaries().add(&HELM, |name| eprintln!("building {name}"))?;
        let work = tempfile::tempdir()?;
        let archive = work.path().join("portreeve.tar");
        let mut build = Command::new(Path::new(ROOT).join("image/build"));
        run(build.arg("--program").arg(program).args(["--tag", &format!("{IMAGE}:test")]).arg(&archive))?;
        cluster.load_archive(&archive)?;
        Ok(Self { cluster, helm })
    }

    fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut helm = Command::new(&self.helm);
        helm.arg("--kubeconfig").arg(self.cluster.kubeconfig()).args(["--namespace", NAMESPACE]);
        run(helm.args(arguments))
    }

    fn install(&self, more: &[&str]) -> Result<String> {
        let chart = format!("{ROOT}/helm/portreeve");
        let image = format!("image.repository={IMAGE}");
        let mut arguments = vec!["install", "portreeve", &chart, "--create-namespace", "--set", &image];
        arguments.extend(["--set", "image.tag=test"]);
        arguments.extend(more);
        self.helm(&arguments)
    }

    /// Everything of the release's namespace and of the cluster that carries its label or its name.
    fn left(&self) -> Result<BTreeSet<String>> {
        let mut left = BTreeSet::new();
        let namespaced = "all,lease,secret,configmap,serviceaccount,role,rolebinding,poddisruptionbudget";
        let cluster = "clusterrole,clusterrolebinding,flowschema,gatewayclass,edgeparameters";
        for kinds in [namespaced, cluster] {
            let found = self.cluster.kubectl(&["-n", NAMESPACE, "get", kinds, "-o", "name"])?;
            left.extend(found.lines().filter(|name| name.contains("portreeve")).map(str::to_owned));
        }
        Ok(left)
    }

    fn why(&self) -> String {
        let get = |arguments: &[&str]| {
            self.cluster.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}\n"))
        };
        get(&["-n", NAMESPACE, "get", "pods", "-o", "wide"])
            + &get(&["-n", NAMESPACE, "get", "events"])
            + &get(&[
                "-n",
                NAMESPACE,
                "logs",
                "--all-containers",
                "--prefix",
                "--tail=30",
                "-l",
                "app.kubernetes.io/name=portreeve",
            ])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_what_serves_on_every_node_and_takes_all_of_it_away() {
    let scene = Scene::up().await.unwrap();
    if let Err(error) = play(&scene).await {
        panic!("{error:#}\n{}", scene.why());
    }
}

async fn play(scene: &Scene) -> Result<()> {
    let cluster = &scene.cluster;
    refuses_wrong_values(scene)?;
    scene.install(&["--wait", "--timeout", "120s"])?;
    let everything =
        [manifests::backend("blue", 2), manifests::GATEWAY.to_owned(), manifests::route(&[("blue", 1)])];
    cluster.apply(&everything.concat())?;
    let client = Client::new(cluster.add_machine("client")?.namespace);
    for node in cluster.nodes() {
        let address = (node.internal_ip, 80).into();
        wait::until(&format!("{} serves", node.name), SOON, async || {
            let answer = client.get(address, manifests::HOST, "/").await?;
            ensure!(answer.status == 200, "it answers {}: {}", answer.status, answer.body);
            Ok(())
        })
        .await?;
    }
    programmed_by_both(scene).await?;
    privileges_are_few(scene)?;
    scene.helm(&["uninstall", "portreeve", "--wait", "--timeout", "180s"])?;
    wait::until("nothing is left", SOON, async || {
        let left = scene.left()?;
        ensure!(left.is_empty(), "there are {left:?}");
        Ok(())
    })
    .await
}

fn refuses_wrong_values(scene: &Scene) -> Result<()> {
    let refused = |values: &str| -> Result<String> {
        let error = scene.install(&["--dry-run", "--set", values]).err();
        Ok(format!("{:#}", error.with_context(|| format!("{values} was taken"))?))
    };
    for (values, said) in [
        ("controller.replicas=many", "replicas"),
        ("addressProvider.type=cloud", "type"),
        ("proxi.workers=1", "proxi"),
    ] {
        let message = refused(values)?;
        ensure!(message.contains(said), "{values}: {message}");
    }
    Ok(())
}

async fn programmed_by_both(scene: &Scene) -> Result<()> {
    wait::until("the Gateway is programmed", SOON, async || {
        let path =
            "jsonpath={.status.conditions[?(@.type=='Programmed')].status} {.status.addresses[*].value}";
        let said = scene.cluster.kubectl(&["get", "gateway", "edge", "-o", path])?;
        ensure!(said.starts_with("True "), "it says {said:?}");
        for node in scene.cluster.nodes() {
            ensure!(said.contains(&node.internal_ip.to_string()), "it says {said:?}");
        }
        Ok(())
    })
    .await
}

/// What the kernel says that a proxy may do: bind low ports, and nothing besides.
fn privileges_are_few(scene: &Scene) -> Result<()> {
    let path = "jsonpath={.items[*].spec.containers[*].securityContext}";
    let said = scene.cluster.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", path])?;
    ensure!(!said.contains("NET_ADMIN") && !said.contains("\"privileged\":true"), "{said}");
    let can = |account: &str, verb: &str, what: &str| {
        let user = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
        // It exits with 1 where the answer is no.
        scene.cluster.kubectl(&["auth", "can-i", verb, what, &user, "-n", NAMESPACE]).is_ok()
    };
    ensure!(
        can("portreeve-controller", "get", "secrets/portreeve-ca"),
        "controllers can't read the authority"
    );
    ensure!(!can("portreeve-controller", "create", "secrets"), "controllers can make Secrets");
    ensure!(!can("portreeve-controller", "delete", "pods"), "controllers can delete Pods");
    for kind in Kind::ALL {
        let what = match kind {
            Kind::Proxy => "pods".to_owned(),
            _ => format!("{}.{}", Resource::of(kind).plural(), kind.group()).trim_end_matches('.').to_owned(),
        };
        ensure!(can("portreeve-controller", "watch", &what), "controllers can't watch {what}");
    }
    for what in ["secrets", "pods", "configmaps"] {
        ensure!(!can("portreeve-proxy", "get", what), "proxies can get {what}");
    }
    Ok(())
}
