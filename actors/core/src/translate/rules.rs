//! The rules of a route: each is translated alone, so that what is wrong with one costs that one.

use std::collections::BTreeSet;

use proxy_config::name::ObjectName;
use proxy_config::route::{Match, PathEdit, PathMatch, Rule, Timeouts, WeightedBackend};

use crate::snapshot::http_route::{self, BackendRef, Filter, HttpRoute};
use crate::snapshot::meta::{Kind, ObjectRef};
use crate::snapshot::rule_extras::{Retry, SessionPersistence};

use super::Problem;
use super::conditions::Fault;
use super::graph::BackendPort;
use super::reader::Reader;
use super::{backends, durations, filters, matches, rule_extras};

/// What a route's rules come to.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// The rules that proxies get, of routes of requests.
    pub(super) rules: Vec<Rule>,
    /// Where connections go, of routes of streams and datagrams.
    pub(super) targets: Vec<WeightedBackend>,
    /// The ports of Services that they use.
    pub(super) backends: BTreeSet<BackendPort>,
    /// The XBackends that they name and may use, right or wrong.
    pub(super) externals: BTreeSet<ObjectName>,
    /// Those of them that they lead to.
    pub(super) destinations: BTreeSet<ObjectName>,
    /// No rule can be served as written: the route is not accepted.
    pub(super) unusable: Option<Fault>,
    /// Some rules can't be served as written: they answer 500.
    pub(super) partly_invalid: Option<Fault>,
    /// A reference that is not resolved.
    pub(super) unresolved: Option<Fault>,
    /// Everything that is wrong.
    pub(super) problems: Vec<Problem>,
}

/// A rule as both kinds of route of requests have it.
pub(super) struct Parts<'a> {
    pub(super) name: Option<&'a String>,
    /// What it takes, and what is wrong with the first match that can't be served.
    pub(super) matches: (Vec<Match>, Option<Fault>),
    pub(super) filters: &'a [Filter],
    pub(super) backends: &'a [BackendRef],
    pub(super) timeouts: Result<Timeouts, Fault>,
    pub(super) retry: Option<&'a Retry>,
    pub(super) session: Option<&'a SessionPersistence>,
}

/// Translates the rules of an HTTPRoute.
pub(super) fn translate(reader: &Reader<'_>, route: &HttpRoute) -> Rules {
    let object = ObjectRef::new(Kind::HttpRoute, route.meta.name.clone());
    let parts = route.spec.rules.iter().map(|rule| Parts {
        name: rule.name.as_ref(),
        matches: matches::translate(&rule.matches),
        filters: &rule.filters,
        backends: &rule.backend_refs,
        timeouts: timeouts(&rule.timeouts),
        retry: rule.retry.as_ref(),
        session: rule.session_persistence.as_ref(),
    });
    translate_parts(reader, &object, parts)
}

/// Translates the rules of a route of requests.
pub(super) fn translate_parts<'p>(
    reader: &Reader<'_>,
    route: &ObjectRef,
    parts: impl ExactSizeIterator<Item = Parts<'p>>,
) -> Rules {
    let mut all = Rules::default();
    let count = parts.len();
    let mut invalid: Vec<(usize, Fault)> = Vec::new();
    for (index, parts) in parts.enumerate() {
        let scope = backends::Scope { reader, route, rule: index };
        if let Err(fault) = translate_one(&scope, parts, &mut all) {
            all.problems.push(Problem::of(&format!("spec.rules[{index}]"), &fault));
            invalid.push((index, fault));
        }
    }
    if let Some((_, first)) = invalid.first() {
        let reason = first.reason;
        let parts: Vec<_> =
            invalid.iter().map(|(index, fault)| format!("rule {index}: {}", fault.message)).collect();
        let message = parts.join("; ");
        if invalid.len() == count {
            all.unusable = Some(Fault::new(reason, message));
        } else {
            // The specification wants this message to begin so; requests to such a rule get a 500.
            all.partly_invalid = Some(Fault::new(reason, format!("Dropped Rule(s): {message}")));
        }
    }
    all
}

/// Translates a rule into `all`; an error is what makes it answer 500.
fn translate_one(scope: &backends::Scope<'_, '_>, parts: Parts<'_>, all: &mut Rules) -> Result<(), Fault> {
    let (matches, bad_match) = parts.matches;
    let mut fault = bad_match;
    let filters = filters::translate(scope, "filters", parts.filters, all);
    let filters = good_or_default(filters, &mut fault);
    let timeouts = good_or_default(parts.timeouts, &mut fault);
    let retry = good_or_default(parts.retry.map(rule_extras::retry).transpose(), &mut fault);
    let session =
        parts.session.map(|session| rule_extras::session(session, rule_extras::session_name_of_rule(scope)));
    let session = good_or_default(session.transpose(), &mut fault);
    let backends = backends::translate(scope, parts.backends, all, &mut fault);
    if fault.is_none() {
        let edits = filters.iter().chain(backends.iter().flat_map(|backend| &backend.filters));
        if edits.filter_map(filters::path_edit).any(|edit| matches!(edit, PathEdit::Prefix(_)))
            && !matches.iter().all(|rule| matches!(rule.path, PathMatch::Prefix(_)))
        {
            let message = "replacePrefixMatch needs every match of the rule to be of type PathPrefix";
            fault = Some(Fault::new("UnsupportedValue", message));
        }
    }
    if !matches.is_empty() {
        all.rules.push(Rule {
            name: parts.name.cloned(),
            matches,
            filters,
            backends,
            timeouts,
            retry,
            session,
            invalid: fault.as_ref().map(|fault| fault.message.clone()),
        });
    }
    fault.map_or(Ok(()), Err)
}

/// A part of a rule; what is wrong with it is kept if it is the first.
fn good_or_default<T: Default>(part: Result<T, Fault>, fault: &mut Option<Fault>) -> T {
    part.unwrap_or_else(|found| {
        fault.get_or_insert(found);
        T::default()
    })
}

fn timeouts(wanted: &http_route::Timeouts) -> Result<Timeouts, Fault> {
    let read = |field: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => durations::milliseconds(text).map(Some).ok_or_else(|| {
            let message =
                format!("timeouts.{field} `{text}` is not a duration: write it as 1h30m, 10s or 500ms");
            Fault::new("UnsupportedValue", message)
        }),
    };
    let request = read("request", &wanted.request)?;
    let backend_request = read("backendRequest", &wanted.backend_request)?;
    if let (Some(request @ 1..), Some(backend)) = (request, backend_request)
        && backend > request
    {
        let message = "timeouts.backendRequest must not be longer than timeouts.request";
        return Err(Fault::new("UnsupportedValue", message));
    }
    Ok(Timeouts { request, backend_request })
}
