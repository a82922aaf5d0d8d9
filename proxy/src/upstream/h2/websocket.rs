//! Owns a WebSocket over a stream of HTTP/2: extended CONNECT, told and answered as the handshake of HTTP/1.
//!
//! Called by the translator for an exchange that asks for one. Source: RFC 8441, RFC 6455 section 4.2.2.

use std::io;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tracing::debug;

use super::super::stream::Aside;
use super::Ready;
use super::translate::{self, PIECE, head};

/// How long an endpoint may take to say, in its first frame, that it takes extended CONNECT.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);
/// How often that is looked at: the `h2` crate tells nobody when it has come.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The answer where the endpoint takes no extended CONNECT.
const NOT_TAKEN: &[u8] = b"HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\n\r\n";

/// What RFC 6455 has appended to a key before it is hashed.
const ACCEPTED: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Carries a WebSocket from its handshake to its end.
pub(super) async fn carry(
    (from, to): (ReadHalf<DuplexStream>, &mut WriteHalf<DuplexStream>),
    (mut request, key): (Request<()>, &[u8]),
    mut endpoint: Ready,
    aside: &Aside,
) -> io::Result<()> {
    if !takes_connect(&endpoint).await {
        debug!("an endpoint takes no WebSocket over HTTP/2");
        return to.write_all(NOT_TAKEN).await;
    }
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request.headers_mut().remove("sec-websocket-key");
    let begun = endpoint.sender.send_request(request, false);
    let (response, stream) = begun.map_err(|error| translate::unsent(error, aside))?;
    let response = response.await.map_err(|error| translate::failed(error, aside))?;
    if !response.status().is_success() {
        return translate::pass(response, false, to, aside).await;
    }
    let (parts, body) = response.into_parts();
    to.write_all(&switched(&parts.headers, key)).await?;
    tokio::try_join!(send(from, stream), receive(body, to)).map(|_| ())
}

/// Whether the endpoint takes extended CONNECT; waits for its settings where they may not have come yet.
async fn takes_connect(endpoint: &Ready) -> bool {
    while !endpoint.sender.is_extended_connect_protocol_enabled() {
        if Instant::now() > endpoint.made + SETTINGS_TIMEOUT {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    true
}

fn switched(headers: &HeaderMap, key: &[u8]) -> Vec<u8> {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPTED].concat());
    let accept = STANDARD.encode(hash.as_ref());
    let fields = format!("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n");
    head(StatusCode::SWITCHING_PROTOCOLS, headers, &fields)
}

async fn send(mut from: ReadHalf<DuplexStream>, mut stream: SendStream<Bytes>) -> io::Result<()> {
    loop {
        let mut read = Vec::with_capacity(PIECE);
        let is_last = from.read_buf(&mut read).await? == 0;
        translate::write(&mut stream, read.into(), is_last).await?;
        if is_last {
            return Ok(());
        }
    }
}

async fn receive(mut body: RecvStream, to: &mut WriteHalf<DuplexStream>) -> io::Result<()> {
    while let Some(data) = body.data().await {
        let data = data.map_err(io::Error::other)?;
        to.write_all(&data).await?;
        body.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_accepted_as_the_example_of_the_rfc_has_it() {
        let head = String::from_utf8(switched(&HeaderMap::new(), b"dGhlIHNhbXBsZSBub25jZQ==")).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    }
}
