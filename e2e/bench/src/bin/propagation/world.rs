//! What runs: an API server, controllers, proxies and a backend, all in this process or all as they really are.
//! Called by the story in `main.rs`, and by `objects.rs` for the API server. It knows nothing of routes.

mod backend;
mod memory;
mod real;

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster::namespace::Namespace;
use proxy_config::set::UnitSet;
use serde_json::Value;

use crate::counters::sum;
use crate::objects::{base, node};
use memory::Memory;
use real::Real;

/// Statuses are written when none has been for this long.
const QUIET: Duration = Duration::from_secs(2);
/// The port that pushes are taken on.
const ADMIN: u16 = 9901;

/// Everything that runs. It ends with this value, as a killed process would.
pub(crate) enum World {
    /// One process, the API server in memory.
    Memory(Box<Memory>),
    /// A real API server, and a process for each controller and proxy, each with a network namespace of its own.
    Real(Box<Real>),
}

impl World {
    /// Starts all of it in this process, without Gateways and routes.
    pub(crate) fn in_memory(proxies: u8) -> Result<Self> {
        Memory::start(proxies).map(|memory| Self::Memory(Box::new(memory)))
    }

    /// Starts all of it as processes, without Gateways and routes.
    pub(crate) fn real(proxies: u8, controllers: u8) -> Result<Self> {
        Real::start(proxies, controllers).map(|real| Self::Real(Box::new(real)))
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

    /// What the cluster holds besides Gateways and routes.
    pub(crate) fn manifests(&self) -> Result<Vec<Value>> {
        let (backend, addresses) = match self {
            Self::Memory(memory) => (memory.backend(), memory.addresses()),
            Self::Real(real) => (real.backend(), real.addresses()),
        };
        let nodes = (1..).zip(addresses);
        let nodes = nodes.map(|(number, address)| node(&name(number), &address.to_string()));
        Ok(base(backend).into_iter().chain(nodes).collect())
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

    /// What is being pushed, where it can be looked at.
    pub(crate) fn units(&self) -> Option<UnitSet> {
        match self {
            Self::Memory(memory) => Some(memory.units()),
            Self::Real(_) => None,
        }
    }

    /// Waits until no status has been written for a while; when the last one was, counted from `began`.
    pub(crate) fn wait_for_statuses(&self, began: Instant, within: Duration) -> Result<Duration> {
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
        Ok(at - began)
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
