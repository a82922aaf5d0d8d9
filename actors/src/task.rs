//! Owns: helper tasks of actors: each dies with the actor that holds it, and its end is a message.
//! Called by every actor that waits for something besides its mailbox.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use ractor::{ActorRef, Message};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

/// A helper task; dropping it ends it.
pub(crate) type Task = AbortOnDropHandle<()>;

/// Runs a future beside the actor; what it results in is sent to the actor. A panic kills the actor:
/// its supervisor decides what then.
pub(crate) fn report<M: Message>(
    actor: &ActorRef<M>,
    future: impl Future<Output = M> + Send + 'static,
) -> Task {
    let actor = actor.clone();
    let run = async move {
        match AssertUnwindSafe(future).catch_unwind().await {
            // Refused only by an actor that is ending, to which nothing matters any more.
            Ok(message) => drop(actor.send_message(message)),
            Err(_) => actor.kill(),
        }
    };
    AbortOnDropHandle::new(tokio::spawn(run.in_current_span()))
}

/// Sends one message when the channel's value is another than the one last seen through `receiver`.
/// Whoever holds the task decides when to wait again, so that there is at most one message pending.
pub(crate) fn on_change<T: Send + Sync + 'static, M: Message>(
    actor: &ActorRef<M>,
    receiver: &watch::Receiver<T>,
    message: impl FnOnce() -> M + Send + 'static,
) -> Task {
    let changed = changed(receiver);
    report(actor, async move {
        changed.await;
        message()
    })
}

/// Waits until the channel's value is another than the one last seen through `receiver`.
pub(crate) fn changed<T: Send + Sync + 'static>(
    receiver: &watch::Receiver<T>,
) -> impl Future<Output = ()> + Send + 'static {
    let mut receiver = receiver.clone();
    async move {
        // The senders live beside the tree: while it stands the channel is open.
        if receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
