//! `portreeve own-addresses`: makes the addresses of a pool this node's own, so that a proxy on it can bind any of them,
//! and ends. It is the init container of proxies where Gateways get their addresses from a pool, and the only one that
//! may change the node's network (CAP_NET_ADMIN).
//!
//! Owns which routes there are to be: one `local RANGE dev lo` in the table local for each range, and no other one that
//! carries our mark. It refuses to know who gets which address.

mod netlink;

use std::process::ExitCode;

use actors_core::translate::Range;
use anyhow::{Context, Result};
use clap::ArgMatches;

use crate::cli;
use crate::settings::{Problems, Values};
use netlink::{Destination, Routes};

/// Makes these ranges local, and what an earlier run made local no longer.
pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let wanted = settings(Values::read(matches, cli::OWN_ADDRESSES))?;
    let mut routes = Routes::open().context("opening a netlink socket")?;
    let ours = routes.ours().context("reading the routes of this node")?;
    for destination in ours.iter().filter(|one| !wanted.contains(one)) {
        routes.remove(destination).with_context(|| needs(&format!("giving up {destination}")))?;
        println!("{destination} is no longer this node's own");
    }
    for destination in &wanted {
        let new = routes.add(destination).with_context(|| needs(&format!("making {destination} local")))?;
        println!("{destination} is {}this node's own", if new { "" } else { "already " });
    }
    Ok(ExitCode::SUCCESS)
}

fn needs(what: &str) -> String {
    format!("{what} (it needs CAP_NET_ADMIN in the node's own network)")
}

fn settings(mut values: Values) -> Result<Vec<Destination>, Problems> {
    let ranges: Vec<String> = values.all("range");
    let mut problems = values.into_problems();
    let mut wanted = Vec::new();
    for range in ranges {
        match Range::parse(&range) {
            Ok(range) => wanted.push(Destination { address: range.first(), prefix: range.prefix() }),
            Err(wrong) => problems.add("range", wrong),
        }
    }
    problems.into_result(wanted)
}
