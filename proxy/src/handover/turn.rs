//! Owns the switch that says which process of the node accepts: this one or another one.
//!
//! Made beside the tree; written by the two actors of the hand-over, watched by whatever accepts, and by what
//! writes into the state folder that both processes share. Refuses to know how a turn passes.

use tokio::sync::watch;

/// Whose turn it is to accept, and to write into the state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another process's; this one is about to take over.
    Awaited,
    /// This process's.
    Ours,
    /// Another process's; this one takes over again if that one fails.
    Lent,
    /// Another process's, for good.
    Gone,
}

/// The switch.
#[derive(Clone, Debug)]
pub struct Turns(watch::Sender<Turn>);

impl Turns {
    /// Beginning with this one.
    pub fn new(turn: Turn) -> Self {
        Self(watch::Sender::new(turn))
    }

    /// Whether it is this process's.
    pub fn is_ours(&self) -> bool {
        self.now() == Turn::Ours
    }

    /// Whose it is now.
    pub fn now(&self) -> Turn {
        *self.0.borrow()
    }

    /// Follows it.
    pub fn follow(&self) -> watch::Receiver<Turn> {
        self.0.subscribe()
    }

    /// Says whose it is from now on.
    pub fn set(&self, turn: Turn) {
        self.0.send_if_modified(|now| {
            let changed = *now != turn;
            *now = turn;
            changed
        });
    }

    /// Lends this process's turn: it comes back when the loan is dropped.
    pub fn lend(&self) -> Loan {
        self.set(Turn::Lent);
        Loan { turns: self.clone(), is_gone: false }
    }
}

/// A turn that is lent.
#[derive(Debug)]
pub struct Loan {
    turns: Turns,
    is_gone: bool,
}

impl Loan {
    /// It does not come back.
    pub fn give_up(mut self) {
        self.is_gone = true;
        self.turns.set(Turn::Gone);
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if !self.is_gone {
            self.turns.set(Turn::Ours);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_is_lent_comes_back_unless_it_is_given_up() {
        let turns = Turns::new(Turn::Ours);
        let loan = turns.lend();
        assert_eq!(turns.now(), Turn::Lent);
        drop(loan);
        assert!(turns.is_ours());
        turns.lend().give_up();
        assert_eq!(turns.now(), Turn::Gone);
    }
}
