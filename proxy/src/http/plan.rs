//! Owns what is to be done with a request, as the table in force says.
//!
//! Pure but for the shared turns of weights. Called once per request, with the table borrowed; what it
//! returns holds parts of it, never the table.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use proxy_config::backend::BackendProtocol;

use super::authorise::{Asking, Content, Granted};
use super::filters::{Filters, HeaderEdits};
use super::mirror::Copied;
use super::respond::Reason;
use super::session::{Bound, Session};
use super::standing::{self, Standing};
use super::validate::Request;
use crate::listen::context::Client;
use crate::table::Table;
use crate::table::port::Port;
use crate::table::request::{Refusal, RequestView};
use crate::table::route::{Routed, Rule, Share};
use crate::table::slot::Slot;
use crate::upstream::balance::Backend;
use crate::upstream::registry::Endpoint;

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
    /// Who gets a copy.
    pub copied: Vec<Copied>,
    /// Its session, where the rule has sessions.
    pub session: Option<Box<Bound>>,
    /// What those have said who were asked whether it may pass.
    pub granted: Option<Box<Granted>>,
}

impl Target {
    /// The endpoint of the request's session.
    pub fn bound(&self) -> Option<&Arc<Endpoint>> {
        self.session.as_ref()?.endpoint.as_ref()
    }

    /// What is done to the request on its way to the backend.
    pub fn filters<'a>(&'a self, routed: &'a Routed) -> &'a Filters {
        let granted = self.granted.as_deref().map(|granted| &granted.filters);
        granted.unwrap_or_else(|| routed.filters(Some(self.share)))
    }

    /// What is done to copies of it.
    pub fn filters_of_copies<'a>(&'a self, routed: &'a Routed) -> &'a Filters {
        self.granted.as_deref().map_or(&routed.rule().filters, |granted| &granted.of_rule)
    }

    /// The content of the request, where it has been read already.
    pub fn content(&self) -> Option<&Content> {
        self.granted.as_ref()?.content.as_ref()
    }

    /// The request as the backend gets it: what has been read already need not be waited for.
    #[inline]
    pub fn request<'r, 'a>(&self, request: &'r Request<'a>) -> Cow<'r, Request<'a>> {
        match self.content() {
            Some(_) => Cow::Owned(Request { expects_continue: false, ..request.clone() }),
            None => Cow::Borrowed(request),
        }
    }

    /// How the response of an endpoint is edited. `secure`: the client came over TLS.
    #[inline]
    pub fn edits<'a>(
        &'a self,
        routed: &'a Routed,
        endpoint: &Arc<Endpoint>,
        secure: bool,
    ) -> Cow<'a, HeaderEdits> {
        let edits = edits(routed, Some(self.share), &self.extra);
        let session = session(routed.rule()).or_else(|| self.backend.session()).zip(self.session.as_deref());
        let more = session.and_then(|(session, bound)| session.remember(bound, endpoint, secure, edits));
        more.map_or(Cow::Borrowed(edits), Cow::Owned)
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
    /// The route, whom it wants asked first, and what it wants done.
    Routed(Routed, Option<Box<Asking>>, Plan),
}

/// Plans a request of a client.
pub fn plan<R: RequestView>(table: &Table, request: &R, client: &Client) -> Planned {
    let Some(port) = table.port(client.local) else { return Planned::Unrouted(Reason::RouteNotFound) };
    // A connection outlives configurations: one that was accepted in clear must not be served what a port
    // has for TLS since, nor the other way round.
    if port.is_secure() != client.secure {
        return Planned::Unrouted(Reason::Misdirected);
    }
    // Nor may who was let in before it was asked who it is: a connection of HTTP/2 that is to end takes streams
    // until its client has seen that, or its time is over.
    if port.validates() && standing::of_connection(table, client) != Standing::Stays {
        return Planned::Unrouted(Reason::Misdirected);
    }
    match port.route(request, client.sni.as_deref()) {
        Ok(routed) => {
            let plan = follow((table, port), &routed, request);
            match asking((table, port), &routed, request, &plan) {
                Ok(asking) => Planned::Routed(routed, asking, plan),
                Err(reason) => Planned::Routed(routed, None, Plan::Answer(reason)),
            }
        }
        Err(Refusal::NotFound) => Planned::Unrouted(Reason::RouteNotFound),
        Err(Refusal::Misdirected) => Planned::Unrouted(Reason::Misdirected),
    }
}

/// A backend as the Gateway of a request sees it: which certificate that shows matters to one over TLS alone.
fn backend<'t, R: RequestView>(
    (table, port): (&'t Table, &Port),
    request: &R,
    slot: Slot,
) -> Option<Cow<'t, Arc<Backend>>> {
    let backend = table.backend(slot)?;
    let shown = if backend.is_secure() { port.shown(request.host()) } else { None };
    Some(backend.seen_with(shown))
}

/// Who is to be asked before a plan is followed.
fn asking<R: RequestView>(
    by: (&Table, &Port),
    routed: &Routed,
    request: &R,
    plan: &Plan,
) -> Result<Option<Box<Asking>>, Reason> {
    let share = match plan {
        // A preflight bears no credentials, and is told no more than every page may know.
        Plan::Answer(_) | Plan::Preflight(_) => return Ok(None),
        Plan::Redirect(share, _) => *share,
        Plan::Forward(target) => Some(target.share),
    };
    let Some(checks) = routed.checks(share) else { return Ok(None) };
    let backends = checks.backends(|slot| backend(by, request, slot).map(Cow::into_owned));
    let backends = backends.ok_or(Reason::InvalidRule)?;
    Ok(Some(Box::new(Asking { share, backends })))
}

fn follow<R: RequestView>(by: (&Table, &Port), routed: &Routed, request: &R) -> Plan {
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
    let backend = |slot| backend(by, request, slot);
    let (bound_to, bound) = find_session(by, rule, request);
    let share = bound_to.or_else(|| rule.shares.choose());
    let Some(share) = share else { return Plan::Answer(Reason::InvalidRule) };
    let Ok(slot) = rule.backends[share].target else { return Plan::Answer(Reason::InvalidRule) };
    if rule.backends[share].filters.redirect.is_some() {
        return Plan::Redirect(Some(share), extra(Some(share)));
    }
    let Some(to) = backend(slot) else { return Plan::Answer(Reason::InvalidRule) };
    let protocol = |backend: &Backend| match routed.route.needs_http2 {
        true => BackendProtocol::H2c,
        false => backend.protocol,
    };
    let mirrors = policies.map_or(&[][..], |policies| &policies.mirrors);
    let due = mirrors.iter().filter_map(|mirror| backend(mirror.due(share)?));
    Plan::Forward(Target {
        share,
        protocol: protocol(&to),
        extra: extra(Some(share)),
        copied: due.map(|to| Copied { protocol: protocol(&to), backend: to.into_owned() }).collect(),
        session: bound.or_else(|| to.session().map(|_| Bound::new(SystemTime::now()))).map(Box::new),
        backend: to.into_owned(),
        granted: None,
    })
}

/// The sessions of a rule: those of its backends count where it has none.
fn session(rule: &Rule) -> Option<&Session> {
    rule.policies.as_deref()?.session.as_ref()
}

/// The session of a request, with the share that it is at: one of its rule, or else of a backend of it.
fn find_session<R: RequestView>(
    by: (&Table, &Port),
    rule: &Rule,
    request: &R,
) -> (Option<usize>, Option<Bound>) {
    let backend = |share: &Share| backend(by, request, *share.target.as_ref().ok()?);
    let mut shares = rule.backends.iter().enumerate();
    if let Some(session) = session(rule) {
        let backends = shares.filter_map(|(index, share)| Some((index, backend(share)?)));
        let (share, bound) = session.find(request, backends, SystemTime::now());
        return (share, Some(bound));
    }
    let at = |(index, share): (usize, &Share)| {
        // Most backends have none: their connections need not be looked at.
        let session = by.0.backend(*share.target.as_ref().ok()?)?.session()?;
        let only = std::iter::once((index, backend(share)?));
        let (share, bound) = session.find(request, only, SystemTime::now());
        share.map(|share| (share, bound))
    };
    shares.find_map(at).unzip()
}

#[cfg(test)]
mod tests;
