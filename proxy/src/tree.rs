//! The proxy's tree: who exists, who restarts whom, and what outlives a restart.
//!
//! Everything that actors share (tables, sockets, seats, channels, counts) is made once beside the tree
//! and cloned into each (re)start. Called by the command, by the demo and by tests, several times in
//! one process if need be. A change of configuration comes in at `admin`, is compiled and put in force
//! by `config-store`, bound by `listeners`; requests live on `workers` and meet no actor.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proxy_config::set::UnitSet;
use proxy_config::wire::Ack;
use supervisor::{
    Address, AskError, Child, Drill, Intensity, LiveTree, Running, StartError, Stopped, Strategy, branch,
    worker,
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::identity::TlsSource;
use crate::admin::{self, Admin};
use crate::config_store::in_force::InForce;
use crate::config_store::{self, ConfigStore};
use crate::enrolment::{self, Enroller};
use crate::listen::Listen;
use crate::listen::context::Shared;
use crate::listen::drain::Drained;
use crate::listen::socket::shut;
use crate::listen::worker::{name, workers};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::table::{SharedTable, Table};
use crate::upstream::registry::Registry;
use crate::watchdog::{STALLED_AFTER, Watchdog};

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
            workers(&beside.shared, &beside.admin.watchdog),
            beside.listen.listeners(),
        ]
        .into_iter()
        .chain(beside.enrolment.as_ref().map(enroller))
        .collect(),
    )
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

/// What outlives every restart.
struct Beside {
    admin: admin::Args,
    store: config_store::Args,
    shared: Arc<Shared>,
    listen: Arc<Listen>,
    enrolment: Option<enrolment::Args>,
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
    let beside = beside(&settings, live.clone())?;
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
    beside(settings, Arc::default()).map(|beside| supervisor::render(&tree(&beside)))
}

fn beside(settings: &Settings, live: Arc<OnceLock<LiveTree>>) -> Result<Beside, RunError> {
    let identity: Arc<str> = settings.identity.as_str().into();
    let table: SharedTable = Arc::new(arc_swap::ArcSwap::from_pointee(Table::default()));
    let metrics = Metrics::new(settings.workers.max(1));
    let watchdog = watchdog(settings.workers).map_err(RunError::Thread)?;
    let heart = watchdog.heart("listen");
    let listen = Listen::new(settings.workers, &settings.limits, (table.clone(), metrics.clone()), heart);
    let listen = Arc::new(listen.map_err(RunError::Thread)?);
    let drain = listen.drain().clone();
    let seats = listen.seats().clone();
    let shared = Shared::new(table.clone(), seats, drain.clone(), metrics.clone(), settings.limits);
    let shared = shared.map_err(RunError::Tickets)?;
    let in_force = watch::Sender::new(Arc::<InForce>::default());
    let store = config_store::Args {
        identity: identity.clone(),
        node_address: settings.node_address,
        state_dir: settings.state_dir.clone(),
        table,
        registry: Arc::new(Registry::new(settings.limits.requests_per_endpoint)),
        metrics: metrics.clone(),
        in_force: in_force.clone(),
        want: {
            let listen = listen.clone();
            Arc::new(move |binds| listen.want(binds))
        },
        lost: shared.lost.clone(),
        report: listen.report(),
        myself: Address::new(),
    };
    let admin = admin::Args {
        identity: identity.clone(),
        tls: settings.tls.clone(),
        admin: Arc::new(bind("admin", settings.admin_bind)?),
        status: Arc::new(bind("status", settings.status_bind)?),
        store: store.myself.clone(),
        in_force: in_force.subscribe(),
        metrics,
        drain,
        watchdog,
        live,
        myself: Address::new(),
    };
    let enrolment = match settings.tls.clone() {
        TlsSource::Enrolled(enrolment) => {
            Some(enrolment::Args { identity, enrolment, myself: Address::new() })
        }
        TlsSource::Files(_) | TlsSource::Held(_) => None,
    };
    Ok(Beside { admin, store, shared: Arc::new(shared), listen, enrolment })
}

fn watchdog(workers: usize) -> io::Result<Arc<Watchdog>> {
    let names = ["control", "listen"].map(str::to_owned);
    Watchdog::start(names.into_iter().chain((0..workers.max(1)).map(name)), STALLED_AFTER)
}

fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    let bound = TcpListener::bind(address).and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    bound.map_err(|source| RunError::Bind { what, address, source })
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

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.beside.store.metrics
    }

    /// Where pushes are taken.
    ///
    /// # Errors
    /// What the system says of the socket.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.beside.admin.admin.local_addr()
    }

    /// Where health, metrics and the live tree are shown.
    ///
    /// # Errors
    /// What the system says of the socket.
    pub fn status_address(&self) -> io::Result<SocketAddr> {
        self.beside.admin.status.local_addr()
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
        let drained = self.beside.listen.drain().run(self.settings.drain).await;
        self.stop().await.map(|()| drained)
    }

    /// Stops at once; what is open is cut.
    ///
    /// # Errors
    /// Where the tree had ended by itself.
    pub async fn stop(&self) -> Result<(), Stopped> {
        let stopped = self.running.stop().await;
        // Whoever holds a handle for a moment longer: the addresses are free when this returns.
        self.beside.listen.shut();
        shut(&self.beside.admin.admin);
        shut(&self.beside.admin.status);
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
            tls: TlsSource::Files("unused".into()),
            state_dir: None,
            workers: 2,
            limits: crate::limits::Limits::new(100),
            drain: crate::listen::drain::DrainSettings::default(),
        };
        insta::assert_snapshot!(render(&settings).unwrap());
    }
}
