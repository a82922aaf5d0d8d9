//! What must hold whatever happens, read off the log of a case and the live tree at its end.

use std::collections::{HashMap, HashSet};

use supervisor::{ChildState, NodeState, Strategy};

use super::plan::{Info, Plan};
use crate::probe::{Death, Entry, What};

/// How a case ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    NotStarted,
    Stopped,
    GaveUp,
}

/// Checks everything; the first `booted` lines of the log were written before the tree was up.
pub(crate) fn check(seed: u64, plan: &Plan, live: Option<&NodeState>, booted: usize) {
    let log = plan.world.log();
    let case = Case { seed, plan, log: &log };
    case.one_instance_at_a_time();
    case.nothing_is_left();
    case.first_starts_are_in_order();
    case.later_starts_wait_for_earlier_siblings();
    case.stops_are_in_reverse_order();
    if let Some(live) = live {
        case.all_had_started(booted);
        case.all_is_at_rest(live);
        case.every_death_is_explained(live);
    }
}

struct Case<'a> {
    seed: u64,
    plan: &'a Plan,
    log: &'a [Entry],
}

impl Case<'_> {
    fn fail(&self, what: &str) -> ! {
        let log: Vec<_> = self.log.iter().map(|e| format!("{:>8?} {} {:?}", e.at, e.child, e.what)).collect();
        let tree = supervisor::render(&self.plan.root);
        panic!("seed {}: {what}\n{tree}\n{}", self.seed, log.join("\n"));
    }

    fn one_instance_at_a_time(&self) {
        let twice = self.plan.world.twice();
        if !twice.is_empty() {
            self.fail(&format!("two instances of {twice:?}"));
        }
    }

    fn nothing_is_left(&self) {
        let left = self.plan.world.present();
        if !left.is_empty() {
            self.fail(&format!("{left:?} are left"));
        }
    }

    /// The workers below a node, or itself.
    fn workers<'b>(&'b self, node: &'b Info) -> impl Iterator<Item = &'b Info> {
        let below = format!("{}.", node.name);
        self.plan
            .nodes
            .iter()
            .filter(move |n| n.worker && (n.name == node.name || n.name.starts_with(&below)))
    }

    fn first(&self, child: &str, what: What) -> Option<usize> {
        self.log.iter().position(|e| e.child == child && e.what == what)
    }

    /// A sibling is not started for the first time before all declared before it have been up.
    fn first_starts_are_in_order(&self) {
        for late in &self.plan.nodes {
            for worker in self.workers(late) {
                let Some(made) = self.first(&worker.name, What::Made) else { continue };
                let earlier = self
                    .plan
                    .nodes
                    .iter()
                    .filter(|n| n.parent == late.parent && n.place < late.place && !n.optional);
                for before in earlier.flat_map(|n| self.workers(n)).filter(|w| !w.optional) {
                    let up = self.first(&before.name, What::Started);
                    if up.is_none_or(|up| up > made) {
                        self.fail(&format!("{} before {}", worker.name, before.name));
                    }
                }
            }
        }
    }

    /// Under one-for-all and rest-for-one a start needs the permanent siblings before it.
    fn later_starts_wait_for_earlier_siblings(&self) {
        let mut up: HashMap<&str, bool> = HashMap::new();
        let mut gone_at = HashMap::new();
        for entry in self.log {
            match entry.what {
                What::Started => _ = up.insert(&entry.child, true),
                What::Gone => {
                    up.insert(&entry.child, false);
                    gone_at.insert(entry.child.as_str(), entry.at);
                }
                What::Made => {
                    let Some(node) = self.info(&entry.child) else { continue };
                    if node.strategy == Strategy::OneForOne {
                        continue;
                    }
                    let earlier = self.plan.nodes.iter().filter(|n| {
                        n.parent == node.parent && n.place < node.place && n.worker && n.permanent && !n.gated
                    });
                    for before in earlier {
                        // One that died just now may not have been heard of.
                        let just_now = gone_at.get(before.name.as_str()) == Some(&entry.at);
                        if !up.get(before.name.as_str()).copied().unwrap_or(false) && !just_now {
                            self.fail(&format!("{} without {}", entry.child, before.name));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn info(&self, name: &str) -> Option<&Info> {
        self.plan.nodes.iter().find(|n| n.name == name)
    }

    /// Whoever is asked to stop sees all declared after it gone; in quiet cases at every level.
    fn stops_are_in_reverse_order(&self) {
        let mut present: HashMap<&str, bool> = HashMap::new();
        let mut ends_itself: HashMap<&str, bool> = HashMap::new();
        for entry in self.log {
            match entry.what {
                What::Made => {
                    present.insert(&entry.child, true);
                    ends_itself.insert(&entry.child, false);
                }
                What::Gone => _ = present.insert(&entry.child, false),
                What::Dies(Death::Normal) => _ = ends_itself.insert(&entry.child, true),
                What::Stopping if !ends_itself[entry.child.as_str()] => {
                    self.later_siblings_are_gone(&entry.child, &present);
                }
                _ => {}
            }
        }
    }

    fn later_siblings_are_gone(&self, child: &str, present: &HashMap<&str, bool>) {
        let mut node = self.info(child);
        while let Some(here) = node.filter(|n| !n.gated) {
            let later = self.plan.nodes.iter().filter(|n| n.parent == here.parent && n.place > here.place);
            for after in later.flat_map(|n| self.workers(n)) {
                if present.get(after.name.as_str()).copied().unwrap_or(false) {
                    self.fail(&format!("{child} stops before {}", after.name));
                }
            }
            // A branch whose child just failed to restart may stop by itself: only quiet trees without
            // failures stop from the root alone.
            if !self.plan.quiet || self.a_start_failed() {
                return;
            }
            node = self.info(&here.parent);
        }
    }

    /// Whether an instance was gone before it was up: by itself, or since it took longer than it may.
    fn a_start_failed(&self) -> bool {
        let mut starting = HashSet::new();
        for entry in self.log {
            match entry.what {
                What::StartFails => return true,
                What::Made => _ = starting.insert(&entry.child),
                What::Started => _ = starting.remove(&entry.child),
                What::Gone if starting.contains(&entry.child) => return true,
                _ => {}
            }
        }
        false
    }

    /// All or nothing: a tree that is up has had all its children up.
    fn all_had_started(&self, booted: usize) {
        let needed = self.plan.nodes.iter().filter(|n| n.worker && !n.optional);
        for worker in needed {
            if self.first(&worker.name, What::Started).is_none_or(|at| at >= booted) {
                self.fail(&format!("up without {}", worker.name));
            }
        }
    }

    fn all_is_at_rest(&self, live: &NodeState) {
        let at_rest = matches!(live.state, ChildState::Stopped | ChildState::Gated | ChildState::Failed);
        if !at_rest {
            self.fail(&format!("{} is {:?} in the end", live.name, live.state));
        }
        live.children.iter().for_each(|child| self.all_is_at_rest(child));
    }

    fn every_death_is_explained(&self, live: &NodeState) {
        for child in &live.children {
            self.every_death_is_explained(child);
            let unexplained = child.last_error.is_none();
            let deaths = self.log.iter().filter(|e| *e.child == *child.name);
            let mut abnormal = deaths.filter(|e| {
                matches!(
                    e.what,
                    What::Dies(Death::Panic | Death::Error | Death::PostStartPanic | Death::PostStartError)
                )
            });
            let known = self.info(&child.name).is_some_and(|n| n.worker);
            if known && unexplained && abnormal.next().is_some() {
                self.fail(&format!("the death of {} is not explained", child.name));
            }
        }
    }
}
