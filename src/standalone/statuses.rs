//! The statuses of objects as lines of text, each printed once per change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actors::observe::files::manifest::Fault;
use actors_core::status::fleet::{self, Acked, Fleet, ProxyState};
use actors_core::status::{
    AncestorStatus, Condition, ConditionStatus, GatewayStatus, ListenerStatus, ParentStatus, StatusContent,
};
use actors_core::translate::Translation;
use proxy_config::wire::Ack;

/// Longer than a new leader's patience: the one proxy's answers are always known.
const EVER: Duration = Duration::from_secs(3600);

/// The present, in seconds since 1970.
fn seconds() -> i64 {
    let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(passed.as_secs()).unwrap_or(i64::MAX)
}

/// What has been printed.
pub(crate) struct Statuses {
    proxy: &'static str,
    printed: BTreeMap<String, String>,
    faults: BTreeSet<Fault>,
}

impl Statuses {
    /// Nothing has been printed.
    pub(crate) fn new(proxy: &'static str) -> Self {
        Self { proxy, printed: BTreeMap::new(), faults: BTreeSet::new() }
    }

    /// Prints what is newly wrong with the files, and what is mended.
    pub(crate) fn faults(&mut self, faults: &[Fault]) {
        let now: BTreeSet<Fault> = faults.iter().cloned().collect();
        for fault in now.difference(&self.faults) {
            println!("refused  {fault}");
        }
        for fault in self.faults.difference(&now) {
            println!("mended   {fault}");
        }
        self.faults = now;
    }

    /// Prints the statuses that changed by a translation and the proxy's answer to it.
    pub(crate) fn told(&mut self, translation: &Arc<Translation>, ack: &Ack) {
        let broken = ack.broken.iter().map(|broken| (broken.unit.clone(), broken.reason.clone()));
        let acked = Acked { units: translation.units.clone(), broken: broken.collect() };
        let name = self.proxy.to_owned();
        let state = ProxyState { name, ready: true, acked: Some(acked), ..ProxyState::default() };
        let proxies = BTreeMap::from([(self.proxy.to_owned(), state)]);
        let fleet = Fleet { proxies, led_for: EVER, now: seconds() };
        let mut now = BTreeMap::new();
        for (object, status) in &fleet::finalise(translation, &fleet) {
            now.extend(lines(&object.to_string(), &status.content));
        }
        for (about, line) in &now {
            if self.printed.get(about) != Some(line) {
                println!("{about}  {line}");
            }
        }
        for about in self.printed.keys().filter(|about| !now.contains_key(*about)) {
            println!("{about}  is gone");
        }
        self.printed = now;
    }
}

fn lines(object: &str, content: &StatusContent) -> Vec<(String, String)> {
    match content {
        StatusContent::GatewayClass { conditions, .. } => vec![(object.to_owned(), text(conditions))],
        StatusContent::Gateway(gateway) => {
            let addresses: Vec<&str> =
                gateway.addresses.iter().map(|(_, address)| address.as_str()).collect();
            let own = format!("{}  at {}", text(&gateway.conditions), addresses.join(", "));
            [(object.to_owned(), own)].into_iter().chain(listeners(object, gateway)).collect()
        }
        StatusContent::ListenerSet(set) => {
            [(object.to_owned(), text(&set.conditions))].into_iter().chain(listeners(object, set)).collect()
        }
        StatusContent::Policy { ancestors, .. } | StatusContent::Backend { parents: ancestors, .. } => {
            let line = |one: &AncestorStatus| {
                (format!("{object} for Gateway {}", one.gateway), text(&one.conditions))
            };
            ancestors.iter().map(line).collect()
        }
        StatusContent::Route { parents, .. } => {
            let parent = |(index, parent): (usize, &ParentStatus)| {
                (format!("{object} parent {index}"), text(&parent.conditions))
            };
            parents.iter().enumerate().map(parent).collect()
        }
    }
}

fn listeners(object: &str, holder: &GatewayStatus) -> Vec<(String, String)> {
    let line = |listener: &ListenerStatus| {
        let routes = listener.attached_routes;
        let line = format!("{}  {routes} route(s)", text(&listener.conditions));
        (format!("{object} listener {}", listener.name), line)
    };
    holder.listeners.iter().map(line).collect()
}

/// The conditions in one line; the message where something does not hold.
fn text(conditions: &[Condition]) -> String {
    let one = |condition: &Condition| match condition.status {
        ConditionStatus::True => condition.kind.to_owned(),
        ConditionStatus::Unknown | ConditionStatus::Keep => format!("{}?", condition.kind),
        ConditionStatus::False => {
            format!("not {} ({}: {})", condition.kind, condition.reason, condition.message)
        }
    };
    // Of a listener: worth a word only where it holds.
    let worth =
        |condition: &&Condition| condition.kind != "Conflicted" || condition.status == ConditionStatus::True;
    conditions.iter().filter(worth).map(one).collect::<Vec<_>>().join(", ")
}
