//! Takes over from the proxy that served this node before.
//!
//! Owns: the conversation with that one, for as long as this process lives: its end would tell that one to take
//! over again.
//! Reads: what that one hands over.
//! Writes: the inherited sockets and sessions, the configuration (through the config store), whose turn it is.
//! Rebuilt from: the process before, which is asked anew; where there is none, this one serves.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use proxy_config::set::RootHash;
use proxy_config::wire::Reply;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::{Address, AskError, message_names};
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use super::channel::{
    ANSWER_WITHIN, Channel, ChannelError, FromPredecessor, FromSuccessor, HandedSession, Held,
};
use super::claim::{Claim, ClaimError, Given, claim};
use super::turn::{Turn, Turns};
use crate::config_store;
use crate::l4::datagrams::handed::Passing;
use crate::last_good::Remembered;
use crate::listen::Listen;

/// How long the config store may take with the largest configuration.
const COMPILED_WITHIN: Duration = Duration::from_secs(20);

/// What it is told.
#[derive(Debug)]
pub enum Msg {
    /// It has taken over, or there was nobody to take over from; or not.
    Taken(Result<Option<Channel>, TakeError>),
}

message_names!(Msg { Taken });

/// What it is started with.
#[derive(Clone, Debug)]
pub struct Args {
    /// The folder that the processes of a node share.
    pub folder: PathBuf,
    /// Tells processes apart.
    pub instance: Arc<str>,
    /// What was got before the tree was made; empty from the second start on.
    pub first: First,
    /// Where inherited sockets go.
    pub listen: Arc<Listen>,
    /// Who puts the configuration in force.
    pub store: Address<config_store::Msg>,
    /// Whose turn it is.
    pub turns: Turns,
    /// Its own address.
    pub myself: Address<Msg>,
}

/// What was got before the tree was made, until somebody takes it.
pub type First = Arc<Mutex<Option<Channel>>>;

/// Why it has not taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The other process has gone, or says nonsense.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It gave nothing.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// What it has in force can't be put in force here.
    #[error("the config store does not take what the proxy before has in force")]
    Store(#[from] AskError),
    /// The config store refuses it.
    #[error("the config store refuses what the proxy before has in force: {0}")]
    Refused(String),
}

/// What it holds.
#[derive(Debug)]
pub struct State {
    _conversation: Option<Channel>,
    _taking: AbortOnDropHandle<()>,
}

/// The actor.
#[derive(Debug)]
pub struct Taker;

impl Actor for Taker {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        Ok(State { _conversation: None, _taking: start(args) })
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Taken(taken) => state.taken(taken),
        }
    }
}

impl State {
    fn taken(&mut self, taken: Result<Option<Channel>, TakeError>) -> Result<(), ActorProcessingErr> {
        self._conversation = taken?;
        Ok(())
    }
}

fn start(args: Args) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let taken = take(&args).await;
        // Refused only where the actor is about to end anyway.
        let _ = args.myself.send(Msg::Taken(taken));
    }))
}

/// Takes over; the conversation, where there was somebody to take over from.
async fn take(args: &Args) -> Result<Option<Channel>, TakeError> {
    let first = args.first.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut channel = match first {
        Some(channel) => channel,
        // Also where it is this one's turn already: the conversation that ended told the one before to go on.
        None => match claim(&args.folder, &args.instance).await? {
            Some(Claim { channel, sockets }) => {
                inherit(&args.listen, sockets);
                channel
            }
            None => {
                if !args.turns.is_ours() {
                    info!("the proxy that served this node has ended: this one serves");
                    args.turns.set(Turn::Ours);
                }
                args.listen.forget_inherited();
                return Ok(None);
            }
        },
    };
    let sessions = prepare(args, &mut channel).await?;
    take_sessions(&args.listen, &mut channel, sessions).await?;
    args.turns.set(Turn::Ours);
    channel.send(&FromSuccessor::Serving).await?;
    match channel.receive(ANSWER_WITHIN).await? {
        FromPredecessor::Released => {}
        other => return Err(out_of_turn(&other)),
    }
    args.listen.forget_inherited();
    info!("took over from the proxy that served this node");
    Ok(Some(channel))
}

/// Puts in force what the process before has in force, until it gives the turn away.
async fn prepare(args: &Args, channel: &mut Channel) -> Result<Vec<HandedSession>, TakeError> {
    loop {
        match channel.receive(ANSWER_WITHIN).await? {
            FromPredecessor::Hold(held) => {
                let root = hold(&args.store, held).await?;
                channel.send(&FromSuccessor::Ready(root)).await?;
            }
            FromPredecessor::Turn(sessions) => return Ok(sessions),
            other => return Err(out_of_turn(&other)),
        }
    }
}

/// Returns when it is in force and what it asks for is bound, as far as that can be.
async fn hold(store: &Address<config_store::Msg>, held: Option<Held>) -> Result<RootHash, TakeError> {
    let held = held.unwrap_or_default();
    let remembered = Remembered {
        units: held.units.into_iter().collect(),
        version: held.version,
        confirmed: UNIX_EPOCH + Duration::from_secs(held.confirmed),
    };
    let inherit = |reply| config_store::Msg::Inherit(Box::new(remembered), held.names, reply);
    match store.ask(COMPILED_WITHIN, inherit).await? {
        Reply::Ack(ack) => Ok(ack.root),
        other => Err(TakeError::Refused(format!("{other:?}"))),
    }
}

async fn take_sessions(
    listen: &Listen,
    channel: &mut Channel,
    sessions: Vec<HandedSession>,
) -> Result<(), TakeError> {
    let files = channel.receive_files(sessions.len(), ANSWER_WITHIN).await?;
    for (HandedSession { local, peer, endpoint }, file) in sessions.into_iter().zip(files) {
        listen.handed().inherit_session(local, Passing { peer, endpoint, socket: file.into() });
    }
    Ok(())
}

/// Keeps the sockets of clients for when they are wanted.
pub fn inherit(listen: &Listen, sockets: Given) {
    listen.sockets().inherit(sockets.tcp);
    listen.handed().inherit(sockets.udp);
}

fn out_of_turn(said: &FromPredecessor) -> TakeError {
    let what = match said {
        FromPredecessor::OtherVersion(_) => "its version",
        FromPredecessor::Itself => "that this is the same process",
        FromPredecessor::Offer(_) => "its sockets",
        FromPredecessor::Hold(_) => "its configuration",
        FromPredecessor::Turn(_) => "that it gives the turn away",
        FromPredecessor::Released => "that it is done",
    };
    ChannelError::OutOfTurn(what.to_owned()).into()
}
