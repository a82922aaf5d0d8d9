//! What the proxies' answers add to statuses: Programmed of Gateways and listeners, broken routes.
//!
//! An object is Programmed once every proxy that is ready has acked units that hold it.

mod answers;
mod expiry;
mod finaliser;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::set::UnitSet;

use self::answers::{Answers, Verdict, few};
use self::expiry::Ending;
pub use self::finaliser::Finaliser;
use super::{Condition, ConditionStatus, DesiredStatus, GatewayStatus, ListenerStatus, StatusContent};
use crate::snapshot::meta::{Kind, ObjectRef};
use crate::translate::Translation;

/// Programmed, of Gateways and listeners.
const PROGRAMMED: &str = "Programmed";

/// Of routes, where there is something to say: False.
const ROUTE_PROGRAMMED: &str = "portreeve.dev/Programmed";

/// The proxies and what they have answered.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// By identity: two on one node, while one takes over from the other, are two.
    pub proxies: BTreeMap<String, ProxyState>,
    /// For how long this process has led.
    pub led_for: Duration,
    /// The present, in seconds since 1970: certificates end by it.
    pub now: i64,
}

/// A proxy and what it has answered.
#[derive(Clone, Debug, Default)]
pub struct ProxyState {
    /// Its name, as messages show it.
    pub name: String,
    /// Whether it is ready; one that is not is left out.
    pub ready: bool,
    /// Whether it has not answered for 10 s; it is left out and named.
    pub silent: bool,
    /// What it has acked; `None`: not known.
    pub acked: Option<Acked>,
    /// Why it refused the last push; `None` where it did not.
    pub refused: Option<String>,
}

/// What a proxy has acked.
#[derive(Clone, Debug, Default)]
pub struct Acked {
    /// The units that it holds.
    pub units: UnitSet,
    /// Those of them that it could not use, with its reason.
    pub broken: BTreeMap<UnitId, String>,
}

/// The statuses with what depends on the proxies, worked out from nothing.
pub fn finalise(translation: &Translation, fleet: &Fleet) -> OrdMap<ObjectRef, Arc<DesiredStatus>> {
    let mut finaliser = Finaliser::default();
    finaliser.update(translation, fleet);
    finaliser.statuses().clone()
}

fn condition(status: ConditionStatus, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition { kind: PROGRAMMED, status, reason, message: message.into() }
}

fn programmed(verdict: &Verdict, answers: &Answers<'_>) -> Condition {
    match verdict {
        Verdict::InForce if answers.silent.is_empty() => {
            condition(ConditionStatus::True, "Programmed", "all proxies serve it")
        }
        Verdict::InForce => {
            let (ready, silent) = (answers.ready, &answers.silent);
            let (some, names) = (ready - silent.len(), few(silent, ", "));
            let message = format!("{some} of {ready} proxies serve it; not answering: {names}");
            condition(ConditionStatus::True, "Programmed", message)
        }
        Verdict::Broken(message) => condition(ConditionStatus::False, "Invalid", message.clone()),
        Verdict::Refused(message) => condition(ConditionStatus::False, "Pending", message.clone()),
        Verdict::Waiting => condition(ConditionStatus::Keep, "Pending", "waiting for the proxies"),
        Verdict::NoProxy => condition(ConditionStatus::False, "NoResources", "no proxy is ready"),
    }
}

fn finalise_gateway(gateway: &GatewayStatus, answers: &Answers<'_>, ending: &Ending) -> GatewayStatus {
    let mut gateway = gateway.clone();
    let mut verdicts = Vec::new();
    for listener in gateway.listeners.iter_mut().filter(|listener| !listener.units.is_empty()) {
        let verdict = answers.judge(&listener.units);
        let mut condition = programmed(&verdict, answers);
        if matches!(verdict, Verdict::NoProxy) {
            // NoResources is a reason of Gateways alone.
            condition.reason = "Pending";
        }
        listener.conditions.push(condition);
        listener.conditions.extend(expiry::condition(&listener.units, ending));
        verdicts.push((listener.name.clone(), verdict));
    }
    // The translation itself has said why it is not.
    if gateway.conditions.iter().all(|condition| condition.kind != PROGRAMMED) {
        gateway.conditions.push(summary(&gateway.listeners, &verdicts, answers));
    }
    gateway
}

fn finalise_set(set: &GatewayStatus, answers: &Answers<'_>, ending: &Ending) -> GatewayStatus {
    let mut set = finalise_gateway(set, answers, ending);
    for condition in set.conditions.iter_mut().filter(|condition| condition.reason == "NoResources") {
        // NoResources is a reason of Gateways alone.
        condition.reason = "Pending";
    }
    set
}

/// A Gateway is Programmed where a listener is, unless something is still on its way.
fn summary(listeners: &[ListenerStatus], verdicts: &[(String, Verdict)], answers: &Answers<'_>) -> Condition {
    let waiting = verdicts.iter().find(|(_, verdict)| matches!(verdict, Verdict::Waiting));
    let served = verdicts.iter().find(|(_, verdict)| matches!(verdict, Verdict::InForce));
    let Some((_, verdict)) = waiting.or(served).or(verdicts.first()) else {
        return condition(ConditionStatus::False, "Invalid", "no listener can be served");
    };
    let mut condition = programmed(verdict, answers);
    let unserved: BTreeSet<_> = listeners
        .iter()
        .filter(|listener| {
            // Whether one of which nothing new is known is served, its own condition says.
            let keeps = |one: &Condition| one.kind == PROGRAMMED && one.status == ConditionStatus::Keep;
            !listener.conditions.iter().any(keeps)
        })
        .filter(|listener| {
            !verdicts.iter().any(|(name, verdict)| {
                *name == listener.name && matches!(verdict, Verdict::InForce | Verdict::Waiting)
            })
        })
        .map(|listener| &*listener.name)
        .collect();
    if condition.status == ConditionStatus::True && !unserved.is_empty() {
        let names = Vec::from_iter(unserved).join(", ");
        condition.message = format!("{}; not served: {names}", condition.message);
    }
    condition
}

fn route_of(unit: &UnitId) -> Option<ObjectRef> {
    let mut parts = unit.as_str().strip_prefix("route/")?.split('/');
    let kind = parts.next()?;
    let kind = Kind::ROUTES.into_iter().find(|known| known.as_str() == kind)?;
    let name = ObjectName::new(parts.next()?, parts.next()?);
    Some(ObjectRef::new(kind, name))
}

fn with_broken(status: &DesiredStatus, message: &str) -> DesiredStatus {
    let mut status = status.clone();
    if let StatusContent::Route { parents, .. } = &mut status.content {
        for parent in parents {
            let condition = condition(ConditionStatus::False, "Invalid", message);
            parent.conditions.push(Condition { kind: ROUTE_PROGRAMMED, ..condition });
        }
    }
    status
}

#[cfg(test)]
mod tests;
