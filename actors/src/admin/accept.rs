//! Accepting on the ports of the admin actor: a few connections at a time, all owned by their server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Connections at a time: probes, scrapers and people are few.
const CONNECTIONS: usize = 128;
/// How long a head may take, counted from when it may begin: a silent peer holds no place for longer.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The pause after accept(2) failed, as where files are short.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until it is dropped, and ends all connections then.
pub(super) async fn accept<C>(
    listener: TcpListener,
    serve: impl Fn(TcpStream, SocketAddr) -> C,
) -> io::Result<()>
where
    C: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, peer)) => drop(connections.spawn(serve(stream, peer))),
                Err(error) => {
                    tracing::warn!(%error, "a port of the admin actor can't accept");
                    tokio::time::sleep(SHORTAGE_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers the requests of one connection, in HTTP/1.1: who tells the versions apart by the first bytes
/// waits for those without limit.
pub(super) async fn answer<S>(stream: S, peer: SocketAddr, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await
    {
        tracing::debug!(%peer, %error, "a connection to the admin actor ended");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_ends_when_a_head_would_have_to_be_there() {
        let (_client, stream) = tokio::io::duplex(1024);
        let served = answer(stream, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), Router::new());
        timeout(HEAD_WITHIN + Duration::from_secs(1), served).await.unwrap();
    }
}
