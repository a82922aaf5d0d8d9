//! Owns how TCP connections of clients and to endpoints are read and written.
//!
//! As the runtime does it, but for the calls themselves: in a process with threads the C library makes each
//! one a point where a thread can be cancelled, which takes two locked instructions that nobody here needs.
//! What every request does four times goes to the system directly. Used by workers and by the pool; knows
//! nothing of what is said.

use std::io::{self, IoSlice};
use std::net::TcpStream as StdTcpStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connection.
#[derive(Debug)]
pub struct Tcp(TcpStream);

impl Tcp {
    /// Whether nothing has come since the last read; an end counts as something. Says what the runtime
    /// knows, without a system call and without waiting for more.
    pub fn is_quiet(&self) -> bool {
        let has_come = self.0.try_io(Interest::READABLE, || Ok(()));
        matches!(has_come, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The connection without the runtime.
    ///
    /// # Errors
    /// Where the runtime can't let go of it.
    pub fn into_std(self) -> io::Result<StdTcpStream> {
        self.0.into_std()
    }

    /// The connection as the runtime has it.
    pub fn as_tokio(&self) -> &TcpStream {
        &self.0
    }
}

impl From<TcpStream> for Tcp {
    fn from(stream: TcpStream) -> Self {
        Self(stream)
    }
}

/// Makes a call that moves up to `room` bytes. One that moved less has met the end of what can be moved for
/// now: the runtime is told so, or the next one would be made only to hear that.
fn moving(
    stream: &TcpStream,
    interest: Interest,
    room: usize,
    call: impl FnOnce() -> Result<usize, rustix::io::Errno>,
) -> io::Result<usize> {
    let mut less = None;
    let moved = stream.try_io(interest, || match call()? {
        moved if 0 < moved && moved < room => {
            less = Some(moved);
            Err(io::ErrorKind::WouldBlock.into())
        }
        moved => Ok(moved),
    });
    less.map_or(moved, Ok)
}

impl AsyncRead for Tcp {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self(stream) = self.get_mut();
        if into.initialized().len() < into.capacity() {
            // To initialise the rest would cost more than the call saves.
            return Pin::new(stream).poll_read(cx, into);
        }
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let room = into.initialize_unfilled();
            let length = room.len();
            let call = || recv(&*stream, room, RecvFlags::empty()).map(|(read, _)| read);
            match moving(stream, Interest::READABLE, length, call) {
                Ok(read) => {
                    into.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Tcp {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let Self(stream) = self.get_mut();
        loop {
            // There mostly is room: that is asked for only where there was none. Reads see to it that a
            // connection on which everything goes fast lets others have their turn.
            let call = || send(&*stream, from, SendFlags::NOSIGNAL);
            match moving(stream, Interest::WRITABLE, from.len(), call) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(stream.poll_write_ready(cx))?;
                }
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Tcp, Tcp) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (one.into(), listener.accept().await.unwrap().0.into())
    }

    #[tokio::test]
    async fn all_that_is_written_is_read_however_much_it_is_and_then_the_end() {
        let (mut one, mut two) = pair().await;
        let sent: Vec<u8> = (0..8_000_000_u32).map(|number| (number / 7) as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            one.write_all(&sent).await.unwrap();
            one.shutdown().await.unwrap();
            one
        });
        let (mut read, mut piece) = (Vec::new(), vec![0; 10_000]);
        loop {
            match two.read(&mut piece).await.unwrap() {
                0 => break,
                count => read.extend_from_slice(&piece[..count]),
            }
        }
        assert!(read == expected);
        two.write_all(b"still open").await.unwrap();
        drop(two);
        let mut rest = String::new();
        writing.await.unwrap().read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "still open");
    }

    #[tokio::test]
    async fn what_comes_after_a_read_that_was_not_filled_is_read_too() {
        let (mut one, mut two) = pair().await;
        for turn in 0..100_u8 {
            let (mut read, mut piece) = (0, [0; 64]);
            one.write_all(&[turn; 10]).await.unwrap();
            one.write_all(&[turn; 10]).await.unwrap();
            while read < 20 {
                read += two.read(&mut piece[read..]).await.unwrap();
            }
            assert_eq!(&piece[..21], &[&[turn; 20][..], &[0]].concat());
        }
    }

    #[tokio::test]
    async fn a_connection_is_quiet_until_something_comes_or_it_ends() {
        for ends in [false, true] {
            let (one, mut two) = pair().await;
            one.0.writable().await.unwrap();
            assert!(one.is_quiet());
            if ends {
                drop(two);
            } else {
                two.write_all(b"x").await.unwrap();
            }
            // The runtime hears of it from the kernel.
            let heard = async {
                while one.is_quiet() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), heard).await.expect("it is heard of");
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_reset_is_an_error_to_both_directions() {
        let (mut one, two) = pair().await;
        socket2::SockRef::from(&two.0).set_linger(Some(Duration::ZERO)).unwrap();
        drop(two);
        assert_eq!(one.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(one.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
