//! The admin actor: serves the admin port (mutual TLS, controllers only) and the status port.
//!
//! Owns: both accept loops with their connections, the identity as it is now.
//! Reads: what is in force, the metrics, the live tree, the drain.
//! Writes: nothing; pushes are handed to the config store.
//! Rebuilt from: the listening sockets and the source of the identity, which are beside the tree.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, OnceLock};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::{Address, LiveTree, message_names};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::config_store;
use crate::config_store::in_force::InForce;
use crate::handover::turn::{Turn, Turns};
use crate::listen::drain::Drain;
use crate::metrics::Metrics;
use crate::watchdog::Watchdog;

mod accept;
mod control;
pub mod identity;
pub mod socket;
mod status;

use accept::Port;
use control::Control;
use identity::{Followed, TlsSource};
use socket::AdminSocket;
use status::Status;

/// What the admin actor is told.
#[derive(Debug)]
pub enum Msg {
    /// One of its servers ended, which none does by itself.
    Ended(io::Result<()>),
}

message_names!(Msg { Ended });

/// What the admin actor is started with.
#[derive(Clone, Debug)]
pub struct Args {
    /// The proxy's name.
    pub identity: Arc<str>,
    /// Its certificate and whom it trusts.
    pub tls: TlsSource,
    /// The socket of the admin port.
    pub admin: Arc<AdminSocket>,
    /// The socket of the status port.
    pub status: Arc<AdminSocket>,
    /// The Unix socket that shows what the status port does, of this process whoever has the port.
    pub local: Option<Arc<UnixListener>>,
    /// Whether it is this process that accepts on both ports.
    pub turns: Turns,
    /// Who takes pushes.
    pub store: Address<config_store::Msg>,
    /// What is in force.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether the proxy drains.
    pub drain: Arc<Drain>,
    /// Who watches the threads.
    pub watchdog: Arc<Watchdog>,
    /// The tree, once it runs.
    pub live: Arc<OnceLock<LiveTree>>,
    /// Its own address.
    pub myself: Address<Msg>,
}

/// What it holds: dropping it ends both servers with all their connections.
pub struct State {
    _identity: Followed,
    _servers: Vec<AbortOnDropHandle<()>>,
}

/// The actor.
pub struct Admin;

/// A server ended.
#[derive(Debug, thiserror::Error)]
#[error("a server of the admin actor ended")]
struct ServerEnded(#[source] Option<io::Error>);

impl Actor for Admin {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        Ok(start(args)?)
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, _: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Ended(result) => Err(ServerEnded(result.err()).into()),
        }
    }
}

/// Why the servers can't start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    #[error("a listening socket of the admin actor can't be used")]
    Socket(#[from] io::Error),
}

fn start(args: Args) -> Result<State, StartError> {
    let followed = identity::follow(args.tls)?;
    let control = Control {
        identity: args.identity.clone(),
        store: args.store,
        in_force: args.in_force.clone(),
        metrics: args.metrics.clone(),
    };
    let status = Status {
        identity: args.identity,
        in_force: args.in_force,
        metrics: args.metrics,
        drain: args.drain,
        watchdog: args.watchdog,
        live: args.live,
        turns: args.turns.clone(),
    };
    let mut servers = Vec::new();
    if let Some(port) = port(&args.admin, &args.turns)? {
        let served = control::serve(port, followed.config.clone(), control);
        servers.push(watched(in_turn(served, args.admin, args.turns.clone()), &args.myself));
    }
    if let Some(local) = &args.local {
        let local = local.try_clone().and_then(tokio::net::UnixListener::from_std)?;
        servers.push(watched(status::serve_locally(local, status.clone()), &args.myself));
    }
    if let Some(port) = port(&args.status, &args.turns)? {
        let served = status::serve(port, status);
        servers.push(watched(in_turn(served, args.status, args.turns), &args.myself));
    }
    Ok(State { _identity: followed, _servers: servers })
}

fn port(socket: &AdminSocket, turns: &Turns) -> io::Result<Option<Port>> {
    let Some(socket) = socket.handle()? else { return Ok(None) };
    Ok(Some(Port::new(tokio::net::TcpListener::from_std(socket)?, turns)))
}

/// Serves until another process does for good: that one must be able to bind the address anew, and to hear what
/// controllers say on their open connections.
async fn in_turn(
    served: impl Future<Output = io::Result<()>>,
    socket: Arc<AdminSocket>,
    turns: Turns,
) -> io::Result<()> {
    let mut turn = turns.follow();
    tokio::select! {
        ended = served => return ended,
        // Its sender is here.
        _ = turn.wait_for(|turn| *turn == Turn::Gone) => socket.give_up(),
    }
    std::future::pending().await
}

fn watched(
    server: impl Future<Output = io::Result<()>> + Send + 'static,
    admin: &Address<Msg>,
) -> AbortOnDropHandle<()> {
    let admin = admin.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let result = server.await;
        // Refused only where the actor is about to end anyway.
        let _ = admin.send(Msg::Ended(result));
    }))
}
