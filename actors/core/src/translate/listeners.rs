//! Listeners: who gets which hostname on a port that Gateways and ListenerSets share, and what becomes
//! of each listener.

use proxy_config::listener::{Bind, Listener, Protocol};
use proxy_config::name::{HostPattern, ObjectName, UnitId};
use proxy_config::unit::{EncodedUnit, Unit};

use crate::snapshot::gateway::AllowedNamespaces;
use crate::snapshot::meta::ObjectRef;

use super::claims::{Claim, Claims, conflict_among};
use super::conditions::Fault;
use super::derived::{Losers, Result as Derivation};
use super::emission::Emission;
use super::reader::Reader;

/// Why a listener is conflicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict(pub(super) Fault);

impl Conflict {
    /// Another protocol on the port.
    pub(super) fn protocol(message: String) -> Self {
        Self(Fault::new("ProtocolConflict", message))
    }

    /// The same hostname on the port.
    pub(super) fn hostname(message: String) -> Self {
        Self(Fault::new("HostnameConflict", message))
    }
}

/// How two listeners on one port exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clash {
    /// By their protocols.
    Protocol,
    /// By their hostnames; listeners of TCP or UDP have none.
    Hostname,
}

impl Clash {
    /// How these exclude each other, if they do.
    ///
    /// Source: Gateway.spec.listeners: on a port all are of HTTP, or of HTTPS and TLS, or one is of TCP; UDP has
    /// ports of its own.
    pub(super) fn of(
        (mine, name): (Protocol, &Option<HostPattern>),
        (theirs, other): (Protocol, &Option<HostPattern>),
    ) -> Option<Self> {
        if (mine == Protocol::Udp) != (theirs == Protocol::Udp) {
            return None;
        }
        if family(mine) != family(theirs) {
            return Some(Self::Protocol);
        }
        (name == other).then_some(Self::Hostname)
    }
}

/// Protocols that can share a port.
fn family(protocol: Protocol) -> Protocol {
    if protocol == Protocol::Tls { Protocol::Https } else { protocol }
}

/// The listeners of a Gateway or ListenerSet as they end up, beside what they claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listeners {
    /// As routes see them.
    pub(super) attachable: Attachable,
    /// In the order of the claims.
    pub(super) outcomes: Vec<Outcome>,
}

/// What becomes of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// A conflict, within the holder or with another one.
    pub(super) conflict: Option<Conflict>,
    /// The units that must be in force for it to be Programmed; empty: it is not served.
    pub(super) units: Vec<UnitId>,
}

/// What routes see of a Gateway or ListenerSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachable {
    /// The Gateway: itself, or the one that a ListenerSet adds to.
    pub(super) gateway: ObjectName,
    /// Whether it takes routes.
    pub(super) accepted: bool,
    /// Its listeners.
    pub(super) points: Vec<AttachmentPoint>,
}

/// What routes see of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AttachmentPoint {
    pub(super) name: String,
    /// The listener's unit.
    pub(super) unit: UnitId,
    pub(super) port: u16,
    pub(super) hostname: Option<HostPattern>,
    pub(super) namespaces: AllowedNamespaces,
    pub(super) kinds: Vec<&'static str>,
    /// Whether the listener is accepted.
    pub(super) accepted: bool,
}

/// Shares out a port: who comes first keeps what it has, whoever clashes with that loses. Of one holder's
/// own listeners that clash none wins.
pub(super) fn share(reader: &Reader<'_>, port: &Bind) -> Derivation {
    let mut holders: Vec<_> = reader.sharing(port).collect();
    holders.sort_by(|one, other| one.rank().cmp(&other.rank()));
    let mut taken: Vec<(&Claim, &Claims)> = Vec::new();
    let mut losers = Losers::new();
    for claims in holders {
        let mine = claims.listeners.iter().filter(|claim| claims.binds(claim).any(|bind| bind == *port));
        let (mut free, mut lost) = (Vec::new(), Vec::new());
        for claim in mine {
            match taken.iter().find_map(|(other, owner)| conflict_with(claim, other, owner)) {
                Some(conflict) => lost.push((claim, conflict)),
                None => free.push(claim),
            }
        }
        lost.extend(free.iter().filter_map(|claim| Some((*claim, conflict_among(claim, &free)?))));
        free.retain(|claim| lost.iter().all(|(loser, _)| loser.name != claim.name));
        taken.extend(free.into_iter().map(|claim| (claim, claims)));
        if !lost.is_empty() {
            let lost = lost.into_iter().map(|(claim, conflict)| (claim.name.clone(), conflict));
            losers.insert(claims.holder(), lost.collect());
        }
    }
    Derivation::Port(losers)
}

/// What a listener loses to one that comes first.
fn conflict_with(claim: &Claim, other: &Claim, owner: &Claims) -> Option<Conflict> {
    let (mine, theirs, port) = (claim.protocol?, other.protocol?, claim.port);
    let owner = owner.holder();
    let is_https = mine == Protocol::Https && theirs == Protocol::Https;
    if is_https && claim.clients.validation != other.clients.validation {
        // A connection's client is validated before it has named a host.
        return Some(Conflict::protocol(format!("{owner} validates clients otherwise on port {port}")));
    }
    match Clash::of((mine, &claim.hostname), (theirs, &other.hostname))? {
        Clash::Protocol => Some(Conflict::protocol(format!("{owner} has another protocol on port {port}"))),
        Clash::Hostname if matches!(theirs, Protocol::Tcp | Protocol::Udp) => {
            Some(Conflict::protocol(format!("{owner} has the same protocol on port {port}")))
        }
        Clash::Hostname => Some(Conflict::hostname(format!("{owner} has the same hostname on port {port}"))),
    }
}

/// What becomes of a holder's listeners, and their units.
pub(super) fn settle(reader: &Reader<'_>, holder: &ObjectRef) -> (Derivation, Emission) {
    let Some(claims) = reader.claims(holder) else {
        return (Derivation::Listeners(None), Emission::default());
    };
    let mut emission = Emission::default();
    let (mut points, mut outcomes) = (Vec::new(), Vec::new());
    // Each listener names it.
    let is_shown_unread = claims.backend_certificate.as_ref().is_some_and(|shown| shown.unread.is_some());
    for claim in &claims.listeners {
        let conflict = claim.conflict.clone().or_else(|| lost(reader, claims, claim));
        let accepted = claim.rejected.is_none() && conflict.is_none();
        points.push(AttachmentPoint {
            name: claim.name.clone(),
            unit: claims.unit_id(&claim.name),
            port: claim.port,
            hostname: claim.hostname.clone(),
            namespaces: claim.namespaces.clone(),
            kinds: claim.kinds.clone(),
            accepted,
        });
        let bound = conflict.is_none() && claims.binds(claim).next().is_some();
        let is_unread = is_shown_unread || claim.unread().is_some();
        if bound && is_unread && claim.unresolved.is_none() {
            emission.waiting.push(claims.unit_id(&claim.name));
        }
        let unit = unit(claims, claim).filter(|_| conflict.is_none());
        let units = unit.map(|unit| emit(&mut emission, claims, unit)).unwrap_or_default();
        outcomes.push(Outcome { conflict, units });
    }
    let gateway = claims.gateway.name.clone();
    let attachable = Attachable { gateway, accepted: claims.is_accepted(), points };
    (Derivation::Listeners(Some(Listeners { attachable, outcomes })), emission)
}

fn lost(reader: &Reader<'_>, claims: &Claims, claim: &Claim) -> Option<Conflict> {
    let holder = claims.holder();
    claims.binds(claim).find_map(|bind| reader.conflict(&holder, &bind, &claim.name).cloned())
}

/// The unit of a listener that can be served.
fn unit(claims: &Claims, claim: &Claim) -> Option<Listener> {
    let mut binds = claims.binds(claim);
    let (bind, protocol) = (binds.next()?, claim.protocol?);
    if claim.ends_tls() && claim.certificates.usable.is_empty() {
        return None;
    }
    if claim.clients.unread.is_some() {
        return None;
    }
    let shown = claims.backend_certificate.as_ref().and_then(|found| found.usable.first());
    Some(Listener {
        bind,
        further: binds.map(|bind| bind.address).collect(),
        protocol,
        hostname: claim.hostname.clone(),
        certificates: claim.certificates.usable.iter().map(UnitId::certificate).collect(),
        passthrough: claim.passthrough,
        client_validation: claim.clients.validation.clone(),
        backend_certificate: shown.map(UnitId::certificate),
        gateway: claims.gateway.name.clone(),
        name: claim.name.clone(),
    })
}

/// Emits the unit; the units that it needs.
fn emit(emission: &mut Emission, claims: &Claims, listener: Listener) -> Vec<UnitId> {
    let id = claims.unit_id(&listener.name);
    let mut units = vec![id.clone()];
    units.extend(listener.certificates.iter().chain(&listener.backend_certificate).cloned());
    units.extend(listener.client_validation.iter().flat_map(|clients| clients.authorities.iter().cloned()));
    emission.units.push(EncodedUnit::new(id, &Unit::Listener(listener)));
    units
}
