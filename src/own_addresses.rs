//! `portreeve own-addresses`: makes the addresses of a pool this node's own, so that a proxy on it can bind any of them,
//! and gives them up when it is asked to end. It runs beside each proxy where Gateways get their addresses from a pool,
//! from before it starts until after it has ended, and is the only one that may change the node's network (CAP_NET_ADMIN).
//!
//! Owns which routes there are to be: one `local RANGE dev lo` in the table local for each range, under this run's own
//! number. Runs that overlap, as those of a proxy and its successor do or of two releases on a node, each have their own
//! route to a range, and none takes away what another one needs. It refuses to know who gets which address.

mod netlink;
mod number;

use std::io;
use std::process::ExitCode;

use actors_core::translate::Range;
use anyhow::{Context, Result};
use clap::ArgMatches;
use rustix::io::Errno;

use crate::cli;
use crate::runtime::Ending;
use crate::settings::{Problems, Values};
use netlink::{Destination, Route, Routes};
use number::{Number, is_held};

/// Owns these ranges until it is asked to end; with `--check` it only looks whether they are owned.
pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let wanted = settings(Values::read(matches, cli::OWN_ADDRESSES))?;
    let mut routes = Routes::open().context("opening a netlink socket")?;
    if matches.get_flag(cli::CHECK) {
        return check(&mut routes, &wanted);
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        // From here on the routes go whenever the end is asked for.
        let mut ending = Ending::new()?;
        let number = Number::take().context("choosing a number for the routes of this run")?;
        own(&mut routes, &wanted, &number)?;
        ending.asked().await;
        give_up(&mut routes, &number)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Succeeds where there is a route of ours to each range.
fn check(routes: &mut Routes, wanted: &[Destination]) -> Result<ExitCode> {
    let ours = ours(routes)?;
    let missing = wanted.iter().find(|one| !ours.iter().any(|route| route.destination == **one));
    Ok(match missing {
        None => ExitCode::SUCCESS,
        Some(missing) => {
            println!("{missing} is not this node's own yet");
            ExitCode::FAILURE
        }
    })
}

/// Makes the ranges local, and takes away what nobody needs any more. First the one, then the other: what a run that was
/// killed has left behind may be what is served just now.
fn own(routes: &mut Routes, wanted: &[Destination], number: &Number) -> Result<()> {
    for destination in wanted {
        let route = Route { destination: *destination, metric: number.value() };
        let new = routes.add(&route).with_context(|| needs(&format!("making {destination} local")))?;
        println!("{destination} is {}this node's own", if new { "" } else { "already " });
    }
    for route in ours(routes)?.iter().filter(|route| is_left_over(route, wanted, number)) {
        remove(routes, route)?;
    }
    Ok(())
}

/// Takes away what this run has made local.
fn give_up(routes: &mut Routes, number: &Number) -> Result<()> {
    for route in ours(routes)?.iter().filter(|route| route.metric == number.value()) {
        remove(routes, route)?;
    }
    Ok(())
}

/// Whether nobody needs a route: the run that made it has ended without giving it up, or had this run's number before it.
fn is_left_over(route: &Route, wanted: &[Destination], number: &Number) -> bool {
    if route.metric == number.value() { !wanted.contains(&route.destination) } else { !is_held(route.metric) }
}

fn ours(routes: &mut Routes) -> Result<Vec<Route>> {
    routes.ours().context("reading the routes of this node")
}

fn remove(routes: &mut Routes, route: &Route) -> Result<()> {
    let Route { destination, .. } = route;
    match routes.remove(route) {
        // Two that begin at once may both have seen it.
        Err(error) if is_gone(&error) => return Ok(()),
        removed => removed.with_context(|| needs(&format!("giving up {destination}")))?,
    }
    println!("{destination} (metric {}) is given up", route.metric);
    Ok(())
}

/// What the kernel says of a route that is not there.
fn is_gone(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::SRCH)
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
