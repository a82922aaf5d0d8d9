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
use tracing::{debug, warn};

/// Connections at a time: controllers, probes and scrapers are few.
const CONNECTIONS: usize = 256;

/// How long a head may take, counted from the end of the one before.
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
                    warn!(%error, "a port of the admin actor can't accept");
                    tokio::time::sleep(SHORTAGE_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers the requests of one connection.
pub(super) async fn answer<S>(stream: S, peer: SocketAddr, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // HTTP/1.1 alone: its timer runs from the first moment, so that silent connections can't take all places.
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let service = TowerToHyperService::new(router);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        debug!(%peer, %error, "connection to the admin actor ended");
    }
}
