//! Owns: what each proxy last answered, beside the tree.
//! Called by the proxy clients, which write; by the status writer and the admin actor, which read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proxy_config::set::UnitSet;
use proxy_config::wire::{Broken, Version};
use tokio::sync::watch;
use tokio::time::Instant;

/// A proxy that has not answered for this long is left out of what is said of the fleet.
pub const SILENCE: Duration = Duration::from_secs(10);

/// What one proxy last answered in this term.
#[derive(Clone, Debug)]
pub struct Answers {
    /// What it last acked.
    pub acked: Option<Acked>,
    /// Why it was last not reached or made no sense; gone with the next ack.
    pub failure: Option<String>,
    /// Why it refused what it was last sent; gone with the next ack.
    pub refused: Option<String>,
    /// Since when it owes an answer; `None` while it owes none.
    pub owes_since: Option<Instant>,
}

/// What a proxy acked.
#[derive(Clone, Debug)]
pub struct Acked {
    /// Its place in time.
    pub version: Version,
    /// What it holds.
    pub units: UnitSet,
    /// What of it can't be used.
    pub broken: Vec<Broken>,
}

/// The answers of all proxies by identity.
pub type Acks = Arc<BTreeMap<String, Answers>>;

/// Where answers are written.
#[derive(Clone, Debug)]
pub struct Board(watch::Sender<Acks>);

impl Board {
    /// Nobody has answered.
    pub fn new() -> Self {
        Self(watch::Sender::new(Acks::default()))
    }

    /// What is written here.
    pub fn read(&self) -> watch::Receiver<Acks> {
        self.0.subscribe()
    }

    /// Forgets all answers: a new term begins.
    pub fn clear(&self) {
        self.0.send_replace(Acks::default());
    }

    /// Forgets a proxy.
    pub fn forget(&self, identity: &str) {
        self.0.send_if_modified(|acks| Arc::make_mut(acks).remove(identity).is_some());
    }

    /// A proxy is asked: it owes an answer.
    pub fn asked(&self, identity: &str) {
        self.0.send_if_modified(|acks| {
            let known = acks.get(identity);
            let news = known.is_none();
            if known.is_none_or(|answers| answers.owes_since.is_none()) {
                let answers = Arc::make_mut(acks).entry(identity.to_owned());
                let answers = answers.or_insert(Answers {
                    acked: None,
                    failure: None,
                    refused: None,
                    owes_since: None,
                });
                answers.owes_since = Some(Instant::now());
            }
            news
        });
    }

    /// A proxy acked.
    pub fn acked(&self, identity: &str, acked: Acked) {
        self.0.send_if_modified(|acks| {
            let before = acks.get(identity);
            let same = before.is_some_and(|before| {
                before.failure.is_none()
                    && before.refused.is_none()
                    && before.acked.as_ref().is_some_and(|before| before.says_the_same(&acked))
            });
            let answers = Answers { acked: Some(acked), failure: None, refused: None, owes_since: None };
            Arc::make_mut(acks).insert(identity.to_owned(), answers);
            !same
        });
    }

    /// A proxy refused what it was sent: it owes nothing more.
    pub fn refused(&self, identity: &str, why: String) {
        self.change(identity, |answers| {
            answers.owes_since = None;
            answers.refused = Some(why);
        });
    }

    /// A proxy was not reached: it still owes an answer.
    pub fn failed(&self, identity: &str, why: String) {
        self.change(identity, |answers| answers.failure = Some(why));
    }

    fn change(&self, identity: &str, change: impl FnOnce(&mut Answers)) {
        self.0.send_if_modified(|acks| {
            let Some(answers) = Arc::make_mut(acks).get_mut(identity) else { return false };
            let said = |answers: &Answers| (answers.failure.clone(), answers.refused.clone());
            let before = said(answers);
            change(answers);
            before != said(answers)
        });
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Acked {
    fn says_the_same(&self, other: &Self) -> bool {
        self.units.root() == other.units.root()
            && self.broken == other.broken
            && self.version == other.version
    }
}

impl Answers {
    /// Whether the proxy has owed an answer for too long.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.owes_since.is_some_and(|since| now >= since + SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked(generation: u64) -> Acked {
        Acked { version: Version { term: 1, generation }, units: UnitSet::default(), broken: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_is_silent_once_it_owes_an_answer_for_ten_seconds() {
        let board = Board::new();
        let silent = || board.read().borrow()["a"].is_silent(Instant::now());
        board.asked("a");
        tokio::time::advance(Duration::from_secs(9)).await;
        board.failed("a", "unreachable".into());
        board.asked("a");
        assert!(!silent());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(silent());
        board.acked("a", acked(1));
        assert!(!silent());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!silent(), "it owes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_says_nothing_new_wakes_nobody() {
        let board = Board::new();
        board.asked("a");
        board.acked("a", acked(1));
        let mut read = board.read();
        read.borrow_and_update();
        board.asked("a");
        board.acked("a", acked(1));
        assert!(!read.has_changed().unwrap());
        board.asked("a");
        board.acked("a", acked(2));
        assert!(read.has_changed().unwrap());
    }
}
