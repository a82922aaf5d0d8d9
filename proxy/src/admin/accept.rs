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
use tracing::{debug, warn};

use crate::handover::turn::{Turn, Turns};

/// Connections at a time: controllers, probes and scrapers are few.
const CONNECTIONS: usize = 256;

/// How long a head may take, counted from the end of the one before.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// The same for controllers, which ask every few seconds: what one of them sent before it was lost may be long on its way.
const CONTROLLERS_HEAD_WITHIN: Duration = Duration::from_secs(30);

/// How long a connection of whoever may go on: it holds one of the few places.
pub(super) const CONNECTION_WITHIN: Duration = Duration::from_secs(60);

/// The pause after accept(2) failed, as where files are short.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// A port that is accepted on while it is this process's turn.
#[derive(Debug)]
pub(super) struct Port {
    listener: TcpListener,
    turns: Turns,
}

impl Port {
    pub(super) fn new(listener: TcpListener, turns: &Turns) -> Self {
        Self { listener, turns: turns.clone() }
    }

    /// The next connection.
    pub(super) async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let mut turn = self.turns.follow();
        loop {
            let is_ours = *turn.borrow_and_update() == Turn::Ours;
            tokio::select! {
                accepted = self.listener.accept(), if is_ours => return accepted,
                // Its sender is part of this.
                _ = turn.changed() => {}
            }
        }
    }
}

/// Accepts until it is dropped, and ends all connections then.
pub(super) async fn accept<A, N, C>(next: impl Fn() -> N, serve: impl Fn(A) -> C) -> io::Result<()>
where
    N: Future<Output = io::Result<A>>,
    C: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = next(), if connections.len() < CONNECTIONS => match accepted {
                Ok(accepted) => drop(connections.spawn(serve(accepted))),
                Err(error) => {
                    warn!(%error, "a port of the admin actor can't accept");
                    tokio::time::sleep(SHORTAGE_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers the requests of a controller, for as long as it asks.
pub(super) async fn answer<S>(stream: S, peer: SocketAddr, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tell(peer, serve(CONTROLLERS_HEAD_WITHIN, stream, router).await);
}

/// Answers for so long, then to the end of what is asked just then: who does not read its answers holds its
/// place for no longer.
pub(super) async fn answer_for<S>(life: Duration, stream: S, peer: SocketAddr, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = pin!(serve(HEAD_WITHIN, stream, router));
    if let Ok(ended) = timeout(life, connection.as_mut()).await {
        return tell(peer, ended);
    }
    connection.as_mut().graceful_shutdown();
    match timeout(HEAD_WITHIN, connection).await {
        Ok(ended) => tell(peer, ended),
        Err(_) => debug!(%peer, "a connection to the admin actor was cut: its answers were not read"),
    }
}

fn serve<S>(head_within: Duration, stream: S, router: Router) -> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // HTTP/1.1 alone: its timer runs from the first moment, so that silent connections can't take all places.
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(head_within);
    server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}

type Connection<S> = http1::Connection<TokioIo<S>, TowerToHyperService<Router>>;

fn tell(peer: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        debug!(%peer, %error, "a connection to the admin actor ended");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_ends_when_a_head_would_have_to_be_there() {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let (_client, stream) = tokio::io::duplex(1024);
        let served = answer_for(CONNECTION_WITHIN, stream, peer, Router::new());
        timeout(HEAD_WITHIN + Duration::from_secs(1), served).await.unwrap();
        let (_controller, stream) = tokio::io::duplex(1024);
        let served = answer(stream, peer, Router::new());
        timeout(CONTROLLERS_HEAD_WITHIN + Duration::from_secs(1), served).await.unwrap();
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
