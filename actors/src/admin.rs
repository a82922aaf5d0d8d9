//! Serves what a controller shows: health, metrics and the live tree to anybody, configuration and the
//! resync to who shows a controller's certificate, identities to proxies that prove themselves.
//!
//! Owns: the accept loops with their connections.
//! Reads: what is known, translated, pushed and answered; the live tree; the controller's identity.
//! Writes: nothing; a resync is asked of the watchers.
//! Rebuilt from: the listening sockets, which are beside the tree.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, OnceLock};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::LiveTree;
use thiserror::Error;

use crate::push::enrolment::Enrolment;
use crate::task::{Task, report};
use crate::tree::edges::Edges;

mod accept;
mod control;
mod enrol;
mod secured;
mod status;

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// One of its servers ended, which none does by itself.
    Ended(io::Result<()>),
}

supervisor::message_names!(Msg { Ended });

/// What it needs.
#[derive(Clone, Debug)]
pub struct Args {
    /// How this controller is called.
    pub name: Arc<str>,
    /// The socket of the port that anybody may read.
    pub status: Option<Arc<TcpListener>>,
    /// The socket of the port for controllers and who acts for them.
    pub admin: Option<Arc<TcpListener>>,
    /// The socket of the port where proxies get their identity, and who gives it.
    pub enrol: Option<(Arc<TcpListener>, Enrolment)>,
    /// What flows in the tree.
    pub edges: Edges,
    /// The tree, once it runs.
    pub live: Arc<OnceLock<LiveTree>>,
}

/// What it holds: dropping it ends both servers with all their connections.
#[derive(Debug)]
pub struct State {
    _servers: Vec<Task>,
}

/// The actor.
#[derive(Debug)]
pub struct Admin;

#[derive(Debug, Error)]
#[error("a server of the admin actor ended")]
struct ServerEnded(#[source] Option<io::Error>);

impl Actor for Admin {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let listener = |socket: &TcpListener| socket.try_clone().and_then(tokio::net::TcpListener::from_std);
        let mut servers = Vec::new();
        if let Some(socket) = &args.status {
            let served = status::serve(listener(socket)?, args.clone());
            servers.push(report(&myself, async { Msg::Ended(served.await) }));
        }
        if let Some(socket) = &args.admin {
            let served = control::serve(listener(socket)?, args.edges.clone());
            servers.push(report(&myself, async { Msg::Ended(served.await) }));
        }
        if let Some((socket, enrolment)) = &args.enrol {
            let served = enrol::serve(listener(socket)?, args.edges.clone(), enrolment.clone());
            servers.push(report(&myself, async { Msg::Ended(served.await) }));
        }
        Ok(State { _servers: servers })
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, _: &mut State) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Ended(result) => Err(ServerEnded(result.err()).into()),
        }
    }
}
