//! What the proxies' answers add to statuses: Programmed of Gateways and listeners, broken routes.
//!
//! An object is Programmed once every proxy that is ready has acked units that hold it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::set::UnitSet;

use super::{Condition, ConditionStatus, DesiredStatus, GatewayStatus, ListenerStatus, StatusContent};
use crate::snapshot::meta::{Kind, ObjectRef};
use crate::translate::Translation;

/// For how long a new leader leaves Programmed as it stands where it does not know what a proxy holds.
const GRACE: Duration = Duration::from_secs(30);

/// How many proxies a message names; with [`REASON`] and the names of all listeners, which are at most 64, it
/// stays within the 32768 bytes that the API server takes.
const NAMED: usize = 5;

/// How many bytes of a proxy's reason a message shows.
const REASON: usize = 1024;

/// Programmed, of Gateways and listeners.
const PROGRAMMED: &str = "Programmed";

/// Of routes, where there is something to say: False.
const ROUTE_PROGRAMMED: &str = "portreeve.dev/Programmed";

/// The proxies and what they have answered.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// By name, as messages show it.
    pub proxies: BTreeMap<String, ProxyState>,
    /// For how long this process has led.
    pub led_for: Duration,
}

impl Fleet {
    fn ready(&self) -> usize {
        self.proxies.values().filter(|proxy| proxy.ready).count()
    }
}

/// A proxy and what it has answered.
#[derive(Clone, Debug, Default)]
pub struct ProxyState {
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

/// The statuses with what depends on the proxies. Costs the Gateways and the broken routes alone.
pub fn finalise(translation: &Translation, fleet: &Fleet) -> OrdMap<ObjectRef, Arc<DesiredStatus>> {
    let mut statuses = translation.statuses.clone();
    let first = ObjectRef::new(Kind::Gateway, ObjectName::new("", ""));
    let gateways = translation.statuses.range(first..).take_while(|(object, _)| object.kind == Kind::Gateway);
    for (object, status) in gateways {
        if let StatusContent::Gateway(gateway) = &status.content {
            let content = StatusContent::Gateway(finalise_gateway(gateway, &translation.units, fleet));
            statuses
                .insert(object.clone(), Arc::new(DesiredStatus { content, ..DesiredStatus::clone(status) }));
        }
    }
    for (object, message) in broken_routes(&translation.units, fleet) {
        if let Some(status) = statuses.get(&object) {
            let status = with_broken(status, &message);
            statuses.insert(object, Arc::new(status));
        }
    }
    statuses
}

/// What the fleet says of some units.
enum Verdict {
    /// In force on every proxy that answers; those that don't are named.
    InForce { silent: Vec<String> },
    /// Some proxy can't use one of them.
    Broken(String),
    /// Some proxy refuses what it is sent.
    Refused(String),
    /// Not known yet.
    Waiting,
    /// There is no proxy.
    NoProxy,
}

fn judge(units: &[UnitId], wanted: &UnitSet, fleet: &Fleet) -> Verdict {
    let (mut silent, mut broken, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let (mut any, mut waiting) = (false, false);
    for (name, proxy) in fleet.proxies.iter().filter(|(_, proxy)| proxy.ready) {
        any = true;
        let unknown = proxy.acked.is_none() && fleet.led_for < GRACE;
        if proxy.silent && !unknown {
            silent.push(name.clone());
            continue;
        }
        let current = |unit: &&UnitId| {
            let held = proxy.acked.as_ref().and_then(|acked| acked.units.get(unit));
            held.is_some() && held == wanted.get(unit)
        };
        if !units.iter().all(|unit| current(&unit)) {
            waiting = true;
            let reason = proxy.refused.as_ref().filter(|_| !unknown);
            refused.extend(reason.map(|reason| says(name, reason)));
        }
        let known = proxy.acked.iter().flat_map(|acked| &acked.broken);
        let ours = known.filter(|(unit, _)| units.contains(unit) && current(unit));
        broken.extend(ours.map(|(_, reason)| says(name, reason)));
    }
    match (any, broken.is_empty(), refused.is_empty()) {
        (false, _, _) => Verdict::NoProxy,
        (true, false, _) => Verdict::Broken(few(&broken, "; ")),
        (true, true, false) => Verdict::Refused(few(&refused, "; ")),
        // Where nobody answers, what stands is the best guess.
        (true, true, true) if waiting || silent.len() == fleet.ready() => Verdict::Waiting,
        (true, true, true) => Verdict::InForce { silent },
    }
}

/// What a proxy says, and which.
fn says(proxy: &str, reason: &str) -> String {
    let shown = &reason[..reason.floor_char_boundary(REASON)];
    let more = if shown.len() < reason.len() { " ..." } else { "" };
    format!("{proxy}: {shown}{more}")
}

/// The first few, and how many more there are: a fleet is larger than a message may be.
fn few(all: &[String], separator: &str) -> String {
    let named = all[..all.len().min(NAMED)].join(separator);
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}{separator}and {more} more"),
    }
}

fn condition(status: ConditionStatus, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition { kind: PROGRAMMED, status, reason, message: message.into() }
}

fn programmed(verdict: &Verdict, fleet: &Fleet) -> Condition {
    match verdict {
        Verdict::InForce { silent } if silent.is_empty() => {
            condition(ConditionStatus::True, "Programmed", "all proxies serve it")
        }
        Verdict::InForce { silent } => {
            let ready = fleet.ready();
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

fn finalise_gateway(gateway: &GatewayStatus, wanted: &UnitSet, fleet: &Fleet) -> GatewayStatus {
    let mut gateway = gateway.clone();
    let mut verdicts = Vec::new();
    for listener in gateway.listeners.iter_mut().filter(|listener| !listener.units.is_empty()) {
        let verdict = judge(&listener.units, wanted, fleet);
        let mut condition = programmed(&verdict, fleet);
        if matches!(verdict, Verdict::NoProxy) {
            // NoResources is a reason of Gateways alone.
            condition.reason = "Pending";
        }
        listener.conditions.push(condition);
        verdicts.push((listener.name.clone(), verdict));
    }
    // The translation itself has said why it is not.
    if gateway.conditions.iter().all(|condition| condition.kind != PROGRAMMED) {
        gateway.conditions.push(summary(&gateway.listeners, &verdicts, fleet));
    }
    gateway
}

/// A Gateway is Programmed where a listener is, unless something is still on its way.
fn summary(listeners: &[ListenerStatus], verdicts: &[(String, Verdict)], fleet: &Fleet) -> Condition {
    let waiting = verdicts.iter().find(|(_, verdict)| matches!(verdict, Verdict::Waiting));
    let served = verdicts.iter().find(|(_, verdict)| matches!(verdict, Verdict::InForce { .. }));
    let Some((_, verdict)) = waiting.or(served).or(verdicts.first()) else {
        return condition(ConditionStatus::False, "Invalid", "no listener can be served");
    };
    let mut condition = programmed(verdict, fleet);
    let unserved: BTreeSet<_> = listeners
        .iter()
        .filter(|listener| {
            !verdicts.iter().any(|(name, verdict)| {
                *name == listener.name && matches!(verdict, Verdict::InForce { .. } | Verdict::Waiting)
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

/// The routes that some proxy could not use, as they are now.
fn broken_routes(wanted: &UnitSet, fleet: &Fleet) -> BTreeMap<ObjectRef, String> {
    let mut said: BTreeMap<ObjectRef, Vec<String>> = BTreeMap::new();
    for (name, proxy) in fleet.proxies.iter().filter(|(_, proxy)| proxy.ready) {
        let Some(acked) = &proxy.acked else { continue };
        for (unit, reason) in &acked.broken {
            let current = wanted.get(unit).is_some_and(|wanted| acked.units.get(unit) == Some(wanted));
            if let Some(object) = route_of(unit).filter(|_| current) {
                said.entry(object).or_default().push(says(name, reason));
            }
        }
    }
    said.into_iter().map(|(object, said)| (object, few(&said, "; "))).collect()
}

fn route_of(unit: &UnitId) -> Option<ObjectRef> {
    let mut parts = unit.as_str().strip_prefix("route/HTTPRoute/")?.split('/');
    let name = ObjectName::new(parts.next()?, parts.next()?);
    Some(ObjectRef::new(Kind::HttpRoute, name))
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
