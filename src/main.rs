//! The `portreeve` command: parses arguments, picks a tree, runs it.

mod addresses;
mod certificates;
mod cli;
mod controller;
#[cfg(feature = "demo")]
mod demo;
mod logging;
mod own_addresses;
mod probe;
mod proxies;
mod proxy;
mod runtime;
mod settings;
#[cfg(feature = "demo")]
mod standalone;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ArgMatches;

/// A mistake in arguments or settings (EX_USAGE of sysexits.h).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let matches = match cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match run(&matches) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("portreeve: {error:#}");
            ExitCode::from(if error.is::<settings::Problems>() { USAGE } else { 1 })
        }
    }
}

fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.subcommand() {
        #[cfg(feature = "demo")]
        Some(("demo", matches)) => demo::run(matches),
        #[cfg(feature = "demo")]
        Some(("standalone", matches)) => standalone::run(matches),
        Some(("controller", matches)) => controller::run(matches),
        Some(("proxy", matches)) => proxy::run(matches),
        Some(("probe", matches)) => probe::run(matches),
        Some(("certificates", matches)) => certificates::run(matches),
        Some(("own-addresses", matches)) => own_addresses::run(matches),
        Some(("completion", matches)) => {
            let shell: &clap_complete::Shell = matches.get_one("shell").expect("clap requires it");
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut cli::command(), "portreeve", &mut script);
            match std::io::stdout().write_all(&script) {
                // Who reads it may have seen enough.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("print the script"),
                _ => Ok(ExitCode::SUCCESS),
            }
        }
        other => unreachable!("clap refuses {other:?}"),
    }
}
