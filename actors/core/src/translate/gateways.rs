//! Gateways, each seen alone: what it claims, before other Gateways are looked at.

use std::collections::BTreeSet;

use proxy_config::listener::{Bind, Protocol};
use proxy_config::name::{HostPattern, ObjectName};

use crate::snapshot::gateway::{AllowedNamespaces, Gateway, Listener};
use crate::snapshot::meta::{GATEWAY_GROUP, Meta};

use super::AddressSource;
use super::addresses::pool::Ask;
use super::addresses::{Assigned, Provider, Refused};
use super::certificates::{self, Certificates};
use super::conditions::Fault;
use super::derived::Result as Derivation;
use super::hostnames;
use super::listeners::Conflict;
use super::reader::{Lookup, Reader};

/// What a Gateway of ours claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    /// Its metadata.
    pub(super) meta: Meta,
    /// Why it is not accepted at all.
    pub(super) rejected: Option<Fault>,
    /// It waits for its class.
    pub(super) waiting: Option<String>,
    /// Its addresses, or why it gets none though it is accepted.
    pub(super) assigned: Result<Assigned, Fault>,
    /// Its listeners, in order.
    pub(super) listeners: Vec<Claim>,
}

/// What a listener claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) port: u16,
    /// `None` where it is not supported.
    pub(super) protocol: Option<Protocol>,
    pub(super) hostname: Option<HostPattern>,
    pub(super) namespaces: AllowedNamespaces,
    /// The kinds of route that it takes.
    pub(super) kinds: Vec<&'static str>,
    pub(super) certificates: Certificates,
    /// Why it is not accepted.
    pub(super) rejected: Option<Fault>,
    /// A conflict with another listener of the same Gateway.
    pub(super) conflict: Option<Conflict>,
    /// A reference that is not resolved.
    pub(super) unresolved: Option<Fault>,
}

impl Claim {
    /// Whether it takes part in sharing a port.
    pub(super) fn is_valid(&self) -> bool {
        self.rejected.is_none() && self.conflict.is_none() && self.protocol.is_some()
    }
}

impl Claims {
    /// Whether the Gateway is worked on at all.
    pub(super) fn is_accepted(&self) -> bool {
        self.rejected.is_none() && self.waiting.is_none()
    }

    /// Where a listener is bound; nothing where it is not.
    pub(super) fn binds(&self, claim: &Claim) -> impl Iterator<Item = Bind> {
        let port = claim.port;
        let assigned = self.assigned.as_ref().ok().filter(|_| self.is_accepted() && claim.is_valid());
        let addresses = assigned.into_iter().flat_map(|assigned| &assigned.addresses);
        addresses.map(move |address| Bind { address: *address, port })
    }

    /// The ports that it claims.
    pub(super) fn ports(&self) -> BTreeSet<Bind> {
        self.listeners.iter().flat_map(|claim| self.binds(claim)).collect()
    }

    /// The Secrets that it names and may.
    pub(super) fn secrets(&self) -> BTreeSet<ObjectName> {
        let accepted = self.listeners.iter().filter(|_| self.is_accepted());
        accepted.flat_map(|claim| claim.certificates.wanted.iter().cloned()).collect()
    }
}

/// Translates a Gateway, seen alone.
pub(super) fn claim(reader: &Reader<'_>, name: &ObjectName) -> Derivation {
    Derivation::Claims(match reader.gateway(name) {
        Lookup::Missing => None,
        Lookup::Malformed(malformed) => {
            let class =
                malformed.owner.as_deref().and_then(|class| reader.class(&ObjectName::new("", class)));
            class.map(|_| {
                let fault =
                    Fault::new("Invalid", format!("the Gateway can't be read: {}", malformed.message()));
                rejected(&malformed.meta, fault)
            })
        }
        Lookup::Found(gateway) => claim_found(reader, gateway),
    })
}

/// What a Gateway asks of the pool of its class.
pub(super) fn ask(reader: &Reader<'_>, name: &ObjectName) -> Option<Ask> {
    let gateway = reader.gateway(name).found()?;
    class_of(reader, &gateway.spec.gateway_class_name)?.ok()?.ask(gateway)
}

/// What a Gateway's class provides; `None` where the class is not ours. Without a cluster nobody has
/// written a class down: then one that is not there is ours.
pub(super) fn class_of(reader: &Reader<'_>, name: &str) -> Option<Result<Provider, Fault>> {
    let name = ObjectName::new("", name);
    match (reader.class(&name), reader.settings.addresses) {
        (Some(class), _) => Some(class.provider.clone()),
        (None, AddressSource::AsWritten { default }) => {
            matches!(reader.gateway_class(&name), Lookup::Missing).then_some(Ok(Provider::AsWritten(default)))
        }
        (None, AddressSource::Class) => None,
    }
}

/// A Gateway whose translation failed.
pub(super) fn failed(meta: &Meta, message: &str) -> Claims {
    rejected(meta, Fault::new("Invalid", message))
}

fn rejected(meta: &Meta, fault: Fault) -> Claims {
    Claims {
        meta: meta.clone(),
        assigned: Err(fault.clone()),
        rejected: Some(fault),
        waiting: None,
        listeners: Vec::new(),
    }
}

fn claim_found(reader: &Reader<'_>, gateway: &Gateway) -> Option<Claims> {
    let provider = class_of(reader, &gateway.spec.gateway_class_name)?;
    let mut claims = Claims {
        meta: gateway.meta.clone(),
        rejected: unsupported(gateway),
        waiting: None,
        assigned: Err(Fault::new("AddressNotAssigned", "no address is assigned yet")),
        listeners: Vec::new(),
    };
    let provider = match provider {
        Ok(provider) => provider,
        Err(fault) => {
            let class = &gateway.spec.gateway_class_name;
            claims.waiting = Some(format!("GatewayClass {class} is not accepted: {}", fault.message));
            Provider::Node
        }
    };
    match provider.assign(reader, gateway) {
        Ok(assigned) => claims.assigned = Ok(assigned),
        Err(Refused::NotUsable(fault)) => claims.assigned = Err(fault),
        Err(Refused::Unsupported(fault)) => {
            claims.rejected.get_or_insert(fault);
        }
    }
    let namespace = &gateway.meta.name.namespace;
    claims.listeners = gateway
        .spec
        .listeners
        .iter()
        .map(|listener| claim_listener(reader, &provider, namespace, listener))
        .collect();
    find_conflicts(&mut claims.listeners);
    Some(claims)
}

/// What would have to be ignored is refused.
fn unsupported(gateway: &Gateway) -> Option<Fault> {
    if let Some(reference) =
        gateway.spec.infrastructure.as_ref().and_then(|made| made.parameters_ref.as_ref())
    {
        let message = format!(
            "spec.infrastructure.parametersRef names {} {}: there is no such kind for Gateways, remove it",
            reference.kind, reference.name
        );
        return Some(Fault::new("InvalidParameters", message));
    }
    let tls = gateway.spec.tls.as_ref()?;
    let field = match (tls.frontend, tls.backend) {
        (true, _) => "spec.tls.frontend",
        (false, true) => "spec.tls.backend",
        (false, false) => return None,
    };
    Some(Fault::new("Invalid", format!("{field} is not supported by this version: remove it")))
}

fn claim_listener(reader: &Reader<'_>, provider: &Provider, namespace: &str, listener: &Listener) -> Claim {
    let protocol = match &*listener.protocol {
        "HTTP" => Some(Protocol::Http),
        "HTTPS" => Some(Protocol::Https),
        _ => None,
    };
    let mut claim = Claim {
        name: listener.name.clone(),
        port: listener.port,
        protocol,
        hostname: listener.hostname.as_deref().filter(|name| !name.is_empty()).map(HostPattern::new),
        namespaces: listener.allowed_routes.namespaces.clone(),
        kinds: Vec::new(),
        certificates: Certificates::default(),
        rejected: reject_listener(reader, provider, listener, protocol),
        conflict: None,
        unresolved: None,
    };
    if protocol.is_some() {
        (claim.kinds, claim.unresolved) = route_kinds(listener);
    }
    if protocol == Some(Protocol::Https) {
        claim.certificates = certificates::resolve(reader, namespace, listener);
        claim.unresolved = claim.certificates.fault.clone().or(claim.unresolved);
    }
    claim
}

fn reject_listener(
    reader: &Reader<'_>,
    provider: &Provider,
    listener: &Listener,
    protocol: Option<Protocol>,
) -> Option<Fault> {
    let Listener { port, protocol: written, .. } = listener;
    if protocol.is_none() {
        let message = format!("protocol `{written}` is not supported: use HTTP or HTTPS");
        return Some(Fault::new("UnsupportedProtocol", message));
    }
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref()).unwrap_or("Terminate");
    if protocol == Some(Protocol::Https) && mode != "Terminate" {
        let message = format!("tls.mode `{mode}` is not possible with protocol HTTPS: use Terminate");
        return Some(Fault::new("UnsupportedValue", message));
    }
    if let Some(reason) =
        listener.hostname.as_deref().filter(|name| !name.is_empty()).and_then(hostnames::fault)
    {
        return Some(Fault::new("UnsupportedValue", format!("hostname: {reason}")));
    }
    let owner = provider.owner_of(reader.settings, *port)?;
    let message =
        format!("port {port} of the nodes' own addresses belongs to {}: choose another", owner.owner);
    Some(Fault::new("PortUnavailable", message))
}

/// The kinds that a listener takes, and what is wrong with those it names.
fn route_kinds(listener: &Listener) -> (Vec<&'static str>, Option<Fault>) {
    let named = &listener.allowed_routes.kinds;
    if named.is_empty() {
        return (vec!["HTTPRoute"], None);
    }
    let is_http_route = |group: &str, kind: &str| group == GATEWAY_GROUP && kind == "HTTPRoute";
    let wrong = named.iter().find(|kind| !is_http_route(&kind.group, &kind.kind));
    let fault = wrong.map(|wrong| {
        let (group, kind, protocol) = (&wrong.group, &wrong.kind, &listener.protocol);
        let message = format!(
            "allowedRoutes.kinds: {kind} of group {group} can't be attached to protocol {protocol}: use HTTPRoute"
        );
        Fault::new("InvalidRouteKinds", message)
    });
    let takes = named.iter().any(|kind| is_http_route(&kind.group, &kind.kind));
    (if takes { vec!["HTTPRoute"] } else { Vec::new() }, fault)
}

/// Conflicts between listeners of one Gateway: none of them wins.
///
/// Source: Gateway API, Gateway.spec.listeners, "Handling indistinct Listeners".
fn find_conflicts(listeners: &mut [Claim]) {
    let conflicts: Vec<_> = listeners.iter().map(|claim| conflict_with_siblings(claim, listeners)).collect();
    for (claim, conflict) in listeners.iter_mut().zip(conflicts) {
        claim.conflict = conflict;
    }
}

fn conflict_with_siblings(claim: &Claim, listeners: &[Claim]) -> Option<Conflict> {
    if !claim.is_valid() {
        return None;
    }
    let others = listeners.iter().filter(|other| other.name != claim.name && other.port == claim.port);
    others.filter(|other| other.rejected.is_none()).find_map(|other| {
        let (name, port) = (&other.name, claim.port);
        if other.protocol != claim.protocol {
            return Some(Conflict::protocol(format!("listener {name} has another protocol on port {port}")));
        }
        (other.hostname == claim.hostname)
            .then(|| Conflict::hostname(format!("listener {name} has the same hostname on port {port}")))
    })
}
