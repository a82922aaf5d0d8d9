//! The chart, as a user installs it: the image from `image/build`, helm, pods on two nodes; what it refuses; and that
//! nothing is left of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use actors::observe::resource::Resource;
use actors_core::snapshot::meta::Kind;
use anyhow::{Context, Result, bail, ensure};
use cluster::Channel;
use cluster::audit::Event;
use cluster::process::run;
use e2e::installation::{self, left, pool_of};
use e2e::site::{SOON, Site};
use e2e::steady::{Controllers, Route};
use e2e::testbed::SYSTEM;
use e2e::{manifests, wait};

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

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_what_serves_on_every_node_and_takes_all_of_it_away() {
    let site = Site::up(Channel::Standard, &POOLS).await.unwrap();
    let play = async {
        refuses_wrong_values(&site)?;
        serves_at_the_nodes(&site).await?;
        serves_at_a_pool(&site).await
    };
    if let Err(error) = play.await {
        panic!("{error:#}\n{}", installation::evidence(&site.cluster, 30));
    }
}

async fn serves_at_the_nodes(site: &Site) -> Result<()> {
    let cluster = &site.cluster;
    site.installation.install(&[])?;
    refuses_a_second_release(site)?;
    let everything = [manifests::backend("blue", 2), manifests::edge(), manifests::route(&[("blue", 1)])];
    cluster.apply(&everything.concat())?;
    for node in cluster.nodes() {
        site.serves((node.internal_ip, 80).into()).await?;
    }
    wait::until("the Gateway names both nodes", SOON, async || {
        let addresses = wait::programmed(cluster, "edge", SOON).await?;
        let all = cluster.nodes().iter().all(|node| addresses.contains(&node.internal_ip.into()));
        ensure!(all, "it names {addresses:?}");
        Ok(())
    })
    .await?;
    privileges_are_few(site)?;
    changes_of_network(site, &[])?;
    a_deleted_lease_is_made_again(site).await?;
    uninstall(site).await
}

/// Takes the release away and holds that nothing of it is left.
async fn uninstall(site: &Site) -> Result<()> {
    site.installation.uninstall()?;
    wait::until("nothing is left", SOON, async || {
        let left = left(&site.cluster)?;
        ensure!(left.is_empty(), "there are {left:?}");
        Ok(())
    })
    .await
}

/// By the controllers, in a higher term, and as a part of the release.
async fn a_deleted_lease_is_made_again(site: &Site) -> Result<()> {
    let term = || -> Result<u64> {
        let path = "jsonpath={.metadata.annotations['portreeve\\.dev/term']} {.spec.holderIdentity} \
                    {.metadata.ownerReferences[*].name}";
        let said = site.cluster.kubectl(&["-n", SYSTEM, "get", "lease", "portreeve-leader", "-o", path])?;
        let (term, rest) = said.split_once(' ').with_context(|| format!("it says {said:?}"))?;
        let (holder, owner) = rest.split_once(' ').with_context(|| format!("it says {said:?}"))?;
        ensure!(!holder.is_empty() && owner == "portreeve-ca", "it says {said:?}");
        Ok(term.parse()?)
    };
    let before = term()?;
    site.cluster.kubectl(&["-n", SYSTEM, "delete", "lease", "portreeve-leader"])?;
    let after = wait::until("there is a Lease again", SOON, async || term()).await?;
    ensure!(after > before, "its term is {after}, and was {before}");
    // The one who leads has what it takes to lead: a change arrives.
    site.cluster.apply(&manifests::route(&[("blue", 2)]))?;
    wait::until("the change has been taken", SOON, async || {
        let path = "jsonpath={.metadata.generation} {.status.parents[0].conditions[0].observedGeneration}";
        let said = site.cluster.kubectl(&["get", "httproute", "echo", "-o", path])?;
        let (wanted, seen) = said.split_once(' ').unwrap_or_default();
        ensure!(wanted == seen, "it says {said:?}");
        Ok(())
    })
    .await
}

/// The same Gateway, of a class that has a pool now; then the pool is another one.
async fn serves_at_a_pool(site: &Site) -> Result<()> {
    let [first, second] = POOLS;
    site.installation.install(&["--set", &pool_of(&[first])])?;
    serves_within(site, "172.31.8.").await?;
    own(site, &[first]).await?;
    changes_of_network(site, &["own-addresses"])?;
    privileges_are_few(site)?;
    a_steady_state_writes_nothing_but_the_lease(site).await?;
    site.installation.upgrade(&["--set", &pool_of(&[second])])?;
    site.cluster.kubectl(&[
        "-n",
        SYSTEM,
        "rollout",
        "status",
        "daemonset/portreeve-proxy",
        "--timeout=240s",
    ])?;
    serves_within(site, "172.31.9.").await?;
    own(site, &[second]).await?;
    uninstall(site).await?;
    own(site, &[]).await
}

/// Whatever another controller writes.
async fn a_steady_state_writes_nothing_but_the_lease(site: &Site) -> Result<()> {
    #[allow(clippy::disallowed_methods, reason = "tests have no command line of their own")]
    let time = std::env::var(STEADY).ok().map(|seconds| seconds.parse()).transpose().context(STEADY)?;
    site.cluster.apply(&[&manifests::backend("green", 1), EVERY_ROUTE].concat())?;
    let user = format!("system:serviceaccount:{SYSTEM}:portreeve-controller");
    let ours = |event: &Event| event.user == user;
    let controllers = Controllers { cluster: &site.cluster, ours: &ours };
    controllers.write_nothing(Duration::from_secs(time.unwrap_or(60)), &ROUTES).await
}

/// Waits until the Gateway has one address, which begins so, and serves there.
async fn serves_within(site: &Site, pool: &str) -> Result<()> {
    let address = wait::until(&format!("the Gateway has an address of {pool}"), SOON, async || {
        let addresses = wait::programmed(&site.cluster, "edge", SOON).await?;
        let [address] = addresses[..] else { bail!("it has {addresses:?}") };
        ensure!(address.to_string().starts_with(pool), "it has {address}");
        Ok(address)
    })
    .await?;
    site.serves((address, 80).into()).await
}

/// Waits until each node has one route of ours to each of these ranges and no other.
async fn own(site: &Site, ranges: &[&str]) -> Result<()> {
    let wanted: Vec<_> = ranges.iter().map(|range| format!("local {range} dev lo")).collect();
    wait::until(&format!("each node owns {ranges:?} alone"), SOON, async || {
        for node in site.cluster.nodes() {
            let mut ip = node.namespace.command("ip");
            let routes = run(ip.args(["route", "show", "table", "local", "proto", "117"]))?;
            let are_wanted = routes.lines().zip(&wanted).all(|(route, wanted)| route.starts_with(wanted));
            ensure!(routes.lines().count() == wanted.len() && are_wanted, "{}: {routes}", node.name);
        }
        Ok(())
    })
    .await
}

fn refuses_wrong_values(site: &Site) -> Result<()> {
    let refused = |values: &str| -> Result<String> {
        let error = site.installation.install(&["--dry-run", "--set", values]).err();
        Ok(format!("{:#}", error.with_context(|| format!("{values} was taken"))?))
    };
    for (values, said) in [
        ("controller.replicas=many", "replicas"),
        ("addressProvider.type=cloud", "type"),
        ("proxi.workers=1", "proxi"),
        ("proxy.terminationGracePeriodSeconds=null", "terminationGracePeriodSeconds"),
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

/// In a namespace and for a class of its own.
fn refuses_a_second_release(site: &Site) -> Result<()> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/portreeve");
    let class = "gatewayClass.name=second";
    let second = ["install", "second", chart, "--namespace", "elsewhere", "--set", class];
    let error = site.installation.helm(&second).err().context("a second release was taken")?;
    let message = format!("{error:#}");
    ensure!(message.contains("ClusterRole \"portreeve-controller\""), "{message}");
    Ok(())
}

/// Which containers may change the network of their node.
fn changes_of_network(site: &Site, allowed: &[&str]) -> Result<()> {
    let path = "jsonpath={range .items[*]}{range .spec['initContainers','containers'][*]}\
                {.name} {.securityContext}{\"\\n\"}{end}{end}";
    let said = site.cluster.kubectl(&["-n", SYSTEM, "get", "pods", "-o", path])?;
    for line in said.lines() {
        let (name, context) = line.split_once(' ').unwrap_or_default();
        let may = context.contains("NET_ADMIN");
        ensure!(may == allowed.contains(&name) && !context.contains("\"privileged\":true"), "{line}");
    }
    ensure!(allowed.iter().all(|name| said.contains(name)), "{said}");
    Ok(())
}

/// What RBAC says that controllers and proxies may do.
fn privileges_are_few(site: &Site) -> Result<()> {
    let can = |account: &str, verb: &str, what: &str| {
        let user = format!("--as=system:serviceaccount:{SYSTEM}:{account}");
        // It exits with 1 where the answer is no.
        site.cluster.kubectl(&["auth", "can-i", verb, what, &user, "-n", SYSTEM]).is_ok()
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
        let is_installed = || site.cluster.kubectl(&["get", &what, "--all-namespaces"]).is_ok();
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
