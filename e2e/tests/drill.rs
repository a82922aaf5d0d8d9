//! Requests flow and routes change while every actor of a controller that leads and of a proxy is killed, one
//! after the other: no request fails, each actor is back with what it held, the next change is served.
//!
//! The actors are those that the live trees have, so that a new one is covered by itself. What panics and
//! errors do is tested in `actors/tests/house/drill.rs` and `proxy/tests/control/drill.rs`; here both trees
//! are real and work on each other.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use actors::push::authority::{AUTHORITY_LIFE, Authority, LEAF_LIFE};
use actors::push::credentials::Trust;
use actors::tree::Controller;
use proxy::tree::Proxy;
use sandbox::Sandbox;
use supervisor::{ChildState, Drill, Fault, LiveTree, NodeState};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

#[path = "trees/shop.rs"]
mod shop;

const NODES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 78, 1)), IpAddr::V4(Ipv4Addr::new(127, 0, 78, 2))];
const PORT: u16 = 18_081;
/// A request is answered, an actor is back and a change is served within this time, a new leader included.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two requests of a client: the machine is shared.
const PAUSE: Duration = Duration::from_millis(4);

/// A Kubernetes API, two proxies, and three controllers of which one leads.
struct World {
    sandbox: Sandbox,
    proxies: Vec<Proxy>,
    controllers: Vec<Controller>,
    turn: usize,
}

impl World {
    async fn start() -> Self {
        let sandbox = shop::sandbox(PORT, Ipv4Addr::LOCALHOST.into()).await;
        let authority = Arc::new(Authority::generate(SystemTime::now(), AUTHORITY_LIFE).unwrap());
        let (mut proxies, mut fleet) = (Vec::new(), BTreeMap::new());
        for node in NODES {
            let proxy = start_proxy(node, &authority).await;
            fleet.insert(shop::name(node), proxy.admin_address());
            proxies.push(proxy);
        }
        let mut controllers = Vec::new();
        for name in ["a", "b", "c"] {
            controllers.push(start_controller(name, &sandbox, &authority, &fleet).await);
        }
        let mut world = Self { sandbox, proxies, controllers, turn: 0 };
        world.change().await;
        world
    }

    /// Changes the route, and waits until each proxy serves the change.
    async fn change(&mut self) {
        self.turn += 1;
        self.sandbox.apply_object(shop::route(self.turn)).await.unwrap();
        for node in NODES {
            let begun = Instant::now();
            while get(None, node, "close").await.is_none_or(|(_, turn, _)| turn != self.turn) {
                assert!(begun.elapsed() < PATIENCE, "{node} does not serve turn {}", self.turn);
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// The controller that leads, once exactly one does.
    async fn leader(&self) -> &Controller {
        let begun = Instant::now();
        loop {
            let leads = |one: &&Controller| one.edges.leadership.borrow().is_some();
            let leading: Vec<_> = self.controllers.iter().filter(leads).collect();
            assert!(leading.len() <= 1, "two lead at once");
            if let [one] = leading[..] {
                return one;
            }
            assert!(begun.elapsed() < PATIENCE, "nobody leads");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn start_proxy(node: IpAddr, authority: &Authority) -> Proxy {
    let identity = watch::Sender::new(shop::issue(authority, &shop::name(node), LEAF_LIFE));
    shop::proxy(node, identity.subscribe()).await
}

async fn start_controller(
    name: &str,
    sandbox: &Sandbox,
    authority: &Arc<Authority>,
    fleet: &BTreeMap<String, SocketAddr>,
) -> Controller {
    let trust = Trust::Memory(authority.clone());
    let mut settings = shop::settings(name, sandbox, trust, "default", fleet);
    settings.status_bind = Some((Ipv4Addr::LOCALHOST, 0).into());
    settings.admin_bind = Some((Ipv4Addr::LOCALHOST, 0).into());
    actors::tree::run(settings).await.unwrap()
}

/// Kills an actor, and waits until it is back and the whole tree is up.
async fn kill(drill: &Drill, live: &LiveTree, path: &[String]) {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let before = live.snapshot().at(&names).unwrap().restarts;
    drill.strike(path, Fault::Kill).await.unwrap();
    let begun = Instant::now();
    loop {
        let tree = live.snapshot();
        if let Some(node) = tree.at(&names).filter(|node| node.restarts > before && all_up(&tree)) {
            assert_eq!(node.last_error.as_deref(), Some("killed"), "{names:?}");
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{names:?} is not back: {tree:#?}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn all_up(node: &NodeState) -> bool {
    match node.state {
        ChildState::Running => node.children.iter().all(all_up),
        ChildState::Gated => true,
        _ => false,
    }
}

/// Clients of both nodes: some keep their connections, some connect anew for each request.
struct Traffic {
    seen: Arc<Seen>,
    _clients: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    answered: AtomicU64,
    /// Requests that met a kept connection that had just ended, and were sent again (RFC 9112 section 9.3.1).
    resent: AtomicU64,
    failed: Mutex<Vec<String>>,
}

impl Traffic {
    fn start() -> Self {
        let (seen, mut clients) = (Arc::<Seen>::default(), JoinSet::new());
        for node in NODES.into_iter().flat_map(|node| [node; 3]) {
            clients.spawn(visit(node, "keep-alive", seen.clone()));
            clients.spawn(visit(node, "close", seen.clone()));
        }
        Self { seen, _clients: clients }
    }

    #[track_caller]
    fn check(&self, after: &str) {
        let failed = self.seen.failed.lock().unwrap();
        assert!(failed.is_empty(), "after {after}: {failed:?}");
    }
}

async fn visit(node: IpAddr, connection: &'static str, seen: Arc<Seen>) {
    let mut kept = None;
    loop {
        let reused = kept.is_some();
        match get(kept.take(), node, connection).await {
            Some((stream, _, closes)) => {
                seen.answered.fetch_add(1, Relaxed);
                kept = (!closes).then_some(stream);
            }
            None if reused => drop(seen.resent.fetch_add(1, Relaxed)),
            None => seen.failed.lock().unwrap().push(format!("{connection} to {node}")),
        }
        sleep(PAUSE).await;
    }
}

/// A request on a connection that is kept, or a new one: the connection, the turn of the route that answered,
/// and whether the connection ends now. None where there is no answer, or not a 200.
async fn get(kept: Option<TcpStream>, node: IpAddr, connection: &str) -> Option<(TcpStream, usize, bool)> {
    let ask = async {
        let mut stream = match kept {
            Some(stream) => stream,
            None => TcpStream::connect((node, PORT)).await.ok()?,
        };
        let (turn, closes) = shop::ask(&mut stream, connection).await.ok()?;
        Some((stream, turn, closes))
    };
    timeout(PATIENCE, ask).await.ok()?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_every_actor_is_killed_one_after_the_other() {
    let mut world = World::start().await;
    let traffic = Traffic::start();
    let of_the_leader = world.leader().await.running.drill().paths();
    let of_the_proxy = world.proxies[0].drill().paths();
    assert!(of_the_leader.len() > 20 && of_the_proxy.len() > 6, "{of_the_leader:?} {of_the_proxy:?}");
    for path in &of_the_leader {
        let leader = world.leader().await;
        kill(&leader.running.drill(), &leader.running.live, path).await;
        world.change().await;
        traffic.check(&path.join("/"));
    }
    // One at a time may meet a kept connection that ends: the workers' are the only ones that do.
    assert_eq!(traffic.seen.resent.load(Relaxed), 0, "no controller is in the way of a request");
    for path in &of_the_proxy {
        kill(&world.proxies[0].drill(), world.proxies[0].live(), path).await;
        world.change().await;
        traffic.check(&path.join("/"));
    }
    let before = world.leader().await.edges.leadership.borrow().unwrap().term;
    let leads = |one: &Controller| one.edges.leadership.borrow().is_some();
    let first = world.controllers.iter().position(leads).unwrap();
    let dead = world.controllers.remove(first);
    dead.running.drill().strike(&[] as &[&str], Fault::Kill).await.unwrap();
    dead.running.stopped().await.unwrap_err();
    world.change().await;
    assert!(world.leader().await.edges.leadership.borrow().unwrap().term > before);
    traffic.check("the whole leader");
    assert!(traffic.seen.answered.load(Relaxed) > 1000, "{:?}", traffic.seen);
    for controller in &world.controllers {
        controller.running.stop().await.unwrap();
    }
    for proxy in &world.proxies {
        proxy.stop().await.unwrap();
    }
}
