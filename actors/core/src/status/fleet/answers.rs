//! Owns: what all proxies say of the units of one translation, gathered once, and the verdict on some of them.
//! Called by [`super::Finaliser`]. It refuses to know which objects the units are of.
//!
//! Proxies that hold the same are asked once: what they lack is found bucket by bucket. So each answer costs the
//! proxies and the listeners, not the one times the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proxy_config::name::UnitId;
use proxy_config::set::UnitSet;

use super::{Acked, Fleet};

/// For how long a new leader leaves Programmed as it stands where it does not know what a proxy holds.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// How many proxies a message names; with [`REASON`] and the names of all listeners, which are at most 64, it
/// stays within the 32768 bytes that the API server takes.
const NAMED: usize = 5;

/// How many bytes of a proxy's reason a message shows.
const REASON: usize = 1024;

/// What the fleet says of some units.
pub(super) enum Verdict {
    /// In force on every proxy that answers.
    InForce,
    /// Some proxy can't use one of them.
    Broken(String),
    /// Some proxy refuses what it is sent.
    Refused(String),
    /// Not known yet.
    Waiting,
    /// There is no proxy.
    NoProxy,
}

/// Proxies that answer, hold the same, and lack something of what is wanted.
struct Behind<'a> {
    /// The wanted units that they lack; `None`: all of them, as far as is known.
    lacking: Option<Vec<&'a UnitId>>,
    /// What those say that refused the last push.
    refused: Vec<String>,
}

/// What all proxies say of the units that are wanted.
pub(super) struct Answers<'a> {
    /// How many proxies are ready.
    pub(super) ready: usize,
    /// The names of those that do not answer; they are left out of all else.
    pub(super) silent: Vec<String>,
    /// Units that some proxy can't use as they are wanted, and what it says.
    pub(super) broken: BTreeMap<&'a UnitId, Vec<String>>,
    behind: Vec<Behind<'a>>,
    /// By unit, who lacks it, as places in `behind`.
    lacking: BTreeMap<&'a UnitId, Vec<usize>>,
}

impl<'a> Answers<'a> {
    /// Gathers what the fleet says of these units.
    pub(super) fn new(wanted: &'a UnitSet, fleet: &'a Fleet) -> Self {
        let (mut ready, mut silent, mut broken) = (0, Vec::new(), BTreeMap::<_, Vec<_>>::new());
        let mut behind = BTreeMap::new();
        for proxy in fleet.proxies.values().filter(|proxy| proxy.ready) {
            ready += 1;
            let unknown = proxy.acked.is_none() && fleet.led_for < GRACE;
            if proxy.silent && !unknown {
                silent.push(proxy.name.clone());
                continue;
            }
            for (unit, reason) in proxy.acked.iter().flat_map(|acked| broken_now(acked, wanted)) {
                broken.entry(unit).or_default().push(says(&proxy.name, reason));
            }
            let root = proxy.acked.as_ref().map(|acked| acked.units.root());
            if root != Some(wanted.root()) {
                let alike = behind.entry(root).or_insert_with(|| Behind {
                    lacking: proxy.acked.as_ref().map(|acked| wanted.missing_from(&acked.units).collect()),
                    refused: Vec::new(),
                });
                alike
                    .refused
                    .extend(proxy.refused.iter().filter(|_| !unknown).map(|why| says(&proxy.name, why)));
            }
        }
        silent.sort();
        broken.values_mut().for_each(|said| said.sort());
        let behind: Vec<_> = behind.into_values().collect();
        let mut lacking: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (place, alike) in behind.iter().enumerate() {
            for unit in alike.lacking.iter().flatten() {
                lacking.entry(*unit).or_default().push(place);
            }
        }
        Self { ready, silent, broken, behind, lacking }
    }

    /// What is of matter to every verdict: how many proxies are ready, which of them are silent, and what those
    /// refused of which it is not known what they hold, where there are any.
    pub(super) fn of_all(&self) -> (usize, Vec<String>, Option<Vec<String>>) {
        let unknown = self.behind.iter().find(|alike| alike.lacking.is_none());
        (self.ready, self.silent.clone(), unknown.map(|alike| alike.refused.clone()))
    }

    /// The units that some proxy lacks of which it is known what it holds.
    pub(super) fn lacking(&self) -> impl Iterator<Item = &UnitId> {
        self.lacking.keys().copied()
    }

    /// What the fleet says of some of them.
    pub(super) fn judge(&self, units: &[UnitId]) -> Verdict {
        let blank = self.behind.iter().enumerate().filter(|(_, alike)| alike.lacking.is_none());
        let lack = units.iter().filter_map(|unit| self.lacking.get(unit)).flatten().copied();
        let waiting: BTreeSet<_> = blank.map(|(place, _)| place).chain(lack).collect();
        let broken: Vec<_> =
            units.iter().filter_map(|unit| self.broken.get(unit)).flatten().cloned().collect();
        let mut refused: Vec<_> =
            waiting.iter().flat_map(|place| &self.behind[*place].refused).cloned().collect();
        refused.sort();
        match (self.ready, broken.is_empty(), refused.is_empty()) {
            (0, _, _) => Verdict::NoProxy,
            (_, false, _) => Verdict::Broken(few(&broken, "; ")),
            (_, true, false) => Verdict::Refused(few(&refused, "; ")),
            // Where nobody answers, what stands is the best guess.
            (ready, true, true) if !waiting.is_empty() || self.silent.len() == ready => Verdict::Waiting,
            (_, true, true) => Verdict::InForce,
        }
    }
}

/// What a proxy can't use of what it holds, where that is what is wanted.
fn broken_now<'a>(acked: &'a Acked, wanted: &'a UnitSet) -> impl Iterator<Item = (&'a UnitId, &'a String)> {
    let current = acked.units.root() == wanted.root();
    acked.broken.iter().filter(move |(unit, _)| {
        current || wanted.get(unit).is_some_and(|wanted| acked.units.get(unit) == Some(wanted))
    })
}

/// What a proxy says, and which.
fn says(proxy: &str, reason: &str) -> String {
    let shown = &reason[..reason.floor_char_boundary(REASON)];
    let more = if shown.len() < reason.len() { " ..." } else { "" };
    format!("{proxy}: {shown}{more}")
}

/// The first few, and how many more there are: a fleet is larger than a message may be.
pub(super) fn few(all: &[String], separator: &str) -> String {
    let named = all[..all.len().min(NAMED)].join(separator);
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}{separator}and {more} more"),
    }
}
