//! Servers that are no pods: endpoints that tests give to Services by hand.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use cluster::Machine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// Answers each HTTP/1.1 request without content at all addresses of a machine with what `answer` makes of the address
/// that was asked, until it is dropped.
pub fn serve(
    machine: &Machine,
    port: u16,
    answer: impl Fn(SocketAddr) -> String + Send + Sync + 'static,
) -> Result<AbortOnDropHandle<()>> {
    let listener = machine.namespace.listen((Ipv4Addr::UNSPECIFIED, port).into())?;
    let answer = Arc::new(answer);
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move { converse(stream, &*answer).await });
        }
    });
    Ok(AbortOnDropHandle::new(serving))
}

async fn converse(mut stream: TcpStream, answer: &(impl Fn(SocketAddr) -> String + Sync)) {
    let Ok(asked) = stream.local_addr() else { return };
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        request.extend_from_slice(&buffer[..length]);
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            if stream.write_all(answer(asked).as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
