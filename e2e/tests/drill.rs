//! Requests flow and routes change while every actor of a controller that leads and of a proxy is killed, one
//! after the other: no request fails, each actor is back with what it held, the next change is served.
//!
//! The actors are those that the live trees have, so that a new one is covered by itself. What panics and
//! errors do is tested in `actors/tests/house/drill.rs` and `proxy/tests/control/drill.rs`; here both trees
//! are real and work on each other.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use actors::push::authority::{AUTHORITY_LIFE, Authority, LEAF_LIFE};
use actors::push::credentials::Trust;
use actors::push::identity::Role;
use actors::settings::{Fleet, LeaseSettings, Settings};
use actors::tree::Controller;
use actors_core::translate;
use proxy::admin::identity::TlsSource;
use proxy::listen::drain::DrainSettings;
use proxy::tree::Proxy;
use sandbox::{Channel, Faults, Options, Sandbox};
use serde_json::json;
use supervisor::{ChildState, Drill, Fault, LiveTree, NodeState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const NODES: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 78, 1), Ipv4Addr::new(127, 0, 78, 2)];
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
        let sandbox = Sandbox::new(Options { loopback_endpoints: true, ..Options::default() });
        sandbox.install_gateway_api(Channel::Standard).await.unwrap();
        sandbox.apply_yaml(&ground(backend().await)).await.unwrap();
        let authority = Arc::new(Authority::generate(SystemTime::now(), AUTHORITY_LIFE).unwrap());
        let (mut proxies, mut fleet) = (Vec::new(), BTreeMap::new());
        for node in NODES {
            let proxy = start_proxy(node, &authority).await;
            fleet.insert(format!("edge-{node}"), proxy.admin_address());
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
        self.sandbox.apply_object(route(self.turn)).await.unwrap();
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

async fn start_proxy(node: Ipv4Addr, authority: &Authority) -> Proxy {
    let identity = format!("edge-{node}");
    let issued = authority.issue(&Role::Proxy(identity.clone()), SystemTime::now(), LEAF_LIFE).unwrap();
    let (authorities, chain) = (issued.authorities.into(), issued.chain.into());
    let held = proxy::admin::identity::Identity { authorities, chain, key: issued.key };
    let settings = proxy::settings::Settings {
        identity,
        node_address: node.into(),
        admin_bind: (node, 0).into(),
        status_bind: (node, 0).into(),
        status_socket: None,
        tls: TlsSource::Held(tokio::sync::watch::Sender::new(Arc::new(held)).subscribe()),
        state_dir: None,
        workers: 2,
        limits: proxy::limits::Limits::new(200),
        drain: DrainSettings::default(),
        resolver: proxy::resolver::ResolverSettings::default(),
    };
    proxy::tree::run(settings).await.unwrap()
}

async fn start_controller(
    name: &str,
    sandbox: &Sandbox,
    authority: &Arc<Authority>,
    fleet: &BTreeMap<String, SocketAddr>,
) -> Controller {
    let client = || sandbox.client_with(name, Faults::none());
    let trust = Trust::Memory(authority.clone());
    let mut settings = Settings::new(name, client(), translate::Settings::default(), trust);
    settings.fleet = Fleet::Named(fleet.clone());
    settings.status_bind = Some((Ipv4Addr::LOCALHOST, 0).into());
    settings.admin_bind = Some((Ipv4Addr::LOCALHOST, 0).into());
    settings.lease = Some(LeaseSettings {
        client: client(),
        namespace: "default".to_owned(),
        name: "portreeve-leader".to_owned(),
        identity: actors::lease_leader::identity(name, "uid"),
    });
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

async fn visit(node: Ipv4Addr, connection: &'static str, seen: Arc<Seen>) {
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
async fn get(kept: Option<TcpStream>, node: Ipv4Addr, connection: &str) -> Option<(TcpStream, usize, bool)> {
    let ask = async {
        let mut stream = match kept {
            Some(stream) => stream,
            None => TcpStream::connect((node, PORT)).await.ok()?,
        };
        let request = format!("GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: {connection}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut text).await.ok()? == 0 {
                return None;
            }
        }
        let text = String::from_utf8(text).ok()?.to_ascii_lowercase();
        let turn = text.lines().find_map(|line| line.strip_prefix("turn: "))?.parse().ok()?;
        text.starts_with("http/1.1 200 ").then(|| (stream, turn, text.contains("connection: close")))
    };
    timeout(PATIENCE, ask).await.ok()?
}

/// A backend that answers every request with 200 and nothing; its port.
async fn backend() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                    }
                }
            });
        }
    });
    port
}

fn ground(port: u16) -> String {
    format!(
        r"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: portreeve}}
spec: {{controllerName: portreeve.dev/gateway-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  gatewayClassName: portreeve
  listeners: [{{name: http, port: {PORT}, protocol: HTTP}}]
---
apiVersion: v1
kind: Service
metadata: {{name: shop, namespace: default}}
spec: {{ports: [{{name: http, port: 80, protocol: TCP}}], clusterIP: 10.96.0.9}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: shop-1, namespace: default, labels: {{kubernetes.io/service-name: shop}}}}
addressType: IPv4
ports: [{{name: http, port: {port}, protocol: TCP}}]
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]
"
    )
}

fn route(turn: usize) -> serde_json::Value {
    let set = json!([{"name": "turn", "value": turn.to_string()}]);
    let filter = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": set}});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {
            "parentRefs": [{"name": "edge"}],
            "rules": [{"filters": [filter], "backendRefs": [{"name": "shop", "port": 80}]}],
        },
    })
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
