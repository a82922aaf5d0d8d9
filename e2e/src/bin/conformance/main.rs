//! The command `conformance`: brings up a cluster with Portreeve on it, runs the official suite of Gateway API there,
//! and leaves its report, its log and ours in `e2e/results/conformance/<channel>`.
//!
//! [`scene`] is what the suite runs against, [`suite`] the suite and what came of it, [`rights`] what Portreeve was allowed
//! to do and did. Needs root.

mod rights;
mod scene;
mod suite;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use e2e::installation;
use scene::Scene;

#[derive(Parser)]
#[command(
    about = "Runs the Gateway API conformance suite against Portreeve on a real Kubernetes. Needs root."
)]
struct Arguments {
    /// Whose definitions of Gateway API are installed.
    #[arg(long, value_enum, default_value_t = Channel::Experimental)]
    channel: Channel,
    #[command(flatten)]
    suite: suite::Choice,
}

/// The channels of Gateway API.
#[derive(Clone, Copy, ValueEnum)]
enum Channel {
    Standard,
    Experimental,
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Experimental => "experimental",
        }
    }

    fn definitions(self) -> cluster::Channel {
        match self {
            Self::Standard => cluster::Channel::Standard,
            Self::Experimental => cluster::Channel::Experimental,
        }
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    // The client logs each answer that says "not yet" as an error.
    let filter = tracing_subscriber::EnvFilter::new("info,kube_client=off");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let channel = arguments.channel.name();
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/conformance").join(channel);
    if results.exists() {
        std::fs::remove_dir_all(&results)?;
    }
    std::fs::create_dir_all(&results)?;
    let scene = Scene::up(arguments.channel.definitions(), &results).await?;
    let verdict = suite::run(&scene, &arguments.suite).await?;
    let verdict_file = results.join("tests.tsv");
    std::fs::write(&verdict_file, verdict.table())?;
    verdict.failed().for_each(|test| println!("FAILED {test}"));
    let complaints = if arguments.suite.is_whole() { rights(&scene)? } else { Vec::new() };
    complaints.iter().for_each(|complaint| println!("RIGHTS {complaint}"));
    println!("{}: see {}", verdict.summary(), results.display());
    Ok(if verdict.passed() && complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is wrong with the rights that Portreeve had during a whole run. The controllers end for that: watches are in the
/// audit log once they have ended.
fn rights(scene: &Scene) -> Result<Vec<String>> {
    let granted = rights::granted(&scene.cluster)?;
    installation::end_controllers(&scene.cluster)?;
    let events = scene.cluster.audit()?;
    Ok(rights::complaints(&granted, &events))
}
