//! Routes: rules and matches of each, and for each host of each listener the paths of all its routes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use proxy_config::name::UnitId;
use proxy_config::route::{self as unit, RouteUnit, Target};

use super::backends::BackendStage;
use super::{Dirty, Problems};
use crate::http::filters::Filters;
use crate::metrics::Metrics;
use crate::table::condition::Regexes;
use crate::table::host::{Hosts, key};
use crate::table::path::{Candidate, CompiledMatch, Paths};
use crate::table::route::{Route, Rule, Share, Timeouts};
use crate::upstream::balance::Shares;

mod policies;

/// A listener unit and a host key within it.
type HostKey = (UnitId, Box<str>);

#[derive(Debug)]
pub(super) struct RouteStage {
    metrics: Arc<Metrics>,
    regexes: Regexes,
    routes: BTreeMap<UnitId, Entry>,
    by_host: HashMap<HostKey, BTreeSet<UnitId>>,
    listeners: HashMap<UnitId, Hosts>,
    dirty: Dirty<HostKey>,
    /// A route lost a host or a backend.
    has_lost: bool,
}

#[derive(Debug)]
struct Entry {
    created: i64,
    route: Arc<Route>,
    matches: Vec<CompiledMatch>,
    hosts: BTreeSet<HostKey>,
    /// The backends that it holds slots of.
    backends: Vec<UnitId>,
}

impl Entry {
    /// Whether it has a host or a backend that another version of it has not.
    fn has_more_than(&self, other: &Self) -> bool {
        !self.hosts.is_subset(&other.hosts) || self.backends.iter().any(|id| !other.backends.contains(id))
    }
}

impl RouteStage {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            regexes: Regexes::default(),
            routes: BTreeMap::new(),
            by_host: HashMap::new(),
            listeners: HashMap::new(),
            dirty: Dirty::new(),
            has_lost: false,
        }
    }

    /// Whether a route has lost a host or a backend since this was last asked.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    pub(super) fn put(
        &mut self,
        id: &UnitId,
        unit: Option<&RouteUnit>,
        backends: &mut BackendStage,
        broken: &mut Problems,
    ) {
        // The new one takes its slots before the old one gives its own back, so that they stay.
        let new = unit.map(|unit| {
            let (entry, problems) = self.compile(id, unit, backends);
            if !problems.is_empty() {
                broken.insert(id.clone(), problems.join("; "));
            }
            entry
        });
        if let Some(old) = self.routes.remove(id) {
            self.has_lost |= new.as_ref().is_none_or(|new| old.has_more_than(new));
            old.backends.iter().for_each(|backend| backends.release(backend));
            for host in old.hosts {
                if let Some(routes) = self.by_host.get_mut(&host) {
                    routes.remove(id);
                }
                self.dirty.insert(host);
            }
        }
        if let Some(new) = new {
            for host in &new.hosts {
                self.by_host.entry(host.clone()).or_default().insert(id.clone());
                self.dirty.insert(host.clone());
            }
            self.routes.insert(id.clone(), new);
        }
    }

    fn compile(
        &mut self,
        id: &UnitId,
        unit: &RouteUnit,
        backends: &mut BackendStage,
    ) -> (Entry, Vec<String>) {
        let mut problems = Vec::new();
        let mut matches = Vec::new();
        for (index, rule) in unit.rules.iter().enumerate() {
            for each in &rule.matches {
                match CompiledMatch::compile(each, index, &mut self.regexes) {
                    Ok(compiled) => matches.push(compiled),
                    Err(error) => problems.push(format!("rule {index}: {error}")),
                }
            }
        }
        let mut held = Vec::new();
        let rules = unit.rules.iter().enumerate().map(|(index, rule)| {
            compile_rule(rule, backends, &mut held).unwrap_or_else(|problem| {
                problems.push(format!("rule {index}: {problem}"));
                invalid_rule(rule, problem)
            })
        });
        let route = Arc::new(Route {
            id: id.clone(),
            kind: unit.kind.as_str().into(),
            needs_http2: unit.kind == "GRPCRoute",
            name: unit.name.clone(),
            rules: rules.collect(),
            metrics: self.metrics.route(id),
        });
        let entry = Entry { created: unit.created, route, matches, hosts: hosts(unit), backends: held };
        (entry, problems)
    }

    /// Builds the paths of the hosts that changed; the listeners that they belong to.
    pub(super) fn rebuild(&mut self) -> Dirty<UnitId> {
        let mut touched = Dirty::new();
        for host in std::mem::take(&mut self.dirty) {
            let routes = self.by_host.get(&host).filter(|routes| !routes.is_empty());
            let paths = routes.map(|routes| {
                Arc::new(Paths::build(routes.iter().map(|id| {
                    let Entry { created, route, matches, .. } = &self.routes[id];
                    Candidate { created: *created, route, matches }
                })))
            });
            if paths.is_none() {
                self.by_host.remove(&host);
            }
            let (listener, key) = host;
            self.listeners.entry(listener.clone()).or_default().set(key.as_bytes(), paths);
            touched.insert(listener);
        }
        for listener in &touched {
            if self.listeners[listener].iter().next().is_none() {
                self.listeners.remove(listener);
            }
        }
        if !touched.is_empty() {
            self.regexes.sweep();
        }
        touched
    }

    /// What a listener serves.
    pub(super) fn hosts(&self, listener: &UnitId) -> Hosts {
        self.listeners.get(listener).cloned().unwrap_or_default()
    }
}

fn hosts(unit: &RouteUnit) -> BTreeSet<HostKey> {
    let mut hosts = BTreeSet::new();
    for attachment in &unit.attachments {
        let listener = || attachment.listener.clone();
        if attachment.hostnames.is_empty() {
            hosts.insert((listener(), key(None).into()));
        }
        hosts.extend(attachment.hostnames.iter().map(|name| (listener(), key(Some(name)).into())));
    }
    hosts
}

fn compile_rule(
    rule: &unit::Rule,
    backends: &mut BackendStage,
    held: &mut Vec<UnitId>,
) -> Result<Rule, String> {
    let filters = Filters::compile(&rule.filters).map_err(|error| error.to_string())?;
    let mut shares = Vec::with_capacity(rule.backends.len());
    for backend in &rule.backends {
        let filters = Filters::compile(rule.filters.iter().chain(&backend.filters))
            .map_err(|error| error.to_string())?;
        let target = match &backend.target {
            Target::Backend(id) => {
                held.push(id.clone());
                Ok(backends.acquire(id))
            }
            Target::Invalid(reason) | Target::NotPermitted(reason) => Err(reason.as_str().into()),
        };
        shares.push(Share { target, filters });
    }
    Ok(Rule {
        name: rule.name.as_deref().map(Into::into),
        filters,
        backends: shares.into(),
        shares: Shares::new(rule.backends.iter().map(|backend| backend.weight)),
        timeouts: timeouts(rule.timeouts),
        policies: policies::compile(rule, backends, held)?.map(Box::new),
        lacks_grant: rule.backends.iter().any(|each| matches!(each.target, Target::NotPermitted(_))),
        invalid: rule.invalid.as_deref().map(Into::into),
    })
}

/// A rule that answers 500 to all that it takes.
fn invalid_rule(rule: &unit::Rule, reason: String) -> Rule {
    Rule {
        name: rule.name.as_deref().map(Into::into),
        filters: Filters::default(),
        backends: Box::default(),
        shares: Shares::new([]),
        timeouts: timeouts(rule.timeouts),
        policies: None,
        lacks_grant: false,
        invalid: Some(reason.into()),
    }
}

fn timeouts(unit: unit::Timeouts) -> Timeouts {
    Timeouts {
        request: unit.request.map(Duration::from_millis),
        backend_request: unit.backend_request.map(Duration::from_millis),
    }
}
