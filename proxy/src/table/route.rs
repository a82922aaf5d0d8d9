//! Routes, compiled: what is done with a request that a rule takes.

use std::sync::Arc;
use std::time::Duration;

use proxy_config::name::{ObjectName, UnitId};

use super::slot::Slot;
use crate::http::authorise::checks::Checks;
use crate::http::filters::Filters;
use crate::http::filters::cors::Cors;
use crate::http::mirror::Mirror;
use crate::http::retry::Retry;
use crate::http::session::Session;
use crate::metrics::RouteMetrics;
use crate::upstream::balance::Shares;

/// A route. An exchange holds it for as long as it lasts, whatever is swapped meanwhile.
#[derive(Debug)]
pub struct Route {
    /// Its unit.
    pub id: UnitId,
    /// The kind of the object, for example `HTTPRoute`.
    pub kind: Box<str>,
    /// Whether its backends speak HTTP/2 whatever they say: those of a GRPCRoute do.
    pub needs_http2: bool,
    /// The object.
    pub name: ObjectName,
    /// Its rules, in order.
    pub rules: Box<[Rule]>,
    /// Where exchanges are counted.
    pub metrics: Arc<RouteMetrics>,
}

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name, where it has one.
    pub name: Option<Box<str>>,
    /// What is done to each request and response, where no backend is chosen (a redirect).
    pub filters: Filters,
    /// Where requests go.
    pub backends: Box<[Share]>,
    /// Chooses among `backends`, by index.
    pub shares: Shares,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// What it does besides; `None` for most rules, which do nothing besides.
    pub policies: Option<Box<Policies>>,
    /// Whether the grant is missing that one of `backends` needs.
    pub lacks_grant: bool,
    /// Set where the rule can't be served as written: requests that it takes are answered by 500.
    pub invalid: Option<Box<str>>,
}

/// What a rule does besides editing heads and choosing a backend.
#[derive(Debug, Default)]
pub struct Policies {
    /// Which origins may read responses.
    pub cors: Option<Cors>,
    /// When a request is sent again.
    pub retry: Option<Retry>,
    /// Where copies of requests go.
    pub mirrors: Box<[Mirror]>,
    /// How requests of one session reach the same endpoint.
    pub session: Option<Session>,
    /// Whom is asked whether a request may pass.
    pub authorisation: Option<Authorisation>,
}

/// The checks of a rule.
#[derive(Debug)]
pub struct Authorisation {
    /// Of a request that goes to no backend.
    pub of_rule: Option<Checks>,
    /// Of one that goes to a backend of this index: those of the rule, then its own.
    pub of_shares: Box<[Option<Checks>]>,
}

/// A backend of a rule.
#[derive(Debug)]
pub struct Share {
    /// Where to; `Err`: nowhere, for this reason, and requests are answered by 500.
    pub target: Result<Slot, Box<str>>,
    /// What is done to requests that go there and to their responses: the rule's filters, then its own.
    pub filters: Filters,
}

/// Timeouts of a rule; `None`: the proxy's default, zero: none at all. Source: GEP-1742.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the whole request received to the whole response sent.
    pub request: Option<Duration>,
    /// One attempt at a backend.
    pub backend_request: Option<Duration>,
}

impl Timeouts {
    /// Whether they take the place of the proxy's own limit on how long nothing may move: where nothing is limited, and
    /// where the whole exchange is, once the request is sent.
    pub fn replace_idle(&self, is_sent: bool) -> bool {
        self.request.is_some_and(|limit| limit.is_zero() || is_sent)
    }
}

/// What routing says of a request.
#[derive(Clone, Debug)]
pub struct Routed {
    /// The route that takes it.
    pub route: Arc<Route>,
    /// The index of the rule that takes it.
    pub rule: usize,
    /// How many bytes of the path a prefix match took, without a final `/`; 0 for other matches.
    pub matched: usize,
}

impl Routed {
    /// The rule that takes the request.
    pub fn rule(&self) -> &Rule {
        &self.route.rules[self.rule]
    }

    /// The checks that a request has to pass which falls to a share of the rule, or goes to no backend.
    pub fn checks(&self, share: Option<usize>) -> Option<&Checks> {
        let authorisation = self.rule().policies.as_deref()?.authorisation.as_ref()?;
        share.map_or(authorisation.of_rule.as_ref(), |share| authorisation.of_shares[share].as_ref())
    }

    /// The filters for a share of the rule; `None`: for a request that goes to no backend.
    pub fn filters(&self, share: Option<usize>) -> &Filters {
        let rule = self.rule();
        share.map_or(&rule.filters, |share| &rule.backends[share].filters)
    }
}
