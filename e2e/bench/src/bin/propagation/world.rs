//! What runs: an API server, controllers, proxies and a backend, all in this process or all as they really are.
//! Called by the story in `main.rs`, and by `objects.rs` for the API server. It knows nothing of routes.

mod backend;
mod memory;
mod real;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster::namespace::Namespace;
use proxy_config::set::UnitSet;
use serde_json::Value;

use crate::counters::sum;
use crate::objects::{base, node};
use memory::Memory;
use real::Real;

pub(crate) use real::traefik;

/// Statuses are written when none has been for this long.
const QUIET: Duration = Duration::from_secs(2);
/// The port that pushes are taken on.
const ADMIN: u16 = 9901;
/// The name by which classes know our controllers.
const PORTREEVE: &str = "portreeve.dev/gateway-controller";

/// Everything that runs. It ends with this value, as a killed process would.
pub(crate) enum World {
    /// One process, the API server in memory.
    Memory(Box<Memory>),
    /// A real API server, and a process for each controller and proxy, each with a network namespace of its own.
    Real(Box<Real>),
}

/// Who is measured.
#[derive(Clone)]
pub(crate) enum Contender {
    /// Portreeve in one process, with the API server in memory.
    Memory {
        /// How many proxies.
        proxies: u8,
    },
    /// Portreeve as it really is.
    Portreeve {
        /// How many proxies.
        proxies: u8,
        /// How many controllers; one of them leads.
        controllers: u8,
    },
    /// One Traefik, which is controller and proxy at once.
    Traefik {
        /// The program.
        program: PathBuf,
        /// The shortest time between two changes that it takes, if not its default.
        throttle: Option<Duration>,
    },
}

impl std::fmt::Display for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory { proxies } => write!(f, "{proxies} proxies"),
            Self::Portreeve { proxies, .. } => write!(f, "Portreeve, {proxies} proxies"),
            Self::Traefik { throttle: None, .. } => f.write_str("Traefik"),
            Self::Traefik { throttle: Some(throttle), .. } => {
                write!(f, "Traefik, throttled to {} ms", throttle.as_millis())
            }
        }
    }
}

/// Resident memory in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Resident {
    /// Of the largest controller, where it is a process of its own.
    pub(crate) controller: Option<u64>,
    /// Of the largest proxy.
    pub(crate) proxy: u64,
}

impl World {
    /// Starts all of it, without Gateways and routes.
    pub(crate) fn start(contender: &Contender) -> Result<Self> {
        match contender {
            Contender::Memory { proxies } => {
                Memory::start(*proxies).map(|world| Self::Memory(Box::new(world)))
            }
            Contender::Portreeve { .. } | Contender::Traefik { .. } => {
                Real::start(contender).map(|world| Self::Real(Box::new(world)))
            }
        }
    }

    /// Where visitors reach each proxy.
    pub(crate) fn proxies(&self) -> Vec<SocketAddr> {
        let addresses = match self {
            Self::Memory(memory) => memory.addresses(),
            Self::Real(real) => real.addresses(),
        };
        addresses.into_iter().map(|address| (address, crate::objects::HTTP).into()).collect()
    }

    /// Where visitors come from, if not from here.
    pub(crate) fn visitors(&self) -> Option<Namespace> {
        match self {
            Self::Memory(_) => None,
            Self::Real(real) => Some(real.visitors()),
        }
    }

    /// A client of the API server that is not a controller's.
    pub(crate) fn client(&self) -> kube::Client {
        match self {
            Self::Memory(memory) => memory.client(),
            Self::Real(real) => real.client(),
        }
    }

    /// Waits for an answer of the API server.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self {
            Self::Memory(memory) => memory.block_on(future),
            Self::Real(real) => real.block_on(future),
        }
    }

    /// Makes or replaces objects.
    pub(crate) fn apply(&self, objects: Vec<Value>) -> Result<()> {
        match self {
            Self::Memory(memory) => memory.apply(objects),
            Self::Real(real) => real.apply(&objects),
        }
    }

    /// Two places that answer requests, each with its port.
    pub(crate) fn backends(&self) -> [SocketAddr; 2] {
        match self {
            Self::Memory(memory) => memory.backends(),
            Self::Real(real) => real.backends(),
        }
    }

    /// What the cluster holds besides Gateways, routes and Services.
    pub(crate) fn manifests(&self) -> Result<Vec<Value>> {
        let (controller, addresses) = match self {
            Self::Memory(memory) => (PORTREEVE, memory.addresses()),
            Self::Real(real) => (real.controller_name(), real.addresses()),
        };
        let nodes = (1..).zip(addresses);
        let nodes = nodes.map(|(number, address)| node(&name(number), &address.to_string()));
        Ok(base(controller).into_iter().chain(nodes).collect())
    }

    /// The controllers' metrics as text.
    pub(crate) fn metrics(&self) -> Result<String> {
        match self {
            Self::Memory(memory) => Ok(memory.metrics()),
            Self::Real(real) => real.metrics(),
        }
    }

    /// The CPU time that controllers and proxies have used; in one process with all else that runs in it.
    pub(crate) fn cpu(&self) -> f64 {
        let processes = match self {
            Self::Memory(_) => vec![std::process::id()],
            Self::Real(real) => real.processes(),
        };
        processes.into_iter().filter_map(cpu_of).sum()
    }

    /// The memory of the processes; nothing where all are one.
    pub(crate) fn resident(&self) -> Option<Resident> {
        match self {
            Self::Memory(_) => None,
            Self::Real(real) => real.resident(),
        }
    }

    /// What is being pushed, where it can be looked at.
    pub(crate) fn units(&self) -> Option<UnitSet> {
        match self {
            Self::Memory(memory) => Some(memory.units()),
            Self::Real(_) => None,
        }
    }

    /// Waits until no status has been written for a while; when the last one was, counted from `began`. Nothing
    /// where the contender does not count them.
    pub(crate) fn wait_for_statuses(&self, began: Instant, within: Duration) -> Result<Option<Duration>> {
        if self.metrics()?.is_empty() {
            return Ok(None);
        }
        let count = || anyhow::Ok(sum(&self.metrics()?, "portreeve_controller_status_writes_total") as u64);
        let deadline = Instant::now() + within;
        let (mut last, mut at) = (count()?, Instant::now());
        while at.elapsed() < QUIET {
            ensure!(Instant::now() < deadline, "statuses are still being written: {last} so far");
            std::thread::sleep(Duration::from_millis(20));
            let now = count()?;
            if now != last {
                (last, at) = (now, Instant::now());
            }
        }
        eprintln!("{last} statuses written");
        Ok(Some(at - began))
    }
}

fn name(number: u8) -> String {
    format!("node-{number}")
}

/// User and system time of a process: fields 14 and 15 of its stat, in hundredths of a second.
fn cpu_of(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

/// The resident memory of a process in bytes: the second field of its statm, in pages.
fn resident_of(process: u32) -> Option<u64> {
    /// Of x86-64 and of the common configuration of others.
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    Some(text.split_whitespace().nth(1)?.parse::<u64>().ok()? * PAGE)
}
