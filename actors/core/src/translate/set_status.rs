//! The status of a ListenerSet: its conditions and listeners, less what the proxies' answers add.

use proxy_config::name::ObjectName;

use crate::snapshot::meta::{Kind, ObjectRef};
use crate::status::{Condition, DesiredStatus, GatewayStatus, StatusContent};

use super::Problem;
use super::claims::{Claim, Claims};
use super::conditions::{ACCEPTED, Fault, PROGRAMMED, fails, holds, keeps, pending};
use super::derived::Result as Derivation;
use super::emission::Emission;
use super::gateway_status::listener_statuses;
use super::listeners::Listeners;
use super::reader::Reader;

/// Makes the status of a ListenerSet of a Gateway of ours, and says whether it is attached.
pub(super) fn translate(reader: &Reader<'_>, set: &ObjectName) -> (Derivation, Emission) {
    let object = ObjectRef::new(Kind::ListenerSet, set.clone());
    let (Some(claims), Some(listeners)) = (reader.claims(&object), reader.listeners(&object)) else {
        return (Derivation::ListenerSet(None), Emission::default());
    };
    let mut emission = Emission::of(object);
    if let Some(fault) = &claims.rejected {
        emission.problems.push(Problem::of("", fault));
    }
    let valid = valid(claims, listeners);
    let status = GatewayStatus {
        conditions: conditions(claims, listeners, &valid),
        addresses: Vec::new(),
        attached_sets: 0,
        listeners: listener_statuses(reader, claims, listeners, &mut emission),
    };
    emission.status = Some(DesiredStatus::new(&claims.meta, StatusContent::ListenerSet(status)));
    let is_attached = claims.is_accepted() && !valid.is_empty();
    (Derivation::ListenerSet(is_attached.then(|| claims.gateway.name.clone())), emission)
}

/// The listeners that are accepted and whose references let them be served.
fn valid<'a>(claims: &'a Claims, listeners: &Listeners) -> Vec<&'a str> {
    let all = claims.listeners.iter().zip(&listeners.outcomes);
    let valid = all.filter(|(claim, outcome)| {
        let is_served = !outcome.units.is_empty() || claim.unresolved.is_none();
        claim.rejected.is_none() && outcome.conflict.is_none() && is_served
    });
    valid.map(|(claim, _)| &*claim.name).collect()
}

fn conditions(claims: &Claims, listeners: &Listeners, valid: &[&str]) -> Vec<Condition> {
    let names = claims.listeners.iter().map(|claim| &*claim.name);
    let invalid: Vec<_> = names.filter(|name| !valid.contains(name)).collect();
    let names = invalid.join(", ");
    let none = || Fault::new("ListenersNotValid", format!("no listener is valid: see those of {names}"));
    let refused = claims.rejected.clone().or_else(|| valid.is_empty().then(none));
    if let Some(fault) = &refused {
        return vec![fails(ACCEPTED, fault), fails(PROGRAMMED, fault)];
    }
    if let Some(message) = &claims.waiting {
        let fault = Fault::new("Pending", message.clone());
        return vec![pending(ACCEPTED, message.clone()), fails(PROGRAMMED, &fault)];
    }
    let accepted = if invalid.is_empty() {
        holds(ACCEPTED, "Accepted", "the ListenerSet is accepted")
    } else {
        holds(ACCEPTED, "ListenersNotValid", format!("accepted without these listeners: {names}"))
    };
    let unserved = listeners.outcomes.iter().all(|outcome| outcome.units.is_empty());
    let programmed = match &claims.assigned {
        Err(fault) => Some(fails(PROGRAMMED, &Fault::new("Invalid", fault.message.clone()))),
        // What it waits for is not known yet: what stands goes on.
        Ok(_) if unserved => {
            let unread = claims.listeners.iter().find_map(Claim::unread);
            Some(keeps(PROGRAMMED, unread.unwrap_or_default()))
        }
        Ok(_) => None,
    };
    [Some(accepted), programmed].into_iter().flatten().collect()
}
