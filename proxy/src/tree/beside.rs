//! What outlives every restart: made once, beside the tree, and cloned into each start.
//!
//! Where another process serves this node it is asked first: its sockets are taken on. Called by `tree` alone.
//! Refuses to know who is started with what is made here.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use supervisor::{Address, LiveTree};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::RunError;
use crate::admin::identity::TlsSource;
use crate::admin::socket::AdminSocket;
use crate::config_store::in_force::InForce;
use crate::handover::channel::Channel;
use crate::handover::claim::{Claim, ClaimError, claim};
use crate::handover::turn::{Turn, Turns};
use crate::handover::{giver, taker};
use crate::listen::Listen;
use crate::listen::context::Shared;
use crate::listen::worker::name;
use crate::metrics::Metrics;
use crate::resolver::dns::lookup;
use crate::resolver::names::Names;
use crate::settings::Settings;
use crate::table::{SharedTable, Table};
use crate::upstream::registry::Registry;
use crate::watchdog::{STALLED_AFTER, Watchdog};
use crate::{admin, config_store, enrolment, resolver};

/// How long the ports of a proxy that ends, or begins, may be taken.
const SETTLED_WITHIN: Duration = Duration::from_secs(3);
/// The pause between two looks at them.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What outlives every restart.
pub(super) struct Beside {
    pub(super) admin: admin::Args,
    pub(super) store: config_store::Args,
    pub(super) resolver: resolver::Args,
    pub(super) shared: Arc<Shared>,
    pub(super) listen: Arc<Listen>,
    pub(super) turns: Turns,
    pub(super) handover: Option<(taker::Args, giver::Args)>,
    pub(super) enrolment: Option<enrolment::Args>,
}

/// The process before this one on the node, where there is one.
#[derive(Default)]
pub(super) struct Before {
    instance: Arc<str>,
    claim: Option<Claim>,
}

/// Makes what outlives restarts, with the sockets of the process before. That one may begin or end just now:
/// where ports are taken it is asked again.
pub(super) async fn begin(settings: &Settings, live: Arc<OnceLock<LiveTree>>) -> Result<Beside, RunError> {
    let instance: Arc<str> = format!("{:016x}", rand::random::<u64>()).into();
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let claimed = match &settings.state_dir {
            Some(folder) => claim(folder, &instance).await,
            None => Ok(None),
        };
        let may_wait = settings.state_dir.is_some() && Instant::now() < deadline;
        match claimed {
            Err(ClaimError::Channel(error)) if may_wait => debug!(%error, "asked again"),
            claimed => {
                let before = Before { instance: instance.clone(), claim: claimed? };
                match beside(settings, live.clone(), before) {
                    Err(RunError::Bind { source, .. })
                        if may_wait && source.kind() == io::ErrorKind::AddrInUse => {}
                    made => return made,
                }
            }
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// Makes what outlives restarts.
pub(super) fn beside(
    settings: &Settings,
    live: Arc<OnceLock<LiveTree>>,
    before: Before,
) -> Result<Beside, RunError> {
    let identity: Arc<str> = settings.identity.as_str().into();
    let table: SharedTable = Arc::new(arc_swap::ArcSwap::from_pointee(Table::default()));
    let metrics = Metrics::new(settings.workers.max(1));
    let watchdog = watchdog(settings.workers).map_err(RunError::Thread)?;
    let turns = Turns::new(if before.claim.is_some() { Turn::Awaited } else { Turn::Ours });
    let served = (table.clone(), metrics.clone());
    let listen =
        Listen::new(settings.workers, &settings.limits, served, watchdog.heart("listen"), turns.clone());
    let listen = Arc::new(listen.map_err(RunError::Thread)?);
    let (channel, mut given) =
        before.claim.map_or_else(Default::default, |claim| (Some(claim.channel), claim.sockets));
    let (given_admin, given_status) = (given.admin.take(), given.status.take());
    if channel.is_some() {
        taker::inherit(&listen, given);
    }
    let drain = listen.drain().clone();
    let seats = listen.seats().clone();
    let shared = Shared::new(table, seats, drain.clone(), metrics.clone(), settings.limits);
    let shared = shared.map_err(RunError::Tickets)?;
    let in_force = watch::Sender::new(Arc::<InForce>::default());
    let store = store_args(settings, (&listen, &turns), &shared, &in_force);
    let resolver = resolver_args(settings, &store);
    let admin = admin::Args {
        identity: identity.clone(),
        tls: settings.tls.clone(),
        admin: bind("admin", settings.admin_bind, given_admin)?,
        status: bind("status", settings.status_bind, given_status)?,
        local: settings.status_socket.as_deref().map(bind_locally).transpose()?.map(Arc::new),
        turns: turns.clone(),
        store: store.myself.clone(),
        in_force: in_force.subscribe(),
        metrics,
        drain,
        watchdog,
        live,
        myself: Address::new(),
    };
    let handover = settings.state_dir.clone();
    let handover =
        handover.map(|folder| handover_args(folder, before.instance, channel, (&listen, &store, &admin)));
    let enrolment = match settings.tls.clone() {
        TlsSource::Enrolled(enrolment) => {
            Some(enrolment::Args { identity, enrolment, myself: Address::new() })
        }
        TlsSource::Files(_) | TlsSource::Held(_) => None,
    };
    Ok(Beside { admin, store, resolver, shared: Arc::new(shared), listen, turns, handover, enrolment })
}

fn store_args(
    settings: &Settings,
    (listen, turns): (&Arc<Listen>, &Turns),
    shared: &Shared,
    in_force: &watch::Sender<Arc<InForce>>,
) -> config_store::Args {
    config_store::Args {
        identity: settings.identity.as_str().into(),
        node_address: settings.node_address,
        state_dir: settings.state_dir.clone(),
        table: shared.table.clone(),
        registry: Arc::new(Registry::new(settings.limits.requests_per_endpoint)),
        metrics: shared.metrics.clone(),
        in_force: in_force.clone(),
        want: {
            let listen = listen.clone();
            Arc::new(move |binds| listen.want(binds))
        },
        lost: shared.lost.clone(),
        report: listen.report(),
        names: Names::default(),
        turns: turns.clone(),
        myself: Address::new(),
    }
}

fn resolver_args(settings: &Settings, store: &config_store::Args) -> resolver::Args {
    resolver::Args {
        names: store.names.clone(),
        lookup: lookup(&settings.resolver.servers),
        loopback_destinations: settings.resolver.loopback_destinations,
        metrics: store.metrics.clone(),
        myself: Address::new(),
    }
}

fn handover_args(
    folder: PathBuf,
    instance: Arc<str>,
    first: Option<Channel>,
    (listen, store, admin): (&Arc<Listen>, &config_store::Args, &admin::Args),
) -> (taker::Args, giver::Args) {
    let taker = taker::Args {
        folder: folder.clone(),
        instance: instance.clone(),
        first: Arc::new(Mutex::new(first)),
        listen: listen.clone(),
        store: store.myself.clone(),
        turns: store.turns.clone(),
        myself: Address::new(),
    };
    let giver = giver::Args {
        folder,
        instance,
        listen: listen.clone(),
        admin: admin.admin.clone(),
        status: admin.status.clone(),
        in_force: admin.in_force.clone(),
        names: store.names.clone(),
        turns: store.turns.clone(),
        myself: Address::new(),
    };
    (taker, giver)
}

fn watchdog(workers: usize) -> io::Result<Arc<Watchdog>> {
    let names = ["control", "listen"].map(str::to_owned);
    Watchdog::start(names.into_iter().chain((0..workers.max(1)).map(name)), STALLED_AFTER)
}

/// The port's socket: that of the process before, if it is at the wanted address.
fn bind(
    what: &'static str,
    address: SocketAddr,
    given: Option<TcpListener>,
) -> Result<Arc<AdminSocket>, RunError> {
    let is_wanted = |given: &TcpListener| {
        let port = |at: SocketAddr| address.port() == 0 || address.port() == at.port();
        given.local_addr().is_ok_and(|at| at.ip() == address.ip() && port(at))
    };
    let socket = given.filter(is_wanted).map_or_else(|| TcpListener::bind(address), Ok);
    let held = socket.and_then(|socket| {
        socket.set_nonblocking(true)?;
        AdminSocket::new(socket)
    });
    held.map(Arc::new).map_err(|source| RunError::Bind { what, address, source })
}

fn bind_locally(path: &Path) -> Result<UnixListener, RunError> {
    // It is in a folder of this process: what is there is left by one that has ended.
    let _ = std::fs::remove_file(path);
    let bound = UnixListener::bind(path).and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    bound.map_err(|source| RunError::BindLocally { path: path.to_owned(), source })
}
