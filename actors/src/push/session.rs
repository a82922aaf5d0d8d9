//! Owns: what one proxy is known to hold, and so what the next push to it must carry. Pure.
//! Called by the proxy client. Refuses to know: connections, time, retries.
//!
//! Units that the controller can't tell stay as the proxy holds them. It says their hashes, so that they count in the
//! roots of both, though they never travel.

use std::borrow::Cow;
use std::collections::BTreeSet;

use imbl::OrdSet;
use proxy_config::name::UnitId;
use proxy_config::set::{RootHash, UnitSet};
use proxy_config::unit::{ContentHash, EncodedUnit};
use proxy_config::wire::{Ack, Kept, Nack, NackReason, Push, Reply, Version, WIRE_VERSION};

/// A configuration that proxies are to hold.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its place in time.
    pub version: Version,
    /// Its units.
    pub units: UnitSet,
    /// Listeners and backends whose content can't be told for now: where a proxy has them, they stay.
    pub keep: OrdSet<UnitId>,
}

/// What one proxy is known to hold.
#[derive(Debug)]
pub struct Session {
    identity: String,
    held: Held,
    /// The listeners that it was last told to keep, and what it holds of them and of what they need.
    keep: OrdSet<UnitId>,
    kept: Vec<Kept>,
    acked: Option<Version>,
}

/// What is known of a proxy's units.
#[derive(Debug)]
enum Held {
    /// Nothing: it may well hold the target already, so the first push is empty.
    Unknown,
    /// Exactly this set.
    Set(UnitSet),
    /// Buckets of these hashes, under this root.
    Buckets(RootHash, Vec<ContentHash>),
}

/// What a proxy's answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The root is in force.
    Acked(Ack),
    /// It holds another base: the next push carries what differs.
    Differs,
    /// What is in force there is of this term and not older than what was sent: who sent the push may lead no longer, or
    /// has a term that somebody else has had before.
    Superseded(u64),
    /// Refused as a whole.
    Refused(Nack),
    /// The answer is of another proxy than the one that was meant.
    WrongProxy(String),
    /// It says that another root is in force than the one it was sent.
    WrongRoot(RootHash),
}

impl Session {
    /// Nothing is known yet of the proxy of this identity.
    pub fn new(identity: impl Into<String>) -> Self {
        Self {
            identity: identity.into(),
            held: Held::Unknown,
            keep: OrdSet::new(),
            kept: Vec::new(),
            acked: None,
        }
    }

    /// Whether the proxy must be sent something to be at the target: another root, or a new term.
    pub fn needs(&self, target: &Target) -> bool {
        let root = self.with_kept(target).root();
        let known = matches!(&self.held, Held::Set(units) if units.root() == root);
        !known
            || self.keep != target.keep
            || self.acked.is_none_or(|version| version.term != target.version.term)
    }

    /// The push that leads the proxy to the target from what it is known to hold.
    pub fn push(&mut self, target: &Target, traceparent: Option<String>) -> Push {
        self.keep(target);
        let units = self.with_kept(target);
        let root = units.root();
        let mut push = Push {
            wire: WIRE_VERSION,
            proxy: self.identity.clone(),
            version: target.version,
            base: root,
            root,
            replace: Vec::new(),
            put: Vec::new(),
            delete: Vec::new(),
            keep: target.keep.iter().cloned().collect(),
            traceparent,
        };
        match &self.held {
            Held::Unknown => {}
            Held::Set(held) => {
                push.base = held.root();
                (push.put, push.delete) = units.diff(held);
            }
            Held::Buckets(base, theirs) => {
                push.base = *base;
                let ours = units.bucket_hashes();
                push.replace = (0..=u8::MAX)
                    .filter(|&bucket| theirs.get(usize::from(bucket)) != Some(&ours[usize::from(bucket)]))
                    .collect();
                push.put = push.replace.iter().flat_map(|&b| units.bucket(b)).cloned().collect();
            }
        }
        let kept: BTreeSet<_> = self.kept_of(target).map(|kept| &kept.id).collect();
        push.put.retain(|unit| !kept.contains(&unit.id));
        push
    }

    /// Other units are to be kept than before: the proxy is asked what it holds of them. Once all can be told,
    /// there is nothing to ask.
    fn keep(&mut self, target: &Target) {
        if self.keep != target.keep {
            self.keep = target.keep.clone();
            self.kept.clear();
            if !self.keep.is_empty() {
                self.forget();
            }
        }
    }

    /// What the proxy keeps in place of what the target says: the listeners, and of what they need what the
    /// target lacks.
    fn kept_of<'a>(&'a self, target: &'a Target) -> impl Iterator<Item = &'a Kept> {
        let stays = |kept: &&Kept| target.keep.contains(&kept.id) || target.units.get(&kept.id).is_none();
        self.kept.iter().filter(stays)
    }

    /// The target as this proxy can reach it.
    fn with_kept<'a>(&self, target: &'a Target) -> Cow<'a, UnitSet> {
        if self.kept.is_empty() || self.keep != target.keep {
            return Cow::Borrowed(&target.units);
        }
        let mut units = target.units.clone();
        units.apply(
            self.kept_of(target).map(|kept| EncodedUnit::known_by_hash(kept.id.clone(), kept.hash)),
            [],
        );
        Cow::Owned(units)
    }

    /// Takes the answer to the push of a target.
    pub fn take(&mut self, sent: &Target, reply: Reply) -> Outcome {
        let from = match &reply {
            Reply::Ack(ack) => &ack.proxy,
            Reply::NeedUnits(need) => &need.proxy,
            Reply::Nack(nack) => &nack.proxy,
        };
        if *from != self.identity {
            return Outcome::WrongProxy(from.clone());
        }
        match reply {
            Reply::Ack(ack) if ack.root != self.with_kept(sent).root() => {
                self.forget();
                Outcome::WrongRoot(ack.root)
            }
            Reply::Ack(ack) => {
                self.held = Held::Set(self.with_kept(sent).into_owned());
                self.acked = Some(ack.version);
                Outcome::Acked(ack)
            }
            Reply::NeedUnits(need) => {
                self.held = Held::Buckets(need.root, need.buckets);
                self.kept = need.kept;
                Outcome::Differs
            }
            Reply::Nack(nack) if nack.reason == NackReason::Stale && nack.version >= sent.version => {
                Outcome::Superseded(nack.version.term)
            }
            Reply::Nack(nack) => {
                self.forget();
                Outcome::Refused(nack)
            }
        }
    }

    /// An answer was lost, or made no sense: what the proxy holds is unknown again.
    pub fn forget(&mut self) {
        self.held = Held::Unknown;
    }
}

#[cfg(test)]
mod tests;
