//! `helm upgrade` of the chart under load: every proxy and every controller is replaced, by other values, then by
//! another image, and no client of either node notices.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use cluster::{Channel, Cluster};
use e2e::installation::{self, IMAGE, Installation};
use e2e::testbed::SYSTEM;
use e2e::traffic::{Client, Load, Manner};
use e2e::{fleet, manifests, wait};

/// How long something may take that a test waits for.
const SOON: Duration = Duration::from_secs(90);
/// The tag that the upgrade goes to.
const NEXT: &str = "next";
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(20);

/// A Gateway for HTTP and for streams.
const GATEWAY: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: portreeve
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: tcp, port: 9000, protocol: TCP}
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: stream}
spec:
  parentRefs: [{name: edge, sectionName: tcp}]
  rules:
  - backendRefs: [{name: blue, port: 8080}]
---"#;

struct Scene {
    installation: Installation,
    client: Client,
    cluster: Cluster,
}

impl Scene {
    async fn up() -> Result<Self> {
        let program = tokio::task::spawn_blocking(fleet::build).await??;
        let cluster = Cluster::builder().nodes(2).channel(Channel::Experimental).up().await?;
        let installation = Installation::prepare(&cluster, &program)?;
        installation::load_image(&cluster, &program, NEXT)?;
        let client = Client::new(cluster.add_machine("client")?.namespace);
        Ok(Self { installation, client, cluster })
    }

    fn get(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(arguments)
    }

    /// The uids of our Pods, those that are ending too.
    fn pods(&self) -> Result<BTreeSet<String>> {
        let path = "jsonpath={.items[*].metadata.uid}";
        let uids = self.get(&["-n", SYSTEM, "get", "pods", "-o", path])?;
        Ok(uids.split_whitespace().map(str::to_owned).collect())
    }

    /// Since when the Gateway is programmed.
    fn programmed_since(&self) -> Result<String> {
        let path = "jsonpath={range .status.conditions[?(@.type=='Programmed')]}{.status} {.lastTransitionTime}{end}";
        let said = self.get(&["get", "gateway", "edge", "-o", path])?;
        ensure!(said.starts_with("True "), "it says {said:?}");
        Ok(said)
    }

    /// Clients of every kind at both nodes.
    fn load(&self) -> Vec<(String, Load)> {
        let at = |ip: Ipv4Addr, manner: Manner, port: u16| {
            let to = SocketAddr::from((ip, port));
            let load = self.client.load_by(manner, (to, manifests::HOST, "/"), 2, PAUSE);
            (format!("{manner:?} at {to}"), load)
        };
        let of = |ip: Ipv4Addr| {
            [
                at(ip, Manner::Fresh, 80),
                at(ip, Manner::FreshHttp2, 80),
                at(ip, Manner::Kept, 80),
                at(ip, Manner::Fresh, 9000),
            ]
        };
        self.cluster.nodes().iter().flat_map(|node| of(node.internal_ip)).collect()
    }

    /// Upgrades, and waits until no Pod is left of those before.
    async fn upgrade(&self, value: &str) -> Result<()> {
        let before = self.pods()?;
        self.installation.upgrade(&["--set", value, "--wait", "--timeout", "240s"])?;
        wait::until("every Pod is another one", 2 * SOON, async || {
            let now = self.pods()?;
            ensure!(now.is_disjoint(&before) && now.len() == before.len(), "{now:?} after {before:?}");
            Ok(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_loses_no_request_and_refuses_no_connection() {
    let scene = Scene::up().await.unwrap();
    if let Err(error) = play(&scene).await {
        panic!("{error:#}\n{}", installation::evidence(&scene.cluster, 60));
    }
}

async fn play(scene: &Scene) -> Result<()> {
    scene.installation.install(&["--wait", "--timeout", "120s"])?;
    let everything = [manifests::backend("blue", 2), GATEWAY.to_owned(), manifests::route(&[("blue", 1)])];
    scene.cluster.apply(&everything.concat())?;
    for node in scene.cluster.nodes() {
        for port in [80, 9000] {
            let to = SocketAddr::from((node.internal_ip, port));
            wait::until(&format!("{to} serves"), SOON, async || {
                let answer = scene.client.get(to, manifests::HOST, "/").await?;
                ensure!(answer.status == 200, "it answers {}: {}", answer.status, answer.body);
                Ok(())
            })
            .await?;
        }
    }
    let programmed = scene.programmed_since()?;
    let loads = scene.load();
    let upgraded = async {
        scene.upgrade("log.filter=info\\,proxy=debug").await?;
        scene.upgrade(&format!("image.tag={NEXT}")).await
    };
    let upgraded = upgraded.await;
    let mut faults = Vec::new();
    for (name, load) in loads {
        let tally = load.stop().await?;
        eprintln!("{name}: {:?}", tally.statuses);
        faults.extend(tally.faults().into_iter().map(|fault| format!("{name}: {fault}")));
        faults.extend((tally.with_status(200) < 100).then(|| format!("{name}: hardly any request")));
    }
    upgraded?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ensure!(scene.programmed_since()? == programmed, "the Gateway was not programmed meanwhile");
    let path = "jsonpath={.items[*].spec.containers[*].image}";
    let images = scene.get(&["-n", SYSTEM, "get", "pods", "-o", path])?;
    let next = format!("{IMAGE}:{NEXT}");
    ensure!(images.split_whitespace().all(|image| image == next), "{images}");
    Ok(())
}
