//! Owns: how what proxies have answered becomes what statuses are judged by.
//! Called by the status writer. Refuses to know what follows from it (`actors_core::status::fleet`).

use std::collections::BTreeMap;
use std::time::Duration;

use actors_core::status::fleet::{Acked, Fleet, ProxyState};
use actors_core::translate::Translation;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::observe::node_watcher::KnownProxies;
use crate::push::acks::{Acks, SILENCE};

/// For how long a new leader's verdict on the fleet may change with time alone.
const GRACE: Duration = Duration::from_secs(30);

/// When a term began, and when it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    /// The begin of the term.
    pub begun: Instant,
    /// The present.
    pub now: Instant,
}

/// What the fleet says, and whether every proxy that should has answered about this translation.
pub fn fleet(
    translation: &Translation,
    acks: &Acks,
    proxies: &KnownProxies,
    Since { begun, now }: Since,
) -> (Fleet, bool) {
    let root = translation.units.root();
    let mut settled = true;
    let mut fleet =
        Fleet { proxies: BTreeMap::new(), led_for: now - begun, now: Timestamp::now().as_second() };
    for proxy in proxies.values() {
        let answers = acks.get(&proxy.identity);
        let acked = answers.and_then(|answers| answers.acked.as_ref());
        let state = ProxyState {
            name: proxy.name.clone(),
            ready: proxy.ready,
            silent: answers.is_some_and(|answers| answers.is_silent(now)),
            refused: answers.and_then(|answers| answers.refused.clone()),
            acked: acked.map(|acked| Acked {
                units: acked.units.clone(),
                broken: acked.broken.iter().map(|b| (b.unit.clone(), b.reason.clone())).collect(),
            }),
        };
        let current = acked.is_some_and(|acked| acked.units.root() == root);
        settled &= !state.ready || state.silent || state.refused.is_some() || current;
        fleet.proxies.insert(proxy.identity.clone(), state);
    }
    (fleet, settled)
}

/// When the fleet's verdict next changes without an answer: a proxy that owes one falls silent, or the
/// grace of a new leader ends.
pub fn next_verdict(acks: &Acks, Since { begun, now }: Since) -> Option<Instant> {
    let silences = acks.values().filter_map(|answers| Some(answers.owes_since? + SILENCE));
    silences.chain([begun + GRACE]).filter(|at| *at > now).min()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::observe::node_watcher::KnownProxy;

    #[tokio::test]
    async fn two_proxies_on_one_node_are_two_in_the_verdict() {
        let proxy = |identity: &str| {
            let admin = ([127, 0, 0, 1], 9901).into();
            let (identity, name) = (identity.to_owned(), "n1".to_owned());
            (identity.clone(), KnownProxy { identity, name, admin, ready: true })
        };
        let known: KnownProxies = Arc::new(BTreeMap::from([proxy("old"), proxy("new")]));
        let now = Instant::now();
        let (fleet, settled) =
            fleet(&Translation::default(), &Acks::default(), &known, Since { begun: now, now });
        assert_eq!(fleet.proxies.into_keys().collect::<Vec<_>>(), ["new", "old"]);
        assert!(!settled, "neither has answered");
    }
}
