//! How long a change takes to reach visitors: `cargo run --release -p bench --bin propagation`.
//!
//! In one process, by real TCP and TLS over loopback: a controller with its Lease, proxies that take its
//! pushes by mutual TLS, and a visitor. Only the API server is in memory: it answers and watches as the real
//! one does, without its disk. With `--real`, a real API server and a process for each controller and proxy,
//! each in a network namespace of its own, and with `--traefik` the same of a peer. A time begins at the API server's answer to a patch and ends when
//! the last proxy has answered a visitor with what was patched.

mod counters;
mod figures;
mod objects;
mod visitor;
mod witness;
mod world;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use proxy_config::set::UnitSet;
use proxy_config::wire::{Push, WIRE_VERSION};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::counters::Counters;
use crate::figures::{Changes, Figures};
use crate::objects::{Objects, Sizes, What};
use crate::visitor::Visitor;
use crate::witness::Witness;
use crate::world::{Contender, World};

/// What the API server and all proxies together may take for all routes.
const ALL_ROUTES: Duration = Duration::from_secs(300);
/// What one change may take.
const ONE_CHANGE: Duration = Duration::from_secs(30);
/// What the statuses of all routes may take: 100 are written a second.
const STATUSES: Duration = Duration::from_secs(600);
/// What Traefik is measured with: it takes no second change for this long. Its default is 2 s.
const THROTTLE: Duration = Duration::from_millis(50);

/// Measures the time from a change to the last proxy that serves it.
#[derive(Parser)]
struct Arguments {
    /// How many HTTPRoutes there are; more numbers measure one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    routes: Vec<usize>,
    /// How many routes a Gateway has.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    per_gateway: u16,
    /// How many routes a Service has.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    per_service: u16,
    /// How many proxies.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=50))]
    proxies: u8,
    /// What is changed, one kind after the other.
    #[arg(long, value_delimiter = ',', default_value = "route,endpoints,certificate")]
    what: Vec<What>,
    /// How many changes of each kind, each of one object.
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
    /// Measure one Traefik too, after Portreeve, with these numbers of HTTPRoutes (with --real; builds it once).
    #[arg(long, value_delimiter = ',', requires = "real")]
    traefik: Vec<usize>,
    /// How many changes of each kind Traefik is measured with, which takes a second for two of them.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    traefik_changes: u32,
    /// Which objects are changed follows from this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Arguments {
    fn sizes(&self, routes: usize) -> Result<Sizes> {
        ensure!(routes > 0, "--routes must be at least 1");
        let services = routes.div_ceil(self.per_service.into());
        Ok(Sizes { routes, services, per_gateway: self.per_gateway.into() })
    }

    /// How many changes of each kind.
    fn changes(&self, contender: &Contender) -> u32 {
        if matches!(contender, Contender::Traefik { .. }) { self.traefik_changes } else { self.changes }
    }

    /// Who is measured, and with how many routes.
    fn runs(&self) -> Result<Vec<(Contender, Sizes)>> {
        let proxies = self.proxies;
        let portreeve = if self.real {
            Contender::Portreeve { proxies, controllers: self.controllers }
        } else {
            Contender::Memory { proxies }
        };
        let mut runs = Vec::new();
        for routes in &self.routes {
            runs.push((portreeve.clone(), self.sizes(*routes)?));
        }
        if !self.traefik.is_empty() {
            let traefik = Contender::Traefik { program: world::traefik::build()?, throttle: Some(THROTTLE) };
            for routes in &self.traefik {
                runs.push((traefik.clone(), self.sizes(*routes)?));
            }
        }
        Ok(runs)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_env_filter("warn,kube_client=off").with_writer(std::io::stderr).init();
    let mut all = Vec::new();
    for (contender, sizes) in arguments.runs()? {
        eprintln!("{contender}, {} routes", sizes.routes);
        all.push(measure(&contender, sizes, &arguments)?);
    }
    println!("{}", figures::render(&all));
    Ok(())
}

/// Everything from nothing to the figures of one contender with one number of routes.
fn measure(contender: &Contender, sizes: Sizes, arguments: &Arguments) -> Result<Figures> {
    let world = World::start(contender)?;
    let mut objects = Objects::new(&world, sizes)?;
    let mut visitor = Visitor::new(world.proxies(), world.visitors().as_ref());
    objects.prepare()?;
    let began = Instant::now();
    objects.create_routes()?;
    let created = began.elapsed();
    eprintln!("all routes made in {created:?}");
    // Watches keep the order of changes: who serves the last route serves all.
    visitor.wait_for(&objects.first_sign(sizes.routes - 1), Instant::now() + ALL_ROUTES)?;
    let served = began.elapsed();
    eprintln!("served by all proxies {served:?} after the first was made");
    for route in 0..sizes.routes {
        visitor.check(route, &objects.first_sign(route))?;
    }
    let statuses = world.wait_for_statuses(began, STATUSES)?;
    if let Some(statuses) = statuses {
        eprintln!("all statuses written {statuses:?} after the first was made");
    }
    let whole = world.units().map(|units| push_size(&UnitSet::default(), &units));
    let (mut changes, count) = (Vec::new(), arguments.changes(contender));
    for what in &arguments.what {
        changes.push(change(&world, (*what, count), &mut objects, &mut visitor, arguments)?);
        eprintln!("{what:?}: {count} changes");
    }
    let (contender, resident) = (contender.to_string(), world.resident());
    Ok(Figures { contender, sizes, created, served, statuses, whole, resident, changes })
}

/// Changes one object after the other.
fn change(
    world: &World,
    (what, count): (What, u32),
    objects: &mut Objects<'_>,
    visitor: &mut Visitor,
    arguments: &Arguments,
) -> Result<Changes> {
    let mut random = StdRng::seed_from_u64(arguments.seed);
    let before = (Counters::read(world)?, world.units());
    let (mut heard, mut first, mut last, mut since, mut delta) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), None);
    let witness = Witness::begin(world, objects.api(what));
    for number in 1..=count {
        std::thread::sleep(Duration::from_millis(arguments.pause));
        let (sign, version) =
            objects.change(what, random.random_range(0..usize::MAX), &number.to_string())?;
        let answered = Instant::now();
        let served = visitor.wait_for(&sign, answered + ONE_CHANGE)?;
        let told = witness.heard(&version)?;
        heard.push(told.saturating_duration_since(answered));
        since.push(served.last.saturating_duration_since(told.max(answered)));
        first.push(served.first - answered);
        last.push(served.last - answered);
        if number == 1 {
            delta = before.1.as_ref().zip(world.units()).map(|(old, new)| push_size(old, &new));
        }
    }
    for times in [&mut heard, &mut first, &mut last, &mut since] {
        times.sort_unstable();
    }
    Ok(Changes { what, delta, heard, first, last, since, counted: Counters::read(world)?.since(&before.0) })
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
