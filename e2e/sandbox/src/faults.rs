//! What goes wrong, as data: per client, per kind of request, counted or by seeded chance.
//!
//! Owns the rules and the dice of each client. Called once per request. It refuses to carry faults out: see `service`.

use std::time::Duration;

use http::StatusCode;
use jiff::SignedDuration;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::watch;

use crate::call::{Call, Verb};

/// One way in which a request fails or misleads.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// 429 with Retry-After, in seconds; nothing is done.
    Throttle {
        /// The Retry-After header.
        retry_after: u64,
    },
    /// An answer of this 5xx code; nothing is done.
    ServerError(StatusCode),
    /// 409 as if someone else had written first; nothing is done.
    Conflict,
    /// The connection breaks before anything is done.
    Refuse,
    /// Nothing is done and nothing is answered for this long, then the connection breaks.
    Hang(Duration),
    /// The request waits this long, then all is well.
    Delay(Duration),
    /// The request is carried out, and the connection breaks before the answer.
    LoseAnswer,
    /// The request is carried out, and its answer arrives this much later.
    DelayAnswer(Duration),
    /// A get or list answers as of this many revisions ago, as a lagging watch cache does.
    StaleRead {
        /// How many revisions ago.
        revisions: u64,
    },
    /// A watch breaks after this long.
    CutWatch(Duration),
    /// A watch stays open and tells nothing, bookmarks included, for this long; then it breaks.
    MuteWatch(Duration),
    /// A watch is told 410 Gone after this long.
    ExpireWatch(Duration),
}

/// Which requests a rule is about; what is left empty matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    /// Any of these verbs.
    pub verbs: Vec<Verb>,
    /// The resource's plural name: `leases`.
    pub resource: Option<String>,
    /// The namespace of the request.
    pub namespace: Option<String>,
    /// The name of the object.
    pub name: Option<String>,
}

impl Matcher {
    /// Every request.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The requests about a resource, by its plural name.
    #[must_use]
    pub fn resource(plural: &str) -> Self {
        Self { resource: Some(plural.to_owned()), ..Self::default() }
    }

    /// Only of this verb, beside those named before.
    #[must_use]
    pub fn verb(mut self, verb: Verb) -> Self {
        self.verbs.push(verb);
        self
    }

    fn matches(&self, call: &Call) -> bool {
        let same = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        (self.verbs.is_empty() || self.verbs.contains(&call.verb))
            && same(&self.resource, Some(&call.target.plural))
            && same(&self.namespace, call.target.namespace.as_deref())
            && same(&self.name, call.target.name.as_deref())
    }
}

/// How often a rule strikes among the requests that it matches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    /// Each time.
    Always,
    /// The next so many times.
    Times(u32),
    /// So many times after letting the first ones pass.
    After {
        /// How many pass.
        skip: u32,
        /// How many are struck then.
        times: u32,
    },
    /// With this probability, from the seed.
    Chance(f64),
}

/// A fault, where it strikes, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Which requests.
    pub on: Matcher,
    /// How often.
    pub how: How,
    /// What happens.
    pub fault: Fault,
}

/// All that goes wrong for one client. The first rule that strikes decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Tried in order.
    pub rules: Vec<Rule>,
    /// Of the dice for [`How::Chance`].
    pub seed: u64,
    /// How far the client's own wall clock is ahead of the server's; see [`crate::Sandbox::clock_of`].
    pub clock_offset: SignedDuration,
}

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// No request gets through: the client is cut off.
    #[must_use]
    pub fn cut_off() -> Self {
        Self::none().with(Matcher::all(), How::Always, Fault::Refuse)
    }

    /// Adds a rule behind the others.
    #[must_use]
    pub fn with(mut self, on: Matcher, how: How, fault: Fault) -> Self {
        self.rules.push(Rule { on, how, fault });
        self
    }

    /// Sets the seed of the dice.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets how far the client's clock is ahead.
    #[must_use]
    pub fn clock_ahead(mut self, offset: SignedDuration) -> Self {
        self.clock_offset = offset;
        self
    }
}

/// The rules of one client in use: what they matched so far, the dice, and how often its watches were cut.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) faults: Faults,
    pub(crate) cuts: watch::Sender<u64>,
    matched: Vec<u32>,
    dice: StdRng,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            faults: Faults::none(),
            cuts: watch::Sender::new(0),
            matched: Vec::new(),
            dice: StdRng::seed_from_u64(0),
        }
    }
}

impl Plan {
    /// Begins a client's rules anew; its open watches stay.
    pub(crate) fn set(&mut self, faults: Faults) {
        self.matched = vec![0; faults.rules.len()];
        self.dice = StdRng::seed_from_u64(faults.seed);
        self.faults = faults;
    }

    /// What strikes this request.
    pub(crate) fn strike(&mut self, call: &Call) -> Option<Fault> {
        for (rule, matched) in self.faults.rules.iter().zip(&mut self.matched) {
            if !rule.on.matches(call) {
                continue;
            }
            *matched += 1;
            let strikes = match rule.how {
                How::Always => true,
                How::Times(times) => *matched <= times,
                How::After { skip, times } => *matched > skip && *matched - skip <= times,
                How::Chance(chance) => self.dice.random_bool(chance.clamp(0.0, 1.0)),
            };
            if strikes {
                return Some(rule.fault.clone());
            }
        }
        None
    }
}
