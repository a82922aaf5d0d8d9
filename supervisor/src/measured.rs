//! The wrapper around each worker: it measures messages and carries the token of its census.
//!
//! Made by a [`Factory`] for each (re)start. Refuses to change what the worker does: every callback
//! is passed on as it is, but for a fault on purpose.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::address::{Address, MessageName};
use crate::cause::{Cause, chain};
use crate::census::Token;
use crate::drill::feel;
use crate::meter::Meter;

/// How to start one kind of worker, without its type.
pub(crate) trait Launch: Send + Sync {
    /// Starts an instance that is linked to `supervisor`. Dropping the future undoes the start.
    fn launch(&self, supervisor: ActorCell, token: Token) -> BoxFuture<'static, Result<Launched, Cause>>;

    /// What is measured of its mailbox.
    fn meter(&self) -> Arc<Meter>;
}

/// An instance that has started.
pub(crate) struct Launched {
    pub(crate) cell: ActorCell,
    pub(crate) task: JoinHandle<()>,
    /// Takes the instance out of its address when dropped.
    pub(crate) registration: Box<dyn Send>,
}

/// Makes instances of one worker.
pub(crate) struct Factory<A: Actor> {
    address: Address<A::Msg>,
    make: Arc<dyn Fn() -> (A, A::Arguments) + Send + Sync>,
}

impl<A: Actor> Factory<A> {
    pub(crate) fn new(
        address: Address<A::Msg>,
        make: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        Self { address, make: Arc::new(make) }
    }
}

impl<A> Launch for Factory<A>
where
    A: Actor,
    A::Msg: MessageName,
{
    fn launch(&self, supervisor: ActorCell, token: Token) -> BoxFuture<'static, Result<Launched, Cause>> {
        let address = self.address.clone();
        let make = self.make.clone();
        async move {
            let (actor, arguments) = std::panic::catch_unwind(AssertUnwindSafe(|| make()))
                .map_err(|_| Cause::Start("the factory panicked".into()))?;
            let measured = Measured { actor, meter: address.meter().clone(), token };
            let (actor, task) = Actor::spawn_linked(None, measured, arguments, supervisor)
                .await
                .map_err(|error| start_failed(&error))?;
            Ok(Launched { cell: actor.get_cell(), task, registration: Box::new(address.register(actor)) })
        }
        .boxed()
    }

    fn meter(&self) -> Arc<Meter> {
        self.address.meter().clone()
    }
}

/// A failed start without ractor's own preamble.
pub(crate) fn start_failed(error: &SpawnErr) -> Cause {
    match error {
        SpawnErr::StartupFailed(inner) => Cause::Start(chain(inner.as_ref()).into()),
        other => Cause::Start(chain(other).into()),
    }
}

struct Measured<A> {
    actor: A,
    meter: Arc<Meter>,
    token: Token,
}

/// The worker's state; the token goes after it.
struct Tracked<S> {
    state: S,
    _token: Token,
}

impl<A> Actor for Measured<A>
where
    A: Actor,
    A::Msg: MessageName,
{
    type Msg = A::Msg;
    type State = Tracked<A::State>;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let state = self.actor.pre_start(myself, arguments).await?;
        Ok(Tracked { state, _token: self.token.clone() })
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        tracked: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        self.actor.post_start(myself, &mut tracked.state).await
    }

    async fn post_stop(
        &self,
        myself: ActorRef<Self::Msg>,
        tracked: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        self.actor.post_stop(myself, &mut tracked.state).await
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        tracked: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let name = message.name();
        self.meter.taken();
        let started = Instant::now();
        let result = self.actor.handle(myself, message, &mut tracked.state).await;
        self.meter.handled(name, started.elapsed());
        result
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        tracked: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        feel(&event)?;
        self.actor.handle_supervisor_evt(myself, event, &mut tracked.state).await
    }
}
