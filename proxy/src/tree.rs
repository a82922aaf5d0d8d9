//! The proxy's tree: who exists, who restarts whom, and what outlives a restart.
//!
//! Everything that actors share (tables, sockets, seats, channels, counts) is made once beside the tree
//! and cloned into each (re)start. Called by the command, by the demo and by tests, several times in
//! one process if need be. A change of configuration comes in at `admin`, is compiled and put in force
//! by `config-store`, bound by `listeners`; requests live on `workers` and meet no actor.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proxy_config::set::UnitSet;
use proxy_config::wire::Ack;
use supervisor::{
    AskError, Child, Drill, Intensity, LiveTree, Running, StartError, Stopped, Strategy, branch, worker,
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::Admin;
use crate::config_store::in_force::InForce;
use crate::config_store::{self, ConfigStore};
use crate::enrolment::{self, Enroller};
use crate::handover::claim::ClaimError;
use crate::handover::giver::{self, Giver};
use crate::handover::taker::{self, Taker};
use crate::handover::turn::Turn;
use crate::listen::drain::Drained;
use crate::listen::worker::workers;
use crate::metrics::Metrics;
use crate::resolver::Resolver;
use crate::settings::Settings;
use crate::table::SharedTable;

mod beside;

use beside::{Before, Beside, begin, beside};

/// Restarts that the proxy bears before the process ends, and whatever started it takes over.
const LIMIT: Intensity = Intensity::new(10, Duration::from_secs(60));

/// How long units from within the process may take to be in force.
const HOLD_WITHIN: Duration = Duration::from_secs(20);

/// Who exists.
fn tree(beside: &Beside) -> Child {
    branch(
        "proxy",
        Strategy::OneForOne,
        LIMIT,
        vec![
            worker("admin", &beside.admin.myself, with(&beside.admin, |args| (Admin, args))),
            worker("config-store", &beside.store.myself, with(&beside.store, |args| (ConfigStore, args))),
            worker("resolver", &beside.resolver.myself, with(&beside.resolver, |args| (Resolver, args))),
            workers(&beside.shared, &beside.admin.watchdog),
            beside.listen.listeners(),
        ]
        .into_iter()
        .chain(beside.handover.iter().flat_map(handover))
        .chain(beside.enrolment.as_ref().map(enroller))
        .collect(),
    )
}

/// How this process takes over from the one before, and the next one from this.
fn handover((taker, giver): &(taker::Args, giver::Args)) -> [Child; 2] {
    [
        worker("handover-taker", &taker.myself, with(taker, |args| (Taker, args))),
        worker("handover-giver", &giver.myself, with(giver, |args| (Giver, args))),
    ]
}

/// Where the proxy gets its identity from a controller: traffic does not wait for it.
fn enroller(args: &enrolment::Args) -> Child {
    worker("enroller", &args.myself, with(args, |args| (Enroller, args)))
}

/// What actors are started with, again and again.
fn with<Args: Clone, T, F: Fn(Args) -> T>(args: &Args, start: F) -> impl Fn() -> T + use<Args, T, F> {
    let args = args.clone();
    move || start(args.clone())
}

/// Why a proxy can't start.
#[derive(Debug, thiserror::Error)]
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
    /// The socket for probes can't be made.
    #[error("{path} can't be bound for probes: name a path in a folder that this process may write")]
    BindLocally {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is a proxy on this node, but it does not hand over.
    #[error("the proxy that serves this node does not hand over")]
    Claim(#[from] ClaimError),
    /// The system gives no thread.
    #[error("the listen thread or the watchdog can't start")]
    Thread(#[source] io::Error),
    /// The system gives no randomness.
    #[error("no keys for TLS tickets can be made")]
    Tickets(#[source] rustls::Error),
    /// An actor did not start.
    #[error(transparent)]
    Tree(#[from] StartError),
}

/// Starts a proxy on the current runtime, which serves as its control runtime: requests are served by
/// threads of its own.
///
/// # Errors
/// Where a port of its own can't be bound, or a part of it can't start; nothing of it is left then.
pub async fn run(settings: Settings) -> Result<Proxy, RunError> {
    let live = Arc::new(OnceLock::new());
    let beside = begin(&settings, live.clone()).await?;
    let running = supervisor::run(tree(&beside)).await?;
    // It is set here only.
    let _ = live.set(running.live.clone());
    let control = AbortOnDropHandle::new(tokio::spawn(beside.admin.watchdog.heart("control").beat_on()));
    Ok(Proxy { running, settings, beside, _control: control })
}

/// The tree as text, as docs/supervision.md shows it.
///
/// # Errors
/// As [`run`]: what outlives restarts is made, though nothing is started.
pub fn render(settings: &Settings) -> Result<String, RunError> {
    beside(settings, Arc::default(), Before::default()).map(|beside| supervisor::render(&tree(&beside)))
}

/// A proxy that runs. Dropping it stops nothing: [`Proxy::drain`] or [`Proxy::stop`] does.
pub struct Proxy {
    running: Running,
    settings: Settings,
    beside: Beside,
    /// Beats for the runtime that it was started on.
    _control: AbortOnDropHandle<()>,
}

impl Proxy {
    /// The tree as it stands.
    pub fn live(&self) -> &LiveTree {
        &self.running.live
    }

    /// Faults on purpose, from within the process alone.
    pub fn drill(&self) -> Drill {
        self.running.drill()
    }

    /// The table in force.
    pub fn table(&self) -> &SharedTable {
        &self.beside.store.table
    }

    /// What is in force, whenever it changes.
    pub fn in_force(&self) -> watch::Receiver<Arc<InForce>> {
        self.beside.admin.in_force.clone()
    }

    /// Whose turn it is to accept on this node.
    pub fn turn(&self) -> watch::Receiver<Turn> {
        self.beside.turns.follow()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.beside.store.metrics
    }

    /// Where pushes are taken.
    pub fn admin_address(&self) -> SocketAddr {
        self.beside.admin.admin.address()
    }

    /// Where health, metrics and the live tree are shown.
    pub fn status_address(&self) -> SocketAddr {
        self.beside.admin.status.address()
    }

    /// Puts exactly these units in force, without a controller.
    ///
    /// # Errors
    /// Where the config store does not answer in time.
    pub async fn hold(&self, units: UnitSet) -> Result<Ack, AskError> {
        let store = &self.beside.store.myself;
        store.ask(HOLD_WITHIN, |reply| config_store::Msg::Hold(units, reply)).await
    }

    /// Drains as the settings say, then stops.
    ///
    /// # Errors
    /// Where the tree had ended by itself.
    pub async fn drain(&self) -> Result<Drained, Stopped> {
        let mut settings = self.settings.drain;
        if !self.beside.turns.is_ours() {
            // Another process accepts already.
            settings.accept_for = Duration::ZERO;
        }
        let drained = self.beside.listen.drain().run(settings).await;
        self.stop().await.map(|()| drained)
    }

    /// Stops at once; what is open is cut.
    ///
    /// # Errors
    /// Where the tree had ended by itself.
    pub async fn stop(&self) -> Result<(), Stopped> {
        let stopped = self.running.stop().await;
        // Whoever holds a handle for a moment longer: the addresses are free when this returns.
        let are_shared = self.beside.listen.sockets().are_shared();
        for socket in [&self.beside.admin.admin, &self.beside.admin.status] {
            if are_shared { socket.give_up() } else { socket.shut() }
        }
        self.beside.listen.shut();
        stopped
    }

    /// Returns when nothing of the tree is left.
    ///
    /// # Errors
    /// Where nobody asked it to stop: it gave up, with the whole cause.
    pub async fn stopped(&self) -> Result<(), Stopped> {
        self.running.stopped().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever changes the tree sees here what it looks like; docs/supervision.md prints the same text.
    #[tokio::test]
    async fn the_tree_is_the_one_in_the_documentation() {
        let settings = Settings {
            identity: "edge-1".to_owned(),
            node_address: [127, 0, 0, 2].into(),
            admin_bind: ([127, 0, 0, 1], 0).into(),
            status_bind: ([127, 0, 0, 1], 0).into(),
            status_socket: None,
            tls: crate::admin::identity::TlsSource::Files("unused".into()),
            state_dir: Some("unused".into()),
            workers: 2,
            limits: crate::limits::Limits::new(100),
            drain: crate::listen::drain::DrainSettings::default(),
            resolver: crate::resolver::ResolverSettings::default(),
        };
        insta::assert_snapshot!(render(&settings).unwrap());
    }
}
