//! The status of a Gateway: its conditions, addresses and listeners, less what the proxies' answers add.

use proxy_config::name::ObjectName;

use crate::snapshot::meta::{GATEWAY_GROUP, Kind, ObjectRef};
use crate::status::{Condition, DesiredStatus, GatewayStatus, ListenerStatus, StatusContent};

use super::Problem;
use super::claims::{Claim, Claims};
use super::conditions::{
    ACCEPTED, CONFLICTED, Fault, INSECURE_FRONTEND, PROGRAMMED, RESOLVED_REFS, fails, holds, keeps, pending,
    unless,
};
use super::emission::Emission;
use super::listeners::{Listeners, Outcome};
use super::reader::Reader;

/// Makes the status of a Gateway of ours.
pub(super) fn translate(reader: &Reader<'_>, gateway: &ObjectName) -> Emission {
    let object = ObjectRef::new(Kind::Gateway, gateway.clone());
    let (Some(claims), Some(listeners)) = (reader.claims(&object), reader.listeners(&object)) else {
        return Emission::default();
    };
    let mut emission = Emission::of(object);
    let shown = claims.backend_certificate.as_ref().and_then(|shown| shown.fault.as_ref());
    emission.problems.extend(claims.rejected.iter().chain(shown).map(|fault| Problem::of("", fault)));
    let statuses = listener_statuses(reader, claims, listeners, &mut emission);
    let mut addresses = Vec::new();
    if let (true, Ok(assigned)) = (claims.is_accepted(), &claims.assigned) {
        let listed = assigned.listed(|| reader.node_addresses());
        addresses = listed.iter().map(|address| ("IPAddress", address.to_string())).collect();
    }
    if claims.is_accepted() {
        emission.service.clone_from(&claims.service);
    }
    let conditions = gateway_conditions(claims, listeners);
    let attached_sets = reader.attached_sets(gateway);
    let status = GatewayStatus { conditions, addresses, attached_sets, listeners: statuses };
    emission.status = Some(DesiredStatus::new(&claims.meta, StatusContent::Gateway(status)));
    emission
}

/// The statuses of a Gateway's or ListenerSet's listeners, in order.
pub(super) fn listener_statuses(
    reader: &Reader<'_>,
    claims: &Claims,
    listeners: &Listeners,
    emission: &mut Emission,
) -> Vec<ListenerStatus> {
    let holder = claims.holder();
    let mut statuses = Vec::new();
    for (index, (claim, outcome)) in claims.listeners.iter().zip(&listeners.outcomes).enumerate() {
        let conflict = outcome.conflict.as_ref().map(|conflict| &conflict.0);
        for fault in claim.rejected.iter().chain(conflict).chain(&claim.unresolved) {
            emission.problems.push(Problem::of(&format!("spec.listeners[{index}]"), fault));
        }
        statuses.push(ListenerStatus {
            name: claim.name.clone(),
            supported_kinds: claim.kinds.iter().map(|kind| (GATEWAY_GROUP, *kind)).collect(),
            attached_routes: reader.attached(&holder, &claim.name),
            conditions: listener_conditions(claims, claim, outcome),
            units: outcome.units.clone(),
        });
    }
    statuses
}

fn listener_conditions(claims: &Claims, claim: &Claim, outcome: &Outcome) -> Vec<Condition> {
    let conflict = outcome.conflict.as_ref().map(|conflict| &conflict.0);
    let rejected = claim.rejected.as_ref().or(conflict);
    let mut conditions = vec![
        unless(ACCEPTED, rejected, "Accepted", "the listener is accepted"),
        match conflict {
            Some(fault) => holds(CONFLICTED, fault.reason, fault.message.clone()),
            None => fails(CONFLICTED, &Fault::new("NoConflicts", "no other listener claims the same")),
        },
        match (&claim.unresolved, claim.unread()) {
            (None, Some(message)) => keeps(RESOLVED_REFS, message),
            (fault, _) => {
                unless(RESOLVED_REFS, fault.as_ref(), "ResolvedRefs", "all references are resolved")
            }
        },
    ];
    if outcome.units.is_empty() {
        conditions.push(match conflict {
            Some(fault) => fails(PROGRAMMED, fault),
            None => not_programmed(claims, claim, rejected),
        });
    }
    conditions
}

/// Why a listener without units is not programmed.
fn not_programmed(claims: &Claims, claim: &Claim, rejected: Option<&Fault>) -> Condition {
    if let Some(fault) = rejected.or(claims.rejected.as_ref()).or(claim.unresolved.as_ref()) {
        return fails(PROGRAMMED, &Fault::new("Invalid", fault.message.clone()));
    }
    match (&claims.waiting, &claims.assigned) {
        (Some(message), _) => fails(PROGRAMMED, &Fault::new("Pending", message.clone())),
        (None, Err(fault)) => fails(PROGRAMMED, &Fault::new("Invalid", fault.message.clone())),
        (None, Ok(_)) => keeps(PROGRAMMED, claim.unread().unwrap_or_default()),
    }
}

fn gateway_conditions(claims: &Claims, listeners: &Listeners) -> Vec<Condition> {
    let invalid: Vec<&str> = listeners
        .attachable
        .points
        .iter()
        .filter(|point| !point.accepted)
        .map(|point| &*point.name)
        .collect();
    let none_valid = invalid.len() == claims.listeners.len();
    let names = invalid.join(", ");
    let listeners_fault = (none_valid && claims.rejected.is_none())
        .then(|| Fault::new("ListenersNotValid", format!("no listener is accepted: see those of {names}")));
    let rejected = claims.rejected.as_ref().or(listeners_fault.as_ref());
    let accepted = match (&claims.waiting, rejected) {
        (_, Some(fault)) => fails(ACCEPTED, fault),
        (Some(message), None) => pending(ACCEPTED, message.clone()),
        (None, None) if invalid.is_empty() => holds(ACCEPTED, "Accepted", "the Gateway is accepted"),
        (None, None) => {
            holds(ACCEPTED, "ListenersNotValid", format!("accepted without these listeners: {names}"))
        }
    };
    let mut conditions = vec![accepted];
    let unserved = listeners.outcomes.iter().all(|outcome| outcome.units.is_empty());
    let unread = claims.listeners.iter().find_map(Claim::unread);
    let not = |reason, message: &str| Some(fails(PROGRAMMED, &Fault::new(reason, message)));
    conditions.extend(match (rejected, &claims.waiting, &claims.assigned) {
        (Some(fault), _, _) => not("Invalid", &fault.message),
        (None, Some(message), _) => not("Pending", message),
        (None, None, Err(fault)) => Some(fails(PROGRAMMED, fault)),
        (None, None, Ok(_)) if unserved => match unread {
            Some(message) => Some(keeps(PROGRAMMED, message)),
            None => not("Invalid", "no listener can be served: see their conditions"),
        },
        (None, None, Ok(_)) => None,
    });
    if let Some(shown) = &claims.backend_certificate {
        conditions.push(match (&shown.fault, &shown.unread) {
            (None, Some(message)) => keeps(RESOLVED_REFS, message.clone()),
            (fault, _) => {
                unless(RESOLVED_REFS, fault.as_ref(), "ResolvedRefs", "all references are resolved")
            }
        });
    }
    if claims.insecure {
        let message = "clients are served whose certificate is missing or not valid: backends must decide";
        conditions.push(holds(INSECURE_FRONTEND, "ConfigurationChanged", message));
    }
    conditions
}
