//! Hand-over: how a proxy takes the place of the one that serves on its node, and no client notices.
//!
//! A starting proxy asks the serving one, over a Unix socket in the state folder that both share, for all its
//! listening sockets. It puts in force what that one has in force, says that it is ready, is given the turn to
//! accept, and confirms; only then does the one before drain. At each step the sockets stay open in at least
//! one of both, so what the kernel queues is never lost; and the one before goes on if the new one dies.
//!
//! ```text
//! successor                                predecessor
//!   Claim { versions, who }     ──>
//!                               <──          Offer { sockets } + files
//!                               <──          Hold { configuration }
//!   Ready { root }              ──>          (again from Hold, if another one is in force by now)
//!                               <──          Turn { sessions } + files    accepts no more, keeps all sockets
//!   Serving                     ──>
//!                               <──          Released                     still takes over again for a while
//! ```
//!
//! `claim` asks, the actor `taker` goes on from there; the actor `giver` answers.

pub mod channel;
pub mod claim;
pub mod giver;
pub mod taker;
pub mod turn;

/// The version of the conversation that this process speaks.
pub const VERSION: u32 = 1;
