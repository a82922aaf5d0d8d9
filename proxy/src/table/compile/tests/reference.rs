//! Routing as the specification words it: every match of every route is looked at, and the best is taken.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};

use proxy_config::listener::{Address, Listener};
use proxy_config::name::{HostPattern, UnitId};
use proxy_config::route::{Match, PathMatch, RouteUnit, ValueMatch, ValuePattern};
use proxy_config::unit::Unit;

use super::Answer;
use super::world::Request;
use crate::table::request::Refusal;

pub(super) struct Reference {
    node: IpAddr,
    listeners: Vec<(UnitId, Listener)>,
    routes: Vec<(UnitId, RouteUnit)>,
}

/// Greater is more specific: an exact name before every wildcard, a longer wildcard before a shorter one.
type HostRank = (bool, usize);

fn host_rank(pattern: Option<&HostPattern>, host: &str) -> Option<HostRank> {
    match pattern {
        None => Some((false, 0)),
        Some(pattern) if pattern.matches(host) => Some((pattern.suffix().is_none(), pattern.as_str().len())),
        Some(_) => None,
    }
}

impl Reference {
    pub(super) fn of(world: &[(UnitId, Unit)], node: IpAddr) -> Self {
        let (mut listeners, mut routes) = (Vec::new(), Vec::new());
        for (id, unit) in world {
            match unit {
                Unit::Listener(listener) => listeners.push((id.clone(), listener.clone())),
                Unit::Route(route) => routes.push((id.clone(), route.clone())),
                _ => {}
            }
        }
        Self { node, listeners, routes }
    }

    pub(super) fn answer(&self, request: &Request) -> Answer {
        let host = request.host.to_ascii_lowercase();
        let here = self.listeners.iter().filter(|(_, listener)| {
            assert_eq!(listener.bind.address, Address::Node);
            SocketAddr::new(self.node, listener.bind.port).port() == request.port
        });
        let ranked = here.filter_map(|(id, each)| Some((host_rank(each.hostname.as_ref(), &host)?, id)));
        let (_, listener) = ranked.max_by_key(|(rank, _)| *rank).ok_or(Refusal::NotFound)?;
        let mut candidates = Vec::new();
        for (id, route) in &self.routes {
            for attachment in route.attachments.iter().filter(|each| each.listener == *listener) {
                let names: Vec<_> = attachment.hostnames.iter().map(Some).collect();
                let names = if names.is_empty() { vec![None] } else { names };
                let Some(rank) = names.iter().filter_map(|name| host_rank(*name, &host)).max() else {
                    continue;
                };
                collect(&mut candidates, rank, id, route, request);
            }
        }
        let best = candidates.into_iter().min_by(|(a, ..), (b, ..)| a.cmp(b));
        best.map(|(_, answer)| answer).ok_or(Refusal::NotFound)
    }
}

/// Smaller is better.
type Rank = (Reverse<HostRank>, u8, Reverse<usize>, Reverse<(bool, usize, usize)>, i64, String, usize, usize);

fn collect(
    candidates: &mut Vec<(Rank, (UnitId, usize, usize))>,
    host: HostRank,
    id: &UnitId,
    route: &RouteUnit,
    request: &Request,
) {
    for (rule_index, rule) in route.rules.iter().enumerate() {
        for (index, each) in rule.matches.iter().enumerate() {
            let Some((kind, length, matched)) = path(&each.path, &request.path) else { continue };
            if !holds(each, request) {
                continue;
            }
            let specific = (each.method.is_some(), distinct(&each.headers), distinct(&each.query));
            let rank = (
                Reverse(host),
                kind,
                Reverse(length),
                Reverse(specific),
                route.created,
                route.name.to_string(),
                rule_index,
                index,
            );
            candidates.push((rank, (id.clone(), rule_index, matched)));
        }
    }
}

/// The kind's rank, the length, and what a prefix took.
fn path(pattern: &PathMatch, path: &str) -> Option<(u8, usize, usize)> {
    match pattern {
        PathMatch::Exact(exact) => (exact == path).then_some((0, 0, 0)),
        PathMatch::Regex(pattern) => {
            let regex = regex_automata::meta::Regex::new(&format!("^(?:{pattern})$")).unwrap();
            regex.is_match(path).then_some((1, pattern.len(), 0))
        }
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            let rest = path.strip_prefix(prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((2, prefix.len(), prefix.len()))
        }
    }
}

fn holds(each: &Match, request: &Request) -> bool {
    each.method.as_ref().is_none_or(|method| *method == request.method)
        && all(&each.headers, &request.headers)
        && all(&each.query, &request.query)
}

/// Of conditions with one name the first counts, of values that were sent too.
fn all(conditions: &[ValueMatch], sent: &[(&str, &str)]) -> bool {
    let first = |index: usize, name: &str| conditions[..index].iter().all(|other| other.name != name);
    conditions.iter().enumerate().filter(|(index, each)| first(*index, &each.name)).all(|(_, each)| {
        let value = sent.iter().find(|(name, _)| *name == each.name).map(|(_, value)| *value);
        match (&each.value, value) {
            (ValuePattern::Exact(want), Some(value)) => want == value,
            (ValuePattern::Regex(_), Some(value)) => ["1", "2"].contains(&value),
            (_, None) => false,
        }
    })
}

fn distinct(conditions: &[ValueMatch]) -> usize {
    let mut names: Vec<_> = conditions.iter().map(|each| &each.name).collect();
    names.sort();
    names.dedup();
    names.len()
}
