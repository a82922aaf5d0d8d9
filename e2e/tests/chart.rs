//! The chart, as a user installs it: the image from `image/build`, helm, pods on two nodes; what it refuses; and that
//! nothing is left of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::time::Duration;

use actors::observe::resource::Resource;
use actors_core::snapshot::meta::Kind;
use anyhow::{Context, Result, bail, ensure};
use cluster::audit::Event;
use cluster::process::run;
use cluster::{Channel, Cluster};
use e2e::installation::{self, Installation, left};
use e2e::steady::{Controllers, Route};
use e2e::testbed::SYSTEM;
use e2e::traffic::Client;
use e2e::{fleet, manifests, pool, wait};

/// How long something may take that a test waits for.
const SOON: Duration = Duration::from_secs(90);
/// The pools: one, and the one that it is changed to.
const POOLS: [&str; 2] = ["172.31.8.0/29", "172.31.9.0/29"];

/// A Gateway with a route of each kind but HTTPRoute.
const EVERY_ROUTE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: every}
spec:
  gatewayClassName: portreeve
  listeners:
  - {name: grpc, port: 8080, protocol: HTTP}
  - {name: tls, port: 8443, protocol: TLS, tls: {mode: Passthrough}}
  - {name: tcp, port: 9300, protocol: TCP}
  - {name: udp, port: 5300, protocol: UDP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: every}
spec:
  parentRefs: [{name: every, sectionName: grpc}]
  rules: [{backendRefs: [{name: green, port: 8080}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: every}
spec:
  parentRefs: [{name: every, sectionName: tls}]
  hostnames: [every.example]
  rules: [{backendRefs: [{name: blue, port: 8080}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: every}
spec:
  parentRefs: [{name: every, sectionName: tcp}]
  rules: [{backendRefs: [{name: blue, port: 8080}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: every}
spec:
  parentRefs: [{name: every, sectionName: udp}]
  rules: [{backendRefs: [{name: blue, port: 8080}]}]
---"#;
/// What another controller writes to.
const ROUTES: [Route; 5] = [
    Route("httproute", "echo"),
    Route("grpcroute", "every"),
    Route("tlsroute", "every"),
    Route("tcproute", "every"),
    Route("udproute", "every"),
];
/// How many seconds nothing may be written; 60 where this variable says nothing.
const STEADY: &str = "PORTREEVE_STEADY_SECONDS";

struct Scene {
    installation: Installation,
    client: Client,
    cluster: Cluster,
}

impl Scene {
    async fn up() -> Result<Self> {
        let program = tokio::task::spawn_blocking(fleet::build).await??;
        let cluster = Cluster::builder().nodes(2).channel(Channel::Standard).up().await?;
        let installation = Installation::prepare(&cluster, &program)?;
        let machine = cluster.add_machine("client")?.namespace;
        for range in POOLS {
            pool::route_to_all(&cluster, range)?;
        }
        Ok(Self { installation, client: Client::new(machine), cluster })
    }

    fn install(&self, more: &[&str]) -> Result<String> {
        self.installation.install(&[&["--wait", "--timeout", "120s"], more].concat())
    }

    /// Takes the release away and holds that nothing of it is left.
    async fn uninstall(&self) -> Result<()> {
        self.installation.uninstall()?;
        wait::until("nothing is left", SOON, async || {
            let left = left(&self.cluster)?;
            ensure!(left.is_empty(), "there are {left:?}");
            Ok(())
        })
        .await
    }

    async fn serves(&self, address: IpAddr) -> Result<()> {
        wait::until(&format!("{address} serves"), SOON, async || {
            let answer = self.client.get((address, 80).into(), manifests::HOST, "/").await?;
            ensure!(answer.status == 200, "it answers {}: {}", answer.status, answer.body);
            Ok(())
        })
        .await
    }

    /// The addresses of the Gateway, once it is programmed.
    async fn programmed(&self) -> Result<Vec<IpAddr>> {
        wait::until("the Gateway is programmed", SOON, async || {
            let path =
                "jsonpath={.status.conditions[?(@.type=='Programmed')].status} {.status.addresses[*].value}";
            let said = self.cluster.kubectl(&["get", "gateway", "edge", "-o", path])?;
            let addresses = said.strip_prefix("True ").with_context(|| format!("it says {said:?}"))?;
            addresses.split_whitespace().map(|one| Ok(one.parse()?)).collect()
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_what_serves_on_every_node_and_takes_all_of_it_away() {
    let scene = Scene::up().await.unwrap();
    let play = async {
        refuses_wrong_values(&scene)?;
        serves_at_the_nodes(&scene).await?;
        serves_at_a_pool(&scene).await
    };
    if let Err(error) = play.await {
        panic!("{error:#}\n{}", installation::evidence(&scene.cluster, 30));
    }
}

async fn serves_at_the_nodes(scene: &Scene) -> Result<()> {
    let cluster = &scene.cluster;
    scene.install(&[])?;
    let everything =
        [manifests::backend("blue", 2), manifests::GATEWAY.to_owned(), manifests::route(&[("blue", 1)])];
    cluster.apply(&everything.concat())?;
    for node in cluster.nodes() {
        scene.serves(node.internal_ip.into()).await?;
    }
    wait::until("the Gateway names both nodes", SOON, async || {
        let addresses = scene.programmed().await?;
        let all = cluster.nodes().iter().all(|node| addresses.contains(&node.internal_ip.into()));
        ensure!(all, "it names {addresses:?}");
        Ok(())
    })
    .await?;
    privileges_are_few(scene)?;
    changes_of_network(scene, &[])?;
    a_deleted_lease_is_made_again(scene).await?;
    scene.uninstall().await
}

/// By the controllers, in a higher term, and as a part of the release.
async fn a_deleted_lease_is_made_again(scene: &Scene) -> Result<()> {
    let term = || -> Result<u64> {
        let path = "jsonpath={.metadata.annotations['portreeve\\.dev/term']} {.spec.holderIdentity} \
                    {.metadata.ownerReferences[*].name}";
        let said = scene.cluster.kubectl(&["-n", SYSTEM, "get", "lease", "portreeve-leader", "-o", path])?;
        let (term, rest) = said.split_once(' ').with_context(|| format!("it says {said:?}"))?;
        let (holder, owner) = rest.split_once(' ').with_context(|| format!("it says {said:?}"))?;
        ensure!(!holder.is_empty() && owner == "portreeve-ca", "it says {said:?}");
        Ok(term.parse()?)
    };
    let before = term()?;
    scene.cluster.kubectl(&["-n", SYSTEM, "delete", "lease", "portreeve-leader"])?;
    let after = wait::until("there is a Lease again", SOON, async || term()).await?;
    ensure!(after > before, "its term is {after}, and was {before}");
    // The one who leads has what it takes to lead: a change arrives.
    scene.cluster.apply(&manifests::route(&[("blue", 2)]))?;
    wait::until("the change has been taken", SOON, async || {
        let path = "jsonpath={.metadata.generation} {.status.parents[0].conditions[0].observedGeneration}";
        let said = scene.cluster.kubectl(&["get", "httproute", "echo", "-o", path])?;
        let (wanted, seen) = said.split_once(' ').unwrap_or_default();
        ensure!(wanted == seen, "it says {said:?}");
        Ok(())
    })
    .await
}

/// The same Gateway, of a class that has a pool now; then the pool is another one.
async fn serves_at_a_pool(scene: &Scene) -> Result<()> {
    let [first, second] = POOLS;
    let values = |range: &str| {
        ["addressProvider.type=pool".to_owned(), format!("addressProvider.pool.cidrs={{{range}}}")]
    };
    let [kind, range] = values(first);
    scene.install(&["--set", &kind, "--set", &range])?;
    serves_within(scene, "172.31.8.").await?;
    own(scene, &[first]).await?;
    changes_of_network(scene, &["own-addresses"])?;
    privileges_are_few(scene)?;
    a_steady_state_writes_nothing_but_the_lease(scene).await?;
    let [kind, range] = values(second);
    scene.installation.upgrade(&["--set", &kind, "--set", &range])?;
    scene.cluster.kubectl(&[
        "-n",
        SYSTEM,
        "rollout",
        "status",
        "daemonset/portreeve-proxy",
        "--timeout=240s",
    ])?;
    serves_within(scene, "172.31.9.").await?;
    own(scene, &[second]).await?;
    scene.uninstall().await?;
    own(scene, &[]).await
}

/// Whatever another controller writes.
async fn a_steady_state_writes_nothing_but_the_lease(scene: &Scene) -> Result<()> {
    #[allow(clippy::disallowed_methods, reason = "tests have no command line of their own")]
    let time = std::env::var(STEADY).ok().map(|seconds| seconds.parse()).transpose().context(STEADY)?;
    scene.cluster.apply(&[&manifests::backend("green", 1), EVERY_ROUTE].concat())?;
    let user = format!("system:serviceaccount:{SYSTEM}:portreeve-controller");
    let ours = |event: &Event| event.user == user;
    let controllers = Controllers { cluster: &scene.cluster, ours: &ours };
    controllers.write_nothing(Duration::from_secs(time.unwrap_or(60)), &ROUTES).await
}

/// Waits until the Gateway has one address, which begins so, and serves there.
async fn serves_within(scene: &Scene, pool: &str) -> Result<()> {
    let address = wait::until(&format!("the Gateway has an address of {pool}"), SOON, async || {
        let addresses = scene.programmed().await?;
        let [address] = addresses[..] else { bail!("it has {addresses:?}") };
        ensure!(address.to_string().starts_with(pool), "it has {address}");
        Ok(address)
    })
    .await?;
    scene.serves(address).await
}

/// Waits until each node has one route of ours to each of these ranges and no other.
async fn own(scene: &Scene, ranges: &[&str]) -> Result<()> {
    let wanted: Vec<_> = ranges.iter().map(|range| format!("local {range} dev lo")).collect();
    wait::until(&format!("each node owns {ranges:?} alone"), SOON, async || {
        for node in scene.cluster.nodes() {
            let mut ip = node.namespace.command("ip");
            let routes = run(ip.args(["route", "show", "table", "local", "proto", "117"]))?;
            let are_wanted = routes.lines().zip(&wanted).all(|(route, wanted)| route.starts_with(wanted));
            ensure!(routes.lines().count() == wanted.len() && are_wanted, "{}: {routes}", node.name);
        }
        Ok(())
    })
    .await
}

fn refuses_wrong_values(scene: &Scene) -> Result<()> {
    let refused = |values: &str| -> Result<String> {
        let error = scene.installation.install(&["--dry-run", "--set", values]).err();
        Ok(format!("{:#}", error.with_context(|| format!("{values} was taken"))?))
    };
    for (values, said) in [
        ("controller.replicas=many", "replicas"),
        ("addressProvider.type=cloud", "type"),
        ("proxi.workers=1", "proxi"),
        ("addressProvider.type=pool", "addressProvider/pool/cidrs"),
        (
            "addressProvider.type=pool,addressProvider.pool.cidrs={192.0.2.256/24}",
            "addressProvider/pool/cidrs/0",
        ),
        ("addressProvider.pool.cidrs={192.0.2.0/24}", "addressProvider/pool/cidrs"),
    ] {
        let message = refused(values)?;
        ensure!(message.contains(said), "{values}: {message}");
    }
    Ok(())
}

/// Which containers may change the network of their node.
fn changes_of_network(scene: &Scene, allowed: &[&str]) -> Result<()> {
    let path = "jsonpath={range .items[*]}{range .spec['initContainers','containers'][*]}\
                {.name} {.securityContext}{\"\\n\"}{end}{end}";
    let said = scene.cluster.kubectl(&["-n", SYSTEM, "get", "pods", "-o", path])?;
    for line in said.lines() {
        let (name, context) = line.split_once(' ').unwrap_or_default();
        let may = context.contains("NET_ADMIN");
        ensure!(may == allowed.contains(&name) && !context.contains("\"privileged\":true"), "{line}");
    }
    ensure!(allowed.iter().all(|name| said.contains(name)), "{said}");
    Ok(())
}

/// What RBAC says that controllers and proxies may do.
fn privileges_are_few(scene: &Scene) -> Result<()> {
    let can = |account: &str, verb: &str, what: &str| {
        let user = format!("--as=system:serviceaccount:{SYSTEM}:{account}");
        // It exits with 1 where the answer is no.
        scene.cluster.kubectl(&["auth", "can-i", verb, what, &user, "-n", SYSTEM]).is_ok()
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
        // Of a kind that is not installed, as the experimental ones here, nobody can say who may do what.
        let is_installed = || scene.cluster.kubectl(&["get", &what, "--all-namespaces"]).is_ok();
        ensure!(
            can("portreeve-controller", "watch", &what) || !is_installed(),
            "controllers can't watch {what}"
        );
    }
    for what in ["secrets", "pods", "configmaps"] {
        ensure!(!can("portreeve-proxy", "get", what), "proxies can get {what}");
    }
    Ok(())
}
