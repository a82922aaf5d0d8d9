//! Owns what is to be done with a request, as the table in force says.
//!
//! Pure but for the shared turns of weights. Called once per request, with the table borrowed; what it
//! returns holds parts of it, never the table.

use std::sync::Arc;

use super::respond::Reason;
use proxy_config::listener::Protocol;

use crate::listen::context::Client;
use crate::table::Table;
use crate::table::request::{Refusal, RequestView};
use crate::table::route::{Routed, Rule};
use crate::upstream::balance::Backend;

/// What is to be done.
#[derive(Debug)]
pub enum Plan {
    /// Answer for this reason.
    Answer(Reason),
    /// Redirect as the rule says.
    Redirect,
    /// Forward.
    Forward(Target),
}

/// Where a request goes.
#[derive(Debug)]
pub struct Target {
    /// The share of the rule that it fell to.
    pub share: usize,
    /// The backend.
    pub backend: Arc<Backend>,
}

/// A plan, and the route that it follows.
#[derive(Debug)]
pub enum Planned {
    /// No route takes the request: answer for this reason.
    Unrouted(Reason),
    /// The route, and what it wants done.
    Routed(Routed, Plan),
}

/// Plans a request of a client.
pub fn plan<R: RequestView>(table: &Table, request: &R, client: &Client) -> Planned {
    let Some(port) = table.port(client.local) else { return Planned::Unrouted(Reason::RouteNotFound) };
    // A connection outlives configurations: one that was accepted in clear must not be served what a port
    // has for TLS since, nor the other way round.
    if (port.protocol() == Protocol::Https) != client.secure {
        return Planned::Unrouted(Reason::Misdirected);
    }
    match port.route(request, client.sni.as_deref()) {
        Ok(routed) => {
            let plan = follow(table, routed.rule());
            Planned::Routed(routed, plan)
        }
        Err(Refusal::NotFound) => Planned::Unrouted(Reason::RouteNotFound),
        Err(Refusal::Misdirected) => Planned::Unrouted(Reason::Misdirected),
    }
}

fn follow(table: &Table, rule: &Rule) -> Plan {
    if rule.invalid.is_some() {
        return Plan::Answer(Reason::InvalidRule);
    }
    if rule.filters.redirect.is_some() {
        return Plan::Redirect;
    }
    let Some(share) = rule.shares.choose() else { return Plan::Answer(Reason::InvalidRule) };
    let backend = rule.backends[share].target.as_ref().ok().and_then(|slot| table.backend(*slot));
    match backend {
        Some(backend) => Plan::Forward(Target { share, backend: Arc::clone(backend) }),
        None => Plan::Answer(Reason::InvalidRule),
    }
}
