//! Hands over to the proxy that takes this one's place.
//!
//! Owns: the door, a Unix socket in the state folder; the conversation with the one who came.
//! Reads: the open sockets and sessions, what is in force, whether the process drains.
//! Writes: whose turn it is; the drain, once the other one serves.
//! Rebuilt from: whose turn it is. A conversation that ends early gives the turn back.

use std::fs::{self, Permissions};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::{Address, message_names};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::VERSION;
use super::channel::{
    ANSWER_WITHIN, Channel, ChannelError, FromPredecessor, FromSuccessor, HandedSession, Held, Place, door,
};
use super::turn::{Turn, Turns};
use crate::admin::socket::AdminSocket;
use crate::config_store::in_force::{InForce, Source};
use crate::delivery::on_change;
use crate::last_good::private_folder;
use crate::listen::Listen;
use crate::resolver::names::{Known, Names};

/// How long the successor may take to compile the largest configuration and to bind.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often it is told of a newer configuration before it takes over all the same: controllers tell it then.
const TELLINGS: u32 = 5;
/// How long after a hand-over this process would take over again.
const PROBATION: Duration = Duration::from_secs(10);
/// The pause after accept(2) failed, as where files are short.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// What it is told.
#[derive(Debug)]
pub enum Msg {
    /// The turn has changed.
    Turned,
    /// Somebody stands at the door.
    Came(Channel),
    /// The conversation has ended.
    Ended(Result<(), GiveError>),
}

message_names!(Msg { Turned, Came, Ended });

/// What it is started with.
#[derive(Clone, Debug)]
pub struct Args {
    /// The folder that the processes of a node share.
    pub folder: PathBuf,
    /// Tells processes apart.
    pub instance: Arc<str>,
    /// The sockets of clients.
    pub listen: Arc<Listen>,
    /// The socket of the admin port.
    pub admin: Arc<AdminSocket>,
    /// The socket of the status port.
    pub status: Arc<AdminSocket>,
    /// What is in force.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// What is known of names outside the cluster.
    pub names: Names,
    /// Whose turn it is.
    pub turns: Turns,
    /// Its own address.
    pub myself: Address<Msg>,
}

/// Why this process goes on serving.
#[derive(Debug, thiserror::Error)]
pub enum GiveError {
    /// The successor has gone, or says nonsense.
    #[error("the successor did not take over")]
    Channel(#[from] ChannelError),
    /// It had taken over, but has gone.
    #[error("the successor has ended soon after it took over")]
    SuccessorEnded,
    /// It does not speak our version.
    #[error("the successor hands over by versions {0:?}, this proxy by {VERSION}")]
    OtherVersion(Vec<u32>),
}

impl From<io::Error> for GiveError {
    fn from(error: io::Error) -> Self {
        ChannelError::from(error).into()
    }
}

/// What it holds.
#[derive(Debug)]
pub struct State {
    args: Args,
    door: Option<AbortOnDropHandle<()>>,
    conversation: Option<AbortOnDropHandle<()>>,
    _turns: AbortOnDropHandle<()>,
}

/// The actor.
#[derive(Debug)]
pub struct Giver;

impl Actor for Giver {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let turns = on_change(args.turns.follow(), args.myself.clone(), || Msg::Turned);
        let mut state = State { args, door: None, conversation: None, _turns: turns };
        state.turned()?;
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Turned => state.turned(),
            Msg::Came(channel) => state.came(channel),
            Msg::Ended(result) => state.ended(result),
        }
    }
}

impl State {
    /// Whoever has the turn is at the door; a door that is opened takes the place of the one before.
    fn turned(&mut self) -> Result<(), ActorProcessingErr> {
        let turn = self.args.turns.now();
        if turn == Turn::Ours && self.door.is_none() {
            let listener = open(&self.args.folder, &self.args.instance)?;
            self.door = Some(stand_at(listener, self.args.myself.clone()));
        } else if turn != Turn::Ours {
            self.door = None;
        }
        Ok(())
    }

    fn came(&mut self, channel: Channel) -> Result<(), ActorProcessingErr> {
        // One at a time: another one finds its channel closed, and comes again.
        if self.conversation.is_none() {
            let (args, myself) = (self.args.clone(), self.args.myself.clone());
            self.conversation = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                let given = give(&args, channel).await;
                // Refused only where the actor is about to end anyway.
                let _ = myself.send(Msg::Ended(given));
            })));
        }
        Ok(())
    }

    fn ended(&mut self, result: Result<(), GiveError>) -> Result<(), ActorProcessingErr> {
        self.conversation = None;
        if let Err(error) = result {
            let error = &error as &dyn std::error::Error;
            warn!(error, "no hand-over: this proxy goes on serving");
            // The one who came may have put a door of its own into the place of this one.
            self.door = None;
        }
        self.turned()
    }
}

/// Opens the door: it appears at once and for this user alone.
fn open(folder: &Path, instance: &str) -> io::Result<UnixListener> {
    private_folder(folder)?;
    let draft = folder.join(format!("handover.{instance}"));
    // Left by a start before that failed half way.
    let _ = fs::remove_file(&draft);
    let listener = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
    fs::rename(&draft, door(folder))?;
    Ok(listener)
}

fn stand_at(listener: UnixListener, giver: Address<Msg>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            match listener
                .accept()
                .await
                .map_err(ChannelError::from)
                .and_then(|(came, _)| Channel::over(came))
            {
                // Refused where the giver restarts or is busy: whoever came comes again.
                Ok(channel) => drop(giver.send(Msg::Came(channel))),
                Err(error) => {
                    warn!(%error, "nobody can be let in at the door of the hand-over");
                    sleep(SHORTAGE_PAUSE).await;
                }
            }
        }
    }))
}

/// The whole conversation with a successor, up to the end of its probation.
async fn give(args: &Args, mut channel: Channel) -> Result<(), GiveError> {
    match channel.receive(ANSWER_WITHIN).await? {
        // A process asks before it has a door, and again if that conversation ends: by then the door may be its own.
        FromSuccessor::Claim { instance, .. } if *instance == *args.instance => {
            return Ok(channel.send(&FromPredecessor::Itself).await?);
        }
        FromSuccessor::Claim { versions, .. } if versions.contains(&VERSION) => {}
        FromSuccessor::Claim { versions, .. } => {
            channel.send(&FromPredecessor::OtherVersion(VERSION)).await?;
            return Err(GiveError::OtherVersion(versions));
        }
        other => return Err(out_of_turn(&other)),
    }
    offer(args, &mut channel).await?;
    until_ready(args, &mut channel).await?;
    let loan = args.turns.lend();
    pass_sessions(&args.listen, &mut channel).await?;
    match channel.receive(ANSWER_WITHIN).await? {
        FromSuccessor::Serving => {}
        other => return Err(out_of_turn(&other)),
    }
    channel.send(&FromPredecessor::Released).await?;
    info!("handed over: another proxy serves this node");
    let drain = args.listen.drain();
    let mut draining = drain.draining();
    tokio::select! {
        () = channel.ended() => return Err(GiveError::SuccessorEnded),
        () = sleep(PROBATION) => {}
        // Whoever is asked to end takes over no more. Its sender lives as long as the process.
        _ = draining.wait_for(|draining| *draining) => {}
    }
    loan.give_up();
    drain.begin();
    Ok(())
}

/// Passes all sockets on. Both processes hold them from now on.
async fn offer(args: &Args, channel: &mut Channel) -> Result<(), GiveError> {
    let ports = [(Place::Admin, &args.admin), (Place::Status, &args.status)];
    let tcp = |(address, socket): (_, TcpListener)| (Place::Tcp(address), OwnedFd::from(socket));
    let udp = |(address, socket): (_, UdpSocket)| (Place::Udp(address), OwnedFd::from(socket));
    let mut sockets = Vec::new();
    for (place, socket) in ports {
        sockets.extend(socket.handle()?.map(|socket| (place, OwnedFd::from(socket))));
    }
    sockets.extend(args.listen.sockets().share()?.into_iter().map(tcp));
    sockets.extend(args.listen.handed().share()?.into_iter().map(udp));
    let places = sockets.iter().map(|(place, _)| *place).collect();
    channel.send(&FromPredecessor::Offer(places)).await?;
    let files: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, file)| file.as_fd()).collect();
    Ok(channel.send_files(&files).await?)
}

/// Tells the successor what is in force until it holds just that.
async fn until_ready(args: &Args, channel: &mut Channel) -> Result<(), GiveError> {
    for _ in 0..TELLINGS {
        let in_force = args.in_force.borrow().clone();
        let names = args.names.known().borrow().clone();
        channel.send(&FromPredecessor::Hold(held(&in_force, &names, SystemTime::now()))).await?;
        let FromSuccessor::Ready(root) = channel.receive(READY_WITHIN).await? else {
            return Err(ChannelError::OutOfTurn("anything but that it is ready".to_owned()).into());
        };
        if root == args.in_force.borrow().units.root() {
            break;
        }
    }
    Ok(())
}

fn held(in_force: &InForce, names: &Known, now: SystemTime) -> Option<Held> {
    // What a controller has said is used here for as long as nothing else is said. The one that comes may do so
    // for as long as with what is on disk, from now on: to replace a process must take nothing away.
    let confirmed = if in_force.source == Source::Controller { now } else { in_force.confirmed? };
    let confirmed = confirmed.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let units = in_force.units.iter().cloned().collect();
    Some(Held { units, version: in_force.version, confirmed, names: names.clone() })
}

/// Gives the turn away, with the sessions of all clients that send datagrams.
async fn pass_sessions(listen: &Listen, channel: &mut Channel) -> Result<(), GiveError> {
    let sessions = listen.handed().paused().await;
    let said = sessions.iter().map(|(local, session)| HandedSession {
        local: *local,
        peer: session.peer,
        endpoint: session.endpoint,
    });
    channel.send(&FromPredecessor::Turn(said.collect())).await?;
    let files: Vec<BorrowedFd<'_>> = sessions.iter().map(|(_, session)| session.socket.as_fd()).collect();
    Ok(channel.send_files(&files).await?)
}

fn out_of_turn(said: &FromSuccessor) -> GiveError {
    ChannelError::OutOfTurn(format!("{said:?}")).into()
}

#[cfg(test)]
mod tests;
