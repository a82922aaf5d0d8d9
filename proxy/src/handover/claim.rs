//! The first half of taking over: finds the proxy that serves this node, and gets its sockets.
//!
//! Called before the tree is made, which needs the sockets of the admin and status ports, and by the taker
//! when it has to begin anew. Refuses to know what follows.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::sleep;
use tracing::info;

use super::VERSION;
use super::channel::{ANSWER_WITHIN, Channel, ChannelError, FromPredecessor, FromSuccessor, Place, door};

/// How soon a process whose successor has left it opens its door anew: until then that one finds its own.
const REOPENED_WITHIN: Duration = Duration::from_millis(500);

/// What was got, and the conversation that goes on.
#[derive(Debug)]
pub struct Claim {
    /// With the process before.
    pub channel: Channel,
    /// Its sockets.
    pub sockets: Given,
}

/// The sockets of the process before.
#[derive(Debug, Default)]
pub struct Given {
    /// Of the admin port.
    pub admin: Option<TcpListener>,
    /// Of the status port.
    pub status: Option<TcpListener>,
    /// Of connections, by their address.
    pub tcp: BTreeMap<SocketAddr, TcpListener>,
    /// Of datagrams.
    pub udp: BTreeMap<SocketAddr, UdpSocket>,
}

/// Why nothing was got, though there is somebody.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The conversation ended: the other one is busy with another successor, or has gone.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It is of a release too far away.
    #[error(
        "the proxy that serves this node hands over by version {0} alone, this one speaks {VERSION}: delete its Pod, \
         or upgrade by way of the releases between"
    )]
    OtherVersion(u32),
}

/// Asks the proxy that serves this node; `None` where there is none, or it is this very process.
///
/// # Errors
/// Where there is one, but it gives nothing.
pub async fn claim(folder: &Path, instance: &str) -> Result<Option<Claim>, ClaimError> {
    let mut found = ask(folder, instance).await?;
    if matches!(found, Found::Myself) {
        sleep(REOPENED_WITHIN).await;
        found = ask(folder, instance).await?;
    }
    Ok(if let Found::Other(claim) = found { Some(claim) } else { None })
}

/// Who stands at the door.
enum Found {
    Nobody,
    Myself,
    Other(Claim),
}

async fn ask(folder: &Path, instance: &str) -> Result<Found, ClaimError> {
    let stream = match UnixStream::connect(door(folder)).await {
        Ok(stream) => stream,
        Err(error) if is_nobody(&error) => return Ok(Found::Nobody),
        Err(error) => return Err(ChannelError::from(error).into()),
    };
    let mut channel = Channel::over(stream)?;
    let (versions, instance) = (vec![VERSION], instance.to_owned());
    channel.send(&FromSuccessor::Claim { versions, instance }).await?;
    match channel.receive(ANSWER_WITHIN).await? {
        FromPredecessor::Itself => Ok(Found::Myself),
        FromPredecessor::Offer(places) => {
            let files = channel.receive_files(places.len(), ANSWER_WITHIN).await?;
            let mut sockets = Given::default();
            places.iter().zip(files).for_each(|(place, file)| sockets.put(*place, file));
            info!(sockets = places.len(), "the proxy that serves this node hands over");
            Ok(Found::Other(Claim { channel, sockets }))
        }
        FromPredecessor::OtherVersion(version) => Err(ClaimError::OtherVersion(version)),
        other => Err(ChannelError::OutOfTurn(format!("{other:?}")).into()),
    }
}

impl Given {
    fn put(&mut self, place: Place, file: OwnedFd) {
        match place {
            Place::Admin => self.admin = Some(file.into()),
            Place::Status => self.status = Some(file.into()),
            Place::Tcp(address) => drop(self.tcp.insert(address, file.into())),
            Place::Udp(address) => drop(self.udp.insert(address, file.into())),
        }
    }
}

/// There is no socket in the folder, or the process that listened on it has ended.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// Whoever comes is offered nothing, by a process of this name.
    async fn offers(listener: &UnixListener, name: &str) -> Channel {
        let mut channel = Channel::over(listener.accept().await.unwrap().0).unwrap();
        let FromSuccessor::Claim { instance, .. } = channel.receive(ANSWER_WITHIN).await.unwrap() else {
            panic!("it claims");
        };
        if instance == name {
            channel.send(&FromPredecessor::Itself).await.unwrap();
        } else {
            channel.send(&FromPredecessor::Offer(Vec::new())).await.unwrap();
            channel.send_files(&[]).await.unwrap();
        }
        channel
    }

    #[tokio::test]
    async fn who_finds_its_own_door_asks_again_for_the_one_that_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let own = UnixListener::bind(door(folder.path())).unwrap();
        let claimed = claim(folder.path(), "second");
        let before = async {
            let _asked = offers(&own, "second").await;
            std::fs::remove_file(door(folder.path())).unwrap();
            let reopened = UnixListener::bind(door(folder.path())).unwrap();
            offers(&reopened, "first").await
        };
        let (claimed, _conversation) = tokio::join!(claimed, before);
        assert!(claimed.unwrap().is_some(), "the one before serves again");
        drop(own);
    }

    #[tokio::test]
    async fn a_process_takes_nothing_over_from_itself() {
        let folder = tempfile::tempdir().unwrap();
        let own = UnixListener::bind(door(folder.path())).unwrap();
        let twice = async { (offers(&own, "only").await, offers(&own, "only").await) };
        let (claimed, _) = tokio::join!(claim(folder.path(), "only"), twice);
        assert!(claimed.unwrap().is_none());
    }
}
