//! What a listener claims, seen alone: before other Gateways and ListenerSets are looked at.

use std::collections::BTreeSet;

use proxy_config::listener::{Bind, Protocol};
use proxy_config::name::{HostPattern, ObjectName, UnitId};

use crate::snapshot::cluster::GatewayService;
use crate::snapshot::gateway::{AllowedNamespaces, FrontendTls, Listener};
use crate::snapshot::meta::{GATEWAY_GROUP, Kind, Meta, ObjectRef};

use super::addresses::{Assigned, Provider};
use super::certificates::{self, Certificates};
use super::conditions::Fault;
use super::frontend::{self, Clients};
use super::grants::Referrer;
use super::graph::Role;
use super::hostnames;
use super::listeners::{Clash, Conflict};
use super::reader::Reader;

/// What a holder of listeners claims: a Gateway of ours, or a ListenerSet of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    /// What it is.
    pub(super) kind: Kind,
    /// Its metadata.
    pub(super) meta: Meta,
    /// The metadata of the Gateway: its own, or that of the one it adds to.
    pub(super) gateway: Meta,
    /// Why it is not accepted at all.
    pub(super) rejected: Option<Fault>,
    /// It waits for its class.
    pub(super) waiting: Option<String>,
    /// Its addresses, or why it gets none though it is accepted.
    pub(super) assigned: Result<Assigned, Fault>,
    /// Its listeners, in order.
    pub(super) listeners: Vec<Claim>,
    /// Of a Gateway: which ListenerSets may attach.
    pub(super) allowed_sets: AllowedNamespaces,
    /// Of a Gateway: the Service that it owns, and its name.
    pub(super) service: Option<(ObjectName, GatewayService)>,
    /// Where its addresses come from.
    pub(super) provider: Provider,
    /// The certificate that the Gateway shows to backends, where it has one.
    pub(super) backend_certificate: Option<Certificates>,
    /// Of a Gateway: it takes routes that ask for default Gateways.
    pub(super) is_default: bool,
    /// Of a Gateway: clients whose certificate is not valid are served somewhere.
    pub(super) insecure: bool,
}

/// What a listener claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) port: u16,
    /// `None` where it is not supported.
    pub(super) protocol: Option<Protocol>,
    /// Of TLS: it ends at the backend.
    pub(super) passthrough: bool,
    pub(super) hostname: Option<HostPattern>,
    pub(super) namespaces: AllowedNamespaces,
    /// The kinds of route that it takes.
    pub(super) kinds: Vec<&'static str>,
    pub(super) certificates: Certificates,
    /// How clients are validated.
    pub(super) clients: Clients,
    /// Why it is not accepted.
    pub(super) rejected: Option<Fault>,
    /// A conflict with another listener of the same Gateway, among which none wins.
    pub(super) conflict: Option<Conflict>,
    /// A reference that is not resolved.
    pub(super) unresolved: Option<Fault>,
}

impl Claim {
    /// Whether TLS ends here.
    pub(super) fn ends_tls(&self) -> bool {
        self.protocol == Some(Protocol::Https) || (self.protocol == Some(Protocol::Tls) && !self.passthrough)
    }

    /// Why something that it names is not known yet.
    pub(super) fn unread(&self) -> Option<&str> {
        self.certificates.unread.as_deref().or(self.clients.unread.as_deref())
    }

    /// Whether it takes part in sharing a port.
    pub(super) fn is_valid(&self) -> bool {
        self.rejected.is_none() && self.conflict.is_none() && self.protocol.is_some()
    }
}

impl Claims {
    /// The object.
    pub(super) fn holder(&self) -> ObjectRef {
        ObjectRef::new(self.kind, self.meta.name.clone())
    }

    /// Who comes first on a port: the older Gateway, and of one Gateway itself, then the older of its
    /// ListenerSets; of two made in the same second the one whose namespace/name sorts first.
    /// Source: GEP-1713, "Listener precedence".
    pub(super) fn rank(&self) -> impl Ord + use<'_> {
        let Self { gateway, meta, kind, .. } = self;
        (gateway.created, &gateway.name, *kind != Kind::Gateway, meta.created, &meta.name)
    }

    /// The unit of one of its listeners.
    pub(super) fn unit_id(&self, listener: &str) -> UnitId {
        match self.kind {
            Kind::ListenerSet => UnitId::set_listener(&self.meta.name, listener),
            _ => UnitId::listener(&self.meta.name, listener),
        }
    }

    /// Whether the holder is worked on at all.
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

    /// The Secrets and ConfigMaps that it names and may.
    pub(super) fn wanted(&self) -> BTreeSet<(ObjectRef, Role)> {
        let listeners = self.listeners.iter().filter(|_| self.is_accepted());
        let mut wanted = BTreeSet::new();
        let own = self.backend_certificate.as_ref().filter(|_| self.is_accepted());
        for certificates in listeners.clone().map(|claim| &claim.certificates).chain(own) {
            let secrets = certificates.wanted.iter().cloned();
            wanted.extend(secrets.map(|secret| (ObjectRef::new(Kind::Secret, secret), Role::Certificate)));
        }
        wanted.extend(listeners.flat_map(|claim| claim.clients.wanted.iter().cloned()));
        wanted
    }
}

/// Who has a listener.
pub(super) struct Holder<'a> {
    /// Who refers to its Secrets.
    pub(super) referrer: Referrer<'a>,
    pub(super) provider: &'a Provider,
    /// The Gateway, and what it asks of clients.
    pub(super) gateway: &'a ObjectName,
    pub(super) frontend: &'a FrontendTls,
}

/// Translates a listener, seen alone.
pub(super) fn claim_listener(reader: &Reader<'_>, holder: &Holder<'_>, listener: &Listener) -> Claim {
    let protocol = protocol(&listener.protocol);
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref()).unwrap_or("Terminate");
    let passthrough = protocol == Some(Protocol::Tls) && mode == "Passthrough";
    let mut claim = Claim {
        name: listener.name.clone(),
        port: listener.port,
        protocol,
        passthrough,
        hostname: named(listener).map(HostPattern::new),
        namespaces: listener.allowed_routes.namespaces.clone(),
        kinds: Vec::new(),
        certificates: Certificates::default(),
        clients: Clients::default(),
        rejected: reject(reader, holder.provider, listener, protocol),
        conflict: None,
        unresolved: None,
    };
    if let Some(protocol) = protocol {
        (claim.kinds, claim.unresolved) = route_kinds(reader, listener, protocol);
    }
    if claim.ends_tls() {
        claim.certificates = certificates::resolve(reader, holder.referrer, listener);
        claim.unresolved = claim.certificates.fault.clone().or(claim.unresolved);
    }
    if protocol == Some(Protocol::Https) {
        claim.clients = frontend::resolve(reader, holder.gateway, holder.frontend, listener.port);
        claim.unresolved = claim.clients.unresolved.clone().or(claim.unresolved);
        claim.rejected = claim.rejected.or_else(|| claim.clients.rejected.clone());
    }
    claim
}

fn protocol(written: &str) -> Option<Protocol> {
    match written {
        "HTTP" => Some(Protocol::Http),
        "HTTPS" => Some(Protocol::Https),
        "TLS" => Some(Protocol::Tls),
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

/// The hostname, where protocols have one.
fn named(listener: &Listener) -> Option<&str> {
    let has_one = !matches!(protocol(&listener.protocol), Some(Protocol::Tcp | Protocol::Udp));
    listener.hostname.as_deref().filter(|name| has_one && !name.is_empty())
}

fn reject(
    reader: &Reader<'_>,
    provider: &Provider,
    listener: &Listener,
    protocol: Option<Protocol>,
) -> Option<Fault> {
    let Listener { port, protocol: written, .. } = listener;
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref()).unwrap_or("Terminate");
    match protocol {
        None => {
            let message = format!("protocol `{written}` is not supported: use HTTP, HTTPS, TLS, TCP or UDP");
            return Some(Fault::new("UnsupportedProtocol", message));
        }
        Some(Protocol::Https) if mode != "Terminate" => {
            let message = format!("tls.mode `{mode}` is not possible with protocol HTTPS: use Terminate");
            return Some(Fault::new("UnsupportedValue", message));
        }
        Some(Protocol::Tls) if !["Terminate", "Passthrough"].contains(&mode) => {
            let message = format!("tls.mode `{mode}` is not supported: use Terminate or Passthrough");
            return Some(Fault::new("UnsupportedValue", message));
        }
        Some(_) => {}
    }
    if let Some(reason) = named(listener).and_then(hostnames::fault) {
        return Some(Fault::new("UnsupportedValue", format!("hostname: {reason}")));
    }
    let owner = provider.owner_of(reader.settings, *port)?;
    let message =
        format!("port {port} of the nodes' own addresses belongs to {}: choose another", owner.owner);
    Some(Fault::new("PortUnavailable", message))
}

/// The kinds of route that a protocol takes and that are installed.
fn kinds_of(reader: &Reader<'_>, protocol: Protocol) -> Vec<&'static str> {
    let kinds: &[_] = match protocol {
        Protocol::Http | Protocol::Https => &["HTTPRoute", "GRPCRoute"],
        Protocol::Tls => &["TLSRoute"],
        Protocol::Tcp => &["TCPRoute"],
        Protocol::Udp => &["UDPRoute"],
    };
    kinds.iter().copied().filter(|kind| reader.is_installed(kind)).collect()
}

/// The kinds that a listener takes, and what is wrong with those it names.
fn route_kinds(
    reader: &Reader<'_>,
    listener: &Listener,
    protocol: Protocol,
) -> (Vec<&'static str>, Option<Fault>) {
    let (named, taken) = (&listener.allowed_routes.kinds, kinds_of(reader, protocol));
    if named.is_empty() {
        return (taken, None);
    }
    let names = |known: &str| named.iter().any(|one| one.group == GATEWAY_GROUP && one.kind == known);
    let is_taken = |group: &str, kind: &str| group == GATEWAY_GROUP && taken.contains(&kind);
    let fault = named.iter().find(|one| !is_taken(&one.group, &one.kind)).map(|wrong| {
        let (group, kind, protocol) = (&wrong.group, &wrong.kind, &listener.protocol);
        let message = format!(
            "allowedRoutes.kinds: {kind} of group {group} can't be attached to protocol {protocol}: use {}",
            taken.join(" or ")
        );
        Fault::new("InvalidRouteKinds", message)
    });
    (taken.iter().copied().filter(|known| names(known)).collect(), fault)
}

/// Conflicts between listeners of one holder: none of them wins.
///
/// Source: Gateway API, Gateway.spec.listeners, "Handling indistinct Listeners".
pub(super) fn find_conflicts(listeners: &mut [Claim]) {
    let all: Vec<_> = listeners.iter().filter(|claim| claim.is_valid()).collect();
    let conflicts: Vec<_> =
        all.iter().map(|claim| (claim.name.clone(), conflict_among(claim, &all))).collect();
    for (name, conflict) in conflicts {
        if let Some(claim) = listeners.iter_mut().find(|claim| claim.name == name) {
            claim.conflict = conflict;
        }
    }
}

/// The first conflict of a listener with another one of the same holder.
pub(super) fn conflict_among(claim: &Claim, listeners: &[&Claim]) -> Option<Conflict> {
    let (mine, port) = (claim.protocol?, claim.port);
    let others = listeners.iter().filter(|other| other.name != claim.name && other.port == port);
    others.filter_map(|other| Some((other, other.protocol?))).find_map(|(other, theirs)| {
        let name = &other.name;
        match Clash::of((mine, &claim.hostname), (theirs, &other.hostname))? {
            Clash::Protocol => {
                Some(Conflict::protocol(format!("listener {name} has another protocol on port {port}")))
            }
            Clash::Hostname if theirs == Protocol::Tcp || theirs == Protocol::Udp => {
                Some(Conflict::protocol(format!("listener {name} has the same protocol on port {port}")))
            }
            Clash::Hostname => {
                Some(Conflict::hostname(format!("listener {name} has the same hostname on port {port}")))
            }
        }
    })
}
