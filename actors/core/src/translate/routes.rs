//! HTTPRoutes: to which listeners they attach, and what their status says for each parent.

use std::collections::{BTreeMap, BTreeSet};

use proxy_config::name::{HostPattern, ObjectName, UnitId};
use proxy_config::route::{Attachment, RouteUnit};
use proxy_config::unit::{EncodedUnit, Unit};

use crate::snapshot::gateway::{AllowedNamespaces, From};
use crate::snapshot::http_route::{HttpRoute, ParentRef};
use crate::snapshot::meta::{GATEWAY_GROUP, Kind, Meta, ObjectRef};
use crate::status::{Condition, DesiredStatus, ParentStatus, StatusContent};

use super::conditions::{ACCEPTED, Fault, PARTIALLY_INVALID, RESOLVED_REFS, fails, holds, pending, unless};
use super::derived::Result as Derivation;
use super::emission::Emission;
use super::listeners::{Attachable, AttachmentPoint};
use super::reader::{Lookup, Reader};
use super::rules::{self, Rules};
use super::{Problem, hostnames, selectors};

/// The kind, as listeners and units name it.
const HTTP_ROUTE: &str = "HTTPRoute";

/// What other tasks need of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteView {
    /// The listeners that took it: Gateway and listener.
    pub(super) attached: BTreeSet<(ObjectName, String)>,
    /// The ports of Services that it names and may use.
    pub(super) backends: BTreeSet<(ObjectName, u16)>,
}

/// The listeners that took a route, each with the hostnames that they share.
type Attached = BTreeMap<(ObjectName, String), BTreeSet<HostPattern>>;

/// Translates an HTTPRoute.
pub(super) fn translate(reader: &Reader<'_>, name: &ObjectName) -> (Derivation, Emission) {
    match reader.http_route(name) {
        Lookup::Missing => (Derivation::Route(None), Emission::default()),
        Lookup::Malformed(malformed) => {
            let fault = format!("the HTTPRoute can't be read: {}", malformed.message());
            let mut failed = failed(reader, &malformed.meta, &malformed.parents, &fault);
            failed.1.problems.push(Problem::malformed(malformed));
            failed
        }
        Lookup::Found(route) => translate_found(reader, route),
    }
}

/// A route that can't be translated at all.
pub(super) fn failed(
    reader: &Reader<'_>,
    meta: &Meta,
    parents: &[ParentRef],
    message: &str,
) -> (Derivation, Emission) {
    let fault = Fault::new("UnsupportedValue", message);
    let ours = parents.iter().filter(|parent| gateway_of(reader, &meta.name.namespace, parent).is_some());
    let conditions = vec![fails(ACCEPTED, &fault), pending(RESOLVED_REFS, "the HTTPRoute can't be read")];
    let statuses = ours.map(|parent| ParentStatus { parent: parent.clone(), conditions: conditions.clone() });
    let mut emission = Emission::of(ObjectRef::new(Kind::HttpRoute, meta.name.clone()));
    emission.status = status(reader, meta, statuses.collect());
    (Derivation::Route(None), emission)
}

fn translate_found(reader: &Reader<'_>, route: &HttpRoute) -> (Derivation, Emission) {
    let name = &route.meta.name;
    let rules = rules::translate(reader, route);
    let hostnames = route_hostnames(route);
    let unusable = hostnames.as_ref().err().or(rules.unusable.as_ref());
    let mut attached = Attached::new();
    let mut parents = Vec::new();
    for parent in &route.spec.parent_refs {
        let Some((gateway, attachable)) = gateway_of(reader, &name.namespace, parent) else { continue };
        let accepted = match (&hostnames, unusable) {
            (Ok(hostnames), None) => {
                let take = Taking { reader, route: name, gateway: &gateway, parent };
                take.attach(attachable, hostnames, &mut attached)
            }
            (_, fault) => Err(fault.cloned().expect("hostnames that can't be used are a fault")),
        };
        let conditions = conditions(&rules, accepted.as_ref().err());
        parents.push(ParentStatus { parent: parent.clone(), conditions });
    }
    let mut emission = Emission::of(ObjectRef::new(Kind::HttpRoute, name.clone()));
    if !parents.is_empty() {
        emission.problems = problems(&rules, hostnames.as_ref().err(), &parents);
    }
    let is_attached = !attached.is_empty();
    let view = RouteView {
        attached: attached.keys().cloned().collect(),
        backends: if is_attached { rules.backends } else { BTreeSet::new() },
    };
    if is_attached {
        emission.units.push(unit(route, attached, rules.rules));
    }
    emission.status = status(reader, &route.meta, parents);
    (Derivation::Route(Some(view)), emission)
}

fn unit(route: &HttpRoute, attached: Attached, rules: Vec<proxy_config::route::Rule>) -> EncodedUnit {
    let attachments = attached.into_iter().map(|((gateway, listener), hostnames)| Attachment {
        listener: UnitId::listener(&gateway, &listener),
        hostnames: hostnames.into_iter().collect(),
    });
    let unit = RouteUnit {
        kind: HTTP_ROUTE.into(),
        name: route.meta.name.clone(),
        created: route.meta.created,
        attachments: attachments.collect(),
        rules,
    };
    EncodedUnit::new(UnitId::route(HTTP_ROUTE, &route.meta.name), &Unit::Route(unit))
}

/// A status only where a parent is ours: other controllers' routes are left alone. A route that no
/// longer has one of ours gets an empty one, which takes our entries back.
fn status(reader: &Reader<'_>, meta: &Meta, parents: Vec<ParentStatus>) -> Option<DesiredStatus> {
    let controller = reader.settings.controller_name.as_str().into();
    Some(DesiredStatus::new(meta, StatusContent::Route { controller, parents }))
}

fn problems(rules: &Rules, hostnames: Option<&Fault>, parents: &[ParentStatus]) -> Vec<Problem> {
    let mut problems = rules.problems.clone();
    problems.extend(hostnames.map(|fault| Problem::of("", fault)));
    for (index, parent) in parents.iter().enumerate() {
        let accepted = parent.conditions.iter().find(|condition| condition.kind == ACCEPTED);
        let refused = accepted.filter(|condition| {
            ["NoMatchingParent", "NotAllowedByListeners", "NoMatchingListenerHostname"]
                .contains(&condition.reason)
        });
        problems.extend(refused.map(|condition| Problem {
            field: format!("spec.parentRefs[{index}]"),
            reason: condition.reason,
            message: condition.message.clone(),
        }));
    }
    problems
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

/// The Gateway that a parentRef names, where it is ours.
fn gateway_of<'a>(
    reader: &Reader<'a>,
    namespace: &str,
    parent: &ParentRef,
) -> Option<(ObjectName, &'a Attachable)> {
    if parent.group != GATEWAY_GROUP || parent.kind != "Gateway" {
        return None;
    }
    let gateway = parent.target(namespace);
    let attachable = reader.attachable(&gateway)?;
    Some((gateway, attachable))
}

fn route_hostnames(route: &HttpRoute) -> Result<Vec<HostPattern>, Fault> {
    let named = &route.spec.hostnames;
    if let Some(reason) = named.iter().find_map(|hostname| hostnames::fault(hostname)) {
        return Err(Fault::new("UnsupportedValue", format!("spec.hostnames: {reason}")));
    }
    Ok(named.iter().map(|hostname| HostPattern::new(hostname)).collect())
}

/// One parentRef that is looked at.
struct Taking<'a, 'b> {
    reader: &'b Reader<'a>,
    route: &'b ObjectName,
    gateway: &'b ObjectName,
    parent: &'b ParentRef,
}

impl Taking<'_, '_> {
    /// Attaches the route to the listeners that take it. The reasons come in the order in which a
    /// listener is looked for: by name and port, then by what it allows, then by hostname.
    fn attach(
        &self,
        attachable: &Attachable,
        hostnames: &[HostPattern],
        attached: &mut Attached,
    ) -> Result<(), Fault> {
        let gateway = self.gateway;
        if !attachable.accepted {
            return Err(Fault::new(
                "NoMatchingParent",
                format!("Gateway {gateway} is not accepted: see its status"),
            ));
        }
        let named: Vec<_> = attachable.points.iter().filter(|point| self.names(point)).collect();
        if named.is_empty() {
            return Err(Fault::new("NoMatchingParent", self.no_such_listener()));
        }
        let open: Vec<_> = named.into_iter().filter(|point| self.is_allowed(point)).collect();
        if open.is_empty() {
            let message = format!(
                "no listener of Gateway {gateway} that is meant takes an HTTPRoute from namespace {}: see allowedRoutes",
                self.route.namespace
            );
            return Err(Fault::new("NotAllowedByListeners", message));
        }
        let accepted: Vec<_> = open.into_iter().filter(|point| point.accepted).collect();
        if accepted.is_empty() {
            let message =
                format!("no listener of Gateway {gateway} that is meant is accepted: see its status");
            return Err(Fault::new("NoMatchingParent", message));
        }
        let mut any = false;
        for point in accepted {
            if let Some(shared) = shared_hostnames(point.hostname.as_ref(), hostnames) {
                any = true;
                attached.entry((gateway.clone(), point.name.clone())).or_default().extend(shared);
            }
        }
        if any {
            return Ok(());
        }
        let message =
            format!("spec.hostnames share nothing with a listener of Gateway {gateway} that is meant");
        Err(Fault::new("NoMatchingListenerHostname", message))
    }

    fn names(&self, point: &AttachmentPoint) -> bool {
        self.parent.section_name.as_ref().is_none_or(|name| *name == point.name)
            && self.parent.port.is_none_or(|port| port == point.port)
    }

    fn no_such_listener(&self) -> String {
        let gateway = self.gateway;
        match (&self.parent.section_name, self.parent.port) {
            (Some(name), Some(port)) => format!("Gateway {gateway} has no listener {name} on port {port}"),
            (Some(name), None) => format!("Gateway {gateway} has no listener {name}"),
            (None, Some(port)) => format!("Gateway {gateway} has no listener on port {port}"),
            (None, None) => format!("Gateway {gateway} has no listener"),
        }
    }

    fn is_allowed(&self, point: &AttachmentPoint) -> bool {
        point.kinds.contains(&HTTP_ROUTE) && self.namespace_is_allowed(&point.namespaces)
    }

    fn namespace_is_allowed(&self, allowed: &AllowedNamespaces) -> bool {
        match allowed.from {
            From::All => true,
            From::Same => self.route.namespace == self.gateway.namespace,
            From::None => false,
            From::Selector => allowed.selector.as_ref().is_some_and(|selector| {
                let labels = self.reader.namespace_labels(&self.route.namespace);
                labels.is_some_and(|labels| selectors::matches(selector, labels))
            }),
        }
    }
}

/// What listener and route share; an empty list: all that the listener serves; `None`: nothing.
fn shared_hostnames(listener: Option<&HostPattern>, route: &[HostPattern]) -> Option<Vec<HostPattern>> {
    let Some(listener) = listener else { return Some(route.to_vec()) };
    if route.is_empty() {
        return Some(Vec::new());
    }
    let shared: Vec<_> = route.iter().filter_map(|hostname| hostname.intersect(listener)).collect();
    (!shared.is_empty()).then_some(shared)
}
