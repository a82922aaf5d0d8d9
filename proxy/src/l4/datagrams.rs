//! Datagrams: from a client's address to an endpoint, and the replies back.
//!
//! Owns the sessions of one UDP listener: a client's address has a socket of its own to the endpoint that it
//! was given, so that replies find their way back, and keeps that endpoint while it is served. Run by a
//! listener on the `listen` thread. Sessions die with their listener: the next datagram begins another; they
//! pass on to the process that takes this one's place ([`handed`]). Refuses to know what is said.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Interval, interval, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::handover::turn::{Turn, Turns};
use crate::limits::Limits;
use crate::listen::accept::{BindReport, BindState, FIRST_REBIND_PAUSE, MAX_REBIND_PAUSE, tell};
use crate::listen::admission::Refused;
use crate::listen::drain::{Admitted, Drain};
use crate::listen::socket::Bind;
use crate::metrics::Metrics;
use crate::metrics::streams::{OpenStream, Outcome};
use crate::table::l4::L4Route;
use crate::table::slot::Slot;
use crate::table::{SharedTable, Table};
use crate::upstream::registry::{Endpoint, InFlight};

pub mod handed;

use handed::{Handed, Passing};

/// A session in which nothing moves for this long ends while the proxy drains, which waits for that.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How often sessions that have ended are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The longest datagram (RFC 768).
const MAX_DATAGRAM: usize = 64 << 10;

/// What the sessions of a proxy work with.
#[derive(Clone, Debug)]
pub struct Datagrams {
    /// The table in force.
    pub table: SharedTable,
    /// How many sessions there may be, and for how long without a datagram.
    pub limits: Limits,
    /// The switches of a drain and the limit on clients.
    pub drain: Arc<Drain>,
    /// Where clients that are not let in are counted.
    pub metrics: Arc<Metrics>,
    /// Where the outcome of each bind is told.
    pub report: watch::Sender<BindReport>,
    /// Whether it is this process that receives.
    pub turns: Turns,
    /// What passes from one process to the next.
    pub handed: Arc<Handed>,
}

/// Where the datagrams of a session go.
struct Aim {
    route: Arc<L4Route>,
    slot: Slot,
    endpoint: Arc<Endpoint>,
}

impl Aim {
    /// Whether the configuration in force would still allow it.
    fn stands(&self, table: &Table, local: SocketAddr) -> bool {
        let now = table.route_of_datagrams(local).filter(|now| now.id == self.route.id);
        let is_named = now.is_some_and(|now| now.targets.iter().any(|t| t.as_ref().ok() == Some(&self.slot)));
        let backend = if is_named { table.backend(self.slot) } else { None };
        backend.is_some_and(|backend| {
            let endpoints = if backend.ready.is_empty() { &backend.fallback } else { &backend.ready };
            endpoints.iter().any(|endpoint| Arc::ptr_eq(endpoint, &self.endpoint))
        })
    }
}

/// A client's address with the socket that stands for it.
struct Session {
    aim: Aim,
    socket: Arc<UdpSocket>,
    /// The client has sent something since the last time-out.
    has_sent: Arc<AtomicBool>,
    replies: AbortOnDropHandle<()>,
}

/// What a session counts for as long as it lives.
struct Held {
    _in_flight: InFlight,
    _open: OpenStream,
    _admitted: Admitted,
}

impl Datagrams {
    /// Receives on an address for good: binds, again and again, until it can. Where another process has taken
    /// over for good it waits to be dropped.
    pub async fn run(self, address: SocketAddr) {
        let mut pause = FIRST_REBIND_PAUSE;
        while self.turns.now() != Turn::Gone {
            let inherited = self.handed.inherited(address).map(UdpSocket::from_std);
            match inherited.unwrap_or_else(|| bind(address)) {
                Ok(socket) => {
                    info!(%address, "receiving datagrams");
                    tell(&self.report, Bind::udp(address), BindState::Bound);
                    self.relay(socket, address).await;
                }
                Err(error) => {
                    warn!(%address, %error, ?pause, "can't bind for datagrams");
                    tell(&self.report, Bind::udp(address), BindState::Refused(error.to_string().into()));
                    sleep(pause).await;
                    pause = (pause * 2).min(MAX_REBIND_PAUSE);
                }
            }
        }
        std::future::pending().await
    }

    /// Passes the datagrams of a socket on, until that is another process's for good.
    async fn relay(&self, socket: UdpSocket, local: SocketAddr) {
        let socket = Arc::new(socket);
        let _receiving = self.handed.receiving(local, &socket);
        let mut turn = self.turns.follow();
        let mut sessions = HashMap::<SocketAddr, Session>::new();
        let mut datagram = vec![0; MAX_DATAGRAM];
        let mut sweep = interval(SWEEP_EVERY);
        loop {
            let now = *turn.borrow_and_update();
            match now {
                Turn::Ours => {
                    self.handed.resume(local);
                    self.inherit(&mut sessions, &socket, local);
                }
                Turn::Lent => self.handed.pause(local, passing(&sessions)),
                Turn::Awaited => {}
                Turn::Gone => return,
            }
            self.relay_in_turn((&socket, local), &mut sessions, (&mut datagram, &mut sweep), &mut turn).await;
        }
    }

    /// Goes on until the turn changes. Sessions hear their endpoints all the time.
    async fn relay_in_turn(
        &self,
        (socket, local): (&Arc<UdpSocket>, SocketAddr),
        sessions: &mut HashMap<SocketAddr, Session>,
        (datagram, sweep): (&mut [u8], &mut Interval),
        turn: &mut watch::Receiver<Turn>,
    ) {
        let is_ours = *turn.borrow() == Turn::Ours;
        loop {
            tokio::select! {
                _ = turn.changed() => return,
                received = socket.recv_from(datagram), if is_ours => match received {
                    Ok((length, peer)) => {
                        self.pass_on(sessions, socket, (local, peer), &datagram[..length]).await;
                    }
                    Err(error) => debug!(%local, %error, "a datagram could not be received"),
                },
                _ = sweep.tick() => sessions.retain(|_, session| !session.replies.is_finished()),
            }
        }
    }

    /// Goes on with the sessions of the process before.
    fn inherit(
        &self,
        sessions: &mut HashMap<SocketAddr, Session>,
        socket: &Arc<UdpSocket>,
        local: SocketAddr,
    ) {
        for Passing { peer, endpoint, socket: upstream } in self.handed.sessions(local) {
            if let Some(aim) = self.aim_at(local, endpoint)
                && let Ok(upstream) = non_blocking(upstream)
                && let Some(admitted) = self.admit(sessions.len(), peer)
                && let Some(session) = self.open((socket, peer), admitted, aim, upstream)
            {
                sessions.insert(peer, session);
            }
        }
    }

    /// A client's share of the limits, if there may be one more session.
    fn admit(&self, sessions: usize, peer: SocketAddr) -> Option<Admitted> {
        if !*self.drain.accepting().borrow() {
            return None;
        }
        let has_room = u32::try_from(sessions).is_ok_and(|sessions| sessions < self.limits.datagram_sessions);
        let admitted = if has_room { self.drain.admit(peer.ip()) } else { Err(Refused::SessionsFull) };
        admitted.inspect_err(|refused| self.metrics.turned_away(*refused)).ok()
    }

    async fn pass_on(
        &self,
        sessions: &mut HashMap<SocketAddr, Session>,
        socket: &Arc<UdpSocket>,
        (local, peer): (SocketAddr, SocketAddr),
        datagram: &[u8],
    ) {
        let stands = |session: &Session| {
            !session.replies.is_finished() && session.aim.stands(&self.table.load(), local)
        };
        if !sessions.get(&peer).is_some_and(stands) {
            // First: what it holds makes room for the next one.
            sessions.remove(&peer);
            match self.begin(sessions.len(), socket, (local, peer)).await {
                Some(session) => drop(sessions.insert(peer, session)),
                None => return,
            }
        }
        let session = &sessions[&peer];
        session.has_sent.store(true, Relaxed);
        // Not through the runtime, which takes a new socket for full until it has heard of it. Where there is indeed no
        // room the datagram is lost, as any may be.
        if let Ok(sent) = SockRef::from(&*session.socket).send(datagram) {
            session.aim.route.metrics.moved(sent as u64, 0);
        }
    }

    /// A new session, if there may be one and there is somewhere to send to.
    async fn begin(
        &self,
        sessions: usize,
        socket: &Arc<UdpSocket>,
        (local, peer): (SocketAddr, SocketAddr),
    ) -> Option<Session> {
        let admitted = self.admit(sessions, peer)?;
        let aim = self.aim(local)?;
        match connect(aim.endpoint.address()).await {
            Ok(upstream) => self.open((socket, peer), admitted, aim, upstream),
            Err(_) => {
                aim.route.metrics.record(Outcome::Unreachable);
                None
            }
        }
    }

    /// A session over a socket that stands for its client, if it may have one.
    fn open(
        &self,
        (socket, peer): (&Arc<UdpSocket>, SocketAddr),
        admitted: Admitted,
        aim: Aim,
        upstream: UdpSocket,
    ) -> Option<Session> {
        let Some(in_flight) = aim.endpoint.enter() else {
            aim.route.metrics.record(Outcome::Unreachable);
            return None;
        };
        let upstream = Arc::new(upstream);
        aim.route.metrics.record(Outcome::Forwarded);
        let has_sent = Arc::new(AtomicBool::new(true));
        let held = Held { _in_flight: in_flight, _open: aim.route.metrics.open(), _admitted: admitted };
        let replies = Replies {
            from: upstream.clone(),
            to: (socket.clone(), peer),
            route: aim.route.clone(),
            has_sent: has_sent.clone(),
            idle: self.limits.datagram_idle,
            drain: self.drain.clone(),
        };
        let replies = AbortOnDropHandle::new(tokio::spawn(replies.pass_on(held)));
        Some(Session { aim, socket: upstream, has_sent, replies })
    }

    fn aim(&self, local: SocketAddr) -> Option<Aim> {
        let table = self.table.load();
        let route = table.route_of_datagrams(local)?;
        let chosen = route.choose().and_then(|slot| Some((slot, table.backend(slot)?)));
        let Some((slot, backend)) = chosen else {
            route.metrics.record(Outcome::NoBackend);
            return None;
        };
        let Some(endpoint) = backend.pick(&[]) else {
            route.metrics.record(Outcome::NoEndpoint);
            return None;
        };
        Some(Aim { route: route.clone(), slot, endpoint: endpoint.clone() })
    }

    /// Where a session goes on that was given this endpoint.
    fn aim_at(&self, local: SocketAddr, address: SocketAddr) -> Option<Aim> {
        let table = self.table.load();
        let route = table.route_of_datagrams(local)?;
        let slots = route.targets.iter().filter_map(|target| target.as_ref().ok());
        slots.copied().find_map(|slot| {
            let backend = table.backend(slot)?;
            let all = backend.ready.iter().chain(&backend.fallback);
            let endpoint = all.into_iter().find(|endpoint| endpoint.address() == address)?.clone();
            Some(Aim { route: route.clone(), slot, endpoint })
        })
    }
}

/// The way back of one session.
struct Replies {
    from: Arc<UdpSocket>,
    to: (Arc<UdpSocket>, SocketAddr),
    route: Arc<L4Route>,
    has_sent: Arc<AtomicBool>,
    idle: Duration,
    drain: Arc<Drain>,
}

impl Replies {
    /// Passes replies back until nothing has moved for too long, or the endpoint refuses.
    async fn pass_on(self, _held: Held) {
        let mut draining = self.drain.draining();
        let (socket, peer) = &self.to;
        let mut reply = vec![0; MAX_DATAGRAM];
        loop {
            let is_draining = *draining.borrow_and_update();
            let idle = if is_draining { DRAIN_TIMEOUT } else { self.idle };
            tokio::select! {
                received = timeout(idle, self.from.recv(&mut reply)) => match received {
                    Ok(Ok(length)) => {
                        if socket.send_to(&reply[..length], peer).await.is_ok() {
                            self.route.metrics.moved(0, length as u64);
                        }
                    }
                    Ok(Err(error)) => return debug!(%peer, %error, "the endpoint takes no datagrams"),
                    Err(_) if self.has_sent.swap(false, Relaxed) => {}
                    Err(_) => return,
                },
                _ = draining.changed(), if !is_draining => {}
            }
        }
    }
}

/// Binds exactly one address and port for datagrams.
///
/// # Errors
/// What the kernel says: the address is in use, is not one of the host's, or needs a privilege.
fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// The sessions that are open, as they pass on to another process.
fn passing(sessions: &HashMap<SocketAddr, Session>) -> Vec<Passing<Arc<UdpSocket>>> {
    let open = sessions.iter().filter(|(_, session)| !session.replies.is_finished());
    let pass = |(peer, session): (&SocketAddr, &Session)| Passing {
        peer: *peer,
        endpoint: session.aim.endpoint.address(),
        socket: session.socket.clone(),
    };
    open.map(pass).collect()
}

fn non_blocking(socket: StdSocket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// A socket that sends to an endpoint, and hears nobody else.
async fn connect(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if endpoint.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(endpoint).await?;
    Ok(socket)
}
