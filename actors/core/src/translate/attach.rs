//! Parents: which listeners a route names, and which of them take it.

use std::collections::{BTreeMap, BTreeSet};

use proxy_config::name::{HostPattern, UnitId};
use proxy_config::route::Attachment;

use crate::snapshot::http_route::ParentRef;
use crate::snapshot::meta::{GATEWAY_GROUP, Kind, ObjectRef};

use super::conditions::Fault;
use super::listeners::{Attachable, AttachmentPoint};
use super::reader::Reader;
use super::selectors;

/// The reason where a route of another kind has the hostname; the specification names none.
pub(super) const HOSTNAME_TAKEN: &str = "HostnameConflict";

/// The listeners that took a route.
#[derive(Debug, Default)]
pub(super) struct Attached(BTreeMap<(ObjectRef, String), (UnitId, BTreeSet<HostPattern>)>);

impl Attached {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their holders and names.
    pub(super) fn listeners(&self) -> BTreeSet<(ObjectRef, String)> {
        self.0.keys().cloned().collect()
    }

    /// The hostnames that each shares with the route.
    pub(super) fn hosts(&self) -> BTreeMap<(ObjectRef, String), BTreeSet<HostPattern>> {
        self.0.iter().map(|(listener, (_, hosts))| (listener.clone(), hosts.clone())).collect()
    }

    /// Their units, each with the hostnames that it shares with the route.
    pub(super) fn into_attachments(self) -> Vec<Attachment> {
        let attachment = |(listener, hostnames): (UnitId, BTreeSet<HostPattern>)| Attachment {
            listener,
            hostnames: hostnames.into_iter().collect(),
        };
        self.0.into_values().map(attachment).collect()
    }
}

/// The Gateway or ListenerSet that a parentRef names, where it is ours.
pub(super) fn holder_of<'a>(
    reader: &Reader<'a>,
    namespace: &str,
    parent: &ParentRef,
) -> Option<(ObjectRef, &'a Attachable)> {
    let kind = match &*parent.kind {
        _ if parent.group != GATEWAY_GROUP => return None,
        "Gateway" => Kind::Gateway,
        "ListenerSet" => Kind::ListenerSet,
        _ => return None,
    };
    let holder = ObjectRef::new(kind, parent.target(namespace));
    let attachable = reader.attachable(&holder)?;
    Some((holder, attachable))
}

/// One parentRef that is looked at.
pub(super) struct Taking<'a, 'b> {
    pub(super) reader: &'b Reader<'a>,
    pub(super) route: &'b ObjectRef,
    /// Its creation time in seconds since 1970.
    pub(super) created: i64,
    /// The Gateway or ListenerSet.
    pub(super) holder: &'b ObjectRef,
    pub(super) parent: &'b ParentRef,
}

impl Taking<'_, '_> {
    /// Attaches the route to the listeners that take it. The reasons come in the order in which a
    /// listener is looked for: by name and port, then by what it allows, then by hostname.
    pub(super) fn attach(
        &self,
        attachable: &Attachable,
        hostnames: &[HostPattern],
        attached: &mut Attached,
    ) -> Result<(), Fault> {
        let holder = self.holder;
        if !attachable.accepted {
            return Err(Fault::new("NoMatchingParent", format!("{holder} is not accepted: see its status")));
        }
        let named: Vec<_> = attachable.points.iter().filter(|point| self.names(point)).collect();
        if named.is_empty() {
            return Err(Fault::new("NoMatchingParent", self.no_such_listener()));
        }
        let open: Vec<_> = named.into_iter().filter(|point| self.is_allowed(point)).collect();
        if open.is_empty() {
            let message = format!(
                "no listener of {holder} that is meant takes routes of kind {} from namespace {}: see allowedRoutes",
                self.route.kind, self.route.name.namespace
            );
            return Err(Fault::new("NotAllowedByListeners", message));
        }
        let accepted: Vec<_> = open.into_iter().filter(|point| point.accepted).collect();
        if accepted.is_empty() {
            let message = format!("no listener of {holder} that is meant is accepted: see its status");
            return Err(Fault::new("NoMatchingParent", message));
        }
        self.take(&accepted, hostnames, attached)
    }

    /// Attaches the route to those of these listeners with which it shares a hostname that no older route of
    /// another kind has.
    fn take(
        &self,
        points: &[&AttachmentPoint],
        hostnames: &[HostPattern],
        attached: &mut Attached,
    ) -> Result<(), Fault> {
        let holder = self.holder;
        let message = format!("spec.hostnames share nothing with a listener of {holder} that is meant");
        let mut refused = Some(Fault::new("NoMatchingListenerHostname", message));
        let mut any = false;
        for point in points {
            let Some(shared) = shared_hostnames(point.hostname.as_ref(), hostnames) else { continue };
            let key = (holder.clone(), point.name.clone());
            if let Some(rival) = self.reader.rival(key.clone(), (self.created, self.route), &shared) {
                let message =
                    format!("{rival} is older and has a hostname in common on listener {}", point.name);
                refused = Some(Fault::new(HOSTNAME_TAKEN, message));
                continue;
            }
            any = true;
            let entry = attached.0.entry(key).or_insert_with(|| (point.unit.clone(), BTreeSet::new()));
            entry.1.extend(shared);
        }
        refused.filter(|_| !any).map_or(Ok(()), Err)
    }

    fn names(&self, point: &AttachmentPoint) -> bool {
        self.parent.section_name.as_ref().is_none_or(|name| *name == point.name)
            && self.parent.port.is_none_or(|port| port == point.port)
    }

    fn no_such_listener(&self) -> String {
        let holder = self.holder;
        match (&self.parent.section_name, self.parent.port) {
            (Some(name), Some(port)) => format!("{holder} has no listener {name} on port {port}"),
            (Some(name), None) => format!("{holder} has no listener {name}"),
            (None, Some(port)) => format!("{holder} has no listener on port {port}"),
            (None, None) => format!("{holder} has no listener"),
        }
    }

    fn is_allowed(&self, point: &AttachmentPoint) -> bool {
        let (home, namespace) = (&self.holder.name.namespace, &self.route.name.namespace);
        point.kinds.contains(&self.route.kind.as_str())
            && selectors::admits(self.reader, &point.namespaces, home, namespace)
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
