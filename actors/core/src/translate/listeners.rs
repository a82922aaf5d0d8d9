//! Listeners: who gets which hostname on a port that Gateways share, and what becomes of each listener.

use std::collections::BTreeMap;

use proxy_config::listener::{Bind, Listener, Protocol};
use proxy_config::name::{HostPattern, ObjectName, UnitId};
use proxy_config::unit::{EncodedUnit, Unit};

use crate::snapshot::gateway::AllowedNamespaces;

use super::conditions::Fault;
use super::derived::{Losers, Result as Derivation};
use super::emission::Emission;
use super::gateways::{Claim, Claims};
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

/// The listeners of a Gateway as they end up, beside what they claim.
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
    /// A conflict, within the Gateway or with another one.
    pub(super) conflict: Option<Conflict>,
    /// The units that must be in force for it to be Programmed; empty: it is not served.
    pub(super) units: Vec<UnitId>,
}

/// What routes see of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachable {
    /// Whether the Gateway takes routes.
    pub(super) accepted: bool,
    /// Its listeners.
    pub(super) points: Vec<AttachmentPoint>,
}

/// What routes see of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AttachmentPoint {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) hostname: Option<HostPattern>,
    pub(super) namespaces: AllowedNamespaces,
    pub(super) kinds: Vec<&'static str>,
    /// Whether the listener is accepted.
    pub(super) accepted: bool,
}

/// Shares out a port among Gateways: the oldest one's protocol stands, and of two equal hostnames the
/// older Gateway's; of two made in the same second the one whose namespace/name sorts first.
pub(super) fn share(reader: &Reader<'_>, port: &Bind) -> Derivation {
    let mut gateways: Vec<_> = reader.sharing(port).collect();
    gateways.sort_by_key(|(name, claims)| (claims.meta.created, *name));
    let mut protocol: Option<(Protocol, &ObjectName)> = None;
    let mut taken: BTreeMap<Option<&HostPattern>, &ObjectName> = BTreeMap::new();
    let mut losers = Losers::new();
    for (gateway, claims) in gateways {
        for claim in claims.listeners.iter().filter(|claim| claims.binds(claim).any(|bind| bind == *port)) {
            let Some(mine) = claim.protocol else { continue };
            let (stands, owner) = *protocol.get_or_insert((mine, gateway));
            let conflict = if stands != mine {
                Conflict::protocol(format!("Gateway {owner} has another protocol on port {}", port.port))
            } else if let Some(owner) = taken.get(&claim.hostname.as_ref()) {
                Conflict::hostname(format!("Gateway {owner} has the same hostname on port {}", port.port))
            } else {
                taken.insert(claim.hostname.as_ref(), gateway);
                continue;
            };
            losers.entry(gateway.clone()).or_default().insert(claim.name.clone(), conflict);
        }
    }
    Derivation::Port(losers)
}

/// What becomes of a Gateway's listeners, and their units.
pub(super) fn settle(reader: &Reader<'_>, gateway: &ObjectName) -> (Derivation, Emission) {
    let Some(claims) = reader.claims(gateway) else {
        return (Derivation::Listeners(None), Emission::default());
    };
    let mut emission = Emission::default();
    let (mut points, mut outcomes) = (Vec::new(), Vec::new());
    for claim in &claims.listeners {
        let conflict = claim.conflict.clone().or_else(|| lost(reader, claims, claim));
        let accepted = claim.rejected.is_none() && conflict.is_none();
        points.push(AttachmentPoint {
            name: claim.name.clone(),
            port: claim.port,
            hostname: claim.hostname.clone(),
            namespaces: claim.namespaces.clone(),
            kinds: claim.kinds.clone(),
            accepted,
        });
        let bound = conflict.is_none() && claims.binds(claim).next().is_some();
        if bound && claim.certificates.unread.is_some() && claim.unresolved.is_none() {
            emission.waiting.push(UnitId::listener(gateway, &claim.name));
        }
        let unit = unit(claims, claim).filter(|_| conflict.is_none());
        let units = unit.map(|unit| emit(&mut emission, unit)).unwrap_or_default();
        outcomes.push(Outcome { conflict, units });
    }
    let attachable = Attachable { accepted: claims.is_accepted(), points };
    (Derivation::Listeners(Some(Listeners { attachable, outcomes })), emission)
}

fn lost(reader: &Reader<'_>, claims: &Claims, claim: &Claim) -> Option<Conflict> {
    claims.binds(claim).find_map(|bind| reader.conflict(&claims.meta.name, &bind, &claim.name).cloned())
}

/// The unit of a listener that can be served.
fn unit(claims: &Claims, claim: &Claim) -> Option<Listener> {
    let mut binds = claims.binds(claim);
    let (bind, protocol) = (binds.next()?, claim.protocol?);
    if protocol == Protocol::Https && claim.certificates.usable.is_empty() {
        return None;
    }
    Some(Listener {
        bind,
        further: binds.map(|bind| bind.address).collect(),
        protocol,
        hostname: claim.hostname.clone(),
        certificates: claim.certificates.usable.iter().map(UnitId::certificate).collect(),
        passthrough: false,
        client_validation: None,
        backend_certificate: None,
        gateway: claims.meta.name.clone(),
        name: claim.name.clone(),
    })
}

/// Emits the unit; the units that it needs.
fn emit(emission: &mut Emission, listener: Listener) -> Vec<UnitId> {
    let id = UnitId::listener(&listener.gateway, &listener.name);
    let mut units = vec![id.clone()];
    units.extend(listener.certificates.iter().cloned());
    emission.units.push(EncodedUnit::new(id, &Unit::Listener(listener)));
    units
}
