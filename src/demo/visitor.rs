//! A visitor of the demonstration: one GET over a fresh connection, as curl would do it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The body as text.
    pub(crate) body: String,
}

/// How long a visitor waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks an address for a path of a host.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    timeout(PATIENCE, ask(address, host, path)).await.context("no answer in 2 s")?
}

async fn ask(address: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).context("not an HTTP response")?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok(Answer { status, body })
}
