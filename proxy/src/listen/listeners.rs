//! One listener: an address and port on which connections are accepted.
//!
//! Owns: its accept loop on the `listen` thread.
//! Reads: nothing; it is started and stopped with the wish for its address.
//! Writes: the report of what became of its bind.
//! Rebuilt from: its address; the socket is kept beside the tree, with what is queued on it.

use std::net::SocketAddr;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::{Address, Child, message_names, worker};
use thiserror::Error;
use tokio_util::task::AbortOnDropHandle;

use super::accept::{Acceptor, ListenThread};

/// What a listener is told.
#[derive(Debug)]
pub enum Msg {
    /// Its accept loop ended, which it never does by itself.
    Ended,
}

message_names!(Msg { Ended });

/// What a listener is started with.
pub struct Args {
    address: SocketAddr,
    acceptor: Acceptor,
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
pub(super) fn child(address: SocketAddr, acceptor: &Acceptor, thread: &Arc<ListenThread>) -> Child {
    let (acceptor, thread, myself) = (acceptor.clone(), thread.clone(), Address::new());
    worker(&address.to_string(), &myself.clone(), move || {
        let (acceptor, thread, myself) = (acceptor.clone(), thread.clone(), myself.clone());
        (Listener, Args { address, acceptor, thread, myself })
    })
}

fn start(args: Args) -> AbortOnDropHandle<()> {
    let Args { address, acceptor, thread, myself } = args;
    let accept_loop = AbortOnDropHandle::new(thread.spawn(acceptor.run(address)));
    AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = accept_loop.await;
        // Refused only where this listener is about to end anyway.
        let _ = myself.send(Msg::Ended);
    }))
}
