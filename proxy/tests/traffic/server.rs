//! A server on loopback: what it does with a connection is for its caller to say.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio_util::task::AbortOnDropHandle;

/// Listens at an address, and serves each connection beside the others, until what is returned is dropped.
pub async fn listen<F>(
    address: impl ToSocketAddrs,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, AbortOnDropHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    (address, AbortOnDropHandle::new(server))
}
