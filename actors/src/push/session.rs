//! Owns: what one proxy is known to hold, and so what the next push to it must carry. Pure.
//! Called by the proxy client. Refuses to know: connections, time, retries.

use proxy_config::set::{RootHash, UnitSet};
use proxy_config::unit::ContentHash;
use proxy_config::wire::{Ack, Nack, NackReason, Push, Reply, Version, WIRE_VERSION};

/// A configuration that proxies are to hold.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its place in time.
    pub version: Version,
    /// Its units.
    pub units: UnitSet,
}

/// What one proxy is known to hold.
#[derive(Debug)]
pub struct Session {
    identity: String,
    held: Held,
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
    /// A later term than ours is in force there: who sent the push may lead no longer.
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
        Self { identity: identity.into(), held: Held::Unknown, acked: None }
    }

    /// Whether the proxy must be sent something to be at the target: another root, or a new term.
    pub fn needs(&self, target: &Target) -> bool {
        let known = matches!(&self.held, Held::Set(units) if units.root() == target.units.root());
        !known || self.acked.is_none_or(|version| version.term != target.version.term)
    }

    /// The push that leads the proxy to the target from what it is known to hold.
    pub fn push(&self, target: &Target, traceparent: Option<String>) -> Push {
        let root = target.units.root();
        let mut push = Push {
            wire: WIRE_VERSION,
            proxy: self.identity.clone(),
            version: target.version,
            base: root,
            root,
            replace: Vec::new(),
            put: Vec::new(),
            delete: Vec::new(),
            traceparent,
        };
        match &self.held {
            Held::Unknown => {}
            Held::Set(units) => {
                push.base = units.root();
                (push.put, push.delete) = target.units.diff(units);
            }
            Held::Buckets(base, theirs) => {
                push.base = *base;
                let ours = target.units.bucket_hashes();
                push.replace = (0..=u8::MAX)
                    .filter(|&bucket| theirs.get(usize::from(bucket)) != Some(&ours[usize::from(bucket)]))
                    .collect();
                push.put = push.replace.iter().flat_map(|&b| target.units.bucket(b)).cloned().collect();
            }
        }
        push
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
            Reply::Ack(ack) if ack.root != sent.units.root() => {
                self.forget();
                Outcome::WrongRoot(ack.root)
            }
            Reply::Ack(ack) => {
                self.held = Held::Set(sent.units.clone());
                self.acked = Some(ack.version);
                Outcome::Acked(ack)
            }
            Reply::NeedUnits(need) => {
                self.held = Held::Buckets(need.root, need.buckets);
                Outcome::Differs
            }
            Reply::Nack(nack)
                if nack.reason == NackReason::Stale && nack.version.term > sent.version.term =>
            {
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
