//! Paths: which match takes a path, for one host of one listener.
//!
//! Exact paths and prefixes live in a tree of path elements, so a lookup costs the length of the path,
//! whatever the number of routes; expressions are tried one by one. The order among matches is that of
//! the Gateway API (`HTTPRouteRule.matches`): exact path, expression (a whole path too; its place is
//! ours to choose), longest prefix; then method, header fields, query parameters, the older route, the
//! name that sorts first, the first rule.

use std::cmp::Reverse;
use std::sync::Arc;

use proxy_config::name::UnitId;
use proxy_config::path;
use proxy_config::route::{Match, PathMatch};

use super::condition::{Conditions, MatchError, Regex, Regexes, Specificity};
use super::host::Map;
use super::request::RequestView;
use super::route::{Route, Routed};

/// A match of a rule, compiled.
#[derive(Clone, Debug)]
pub(super) struct CompiledMatch {
    path: CompiledPath,
    conditions: Arc<Conditions>,
    /// The index of its rule.
    rule: usize,
}

#[derive(Clone, Debug)]
enum CompiledPath {
    Exact(Box<[u8]>),
    /// Without a final `/`; empty for the prefix that takes every path.
    Prefix(Box<[u8]>),
    Regex(Arc<Regex>),
}

impl CompiledMatch {
    pub(super) fn compile(unit: &Match, rule: usize, regexes: &mut Regexes) -> Result<Self, MatchError> {
        let path = match &unit.path {
            PathMatch::Exact(path) => CompiledPath::Exact(normal(path)?.into()),
            PathMatch::Prefix(path) => {
                let mut path = normal(path)?;
                while path.last() == Some(&b'/') {
                    path.pop();
                }
                CompiledPath::Prefix(path.into())
            }
            PathMatch::Regex(pattern) => CompiledPath::Regex(regexes.intern(pattern)?),
        };
        Ok(Self { path, conditions: Arc::new(Conditions::compile(unit, regexes)?), rule })
    }
}

fn normal(path: &str) -> Result<Vec<u8>, MatchError> {
    path::pattern(path).map_err(|reason| MatchError::Path { path: path.to_owned(), reason })
}

/// A route with its compiled matches, as one host takes it in.
pub(super) struct Candidate<'a> {
    /// When its object was created, in seconds since 1970.
    pub(super) created: i64,
    pub(super) route: &'a Arc<Route>,
    pub(super) matches: &'a [CompiledMatch],
}

/// Smaller comes first.
type Rank = (Reverse<Specificity>, i64, (Arc<str>, Arc<str>), UnitId, usize, usize);

#[derive(Debug)]
struct Entry {
    conditions: Arc<Conditions>,
    route: Arc<Route>,
    rule: usize,
}

impl Entry {
    fn routed<R: RequestView + ?Sized>(&self, request: &R, matched: usize) -> Option<Routed> {
        let routed = || Routed { route: Arc::clone(&self.route), rule: self.rule, matched };
        self.conditions.hold(request).then(routed)
    }
}

#[derive(Debug, Default)]
struct Node {
    children: Map<usize>,
    parent: usize,
    /// How many bytes of a path lead here.
    len: usize,
    exact: Vec<Entry>,
    prefix: Vec<Entry>,
}

/// What one host of one listener serves.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// The first one is the root: the path of no elements.
    nodes: Vec<Node>,
    regexes: Vec<(Arc<Regex>, Entry)>,
    /// All of its routes, by id.
    routes: Vec<Arc<Route>>,
}

impl Paths {
    pub(super) fn build<'a>(candidates: impl IntoIterator<Item = Candidate<'a>>) -> Self {
        let mut ranked: Vec<(Rank, &CompiledMatch, &Arc<Route>)> = Vec::new();
        let mut routes: Vec<Arc<Route>> = Vec::new();
        for Candidate { created, route, matches } in candidates {
            routes.push(Arc::clone(route));
            let name = (Arc::clone(&route.name.namespace), Arc::clone(&route.name.name));
            ranked.extend(matches.iter().enumerate().map(|(index, each)| {
                let specificity = Reverse(each.conditions.specificity());
                let rank = (specificity, created, name.clone(), route.id.clone(), each.rule, index);
                (rank, each, route)
            }));
        }
        ranked.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        routes.sort_by(|a, b| a.id.cmp(&b.id));
        let mut paths = Self { nodes: vec![Node::default()], regexes: Vec::new(), routes };
        for (_, each, route) in ranked {
            let conditions = Arc::clone(&each.conditions);
            let entry = Entry { conditions, route: Arc::clone(route), rule: each.rule };
            match &each.path {
                CompiledPath::Exact(path) => {
                    let node = paths.node(path);
                    paths.nodes[node].exact.push(entry);
                }
                CompiledPath::Prefix(path) => {
                    let node = paths.node(path);
                    paths.nodes[node].prefix.push(entry);
                }
                CompiledPath::Regex(regex) => paths.regexes.push((Arc::clone(regex), entry)),
            }
        }
        // A stable sort: among expressions of one length the rank decides.
        paths.regexes.sort_by_key(|(regex, _)| Reverse(regex.pattern().len()));
        paths
    }

    /// The node of a path, made where it is not there yet.
    fn node(&mut self, path: &[u8]) -> usize {
        elements(path).fold(0, |parent, element| {
            if let Some(child) = self.nodes[parent].children.get(element) {
                return *child;
            }
            let child = self.nodes.len();
            let len = self.nodes[parent].len + 1 + element.len();
            self.nodes[parent].children.insert(element.into(), child);
            self.nodes.push(Node { parent, len, ..Node::default() });
            child
        })
    }

    /// A route of this host.
    pub(super) fn of(&self, id: &UnitId) -> Option<&Route> {
        let place = self.routes.binary_search_by(|route| route.id.cmp(id)).ok()?;
        Some(&self.routes[place])
    }

    /// The rule that takes a request, and how much of the path its prefix took.
    pub(super) fn route<R: RequestView + ?Sized>(&self, request: &R) -> Option<Routed> {
        let path = request.path();
        let mut at = 0;
        let mut whole = true;
        for element in elements(path) {
            match self.nodes[at].children.get(element) {
                Some(child) => at = *child,
                None => {
                    whole = false;
                    break;
                }
            }
        }
        let exact = if whole { &self.nodes[at].exact[..] } else { &[] };
        exact
            .iter()
            .find_map(|entry| entry.routed(request, 0))
            .or_else(|| {
                let taken = self.regexes.iter().filter(|(regex, _)| regex.is_match(path));
                taken.filter_map(|(_, entry)| entry.routed(request, 0)).next()
            })
            .or_else(|| self.by_prefix(at, request))
    }

    fn by_prefix<R: RequestView + ?Sized>(&self, mut at: usize, request: &R) -> Option<Routed> {
        loop {
            let node = &self.nodes[at];
            if let Some(routed) = node.prefix.iter().find_map(|entry| entry.routed(request, node.len)) {
                return Some(routed);
            }
            if at == 0 {
                return None;
            }
            at = node.parent;
        }
    }
}

/// The elements of a path: `/a/b` has two, `/a/` has `a` and an empty one, the empty path has none.
fn elements(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.strip_prefix(b"/").into_iter().flat_map(|rest| rest.split(|byte| *byte == b'/'))
}

#[cfg(test)]
impl Paths {
    /// Every entry in the order in which it is tried, as text.
    pub(super) fn dump(&self) -> Vec<String> {
        let show = |place: String, entries: &[Entry]| {
            let entries: Vec<String> = entries.iter().map(Entry::dump).collect();
            (!entries.is_empty()).then(|| format!("{place}: {}", entries.join(" ")))
        };
        let mut lines = Vec::new();
        let mut nodes = vec![(0, String::new())];
        while let Some((at, path)) = nodes.pop() {
            let node = &self.nodes[at];
            lines.extend(show(format!("= {path}"), &node.exact));
            lines.extend(show(format!("< {path}"), &node.prefix));
            let below = node
                .children
                .iter()
                .map(|(element, child)| (*child, format!("{path}/{}", String::from_utf8_lossy(element))));
            nodes.extend(below);
        }
        lines.sort();
        lines.extend(
            self.regexes.iter().map(|(regex, entry)| format!("~ {} {}", regex.pattern(), entry.dump())),
        );
        lines
    }
}

#[cfg(test)]
impl Entry {
    fn dump(&self) -> String {
        format!("{}#{}{:?}", self.route.id, self.rule, self.conditions.specificity())
    }
}
