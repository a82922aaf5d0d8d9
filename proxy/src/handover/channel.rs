//! The channel between two processes of one node: messages, and open files (SCM_RIGHTS, unix(7)).
//!
//! Owns what stands on the Unix socket: frames of JSON behind their length, and one byte per batch of files,
//! each read for itself, so that files never come with the bytes of another message. Takes nobody but its own
//! user. Called by both sides of the hand-over. Refuses to know what is handed over.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proxy_config::set::RootHash;
use proxy_config::unit::EncodedUnit;
use proxy_config::wire::Version;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::resolver::names::Known;

/// Files of one batch; the kernel takes 253 (SCM_MAX_FD).
const BATCH: usize = 128;
/// Bytes that are timed together.
const PIECE: usize = 1 << 20;
/// The longest message, in bytes: a whole configuration.
const LONGEST: u32 = 1 << 30;

/// How long the other end may take nothing of what is said: meanwhile it may be nobody's turn to accept.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// How long the other end may take to say something that costs it nothing.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Where the serving proxy of a node is asked.
pub fn door(folder: &Path) -> PathBuf {
    folder.join("handover.sock")
}

/// What a successor says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FromSuccessor {
    /// It wants to take over.
    Claim {
        /// The versions that it speaks.
        versions: Vec<u32>,
        /// Tells processes apart.
        instance: String,
    },
    /// It holds this configuration and has bound what that asks for.
    Ready(RootHash),
    /// It accepts.
    Serving,
}

/// What a predecessor says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FromPredecessor {
    /// It speaks none of these versions, but this one.
    OtherVersion(u32),
    /// Whoever asks stands at its own door.
    Itself,
    /// What each of its sockets is for, in the order of the files that follow.
    Offer(Vec<Place>),
    /// What it has in force; `None`: nothing yet.
    Hold(Option<Held>),
    /// It accepts no more. The sessions are in the order of the files that follow.
    Turn(Vec<HandedSession>),
    /// It knows that the successor accepts.
    Released,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// The admin port.
    Admin,
    /// The status port.
    Status,
    /// Connections of clients.
    Tcp(SocketAddr),
    /// Datagrams of clients.
    Udp(SocketAddr),
}

/// A configuration in force.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Its units.
    pub units: Vec<EncodedUnit>,
    /// Its place in time.
    pub version: Version,
    /// When a controller last confirmed it, in seconds since 1970.
    pub confirmed: u64,
    /// What is known of names outside the cluster. A version before did not say.
    #[serde(default)]
    pub names: Known,
}

/// Without its units, which hold private keys.
impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("version", &self.version).finish_non_exhaustive()
    }
}

/// A session of datagrams; its file is the socket that stands for the client at the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandedSession {
    /// Where the client sends to.
    pub local: SocketAddr,
    /// The client.
    pub peer: SocketAddr,
    /// The endpoint.
    pub endpoint: SocketAddr,
}

/// Why a conversation ended early.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other process has gone, or the system fails.
    #[error("the channel to the other proxy of this node ended")]
    Io(#[from] io::Error),
    /// It is of another user.
    #[error("the process at the other end is of user {0}: nobody but this proxy's own user may take part")]
    Stranger(u32),
    /// It says what nobody understands.
    #[error("the other proxy of this node says something that this one does not understand")]
    Unintelligible(#[from] serde_json::Error),
    /// It says something else than what is its turn to say.
    #[error("the other proxy of this node says {0} out of turn")]
    OutOfTurn(String),
    /// It says nothing.
    #[error("the other proxy of this node has said nothing for {0:?}")]
    Silent(Duration),
    /// It takes nothing.
    #[error("the other proxy of this node has not taken what it was told for {0:?}")]
    Deaf(Duration),
}

/// A conversation.
#[derive(Debug)]
pub struct Channel(UnixStream);

impl Channel {
    /// Over a stream, if a process of this user is at its other end.
    ///
    /// # Errors
    /// Where that is another user, or is not known.
    pub fn over(stream: UnixStream) -> Result<Self, ChannelError> {
        let peer = stream.peer_cred()?.uid();
        if peer == geteuid().as_raw() { Ok(Self(stream)) } else { Err(ChannelError::Stranger(peer)) }
    }

    /// Says something.
    ///
    /// # Errors
    /// Where the other end is gone, or takes nothing.
    pub async fn send(&mut self, message: &impl Serialize) -> Result<(), ChannelError> {
        let text = serde_json::to_vec(message)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        taken(self.0.write_all(&length.to_be_bytes())).await?;
        // Piece by piece: a large one takes its time.
        for piece in text.chunks(PIECE) {
            taken(self.0.write_all(piece)).await?;
        }
        Ok(())
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// Where the other end is gone, says nothing for so long, or nothing that makes sense.
    pub async fn receive<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, ChannelError> {
        let receiving = async {
            let length = self.0.read_u32().await?;
            if length > LONGEST {
                return Err(io::Error::other("a message is too long").into());
            }
            let mut text = vec![0; length as usize];
            self.0.read_exact(&mut text).await?;
            Ok(serde_json::from_slice(&text)?)
        };
        timeout(within, receiving).await.map_err(|_| ChannelError::Silent(within))?
    }

    /// Passes open files on.
    ///
    /// # Errors
    /// Where the other end is gone.
    pub async fn send_files(&mut self, files: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        for batch in files.chunks(BATCH) {
            taken(self.0.async_io(Interest::WRITABLE, || send_batch(&self.0, batch))).await?;
        }
        Ok(())
    }

    /// Takes so many open files.
    ///
    /// # Errors
    /// Where the other end is gone, has passed on others, or passes nothing on for so long.
    pub async fn receive_files(
        &mut self,
        count: usize,
        within: Duration,
    ) -> Result<Vec<OwnedFd>, ChannelError> {
        let mut files = Vec::with_capacity(count);
        while files.len() < count {
            let batch = self.0.async_io(Interest::READABLE, || receive_batch(&self.0));
            let batch = timeout(within, batch).await.map_err(|_| ChannelError::Silent(within))??;
            if batch.is_empty() {
                return Err(io::Error::other("no files came where files were promised").into());
            }
            files.extend(batch);
        }
        Ok(files)
    }

    /// Returns when the other end is gone.
    pub async fn ended(&mut self) {
        let mut byte = [0];
        // Nobody says anything any more: an end, or an error, is all that can come.
        while self.0.read(&mut byte).await.is_ok_and(|read| read > 0) {}
    }
}

async fn taken(sending: impl Future<Output = io::Result<()>>) -> Result<(), ChannelError> {
    Ok(timeout(TAKEN_WITHIN, sending).await.map_err(|_| ChannelError::Deaf(TAKEN_WITHIN))??)
}

fn send_batch(stream: &UnixStream, batch: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(batch)) {
        return Err(io::Error::other("a batch of files is too large"));
    }
    sendmsg(stream.as_fd(), &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_batch(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(files.flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn pair() -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::over(one).unwrap(), Channel::over(other).unwrap())
    }

    #[tokio::test]
    async fn files_and_messages_keep_their_order_and_more_files_than_one_batch_pass() {
        let (mut one, mut other) = pair();
        let listeners: Vec<_> = (0..300).map(|_| TcpListener::bind("127.0.0.6:0").unwrap()).collect();
        let expected: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let sending = tokio::spawn(async move {
            one.send(&FromSuccessor::Serving).await.unwrap();
            let files: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
            one.send_files(&files).await.unwrap();
            one.send(&FromSuccessor::Serving).await.unwrap();
        });
        assert!(matches!(other.receive(SOON).await.unwrap(), FromSuccessor::Serving));
        let files = other.receive_files(300, SOON).await.unwrap();
        let came: Vec<_> =
            files.into_iter().map(|file| TcpListener::from(file).local_addr().unwrap()).collect();
        assert_eq!(came, expected);
        assert!(matches!(other.receive(SOON).await.unwrap(), FromSuccessor::Serving));
        sending.await.unwrap();
        tokio::time::timeout(SOON, other.ended()).await.expect("the other end is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_not_waited_for_without_end() {
        let (mut one, _other) = pair();
        let said = one.receive::<FromSuccessor>(SOON).await;
        assert!(matches!(said, Err(ChannelError::Silent(_))), "{said:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_not_waited_for_without_end() {
        let (mut one, _other) = pair();
        let said = one.send(&"x".repeat(8 << 20)).await;
        assert!(matches!(said, Err(ChannelError::Deaf(_))), "{said:?}");
    }

    #[tokio::test]
    async fn files_that_do_not_come_are_missed() {
        let (mut one, mut other) = pair();
        one.send(&FromSuccessor::Serving).await.unwrap();
        other.receive_files(1, SOON).await.expect_err("bytes are no files");
    }
}
