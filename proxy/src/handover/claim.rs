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
use tracing::info;

use super::VERSION;
use super::channel::{Channel, ChannelError, FromPredecessor, FromSuccessor, Place, door};

/// How long the serving proxy may take to say something that costs it nothing.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

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
    let stream = match UnixStream::connect(door(folder)).await {
        Ok(stream) => stream,
        Err(error) if is_nobody(&error) => return Ok(None),
        Err(error) => return Err(ChannelError::from(error).into()),
    };
    let mut channel = Channel::over(stream)?;
    channel.send(&FromSuccessor::Claim(vec![VERSION])).await?;
    match channel.receive(ANSWER_WITHIN).await? {
        FromPredecessor::Offer { instance: other, .. } if other == instance => Ok(None),
        FromPredecessor::Offer { sockets: places, .. } => {
            let files = channel.receive_files(places.len(), ANSWER_WITHIN).await?;
            let mut sockets = Given::default();
            places.iter().zip(files).for_each(|(place, file)| sockets.put(*place, file));
            info!(sockets = places.len(), "the proxy that serves this node hands over");
            Ok(Some(Claim { channel, sockets }))
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
