//! How long a change takes to reach visitors: `cargo run --release -p bench --bin propagation`.
//!
//! In one process, by real TCP and TLS over loopback: a controller with its Lease, proxies that take its
//! pushes by mutual TLS, and a visitor. Only the API server is in memory: it answers and watches as the real
//! one does, without its disk. With `--real`, a real API server and a process for each controller and proxy,
//! each in a network namespace of its own. A time begins at the API server's answer to a patch and ends when
//! the last proxy has answered a visitor with what was patched.

mod counters;
mod figures;
mod objects;
mod visitor;
mod world;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use proxy_config::set::UnitSet;
use proxy_config::wire::{Push, WIRE_VERSION};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::counters::Counters;
use crate::figures::Figures;
use crate::objects::Objects;
use crate::visitor::Visitor;
use crate::world::World;

/// What the API server and all proxies together may take for all routes.
const ALL_ROUTES: Duration = Duration::from_secs(300);
/// What one change may take.
const ONE_CHANGE: Duration = Duration::from_secs(30);
/// What the statuses of all routes may take: 100 are written a second.
const STATUSES: Duration = Duration::from_secs(600);

/// Measures the time from a change of a route to the last proxy that serves it.
#[derive(Parser)]
struct Arguments {
    /// How many HTTPRoutes there are; more numbers measure one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    routes: Vec<usize>,
    /// How many routes a Gateway has.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    per_gateway: u16,
    /// How many proxies.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=50))]
    proxies: u8,
    /// How many changes, each of one route.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    changes: u32,
    /// How long to wait after a change before the next, in milliseconds. A controller leaves 50 ms between
    /// two pushes to one proxy, so that shorter pauses measure how fast changes can follow each other.
    #[arg(long, default_value_t = 100)]
    pause: u64,
    /// Against a real API server, with a process for each controller and proxy (root; builds a Kubernetes once).
    #[arg(long)]
    real: bool,
    /// How many controllers there are with --real; one of them leads.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    controllers: u8,
    /// Which routes are changed follows from this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_env_filter("warn,kube_client=off").with_writer(std::io::stderr).init();
    let mut all = Vec::new();
    for routes in &arguments.routes {
        all.push(measure(*routes, &arguments)?);
    }
    println!("{}", figures::render(&all));
    Ok(())
}

/// Everything from nothing to the figures of one number of routes.
fn measure(routes: usize, arguments: &Arguments) -> Result<Figures> {
    ensure!(routes > 0, "--routes must be at least 1");
    let world = if arguments.real {
        World::real(arguments.proxies, arguments.controllers)?
    } else {
        World::in_memory(arguments.proxies)?
    };
    let mut objects = Objects::new(&world, routes, arguments.per_gateway.into());
    let mut visitor = Visitor::new(world.proxies(), world.visitors().as_ref());
    objects.prepare()?;
    let began = Instant::now();
    objects.create_routes()?;
    let created = began.elapsed();
    eprintln!("{routes} routes made in {created:?}");
    // Watches keep the order of changes: who serves the last route serves all.
    visitor.wait_for(&objects.host(routes - 1), "0", Instant::now() + ALL_ROUTES)?;
    let served = began.elapsed();
    eprintln!("served by all proxies {served:?} after the first was made");
    for route in 0..routes {
        visitor.check(route, &objects.host(route), "0")?;
    }
    let statuses = world.wait_for_statuses(began, STATUSES)?;
    eprintln!("all statuses written {statuses:?} after the first was made");
    let whole = world.units().map(|units| push_size(&UnitSet::default(), &units));
    let mut changes = changes(&world, &mut objects, &mut visitor, arguments)?;
    changes.sort();
    Ok(Figures { routes, created, served, statuses, whole, ..changes })
}

/// Changes one route after the other; what is not measured here is left at nothing.
fn changes(
    world: &World,
    objects: &mut Objects<'_>,
    visitor: &mut Visitor,
    arguments: &Arguments,
) -> Result<Figures> {
    let mut random = StdRng::seed_from_u64(arguments.seed);
    let mut figures = Figures::default();
    let before = (Counters::read(world)?, world.units());
    for number in 1..=arguments.changes {
        std::thread::sleep(Duration::from_millis(arguments.pause));
        let route = random.random_range(0..objects.routes());
        let value = number.to_string();
        objects.change(route, &value)?;
        let answered = Instant::now();
        let served = visitor.wait_for(&objects.host(route), &value, answered + ONE_CHANGE)?;
        figures.first.push(served.first - answered);
        figures.last.push(served.last - answered);
        if number == 1 {
            figures.delta = before.1.as_ref().zip(world.units()).map(|(old, new)| push_size(old, &new));
        }
    }
    figures.counted = Counters::read(world)?.since(&before.0);
    figures.changes = arguments.changes;
    Ok(figures)
}

/// The bytes of a push that leads from some units to others.
fn push_size(base: &UnitSet, units: &UnitSet) -> usize {
    let (put, delete) = units.diff(base);
    let push = Push {
        wire: WIRE_VERSION,
        proxy: "node-1".to_owned(),
        version: Default::default(),
        base: base.root(),
        root: units.root(),
        replace: Vec::new(),
        put,
        delete,
        keep: Vec::new(),
        traceparent: None,
    };
    serde_json::to_vec(&push).map_or(0, |bytes| bytes.len())
}
