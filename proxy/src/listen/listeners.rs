//! One listener: an address and port on which connections are accepted, or datagrams received.
//!
//! Owns: its accept loop on the `listen` thread; of datagrams the socket and all sessions too.
//! Reads: nothing; it is started and stopped with the wish for its address.
//! Writes: the report of what became of its bind.
//! Rebuilt from: its address; the socket is kept beside the tree, with what is queued on it.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::{Address, Child, message_names, worker};
use thiserror::Error;
use tokio_util::task::AbortOnDropHandle;

use super::accept::{Acceptor, ListenThread};
use super::socket::{Bind, Transport};
use crate::l4::datagrams::Datagrams;

/// What a listener is told.
#[derive(Debug)]
pub enum Msg {
    /// Its accept loop ended, which it never does by itself.
    Ended,
}

message_names!(Msg { Ended });

/// What a listener is started with.
pub struct Args {
    bind: Bind,
    acceptor: Acceptor,
    datagrams: Datagrams,
    thread: Arc<ListenThread>,
    myself: Address<Msg>,
}

struct State {
    _accept_loop: AbortOnDropHandle<()>,
}

/// The actor.
struct Listener;

/// The accept loop is gone.
#[derive(Debug, Error)]
#[error("the accept loop ended by a panic")]
struct AcceptLoopEnded;

impl Actor for Listener {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        Ok(State { _accept_loop: start(args) })
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, _: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Ended => Err(AcceptLoopEnded.into()),
        }
    }
}

/// The listener of an address as a child of `listeners`.
pub(super) fn child(
    bind: Bind,
    (acceptor, datagrams): (&Acceptor, &Datagrams),
    thread: &Arc<ListenThread>,
) -> Child {
    let (acceptor, datagrams) = (acceptor.clone(), datagrams.clone());
    let (thread, myself) = (thread.clone(), Address::new());
    worker(&bind.to_string(), &myself.clone(), move || {
        let (acceptor, datagrams) = (acceptor.clone(), datagrams.clone());
        let (thread, myself) = (thread.clone(), myself.clone());
        (Listener, Args { bind, acceptor, datagrams, thread, myself })
    })
}

fn start(args: Args) -> AbortOnDropHandle<()> {
    let Args { bind, acceptor, datagrams, thread, myself } = args;
    let accept_loop = AbortOnDropHandle::new(match bind.transport {
        Transport::Tcp => thread.spawn(acceptor.run(bind.address)),
        Transport::Udp => thread.spawn(datagrams.run(bind.address)),
    });
    AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = accept_loop.await;
        // Refused only where this listener is about to end anyway.
        let _ = myself.send(Msg::Ended);
    }))
}
