//! `portreeve demo`: everything at work on this machine alone. A Kubernetes API in memory, three
//! controllers, two proxies and sample backends, on loopback, without privileges.

mod backends;
mod process;
mod report;
mod tour;
mod visitor;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::ArgMatches;
use tracing_subscriber::EnvFilter;

use self::report::Report;
use self::tour::Tour;
use self::world::World;
use crate::logging::{self, Format};
use crate::runtime::Ending;

/// Runs the demonstration: once through all steps, or until it is interrupted.
pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let once = matches.get_flag("once");
    let json = matches.get_one::<String>("output").is_some_and(|format| format == "json");
    // What processes log would bury the story; losses on the way are part of it.
    logging::start(Format::Text, EnvFilter::new("off"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let held = runtime.block_on(demonstrate(once, json))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn demonstrate(once: bool, json: bool) -> Result<bool> {
    let mut ending = Ending::new()?;
    let report = Report::new(!json);
    report.tell(
        "Portreeve on loopback: 3 controllers, 2 proxies, a Kubernetes API in memory, 2 sample backends.\n",
    );
    let world = World::start().await?;
    let mut tour = Tour { world, report };
    tour.beginning().await;
    if once {
        tour.losses().await;
    } else {
        tour.invite();
        ending.asked().await;
    }
    let Tour { world, report } = tour;
    world.end();
    if once && json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    Ok(report.held)
}
