//! Stable, bounded addresses of workers.
//!
//! An [`Address`] is made once beside the tree and cloned freely; each (re)start of its worker
//! registers in it. Messages are refused, and given back, while the worker restarts or its mailbox is
//! full. Called by everybody who sends. Refuses to hand out an `ActorRef`: those die with an instance.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ractor::{ActorRef, Message, MessagingErr, RpcReplyPort};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::meter::{MailboxState, Meter};

/// How many messages may wait unless the address says otherwise.
const DEFAULT_CAPACITY: usize = 1024;

/// The name under which messages of this kind are counted.
///
/// Use [`message_names!`](crate::message_names) for an enum; the default is the name of the type.
pub trait MessageName {
    /// A short, fixed name: it becomes a label of a metric.
    fn name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

/// Names the variants of a message enum after themselves: `message_names!(Msg { Publish, Acked });`
#[macro_export]
macro_rules! message_names {
    ($message:ty { $($variant:ident),+ $(,)? }) => {
        impl $crate::MessageName for $message {
            fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($variant),)+
                }
            }
        }
    };
}

/// A message that was not taken. It is given back.
#[derive(thiserror::Error)]
pub enum Refused<M> {
    /// The worker is not running just now.
    #[error("the worker is restarting or stopped")]
    Restarting(M),
    /// The mailbox is full: do less, or later.
    #[error("the worker's mailbox is full")]
    Full(M),
}

impl<M> Refused<M> {
    /// The message.
    pub fn into_inner(self) -> M {
        match self {
            Self::Restarting(message) | Self::Full(message) => message,
        }
    }
}

/// Without the message, which may be secret.
impl<M> std::fmt::Debug for Refused<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Restarting(_) => "Restarting",
            Self::Full(_) => "Full",
        })
    }
}

/// A question that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The worker is not running just now.
    #[error("the worker is restarting or stopped")]
    Restarting,
    /// The mailbox is full.
    #[error("the worker's mailbox is full")]
    Full,
    /// No answer within the deadline.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The worker dropped the question, or ended before it answered.
    #[error("the question was dropped without an answer")]
    Dropped,
}

/// The stable address of a worker. A clone is the same address.
pub struct Address<M> {
    inner: Arc<Inner<M>>,
}

struct Inner<M> {
    target: ArcSwapOption<ActorRef<M>>,
    meter: Arc<Meter>,
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<M> std::fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address")
            .field("registered", &self.inner.target.load().is_some())
            .finish_non_exhaustive()
    }
}

impl<M: Message> Default for Address<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Message> Address<M> {
    /// An address whose mailbox holds 1,024 messages.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY)
    }

    /// An address whose mailbox holds `capacity` messages.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            inner: Arc::new(Inner { target: ArcSwapOption::empty(), meter: Arc::new(Meter::new(capacity)) }),
        }
    }

    /// Sends without waiting; the current tracing span travels along.
    ///
    /// # Errors
    /// [`Refused`] with the message given back.
    pub fn send(&self, message: M) -> Result<(), Refused<M>> {
        let target = self.inner.target.load();
        let Some(target) = target.as_ref() else {
            return Err(Refused::Restarting(message));
        };
        let mut message = Some(message);
        let sent = self.inner.meter.admit(|| {
            let message = message.take().expect("admit calls its argument at most once");
            target.send_message(message).map_err(|error| match error {
                MessagingErr::SendErr(message) => Some(message),
                MessagingErr::ChannelClosed | MessagingErr::InvalidActorType => None,
            })
        });
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(Some(message))) => Err(Refused::Restarting(message)),
            // ractor gives the message back for every way in which a local, well-typed send can fail.
            Some(Err(None)) => unreachable!("a typed reference of this process refused its own type"),
            None => Err(Refused::Full(message.expect("a full mailbox leaves the message alone"))),
        }
    }

    /// Asks and waits for the answer, at most until the deadline.
    ///
    /// Ask down the tree only: two workers that ask each other wait until their deadlines.
    ///
    /// # Errors
    /// [`AskError`] says whether the question was taken at all.
    pub async fn ask<T: Send + 'static>(
        &self,
        deadline: Duration,
        question: impl FnOnce(RpcReplyPort<T>) -> M,
    ) -> Result<T, AskError> {
        let (sender, answer) = oneshot::channel();
        self.send(question(RpcReplyPort::from((sender, deadline)))).map_err(|refused| match refused {
            Refused::Restarting(_) => AskError::Restarting,
            Refused::Full(_) => AskError::Full,
        })?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(AskError::Dropped),
            Err(_) => Err(AskError::Deadline(deadline)),
        }
    }

    /// Sends after a delay, unless the returned handle is dropped before. A refusal is logged.
    ///
    /// For timers of an actor to itself: keep the handle in its state.
    #[must_use = "dropping the handle cancels the message"]
    pub fn send_after(&self, delay: Duration, message: M) -> AbortOnDropHandle<()>
    where
        M: MessageName,
    {
        let address = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let name = message.name();
            if let Err(refused) = address.send(message) {
                tracing::debug!(message = name, %refused, "a timer's message was refused");
            }
        }))
    }

    /// Whether an instance of the worker is registered just now.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.inner.target.load().is_some()
    }

    /// The mailbox as it stands.
    #[must_use]
    pub fn mailbox(&self) -> MailboxState {
        self.inner.meter.state()
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.inner.meter
    }

    /// Registers an instance; dropping the registration takes it out.
    pub(crate) fn register(&self, instance: ActorRef<M>) -> Registration<M> {
        self.inner.target.store(Some(Arc::new(instance)));
        Registration { address: self.clone() }
    }
}

/// Takes the instance out of its address when dropped.
pub(crate) struct Registration<M> {
    address: Address<M>,
}

impl<M> Drop for Registration<M> {
    fn drop(&mut self) {
        self.address.inner.target.store(None);
        self.address.inner.meter.clear();
    }
}
