//! The control plane: who exists, who restarts whom, and which edges outlive them.
//!
//! Called by the command and by tests. The edges are channels made once, beside the tree; each (re)start
//! of an actor gets clones of them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actors_core::election::Timing;
use supervisor::Strategy::{OneForOne, RestForOne};
use supervisor::{Address, Child, Intensity, Shutdown, StartError, branch, dynamic, worker};
use thiserror::Error;

use crate::admin::{self, Admin};
use crate::client::bounded;
use crate::clock::Clock;
use crate::lead::event_writer::{self, EventWriter};
use crate::lead::gateway_objects::{self, GatewayObjects};
use crate::lead::status_writer::{self, StatusWriter};
use crate::lead::trust_bundle::{self, TrustBundle};
use crate::lease_leader::{self, LeaseLeader};
use crate::observe::content_reader::{self, ContentReader};
use crate::observe::node_watcher::{self, AdminPorts, NodeWatcher};
use crate::observe::resync::{self, Resync};
use crate::observe::route_watcher::{self, RouteWatcher};
use crate::observe::translator::{self, Translator};
use crate::observe::watch::{self as watching, Watch};
use crate::push::credentials::{self, Credentials, Trust};
use crate::push::enrolment::Enrolment;
use crate::push::proxy_client;
use crate::push::pusher::{self, Pusher, Watched};
use crate::settings::{Fleet, LeaseSettings, Settings};

pub mod edges;
mod ports;
pub mod standalone;

use edges::Edges;
use ports::bind;

const MINUTE: Duration = Duration::from_secs(60);

/// How long each step may take of stopping what only a leader runs: all of them within the 1.5 s after which
/// another one may lead.
pub(crate) const STEP_DOWN: Shutdown = Shutdown::Timeout(Duration::from_millis(400));

/// The same for who has nothing to finish: who tells of trouble, and who makes Services.
const LAST_WORDS: Shutdown = Shutdown::Timeout(Duration::from_millis(100));

/// How long giving up the Lease may take at a stop.
const RELEASE: Duration = Duration::from_secs(2);

/// The whole tree. Its root's limit ends the process: Kubernetes is the last supervisor.
pub fn control_plane(settings: &Settings, edges: &Edges, admin: admin::Args) -> Child {
    branch(
        "controller",
        OneForOne,
        Intensity::new(10, MINUTE),
        vec![
            worker("credentials", &Address::new(), credentials(settings, edges)),
            worker("admin", &Address::new(), move || (Admin, admin.clone())),
            observe(settings, edges),
            leadership(settings, edges),
        ],
    )
}

/// Every replica observes and translates: a follower is warm.
fn observe(settings: &Settings, edges: &Edges) -> Child {
    branch(
        "observe",
        RestForOne,
        Intensity::new(10, MINUTE),
        vec![
            watches(settings, edges),
            worker("node-watcher", &Address::new(), node_watcher(settings, edges)),
            worker("route-watcher", &edges.route_watcher, route_watcher(edges)),
            worker("translator", &Address::new(), translator(settings, edges)),
            worker("resync", &Address::new(), resync(settings, edges)),
        ],
    )
}

/// A watcher for each kind, and the reader of what Secrets hold.
fn watches(settings: &Settings, edges: &Edges) -> Child {
    let mut children: Vec<_> = (edges.watched.iter())
        .map(|Watched { resource, watcher }| {
            let args = watching::Args {
                client: settings.client.clone(),
                resource: resource.clone(),
                stores: edges.stores.clone(),
                metrics: edges.metrics.clone(),
            };
            worker(resource.plural(), watcher, move || (Watch, args.clone()))
        })
        .collect();
    let reader = content_reader::Args {
        client: settings.client.clone(),
        stores: edges.stores.clone(),
        wanted: edges.wanted.subscribe(),
        gate: edges.gate.subscribe(),
    };
    children.push(worker("content-reader", &Address::new(), move || (ContentReader, reader.clone())));
    // What ends them all at once, as an API server that resets every connection may, is to be borne, and once more.
    branch("watches", OneForOne, Intensity::new(40, MINUTE), children)
}

/// Who leads, and below it what only the leader runs: when the election restarts, that stops first.
fn leadership(settings: &Settings, edges: &Edges) -> Child {
    let elector = settings.lease.clone().map(|lease| {
        worker("lease-leader", &Address::new(), lease_leader(lease, edges))
            .shutdown(Shutdown::Timeout(RELEASE))
    });
    branch(
        "leadership",
        RestForOne,
        Intensity::new(10, MINUTE),
        elector.into_iter().chain([serve(settings, edges)]).collect(),
    )
}

fn lease_leader(
    lease: LeaseSettings,
    edges: &Edges,
) -> impl Fn() -> (LeaseLeader, lease_leader::Args) + Send + Sync + 'static {
    let args = lease_leader::Args {
        client: lease.client,
        namespace: lease.namespace,
        lease: lease.name,
        identity: lease.identity,
        timing: Timing::default(),
        clock: Clock::default(),
        wall: Arc::new(jiff::Timestamp::now),
        leadership: edges.leadership.clone(),
        gate: edges.gate.clone(),
        standing: edges.standing.clone(),
        highest_term: edges.highest_term.subscribe(),
        acting: edges.acting.subscribe(),
        overrun: edges.overrun.clone(),
    };
    move || (LeaseLeader, args.clone())
}

/// What only the leader runs: a new term is a stop, then a start.
fn serve(settings: &Settings, edges: &Edges) -> Child {
    branch(
        "serve",
        OneForOne,
        Intensity::new(10, MINUTE),
        vec![
            worker("event-writer", &edges.events, event_writer(settings, edges)).shutdown(LAST_WORDS),
            worker("status-writer", &Address::new(), status_writer(settings, edges)).shutdown(STEP_DOWN),
            worker("gateway-objects", &Address::new(), gateway_objects(settings, edges)).shutdown(LAST_WORDS),
            branch(
                "push",
                RestForOne,
                Intensity::new(10, MINUTE),
                vec![
                    worker("pusher", &Address::new(), pusher(settings, edges)).shutdown(STEP_DOWN),
                    dynamic("proxy-clients", Intensity::new(20, MINUTE), edges.clients.subscribe()),
                ],
            ),
        ]
        .into_iter()
        .chain(trust_bundle(settings, edges))
        .collect(),
    )
    .gated(edges.gate.subscribe())
    .counted(edges.acting.clone())
}

fn credentials(
    settings: &Settings,
    edges: &Edges,
) -> impl Fn() -> (Credentials, credentials::Args) + Send + Sync + 'static {
    let args = credentials::Args {
        trust: settings.trust.clone(),
        lives: settings.lives,
        leadership: edges.leadership.subscribe(),
        identity: edges.identity.clone(),
    };
    move || (Credentials, args.clone())
}

fn node_watcher(
    settings: &Settings,
    edges: &Edges,
) -> impl Fn() -> (NodeWatcher, node_watcher::Args) + Send + Sync + 'static {
    let admin = match &settings.fleet {
        Fleet::Pods(_, port) => AdminPorts::Same(*port),
        Fleet::Named(names) => AdminPorts::Named(names.clone()),
    };
    let args = node_watcher::Args { stores: edges.stores.clone(), admin, proxies: edges.proxies.clone() };
    move || (NodeWatcher, args.clone())
}

fn route_watcher(edges: &Edges) -> impl Fn() -> (RouteWatcher, route_watcher::Args) + Send + Sync + 'static {
    let args = route_watcher::Args {
        stores: edges.stores.clone(),
        generation: edges.generation.clone(),
        snapshot: edges.snapshot.clone(),
        resync: edges.resync.subscribe(),
        gate: edges.gate.subscribe(),
        metrics: edges.metrics.clone(),
    };
    move || (RouteWatcher, args.clone())
}

fn resync(settings: &Settings, edges: &Edges) -> impl Fn() -> (Resync, resync::Args) + Send + Sync + 'static {
    let args = resync::Args { every: settings.resync, resync: edges.resync.clone() };
    move || (Resync, args.clone())
}

fn translator(
    settings: &Settings,
    edges: &Edges,
) -> impl Fn() -> (Translator, translator::Args) + Send + Sync + 'static {
    let args = translator::Args {
        settings: settings.translate.clone(),
        snapshot: edges.snapshot.subscribe(),
        translation: edges.translation.clone(),
        wanted: edges.wanted.clone(),
        metrics: edges.metrics.clone(),
    };
    move || (Translator, args.clone())
}

fn event_writer(
    settings: &Settings,
    edges: &Edges,
) -> impl Fn() -> (EventWriter, event_writer::Args) + Send + Sync + 'static {
    let args = event_writer::Args {
        client: settings.client.clone(),
        controller_name: settings.translate.controller_name.as_str().into(),
        name: settings.name.as_str().into(),
        leadership: edges.leadership.subscribe(),
        metrics: edges.metrics.clone(),
    };
    move || (EventWriter, args.clone())
}

fn status_writer(
    settings: &Settings,
    edges: &Edges,
) -> impl Fn() -> (StatusWriter, status_writer::Args) + Send + Sync + 'static {
    let args = status_writer::Args {
        client: settings.client.clone(),
        controller_name: settings.translate.controller_name.as_str().into(),
        stores: edges.stores.clone(),
        translation: edges.translation.subscribe(),
        acks: edges.board.read(),
        proxies: edges.proxies.subscribe(),
        events: edges.events.clone(),
        resync: edges.resync.subscribe(),
        leadership: edges.leadership.subscribe(),
        metrics: edges.metrics.clone(),
    };
    move || (StatusWriter, args.clone())
}

/// Where proxies are Pods that are given their identity: whom they are to trust until then.
fn trust_bundle(settings: &Settings, edges: &Edges) -> Option<Child> {
    let Trust::Secret(client, namespace) = &settings.trust else { return None };
    let args = trust_bundle::Args {
        client: client.clone(),
        namespace: namespace.clone(),
        identity: edges.identity.subscribe(),
        leadership: edges.leadership.subscribe(),
    };
    let start = move || (TrustBundle, args.clone());
    Some(worker("trust-bundle", &Address::new(), start).shutdown(STEP_DOWN))
}

fn gateway_objects(
    settings: &Settings,
    edges: &Edges,
) -> impl Fn() -> (GatewayObjects, gateway_objects::Args) + Send + Sync + 'static {
    let args = gateway_objects::Args {
        client: settings.client.clone(),
        stores: edges.stores.clone(),
        translation: edges.translation.subscribe(),
        leadership: edges.leadership.subscribe(),
    };
    move || (GatewayObjects, args.clone())
}

fn pusher(settings: &Settings, edges: &Edges) -> impl Fn() -> (Pusher, pusher::Args) + Send + Sync + 'static {
    let (dial, shared) = (settings.dial.clone(), edges.clone());
    let client_args = move |proxy| proxy_client::Args {
        proxy,
        outgoing: shared.outgoing.subscribe(),
        identity: shared.identity.subscribe(),
        leadership: shared.leadership.subscribe(),
        highest_term: shared.highest_term.clone(),
        board: shared.board.clone(),
        dial: dial.clone(),
        metrics: shared.metrics.clone(),
    };
    let args = pusher::Args {
        client: settings.client.clone(),
        watched: edges.watched.clone(),
        stores: edges.stores.clone(),
        generation: edges.generation.clone(),
        route_watcher: edges.route_watcher.clone(),
        wanted: edges.wanted.subscribe(),
        translation: edges.translation.subscribe(),
        proxies: edges.proxies.subscribe(),
        outgoing: edges.outgoing.clone(),
        clients: edges.clients.clone(),
        client_args: Arc::new(client_args),
    };
    move || (Pusher, args.clone())
}

/// A controller that runs.
#[derive(Debug)]
pub struct Controller {
    /// The tree.
    pub running: supervisor::Running,
    /// What flows in it.
    pub edges: Edges,
    /// Where its status is shown.
    pub status: Option<SocketAddr>,
    /// Where it is asked for its configuration, and for a resync.
    pub admin: Option<SocketAddr>,
}

/// Why a controller can't start.
#[derive(Debug, Error)]
pub enum RunError {
    /// The address of the admin or status port is taken or not the host's.
    #[error("{address} can't be bound for the {what} port: free it or choose another")]
    Bind {
        /// Which port.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An actor did not start.
    #[error(transparent)]
    Tree(#[from] StartError),
}

/// Starts a controller.
///
/// # Errors
/// Where a port of its own can't be bound, or the tree does not come up; nothing of it is left then.
pub async fn run(mut settings: Settings) -> Result<Controller, RunError> {
    settings.client = bounded(settings.client);
    let edges = Edges::new(&settings);
    let live = Arc::new(OnceLock::new());
    let args = admin::Args {
        name: settings.name.as_str().into(),
        status: bind("status", settings.status_bind)?,
        admin: bind("admin", settings.admin_bind)?,
        enrol: enrolment(&settings)?,
        edges: edges.clone(),
        live: live.clone(),
    };
    let address = |socket: &Option<Arc<TcpListener>>| socket.as_ref()?.local_addr().ok();
    let (status, admin) = (address(&args.status), address(&args.admin));
    let running = supervisor::run(control_plane(&settings, &edges, args)).await?;
    // It is set here only.
    let _ = live.set(running.live.clone());
    Ok(Controller { running, edges, status, admin })
}

/// Where proxies get their identity, if they are Pods.
fn enrolment(settings: &Settings) -> Result<Option<(Arc<TcpListener>, Enrolment)>, RunError> {
    let Fleet::Pods(pods, _) = &settings.fleet else { return Ok(None) };
    let socket = bind("enrolment", settings.enrol_bind)?;
    Ok(socket.map(|socket| (socket, Enrolment::new(settings.client.clone(), pods.clone()))))
}
