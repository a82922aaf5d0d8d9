//! Listening: from a wanted address and port to a connection on a worker.
//!
//! The `listen` thread accepts on one socket per address and port and hands each connection to a worker,
//! by the power of two choices. What must outlive a restart of a listener or a worker (sockets, seats,
//! switches) is made once, beside the tree: [`Listen`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use supervisor::{Child, Intensity, dynamic};
use tokio::sync::watch;

pub mod accept;
pub mod admission;
pub mod connection;
pub mod context;
pub mod drain;
pub mod handoff;
pub mod listeners;
pub mod socket;
pub mod tls;
pub mod worker;

use accept::{Acceptor, BindReport, ListenThread};
use drain::Drain;
use handoff::Seats;
use socket::{Bind, Sockets, Transport};

use crate::handover::turn::Turns;
use crate::l4::datagrams::Datagrams;
use crate::l4::datagrams::handed::Handed;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::table::SharedTable;
use crate::watchdog::Heart;

/// What listening keeps beside the tree.
#[derive(Debug)]
pub struct Listen {
    acceptor: Acceptor,
    datagrams: Datagrams,
    thread: Arc<ListenThread>,
    wanted: watch::Sender<Arc<BTreeMap<String, Child>>>,
}

impl Listen {
    /// For so many workers, within these limits; starts the `listen` thread, which beats `heart`.
    ///
    /// # Errors
    /// Where the system gives neither a thread nor an epoll instance.
    pub fn new(
        workers: usize,
        limits: &Limits,
        (table, metrics): (SharedTable, Arc<Metrics>),
        heart: Heart,
        turns: Turns,
    ) -> io::Result<Self> {
        let seats = Arc::new(Seats::new(workers));
        let thread = Arc::new(ListenThread::start(seats.clone(), heart)?);
        let drain = Arc::new(Drain::new(limits));
        let report = watch::Sender::default();
        let datagrams = Datagrams {
            table,
            limits: *limits,
            drain: drain.clone(),
            metrics: metrics.clone(),
            report: report.clone(),
            turns: turns.clone(),
            handed: Arc::default(),
        };
        let acceptor = Acceptor { sockets: Arc::default(), seats, drain, metrics, report, turns };
        Ok(Self { acceptor, datagrams, thread, wanted: watch::Sender::default() })
    }

    /// The listening sockets of connections.
    pub fn sockets(&self) -> &Sockets {
        &self.acceptor.sockets
    }

    /// The sockets of datagrams, and their sessions.
    pub fn handed(&self) -> &Handed {
        &self.datagrams.handed
    }

    /// The workers' seats.
    pub fn seats(&self) -> &Arc<Seats> {
        &self.acceptor.seats
    }

    /// The switches of a drain.
    pub fn drain(&self) -> &Arc<Drain> {
        &self.acceptor.drain
    }

    /// What became of the binds that are wanted.
    pub fn report(&self) -> watch::Receiver<BindReport> {
        self.acceptor.report.subscribe()
    }

    /// Says where connections are to be accepted from now on. A socket that is not wanted any more is
    /// closed, connections that were accepted on it go on.
    pub fn want(&self, binds: &BTreeSet<Bind>) {
        let of_tcp = binds.iter().filter(|bind| bind.transport == Transport::Tcp);
        self.acceptor.sockets.want(&of_tcp.map(|bind| bind.address).collect());
        let child = |bind: &Bind| {
            let listener = listeners::child(*bind, (&self.acceptor, &self.datagrams), &self.thread);
            (bind.to_string(), listener)
        };
        self.wanted.send_if_modified(|wanted| {
            let same =
                wanted.len() == binds.len() && binds.iter().all(|b| wanted.contains_key(&b.to_string()));
            if !same {
                *wanted = Arc::new(binds.iter().map(child).collect());
            }
            !same
        });
        self.acceptor.report.send_if_modified(|report| {
            let before = report.len();
            report.retain(|bind, _| binds.contains(bind));
            report.len() != before
        });
    }

    /// Closes what was inherited from the process before and is not wanted.
    pub fn forget_inherited(&self) {
        self.acceptor.sockets.forget_inherited();
        self.datagrams.handed.forget_inherited();
    }

    /// Stops listening at once; for when the tree has ended.
    pub fn shut(&self) {
        self.acceptor.sockets.shut();
    }

    /// The branch of the tree under which a listener per wanted address lives. It never gives up: one
    /// that fails again and again takes none of the others with it.
    pub fn listeners(&self) -> Child {
        dynamic("listeners", limit(), self.wanted.subscribe()).never_escalates()
    }
}

/// How many deaths listeners and workers bear.
fn limit() -> Intensity {
    Intensity::new(5, Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use supervisor::Strategy;
    use tokio::net::TcpStream;

    use super::accept::BindState;
    use super::*;
    use crate::handover::turn::Turn;
    use crate::watchdog::{STALLED_AFTER, Watchdog};

    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.9:0").unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn listeners_follow_what_is_wanted_and_one_that_cannot_bind_hurts_no_other() {
        let heart = Watchdog::start(["listen".to_owned()], STALLED_AFTER).unwrap().heart("listen");
        let listen = Listen::new(
            1,
            &Limits::new(100),
            (Arc::default(), Metrics::new(1)),
            heart,
            Turns::new(Turn::Ours),
        )
        .unwrap();
        let tree = supervisor::branch("proxy", Strategy::OneForOne, limit(), vec![listen.listeners()]);
        let running = supervisor::run(tree).await.unwrap();
        let taken = TcpListener::bind("127.0.0.9:0").unwrap();
        let (first, second) = (free_address(), taken.local_addr().unwrap());
        let mut report = listen.report();
        listen.want(&[Bind::tcp(first), Bind::tcp(second)].into());
        report.wait_for(|report| report.len() == 2).await.unwrap();
        assert_eq!(report.borrow()[&Bind::tcp(first)], BindState::Bound);
        assert!(matches!(report.borrow()[&Bind::tcp(second)], BindState::Refused(_)));
        let _open = TcpStream::connect(first).await.unwrap();
        listen.want(&[Bind::tcp(second)].into());
        assert_eq!(report.borrow().len(), 1);
        while TcpStream::connect(first).await.is_ok() {}
        running.stop().await.unwrap();
    }
}
