//! `helm upgrade` of the chart under load: every proxy and every controller is replaced, by other values, then by
//! another image, and no client notices: of either node or of a pool's address, by HTTP, by TCP or by UDP.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use cluster::{Channel, Machine};
use e2e::datagrams::{self, Clients};
use e2e::installation::{self, IMAGE, pool_of};
use e2e::site::{SOON, Site};
use e2e::testbed::SYSTEM;
use e2e::traffic::{Load, Manner};
use e2e::{manifests, wait};
use tokio_util::task::AbortOnDropHandle;

/// The tag that the upgrade goes to.
const NEXT: &str = "next";
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(40);
/// How long a client holds a connection for streams: an old proxy lets it finish.
const HELD: Duration = Duration::from_secs(20);
/// The pool.
const POOL: &str = "172.31.8.0/29";
/// Where datagrams are taken.
const DATAGRAMS: u16 = 5300;

/// Routes to the Gateways, and the Service for datagrams.
const ROUTES: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: pooled}
spec:
  parentRefs: [{name: pooled}]
  rules:
  - backendRefs: [{name: blue, port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: UDPRoute
metadata: {name: datagrams}
spec:
  parentRefs: [{name: edge, sectionName: udp}, {name: pooled, sectionName: udp}]
  rules:
  - backendRefs: [{name: datagrams, port: 5300}]
---
apiVersion: v1
kind: Service
metadata: {name: datagrams}
spec:
  ports: [{name: udp, port: 5300, protocol: UDP}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: stream}
spec:
  parentRefs: [{name: edge, sectionName: tcp}]
  rules:
  - backendRefs: [{name: blue, port: 8080}]
---"#;

/// A Gateway at the nodes for HTTP, streams and datagrams; and one at the pool, which is what the chart's class has.
fn gateways() -> String {
    let (http, tcp, udp) = (("http", 80, "HTTP"), ("tcp", 9000, "TCP"), ("udp", DATAGRAMS, "UDP"));
    [
        manifests::class_with("nodes", "{node: {}}"),
        manifests::gateway("edge", "nodes", &[http, tcp, udp]),
        manifests::gateway("pooled", "portreeve", &[http, udp]),
    ]
    .concat()
}

/// The endpoints of the Service for datagrams: servers that run here, on machines beside the cluster.
fn endpoints(servers: &[Machine; 2]) -> String {
    let [one, two] = servers.each_ref().map(|server| server.address);
    format!(
        r#"
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: datagrams, labels: {{kubernetes.io/service-name: datagrams}}}}
addressType: IPv4
ports: [{{name: udp, port: 5300, protocol: UDP}}]
endpoints: [{{addresses: ["{one}"]}}, {{addresses: ["{two}"]}}]
---"#
    )
}

struct Scene {
    servers: [Machine; 2],
    _serving: [AbortOnDropHandle<()>; 2],
    site: Site,
}

impl Scene {
    async fn up() -> Result<Self> {
        let site = Site::up(Channel::Experimental, &[POOL]).await?;
        installation::load_image(&site.cluster, &site.program, NEXT)?;
        let servers = [site.cluster.add_machine("server-1")?, site.cluster.add_machine("server-2")?];
        let [one, two] = &servers;
        let serving = [datagrams::serve(one, DATAGRAMS)?, datagrams::serve(two, DATAGRAMS)?];
        Ok(Self { servers, _serving: serving, site })
    }

    /// The uids of our Pods, those that are ending too.
    fn pods(&self) -> Result<BTreeSet<String>> {
        let path = "jsonpath={.items[*].metadata.uid}";
        let uids = self.site.cluster.kubectl(&["-n", SYSTEM, "get", "pods", "-o", path])?;
        Ok(uids.split_whitespace().map(str::to_owned).collect())
    }

    /// Since when the Gateway is programmed.
    fn programmed_since(&self) -> Result<String> {
        let path = "jsonpath={range .status.conditions[?(@.type=='Programmed')]}{.status} {.lastTransitionTime}{end}";
        let said = self.site.cluster.kubectl(&["get", "gateway", "edge", "-o", path])?;
        ensure!(said.starts_with("True "), "it says {said:?}");
        Ok(said)
    }

    /// Where Gateways serve: each node, and the address of the pool.
    async fn addresses(&self) -> Result<Vec<IpAddr>> {
        let pooled = wait::programmed(&self.site.cluster, "pooled", SOON).await?;
        ensure!(pooled.len() == 1, "the pool's Gateway has {pooled:?}");
        let nodes = self.site.cluster.nodes().iter().map(|node| IpAddr::from(node.internal_ip));
        Ok(nodes.chain(pooled).collect())
    }

    /// Clients of HTTP and of TCP, each kind at each address where it is served.
    fn load(&self, addresses: &[IpAddr]) -> Vec<(String, Load)> {
        let at = |ip: IpAddr, manner: Manner, port: u16| {
            let to = SocketAddr::from((ip, port));
            let load = self.site.client.load_by(manner, (to, manifests::HOST, "/"), 1, PAUSE);
            (format!("{manner:?} at {to}"), load)
        };
        let http = addresses.iter().flat_map(|ip| {
            [Manner::Fresh, Manner::FreshHttp2, Manner::Kept].map(|manner| at(*ip, manner, 80))
        });
        let nodes = self.site.cluster.nodes().iter().map(|node| IpAddr::from(node.internal_ip));
        let tcp = nodes.flat_map(|ip| [Manner::Fresh, Manner::Held(HELD)].map(|manner| at(ip, manner, 9000)));
        http.chain(tcp).collect()
    }

    /// Clients of UDP at each address.
    fn conversations(&self, addresses: &[IpAddr]) -> Result<Vec<(IpAddr, Clients)>> {
        let at = |ip: &IpAddr| {
            let to = SocketAddr::from((*ip, DATAGRAMS));
            Ok((*ip, Clients::start(&self.site.machine.namespace, to, 2, PAUSE)?))
        };
        addresses.iter().map(at).collect()
    }

    /// Upgrades, and waits until no Pod is left of those before.
    async fn upgrade(&self, value: &str) -> Result<()> {
        let before = self.pods()?;
        let pool = pool_of(&[POOL]);
        let values = ["--set", &pool, "--set", value];
        self.site.installation.upgrade(&[&values[..], &["--wait", "--timeout", "240s"]].concat())?;
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
        panic!("{error:#}\n{}", installation::evidence(&scene.site.cluster, 60));
    }
}

async fn play(scene: &Scene) -> Result<()> {
    scene.site.installation.install(&["--set", &pool_of(&[POOL])])?;
    let everything = [
        manifests::backend("blue", 2),
        gateways(),
        ROUTES.to_owned(),
        endpoints(&scene.servers),
        manifests::route(&[("blue", 1)]),
    ];
    scene.site.cluster.apply(&everything.concat())?;
    let addresses = scene.addresses().await?;
    all_serve(scene, &addresses).await?;
    let programmed = scene.programmed_since()?;
    let (loads, conversations) = (scene.load(&addresses), scene.conversations(&addresses)?);
    let upgraded = async {
        scene.upgrade("log.filter=info\\,proxy=debug").await?;
        scene.upgrade(&format!("image.tag={NEXT}")).await
    };
    let upgraded = upgraded.await;
    let faults = [faults_of(loads).await?, faults_between(conversations).await?].concat();
    upgraded?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ensure!(scene.programmed_since()? == programmed, "the Gateway was not programmed meanwhile");
    let path = "jsonpath={.items[*].spec.containers[*].image}";
    let images = scene.site.cluster.kubectl(&["-n", SYSTEM, "get", "pods", "-o", path])?;
    let next = format!("{IMAGE}:{NEXT}");
    ensure!(images.split_whitespace().all(|image| image == next), "{images}");
    Ok(())
}

async fn all_serve(scene: &Scene, addresses: &[IpAddr]) -> Result<()> {
    let http = addresses.iter().map(|ip| SocketAddr::from((*ip, 80)));
    let tcp = scene.site.cluster.nodes().iter().map(|node| SocketAddr::from((node.internal_ip, 9000)));
    for to in http.chain(tcp) {
        scene.site.serves(to).await?;
    }
    wait::until("datagrams are answered", SOON, async || {
        for (ip, clients) in scene.conversations(addresses)? {
            tokio::time::sleep(PAUSE).await;
            let heard = clients.stop().await?;
            ensure!(heard.iter().all(|heard| heard.answers > 0), "{ip} takes no datagrams: {heard:?}");
        }
        Ok(())
    })
    .await
}

/// What went wrong with requests.
async fn faults_of(loads: Vec<(String, Load)>) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (name, load) in loads {
        let tally = load.stop().await?;
        eprintln!("{name}: {:?}", tally.statuses);
        faults.extend(tally.faults().into_iter().map(|fault| format!("{name}: {fault}")));
        faults.extend((tally.with_status(200) < 100).then(|| format!("{name}: hardly any request")));
    }
    Ok(faults)
}

/// What went wrong with datagrams: those that were not answered, and clients that had more than one session.
async fn faults_between(conversations: Vec<(IpAddr, Clients)>) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (ip, clients) in conversations {
        for heard in clients.stop().await? {
            eprintln!("datagrams at {ip}: {} answers by {:?}", heard.answers, heard.sessions);
            faults.extend(heard.lost.iter().map(|lost| format!("datagrams at {ip}: {lost}: no answer")));
            let is_one = heard.sessions.len() == 1 && heard.answers >= 100;
            faults.extend((!is_one).then(|| format!("datagrams at {ip}: {heard:?}")));
        }
    }
    Ok(faults)
}
