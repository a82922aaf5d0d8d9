//! Owns messages to actors that nobody would send again: they are sent until they are taken.
//!
//! Called by actors, for their helper tasks. Knows nothing of what is said.

use std::time::Duration;

use ractor::Message;
use supervisor::Address;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// The pause before a message that was refused is sent again.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Sends a message until it is taken: an actor may be busy, or about to start.
pub(crate) async fn deliver<M: Message>(actor: &Address<M>, mut message: M) {
    while let Err(refused) = actor.send(message) {
        message = refused.into_inner();
        sleep(BUSY_PAUSE).await;
    }
}

/// Tells an actor of every change of a channel's value, at most one message at a time waiting to be taken; until
/// what is returned is dropped.
pub(crate) fn on_change<T: Send + Sync + 'static, M: Message>(
    mut changes: watch::Receiver<T>,
    actor: Address<M>,
    message: fn() -> M,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        while changes.changed().await.is_ok() {
            deliver(&actor, message()).await;
        }
    }))
}

#[cfg(test)]
mod tests {
    use ractor::{Actor, ActorProcessingErr, ActorRef};
    use supervisor::{Intensity, MessageName, Strategy, branch, worker};
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio::time::timeout;

    use super::*;

    struct News;

    impl MessageName for News {}

    struct Reader;

    impl Actor for Reader {
        type Msg = News;
        type State = UnboundedSender<()>;
        type Arguments = UnboundedSender<()>;

        async fn pre_start(
            &self,
            _: ActorRef<News>,
            seen: UnboundedSender<()>,
        ) -> Result<UnboundedSender<()>, ActorProcessingErr> {
            Ok(seen)
        }

        async fn handle(
            &self,
            _: ActorRef<News>,
            _: News,
            seen: &mut UnboundedSender<()>,
        ) -> Result<(), ActorProcessingErr> {
            seen.send(())?;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn news_wait_for_an_actor_that_takes_none_yet() {
        let (address, news) = (Address::<News>::new(), watch::Sender::new(0));
        let _told = on_change(news.subscribe(), address.clone(), || News);
        news.send_replace(1);
        sleep(10 * BUSY_PAUSE).await;
        let (sender, mut seen) = unbounded_channel();
        let reader = worker("reader", &address, move || (Reader, sender.clone()));
        let limit = Intensity::new(3, Duration::from_secs(60));
        let tree = branch("proxy", Strategy::OneForOne, limit, vec![reader]);
        let running = supervisor::run(tree).await.unwrap();
        timeout(2 * BUSY_PAUSE, seen.recv()).await.expect("it is told").unwrap();
        running.stop().await.unwrap();
    }
}
