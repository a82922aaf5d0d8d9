//! Owns what is to be done with a request, as the table in force says.
//!
//! Pure but for the shared turns of weights. Called once per request, with the table borrowed; what it
//! returns holds parts of it, never the table.

use std::sync::Arc;

use proxy_config::backend::BackendProtocol;
use proxy_config::listener::Protocol;

use super::filters::HeaderEdits;
use super::respond::Reason;
use crate::listen::context::Client;
use crate::table::Table;
use crate::table::request::{Refusal, RequestView};
use crate::table::route::Routed;
use crate::upstream::balance::Backend;

/// What is to be done.
#[derive(Debug)]
pub enum Plan {
    /// Answer for this reason.
    Answer(Reason),
    /// Answer a preflight with these fields.
    Preflight(Box<HeaderEdits>),
    /// Redirect as the rule, or a share of it, says.
    Redirect(Option<usize>, Extra),
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
    /// What it speaks.
    pub protocol: BackendProtocol,
    /// What the response is edited by instead of the filters of the share.
    pub extra: Extra,
}

impl Target {
    /// How the response is edited.
    pub fn edits<'a>(&'a self, routed: &'a Routed) -> &'a HeaderEdits {
        edits(routed, Some(self.share), &self.extra)
    }
}

/// Edits of a response that depend on the request; `None` for most rules.
pub type Extra = Option<Box<HeaderEdits>>;

/// How the response of a share of a rule is edited.
pub fn edits<'a>(routed: &'a Routed, share: Option<usize>, extra: &'a Extra) -> &'a HeaderEdits {
    extra.as_deref().unwrap_or_else(|| &routed.filters(share).response)
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
            let plan = follow(table, &routed, request);
            Planned::Routed(routed, plan)
        }
        Err(Refusal::NotFound) => Planned::Unrouted(Reason::RouteNotFound),
        Err(Refusal::Misdirected) => Planned::Unrouted(Reason::Misdirected),
    }
}

fn follow<R: RequestView>(table: &Table, routed: &Routed, request: &R) -> Plan {
    let rule = routed.rule();
    if rule.invalid.is_some() {
        return Plan::Answer(Reason::InvalidRule);
    }
    let policies = rule.policies.as_deref();
    let cors = policies.and_then(|policies| policies.cors.as_ref());
    if let Some(edits) = cors.and_then(|cors| cors.preflight(request)) {
        return Plan::Preflight(Box::new(edits));
    }
    let extra = |share| cors.map(|cors| Box::new(cors.response(request, &routed.filters(share).response)));
    if rule.filters.redirect.is_some() {
        return Plan::Redirect(None, extra(None));
    }
    let Some(share) = rule.shares.choose() else { return Plan::Answer(Reason::InvalidRule) };
    let Ok(slot) = rule.backends[share].target else { return Plan::Answer(Reason::InvalidRule) };
    if rule.backends[share].filters.redirect.is_some() {
        return Plan::Redirect(Some(share), extra(Some(share)));
    }
    let Some(backend) = table.backend(slot) else { return Plan::Answer(Reason::InvalidRule) };
    let protocol = if routed.route.needs_http2 { BackendProtocol::H2c } else { backend.protocol };
    Plan::Forward(Target { share, backend: Arc::clone(backend), protocol, extra: extra(Some(share)) })
}
