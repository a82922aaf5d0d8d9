//! Accepting on the ports of the admin actor: a few connections at a time, all owned by their server.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections at a time: probes, scrapers and people are few.
const CONNECTIONS: usize = 128;
/// How long a head may take, counted from when it may begin: a silent peer holds no place for longer.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may go on: it holds one of the few places.
pub(super) const CONNECTION_WITHIN: Duration = Duration::from_secs(60);
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

/// Answers for so long, then to the end of what is asked just then: who does not read its answers holds its
/// place for no longer.
pub(super) async fn answer_for<S>(life: Duration, stream: S, peer: SocketAddr, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = pin!(serve(stream, router));
    if let Ok(ended) = timeout(life, connection.as_mut()).await {
        return tell(peer, ended);
    }
    connection.as_mut().graceful_shutdown();
    match timeout(HEAD_WITHIN, connection).await {
        Ok(ended) => tell(peer, ended),
        Err(_) => {
            tracing::debug!(%peer, "a connection to the admin actor was cut: its answers were not read")
        }
    }
}

fn serve<S>(stream: S, router: Router) -> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // HTTP/1.1 alone: who tells the versions apart by the first bytes waits for those without limit.
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}

type Connection<S> = http1::Connection<TokioIo<S>, TowerToHyperService<Router>>;

fn tell(peer: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection to the admin actor ended");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_ends_when_a_head_would_have_to_be_there() {
        let (_client, stream) = tokio::io::duplex(1024);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let served = answer_for(Duration::MAX, stream, peer, Router::new());
        timeout(HEAD_WITHIN + Duration::from_secs(1), served).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_its_answers_holds_its_place_for_a_while_only() {
        let (mut client, stream) = tokio::io::duplex(64);
        let router = Router::new().route("/", axum::routing::get(|| async { "x".repeat(1 << 20) }));
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let life = Duration::from_secs(60);
        let served = answer_for(life, stream, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), router);
        timeout(life + HEAD_WITHIN + Duration::from_secs(1), served).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_at_the_end_of_a_connections_life_is_answered() {
        let (mut client, stream) = tokio::io::duplex(1 << 16);
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            "late"
        };
        let router = Router::new().route("/", axum::routing::get(slow));
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let life = Duration::from_secs(1);
        answer_for(life, stream, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), router).await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("late"), "{answer}");
    }
}
