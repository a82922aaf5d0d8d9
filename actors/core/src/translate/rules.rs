//! The rules of a route: each is translated alone, so that what is wrong with one costs that one.

use std::collections::BTreeSet;

use proxy_config::name::ObjectName;
use proxy_config::route::{PathEdit, PathMatch, Rule, Timeouts};

use crate::snapshot::http_route::{self, HttpRoute};

use super::Problem;
use super::conditions::Fault;
use super::reader::Reader;
use super::{backends, durations, filters, matches};

/// What a route's rules come to.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// The rules that proxies get.
    pub(super) rules: Vec<Rule>,
    /// The ports of Services that they use.
    pub(super) backends: BTreeSet<(ObjectName, u16)>,
    /// No rule can be served as written: the route is not accepted.
    pub(super) unusable: Option<Fault>,
    /// Some rules can't be served as written: they answer 500.
    pub(super) partly_invalid: Option<Fault>,
    /// A reference that is not resolved.
    pub(super) unresolved: Option<Fault>,
    /// Everything that is wrong.
    pub(super) problems: Vec<Problem>,
}

/// Translates the rules of a route.
pub(super) fn translate(reader: &Reader<'_>, route: &HttpRoute) -> Rules {
    let mut all = Rules::default();
    let mut invalid: Vec<(usize, Fault)> = Vec::new();
    for (index, rule) in route.spec.rules.iter().enumerate() {
        if let Err(fault) = translate_one(reader, route, index, rule, &mut all) {
            all.problems.push(Problem::of(&format!("spec.rules[{index}]"), &fault));
            invalid.push((index, fault));
        }
    }
    if let Some((_, first)) = invalid.first() {
        let reason = first.reason;
        let parts: Vec<_> =
            invalid.iter().map(|(index, fault)| format!("rule {index}: {}", fault.message)).collect();
        let message = parts.join("; ");
        if invalid.len() == route.spec.rules.len() {
            all.unusable = Some(Fault::new(reason, message));
        } else {
            // The specification wants this message to begin so; requests to such a rule get a 500.
            all.partly_invalid = Some(Fault::new(reason, format!("Dropped Rule(s): {message}")));
        }
    }
    all
}

/// Translates a rule into `all`; an error is what makes it answer 500.
fn translate_one(
    reader: &Reader<'_>,
    route: &HttpRoute,
    index: usize,
    rule: &http_route::Rule,
    all: &mut Rules,
) -> Result<(), Fault> {
    let (matches, bad_match) = matches::translate(&rule.matches);
    let mut fault = bad_match.or_else(|| unsupported(rule));
    let filters = filters::translate("filters", &rule.filters).unwrap_or_else(|found| {
        fault.get_or_insert(found);
        Vec::new()
    });
    let timeouts = timeouts(&rule.timeouts).unwrap_or_else(|found| {
        fault.get_or_insert(found);
        Timeouts::default()
    });
    let scope = backends::Scope { reader, route: &route.meta.name, rule: index };
    let backends = backends::translate(&scope, &rule.backend_refs, all, &mut fault);
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
            name: rule.name.clone(),
            matches,
            filters,
            backends,
            timeouts,
            retry: None,
            session: None,
            invalid: fault.as_ref().map(|fault| fault.message.clone()),
        });
    }
    fault.map_or(Ok(()), Err)
}

fn unsupported(rule: &http_route::Rule) -> Option<Fault> {
    let field = match (rule.retry, rule.session_persistence) {
        (true, _) => "retry",
        (false, true) => "sessionPersistence",
        (false, false) => return None,
    };
    Some(Fault::new("UnsupportedValue", format!("{field} is not supported by this version: remove it")))
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
