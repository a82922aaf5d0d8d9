//! The way through the demonstration: what must hold, step by step.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use proxy::config_store::in_force::Source;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::report::Report;
use super::visitor::{self, Answer};
use super::world::{HTTP, HTTPS, NODES, STATUS, World, controller_status, name_of};

/// The host of the sample route.
const SHOP: &str = "shop.example.com";
/// A host whose route names a backend that is not there.
const LOST: &str = "lost.example.com";
/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A new leader must lead within this time of the old one's death.
const SUCCESSION: Duration = Duration::from_secs(8);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(2);

/// The demonstration under way.
pub(crate) struct Tour {
    /// What runs.
    pub(crate) world: World,
    /// What was seen.
    pub(crate) report: Report,
}

impl Tour {
    /// Until the first requests are served and statuses say so.
    pub(crate) async fn beginning(&mut self) {
        let Self { world, report } = self;
        report.step("a leader is elected", PATIENCE, leader(world)).await;
        report.step("every proxy holds the configuration", PATIENCE, configured(world)).await;
        report
            .step("the first request is served on each node", PATIENCE, everywhere(SHOP, 200, "cart-v1"))
            .await;
        report.step("statuses say so", PATIENCE, statuses(world)).await;
    }

    /// Changes while traffic runs, the loss of the leader and of a proxy, a broken object.
    pub(crate) async fn losses(&mut self) {
        let Self { world, report } = self;
        let traffic = Traffic::start();
        report.step("a change of weights reaches every proxy", PATIENCE, weights(world, 0, 100)).await;
        report.step("the leader is killed, another one leads", SUCCESSION, succession(world)).await;
        report.step("the new leader's changes are served", PATIENCE, weights(world, 100, 0)).await;
        report.step("a broken route hurts nobody else", PATIENCE, broken(world)).await;
        report
            .step("a killed proxy serves again from its last good config", PATIENCE, proxy_lost(world))
            .await;
        report.step("no request failed meanwhile on the other node", PATIENCE, async { traffic.end() }).await;
    }

    /// What a person can try.
    pub(crate) fn invite(&self) {
        let node = NODES[0];
        let leader = self.world.leader().unwrap_or(1);
        self.report.tell(&format!(
            "\nTry it:\n\
             \x20 curl -H 'Host: {SHOP}' http://{node}:{HTTP}/cart\n\
             \x20 curl -i -H 'Host: {SHOP}' http://{node}:{HTTP}/old/cart\n\
             \x20 curl -k --resolve {SHOP}:{HTTPS}:{node} https://{SHOP}:{HTTPS}/cart\n\
             \x20 curl http://{}/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/cart\n\
             \nOpen in a browser:\n\
             \x20 http://{}/supervision   the leader, controller-{leader}\n\
             \x20 http://{node}:{STATUS}/supervision    the proxy of {}\n\
             \nIt runs until you press Ctrl-C.",
            self.world.api.address(),
            controller_status(leader),
            name_of(node),
        ));
    }
}

async fn leader(world: &World) -> Result<((), String)> {
    loop {
        if let Some(number) = world.leader() {
            return Ok(((), format!("controller-{number}, term {}", world.term(number))));
        }
        sleep(LOOK).await;
    }
}

async fn configured(world: &World) -> Result<((), String)> {
    for (node, proxy) in &world.proxies {
        let mut in_force = proxy.handle.in_force();
        let held = in_force.wait_for(|config| !config.units.is_empty()).await?;
        ensure!(held.broken.is_empty(), "{}: broken units {:?}", name_of(*node), held.broken);
    }
    Ok(((), format!("{} proxies, over mutual TLS", world.proxies.len())))
}

/// Waits until both nodes answer like this.
async fn everywhere(host: &str, status: u16, body: &str) -> Result<((), String)> {
    for node in NODES {
        answers(node, host, status, body).await?;
    }
    Ok(((), format!("{status} {body} on {} and {}", NODES[0], NODES[1])))
}

async fn answers(node: IpAddr, host: &str, status: u16, body: &str) -> Result<()> {
    loop {
        match visitor::get(SocketAddr::new(node, HTTP), host, "/cart").await {
            Ok(Answer { status: got, body: text }) if got == status && text.contains(body) => return Ok(()),
            _ => sleep(LOOK).await,
        }
    }
}

fn api(world: &World, kind: &str, plural: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind);
    Api::namespaced_with(world.sandbox.client(), "shop", &ApiResource::from_gvk_with_plural(&kind, plural))
}

async fn statuses(world: &World) -> Result<((), String)> {
    let gateway = |object: &Value| object.pointer("/status/conditions").cloned();
    let route = |object: &Value| object.pointer("/status/parents/0/conditions").cloned();
    condition(&api(world, "Gateway", "gateways"), "web", gateway, ("Programmed", "True", "Programmed"))
        .await?;
    condition(&api(world, "HTTPRoute", "httproutes"), "cart", route, ("Accepted", "True", "Accepted"))
        .await?;
    Ok(((), "Gateway web is Programmed, HTTPRoute cart is Accepted".to_owned()))
}

/// Waits until an object has a condition of this type, status and reason.
async fn condition(
    api: &Api<DynamicObject>,
    name: &str,
    conditions: impl Fn(&Value) -> Option<Value>,
    (kind, status, reason): (&str, &str, &str),
) -> Result<()> {
    loop {
        let object = serde_json::to_value(api.get(name).await?)?;
        let all = conditions(&object).unwrap_or_default();
        let found = all.as_array().into_iter().flatten().any(|condition| {
            condition["type"] == kind && condition["status"] == status && condition["reason"] == reason
        });
        if found {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

/// Patches the weights and waits until every node serves the one backend that has all of it.
async fn weights(world: &World, first: u32, second: u32) -> Result<((), String)> {
    let change = json!([
        {"op": "replace", "path": "/spec/rules/1/backendRefs/0/weight", "value": first},
        {"op": "replace", "path": "/spec/rules/1/backendRefs/1/weight", "value": second},
    ]);
    let patch = Patch::Json::<()>(serde_json::from_value(change)?);
    api(world, "HTTPRoute", "httproutes").patch("cart", &PatchParams::default(), &patch).await?;
    let backend = if second > first { "cart-v2" } else { "cart-v1" };
    everywhere(SHOP, 200, backend).await
}

async fn succession(world: &mut World) -> Result<((), String)> {
    let old = world.leader().context("nobody leads")?;
    let term = world.term(old);
    world.controllers.remove(&old).context("it lives")?.kill();
    loop {
        if let Some(new) = world.leader() {
            let (now, name) = (world.term(new), format!("controller-{new}"));
            ensure!(now > term, "{name} leads in term {now}, not above {term}");
            return Ok(((), format!("controller-{old} was killed, {name} leads in term {now}")));
        }
        sleep(LOOK).await;
    }
}

async fn broken(world: &World) -> Result<((), String)> {
    let manifest = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "lost", "namespace": "shop"},
        "spec": {
            "parentRefs": [{"name": "web"}],
            "hostnames": [LOST],
            "rules": [{"backendRefs": [{"name": "not-there", "port": 80}]}],
        },
    });
    world.sandbox.apply_yaml(&manifest.to_string()).await?;
    let route = |object: &Value| object.pointer("/status/parents/0/conditions").cloned();
    let says = ("ResolvedRefs", "False", "BackendNotFound");
    condition(&api(world, "HTTPRoute", "httproutes"), "lost", route, says).await?;
    everywhere(LOST, 500, "").await?;
    everywhere(SHOP, 200, "cart-v1").await?;
    Ok(((), "its own status says BackendNotFound, its host answers 500, the shop 200".to_owned()))
}

async fn proxy_lost(world: &mut World) -> Result<((), String)> {
    let node = NODES[1];
    world.proxies.remove(&node).context("it lives")?.kill();
    let gone = SocketAddr::new(node, HTTP);
    while visitor::get(gone, SHOP, "/cart").await.is_ok() {
        sleep(LOOK).await;
    }
    let start = std::time::Instant::now();
    while let Err(error) = world.start_proxy(node).await {
        // The system may still be closing the sockets of the killed one.
        if start.elapsed() > PATIENCE / 2 {
            return Err(error);
        }
        sleep(LOOK).await;
    }
    let source = world.proxies.get(&node).map(|proxy| proxy.handle.in_force().borrow().source);
    answers(node, SHOP, 200, "cart-v1").await?;
    let took = start.elapsed().as_millis();
    if source == Some(Source::Nothing) {
        bail!("it had to wait for a controller");
    }
    Ok(((), format!("{} answered {took} ms after its restart", name_of(node))))
}

/// A visitor who asks the first node all the time.
struct Traffic {
    asked: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    visitor: tokio::task::JoinHandle<()>,
}

impl Traffic {
    fn start() -> Self {
        let (asked, failed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counts = (asked.clone(), failed.clone());
        let visitor = tokio::spawn(async move {
            loop {
                let answer = visitor::get(SocketAddr::new(NODES[0], HTTP), SHOP, "/cart").await;
                counts.0.fetch_add(1, Relaxed);
                if !answer.is_ok_and(|answer| answer.status == 200) {
                    counts.1.fetch_add(1, Relaxed);
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        Self { asked, failed, visitor }
    }

    fn end(self) -> Result<((), String)> {
        self.visitor.abort();
        let (asked, failed) = (self.asked.load(Relaxed), self.failed.load(Relaxed));
        ensure!(failed == 0, "{failed} of {asked} requests failed");
        Ok(((), format!("{asked} requests, 0 failed")))
    }
}
