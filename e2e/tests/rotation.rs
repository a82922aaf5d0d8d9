//! The authority between controllers and proxies is succeeded while routes change and requests flow: no push is
//! refused and no request fails, in all steps of the succession and over many lives of what it issues.
//!
//! In real time, with lives of seconds: certificates end by the wall clock.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actors::push::authority::{Authority, Lives};
use actors::push::credentials::{SECRET, Trust, load};
use actors::tree::Controller;
use proxy::admin::identity::Identity;
use proxy::tree::Proxy;
use sandbox::{Faults, Sandbox};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

#[path = "trees/shop.rs"]
mod shop;

/// An authority gets a successor 12 s before its end, which signs 6 s after that.
const LIVES: Lives = Lives { authority: Duration::from_secs(24), leaf: Duration::from_secs(3) };
/// The one that there is ends so long after the start: it was made by an earlier life of the cluster.
const LEFT: Duration = Duration::from_secs(18);
/// Until the old one has ended, and a little more.
const LONG_ENOUGH: Duration = Duration::from_secs(21);
const NAMESPACE: &str = "portreeve-system";
const NODES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 77, 1)), IpAddr::V4(Ipv4Addr::new(127, 0, 77, 2))];
const PORT: u16 = 18_080;

/// A proxy with the identity that the channel holds.
struct Edge {
    name: String,
    proxy: Proxy,
    identity: watch::Sender<Arc<Identity>>,
}

async fn edge(node: IpAddr, authority: &Authority) -> Edge {
    let name = shop::name(node);
    let identity = watch::Sender::new(shop::issue(authority, &name, LIVES.leaf));
    let proxy = shop::proxy(node, identity.subscribe()).await;
    Edge { name, proxy, identity }
}

/// Two controllers, of which one leads.
async fn controllers(sandbox: &Sandbox, edges: &[Edge]) -> Vec<Controller> {
    let fleet: BTreeMap<_, _> =
        edges.iter().map(|edge| (edge.name.clone(), edge.proxy.admin_address())).collect();
    let mut all = Vec::new();
    for name in ["a", "b"] {
        let trust = Trust::Secret(sandbox.client_with(name, Faults::none()), NAMESPACE.to_owned());
        let mut settings = shop::settings(name, sandbox, trust, NAMESPACE, &fleet);
        settings.lives = LIVES;
        all.push(actors::tree::run(settings).await.unwrap());
    }
    all
}

/// What issues to proxies: again each second, a third of what is issued.
fn reissue(sandbox: &Sandbox, edges: &[Edge]) -> AbortOnDropHandle<()> {
    let senders: Vec<_> = edges.iter().map(|edge| (edge.name.clone(), edge.identity.clone())).collect();
    let client = sandbox.client_with("issuer", Faults::none());
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let authority = load(&client, NAMESPACE).await.unwrap().unwrap();
            for (name, sender) in &senders {
                sender.send_replace(shop::issue(&authority, name, LIVES.leaf));
            }
            sleep(Duration::from_secs(1)).await;
        }
    }))
}

/// The turn that an answer carries; `Err`: what came instead of a 200.
async fn get(stream: &mut TcpStream) -> Result<usize, String> {
    let asked = timeout(Duration::from_secs(5), shop::ask(stream, "keep-alive")).await;
    let (turn, _) = asked.map_err(|late| late.to_string())??;
    Ok(turn)
}

/// Waits until a proxy serves this turn.
async fn serves(node: IpAddr, turn: usize) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(mut stream) = TcpStream::connect((node, PORT)).await
            && get(&mut stream).await.is_ok_and(|served| served >= turn)
        {
            return stream;
        }
        assert!(Instant::now() < deadline, "{node} does not serve turn {turn}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Requests on one connection until the test is over; how many, and the newest turn that was seen.
fn load_on(mut stream: TcpStream) -> (watch::Receiver<(usize, usize)>, AbortOnDropHandle<()>) {
    let (seen, tally) = watch::channel((0, 0));
    let asking = async move {
        loop {
            let turn = get(&mut stream).await.expect("every request is answered with 200");
            seen.send_modify(|(count, newest)| (*count, *newest) = (*count + 1, turn.max(*newest)));
            sleep(Duration::from_millis(5)).await;
        }
    };
    (tally, AbortOnDropHandle::new(tokio::spawn(asking)))
}

/// Changes the route until the old authority has ended; the last turn, and the steps of the succession: whether the
/// old one signs, whether another waits, whether the old one is trusted.
async fn change_routes(
    sandbox: &Sandbox,
    controllers: &[Controller],
    old: &Authority,
) -> (usize, Vec<(bool, bool, bool)>) {
    let (started, mut turn, mut steps) = (Instant::now(), 0, Vec::new());
    while started.elapsed() < LONG_ENOUGH {
        turn += 1;
        sandbox.apply_object(shop::route(turn)).await.unwrap();
        sleep(Duration::from_millis(100)).await;
        for controller in controllers {
            for answers in controller.edges.board.read().borrow().values() {
                assert_eq!(
                    (&answers.failure, &answers.refused),
                    (&None, &None),
                    "at {:?}",
                    started.elapsed()
                );
            }
        }
        let authority = load(&sandbox.client(), NAMESPACE).await.unwrap().unwrap();
        let trusts_old = authority.certificates().contains(old.certificates());
        let step = (authority.key_pem() == old.key_pem(), authority.next_key_pem().is_some(), trusts_old);
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }
    (turn, steps)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_succession_of_the_authority_fails_no_push_and_no_request() {
    let sandbox = shop::sandbox(PORT, Ipv4Addr::LOCALHOST.into()).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    sandbox.apply_object(namespace).await.unwrap();
    sandbox.apply_object(shop::route(0)).await.unwrap();
    let old = Authority::generate(SystemTime::now(), LEFT).unwrap();
    let data = json!({"tls.crt": old.certificates(), "tls.key": old.key_pem()});
    let metadata = json!({"name": SECRET, "namespace": NAMESPACE});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data});
    sandbox.apply_object(secret).await.unwrap();

    let edges = [edge(NODES[0], &old).await, edge(NODES[1], &old).await];
    let controllers = controllers(&sandbox, &edges).await;
    let _reissuing = reissue(&sandbox, &edges);
    let mut loads = Vec::new();
    for node in NODES {
        loads.push(load_on(serves(node, 0).await));
    }
    let (turn, steps) = change_routes(&sandbox, &controllers, &old).await;
    let (announced, handed_over) = ((true, true, true), (false, false, true));
    assert_eq!(steps[..3], [(true, false, true), announced, handed_over], "the old one signs, another waits");
    assert!(steps[3..].iter().any(|(_, _, trusts_old)| !trusts_old), "the old one has ended: {steps:?}");
    for (node, (tally, _)) in NODES.into_iter().zip(&mut loads) {
        serves(node, turn).await;
        let seen = tally.wait_for(|(count, newest)| *count > 500 && newest + 5 > turn);
        let seen = timeout(Duration::from_secs(10), seen).await.is_ok_and(|seen| seen.is_ok());
        let (count, newest) = *tally.borrow();
        assert!(seen, "{count} requests, at turn {newest} of {turn}");
    }
    for controller in &controllers {
        let text = controller.edges.metrics.render(&controller.running.live.snapshot());
        let failed = |line: &&str| {
            line.starts_with("portreeve_controller_pushes_total")
                && !line.contains("\"acked\"")
                && !line.contains("\"differs\"")
        };
        assert_eq!(text.lines().filter(failed).collect::<Vec<_>>(), Vec::<&str>::new());
        controller.running.stop().await.unwrap();
    }
    for edge in edges {
        edge.proxy.stop().await.unwrap();
    }
}
