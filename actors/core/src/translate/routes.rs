//! Routes of every kind: what proxies are told of one, and what its status says for each parent.

use std::collections::{BTreeMap, BTreeSet};

use proxy_config::l4::L4Route;
use proxy_config::name::{HostPattern, ObjectName, UnitId};
use proxy_config::route::RouteUnit;
use proxy_config::unit::{EncodedUnit, Unit};

use crate::observe::Malformed;
use crate::snapshot::http_route::ParentRef;
use crate::snapshot::meta::{GATEWAY_GROUP, Kind, Meta, ObjectRef};
use crate::status::{Condition, DesiredStatus, ParentStatus, StatusContent};

use super::attach::{Attached, HOSTNAME_TAKEN, Taking, holder_of};
use super::conditions::{ACCEPTED, Fault, PARTIALLY_INVALID, RESOLVED_REFS, fails, holds, pending, unless};
use super::derived::Result as Derivation;
use super::emission::Emission;
use super::graph::BackendPort;
use super::reader::{Reader, Written};
use super::rivals::rival_of;
use super::rules::{self, Rules};
use super::{Problem, grpc, hostnames, l4};

/// What other tasks need of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RouteView {
    /// The listeners that took it: their holder and their name.
    pub(super) attached: BTreeSet<(ObjectRef, String)>,
    /// Those that must be told from others of another kind, with the hostnames shared: the ones that would have
    /// taken a route that can't be served, too.
    pub(super) hosts: BTreeMap<(ObjectRef, String), BTreeSet<HostPattern>>,
    /// The route's creation time in seconds since 1970.
    pub(super) created: i64,
    /// Their Gateways.
    pub(super) gateways: BTreeSet<ObjectName>,
    /// The ports of Services that it names and may use.
    pub(super) backends: BTreeSet<BackendPort>,
    /// The XBackends that it names and may use, right or wrong.
    pub(super) externals: BTreeSet<ObjectName>,
    /// Those of them that it leads to.
    pub(super) destinations: BTreeSet<ObjectName>,
}

impl RouteView {
    /// Which Gateways it leads from to which Services and XBackends: (backend, Gateway).
    pub(super) fn paths(&self) -> BTreeSet<(ObjectRef, ObjectName)> {
        let services = self.backends.iter().map(|port| (Kind::Service, &port.service));
        let backends: BTreeSet<_> =
            services.chain(self.externals.iter().map(|name| (Kind::Backend, name))).collect();
        let backends = backends.into_iter().map(|(kind, name)| ObjectRef::new(kind, name.clone()));
        let gateways = &self.gateways;
        backends.flat_map(|one| gateways.iter().map(move |gateway| (one.clone(), gateway.clone()))).collect()
    }
}

impl<'a> Written<'a> {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Http(_) => Kind::HttpRoute,
            Self::Grpc(_) => Kind::GrpcRoute,
            Self::L4(kind, _) => kind,
        }
    }

    pub(super) fn meta(self) -> &'a Meta {
        match self {
            Self::Http(route) => &route.meta,
            Self::Grpc(route) => &route.meta,
            Self::L4(_, route) => &route.meta,
        }
    }

    pub(super) fn parents(self) -> &'a [ParentRef] {
        match self {
            Self::Http(route) => &route.spec.parent_refs,
            Self::Grpc(route) => &route.spec.parent_refs,
            Self::L4(_, route) => &route.spec.parent_refs,
        }
    }

    fn wants_defaults(self) -> bool {
        let scope = match self {
            Self::Http(route) => &route.spec.use_default_gateways,
            Self::Grpc(route) => &route.spec.use_default_gateways,
            Self::L4(_, route) => &route.spec.use_default_gateways,
        };
        scope.as_deref() == Some("All")
    }

    fn hostnames(self) -> &'a [String] {
        match self {
            Self::Http(route) => &route.spec.hostnames,
            Self::Grpc(route) => &route.spec.hostnames,
            Self::L4(Kind::TlsRoute, route) => &route.spec.hostnames,
            Self::L4(..) => &[],
        }
    }

    fn rules(self, reader: &Reader<'_>) -> Rules {
        match self {
            Self::Http(route) => rules::translate(reader, route),
            Self::Grpc(route) => grpc::translate(reader, route),
            Self::L4(kind, route) => l4::translate(reader, kind, route),
        }
    }
}

/// Translates a route.
pub(super) fn translate(reader: &Reader<'_>, route: &ObjectRef) -> (Derivation, Emission) {
    match reader.route(route) {
        None => (Derivation::Route(None), Emission::default()),
        Some(Err(malformed)) => {
            let fault = format!("the {} can't be read: {}", route.kind, malformed.message());
            let (_, mut emission) =
                failed(reader, route.kind, &malformed.meta, &malformed.named.parents, &fault);
            emission.problems.push(Problem::malformed(malformed));
            (Derivation::Route(held(reader, route, malformed)), emission)
        }
        Some(Ok(written)) => translate_found(reader, written),
    }
}

/// What is left of a route that can't be read: the hostnames that it has, which no rival gets for that.
fn held(reader: &Reader<'_>, route: &ObjectRef, malformed: &Malformed) -> Option<RouteView> {
    rival_of(route.kind)?;
    let hostnames = hostnames(malformed.named.hostnames.as_deref()?).ok()?;
    let created = malformed.meta.created;
    let mut attached = Attached::default();
    for parent in &malformed.named.parents {
        let Some((holder, attachable)) = holder_of(reader, &route.name.namespace, parent) else { continue };
        let take = Taking { reader, route, created, holder: &holder, parent };
        // Where it is refused, it has nothing there.
        let _ = take.attach(attachable, &hostnames, &mut attached);
    }
    let hosts = attached.hosts();
    (!hosts.is_empty()).then(|| RouteView { hosts, created, ..RouteView::default() })
}

/// A route that can't be translated at all.
pub(super) fn failed(
    reader: &Reader<'_>,
    kind: Kind,
    meta: &Meta,
    parents: &[ParentRef],
    message: &str,
) -> (Derivation, Emission) {
    let fault = Fault::new("UnsupportedValue", message);
    let ours = parents.iter().filter(|parent| holder_of(reader, &meta.name.namespace, parent).is_some());
    let unread = pending(RESOLVED_REFS, format!("the {kind} can't be read"));
    let conditions = vec![fails(ACCEPTED, &fault), unread];
    let statuses = ours.map(|parent| ParentStatus { parent: parent.clone(), conditions: conditions.clone() });
    let mut emission = Emission::of(ObjectRef::new(kind, meta.name.clone()));
    emission.status = status(reader, meta, statuses.collect());
    (Derivation::Route(None), emission)
}

fn translate_found(reader: &Reader<'_>, written: Written<'_>) -> (Derivation, Emission) {
    let meta = written.meta();
    let route = ObjectRef::new(written.kind(), meta.name.clone());
    let rules = written.rules(reader);
    let hostnames = hostnames(written.hostnames());
    let unusable = hostnames.as_ref().err().or(rules.unusable.as_ref());
    let mut attached = Attached::default();
    let (mut parents, mut gateways) = (Vec::new(), BTreeSet::new());
    for parent in &parents_of(reader, written) {
        let Some((holder, attachable)) = holder_of(reader, &meta.name.namespace, parent) else { continue };
        let take = Taking { reader, route: &route, created: meta.created, holder: &holder, parent };
        let taken = match &hostnames {
            Ok(hostnames) => take.attach(attachable, hostnames, &mut attached),
            Err(fault) => Err(fault.clone()),
        };
        let accepted = unusable.cloned().map_or(taken, Err);
        gateways.extend(accepted.is_ok().then(|| attachable.gateway.clone()));
        let conditions = conditions(&rules, accepted.as_ref().err());
        parents.push(ParentStatus { parent: parent.clone(), conditions });
    }
    let mut emission = Emission::of(route);
    if !parents.is_empty() {
        emission.problems = problems(&rules, hostnames.as_ref().err(), written, &parents);
    }
    let hosts = if rival_of(written.kind()).is_some() { attached.hosts() } else { BTreeMap::new() };
    // What can't be served is attached to nothing, and keeps its hostnames from rivals all the same.
    let attached = if unusable.is_some() { Attached::default() } else { attached };
    let is_attached = !attached.is_empty();
    let view = RouteView {
        attached: attached.listeners(),
        hosts,
        created: meta.created,
        gateways,
        backends: if is_attached { rules.backends.clone() } else { BTreeSet::new() },
        externals: if is_attached { rules.externals.clone() } else { BTreeSet::new() },
        destinations: if is_attached { rules.destinations.clone() } else { BTreeSet::new() },
    };
    if is_attached {
        emission.units.push(unit(written, attached, rules));
    }
    emission.status = status(reader, meta, parents);
    (Derivation::Route(Some(view)), emission)
}

/// The parents that a route names, and the default Gateways that it asks for.
fn parents_of(reader: &Reader<'_>, written: Written<'_>) -> Vec<ParentRef> {
    let mut parents = written.parents().to_vec();
    if written.wants_defaults() {
        let namespace = &*written.meta().name.namespace;
        // A ListenerSet or a Service may well be called as a Gateway is.
        let is_gateway = |parent: &&ParentRef| parent.group == GATEWAY_GROUP && parent.kind == "Gateway";
        let named = parents.iter().filter(is_gateway).map(|parent| parent.target(namespace));
        let named: BTreeSet<_> = named.collect();
        let defaults = reader.default_gateways().filter(|gateway| !named.contains(gateway));
        parents.extend(defaults.map(ParentRef::gateway));
    }
    parents
}

fn unit(written: Written<'_>, attached: Attached, rules: Rules) -> EncodedUnit {
    let (kind, name, created) =
        (written.kind().as_str(), written.meta().name.clone(), written.meta().created);
    let id = UnitId::route(kind, &name);
    let (kind, attachments) = (kind.into(), attached.into_attachments());
    let unit = match written {
        Written::Http(_) | Written::Grpc(_) => {
            Unit::Route(RouteUnit { kind, name, created, attachments, rules: rules.rules })
        }
        Written::L4(..) => {
            Unit::L4Route(L4Route { kind, name, created, attachments, backends: rules.targets })
        }
    };
    EncodedUnit::new(id, &unit)
}

/// A status only where a parent is ours: other controllers' routes are left alone. A route that no
/// longer has one of ours gets an empty one, which takes our entries back.
fn status(reader: &Reader<'_>, meta: &Meta, parents: Vec<ParentStatus>) -> Option<DesiredStatus> {
    let controller = reader.settings.controller_name.as_str().into();
    Some(DesiredStatus::new(meta, StatusContent::Route { controller, parents }))
}

fn problems(
    rules: &Rules,
    hostnames: Option<&Fault>,
    written: Written<'_>,
    parents: &[ParentStatus],
) -> Vec<Problem> {
    let mut problems = rules.problems.clone();
    problems.extend(hostnames.map(|fault| Problem::of("", fault)));
    for parent in parents {
        let accepted = parent.conditions.iter().find(|condition| condition.kind == ACCEPTED);
        let refused = accepted.filter(|condition| {
            ["NoMatchingParent", "NotAllowedByListeners", "NoMatchingListenerHostname", HOSTNAME_TAKEN]
                .contains(&condition.reason)
        });
        problems.extend(refused.map(|condition| Problem {
            field: field_of(written, &parent.parent),
            reason: condition.reason,
            message: condition.message.clone(),
        }));
    }
    problems
}

/// Where a parent is written: not all that a route names are ours, and a default Gateway is not named.
fn field_of(written: Written<'_>, parent: &ParentRef) -> String {
    let index = written.parents().iter().position(|named| named == parent);
    index.map_or_else(|| "spec.useDefaultGateways".into(), |index| format!("spec.parentRefs[{index}]"))
}

fn conditions(rules: &Rules, refused: Option<&Fault>) -> Vec<Condition> {
    let mut conditions = vec![
        unless(ACCEPTED, refused, "Accepted", "the route is accepted"),
        unless(RESOLVED_REFS, rules.unresolved.as_ref(), "ResolvedRefs", "all references are resolved"),
    ];
    if let (None, Some(fault)) = (refused, &rules.partly_invalid) {
        conditions.push(holds(PARTIALLY_INVALID, fault.reason, fault.message.clone()));
    }
    conditions
}

fn hostnames(named: &[String]) -> Result<Vec<HostPattern>, Fault> {
    if let Some(reason) = named.iter().find_map(|hostname| hostnames::fault(hostname)) {
        return Err(Fault::new("UnsupportedValue", format!("spec.hostnames: {reason}")));
    }
    Ok(named.iter().map(|hostname| HostPattern::new(hostname)).collect())
}
