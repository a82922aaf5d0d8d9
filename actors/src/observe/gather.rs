//! Owns: how long a follower lets changes gather before it follows them.
//! Called by the actors that every replica runs and whose results only a leader needs at once.
//! Refuses to know what has changed.

use std::time::Duration;

use ractor::{ActorRef, Message};
use supervisor::Gate;
use tokio::sync::watch;

use crate::task::{Task, changed, report};

/// Short beside the time that passes between two leaders, long beside the time that a change takes to be
/// served: that the followers' work comes after, and once for all that has changed by then.
const GATHER: Duration = Duration::from_millis(250);

/// Sends one message when the channel's value is another than the one last seen through `receiver`: at once
/// where this replica leads (its gate is open), or begins to; a follower lets changes gather.
///
/// What a change waits for, the leader's work and the API server's, is done on the same machines: requests and
/// work of followers at that moment would only make it later.
pub(super) fn on_change<T: Send + Sync + 'static, M: Message>(
    actor: &ActorRef<M>,
    receiver: &watch::Receiver<T>,
    gate: &watch::Receiver<Gate>,
    message: impl FnOnce() -> M + Send + 'static,
) -> Task {
    let (changed, mut gate) = (changed(receiver), gate.clone());
    report(actor, async move {
        changed.await;
        let leads = gate.wait_for(|gate| matches!(gate, Gate::Open(_)));
        // Where nobody opens or closes the gate any more, what it was last is not waited for.
        let _ = tokio::time::timeout(GATHER, leads).await;
        message()
    })
}
