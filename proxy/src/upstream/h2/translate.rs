//! Owns one exchange with an endpoint of HTTP/2, told and answered in HTTP/1.
//!
//! Reads the request that a codec has rendered, sends it as a stream, and renders what comes back. What
//! breaks off on one side breaks off on the other: the codec sees a connection that ends too early.
//! Knows nothing of routes and retries.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};
use tracing::debug;

use super::super::stream::Aside;
use super::{Ready, websocket};
use crate::http::body::{BodyReader, BodyWriter};
use crate::http::head::Head;
use crate::http::lines::{self, push};
use crate::http::trailers;
use crate::http::validate::Version as Http;
use crate::http::validate::field::{FieldRef, Known};
use crate::http::validate::framing::{Framing, FramingFields};

/// How much is read from the codec at once.
pub(super) const PIECE: usize = 16 << 10;

/// An exchange as a codec tells it.
pub(super) struct Told {
    request: Request<()>,
    framing: Framing,
    /// The key of a WebSocket, where it asks for one.
    websocket: Option<Vec<u8>>,
}

/// Carries one exchange.
pub(super) async fn exchange(codec: DuplexStream, mut endpoint: Ready, aside: &Aside) {
    let (mut from, mut to) = split(codec);
    let carried = async {
        let mut read = Vec::new();
        let told = read_head(&mut from, &mut read, endpoint.scheme).await?;
        if let Some(key) = told.websocket.as_deref() {
            return websocket::carry((from, &mut to), (told.request, key), endpoint, aside).await;
        }
        let is_head = told.request.method() == Method::HEAD;
        let mut content = BodyReader::new(told.framing);
        let begun = endpoint.sender.send_request(told.request, content.is_done());
        let (response, stream) = begun.map_err(|error| unsent(error, aside))?;
        let sending = send(&mut from, (stream, &mut content), read);
        let receiving = receive(response, is_head, &mut to, aside);
        let mut receiving = std::pin::pin!(receiving);
        tokio::select! {
            received = &mut receiving => received,
            // The endpoint may answer, and end its side, before it has all of the request.
            _ = sending => receiving.await,
        }
    };
    if let Err(error) = carried.await {
        debug!(%error, "an exchange over HTTP/2 broke off");
        return;
    }
    // A codec that has gone does not matter any more.
    let _ = to.shutdown().await;
}

/// Reads the head; what follows it stays in `read`.
async fn read_head(
    from: &mut ReadHalf<DuplexStream>,
    read: &mut Vec<u8>,
    scheme: &'static str,
) -> io::Result<Told> {
    let mut head = Head::default();
    let length = loop {
        match head.parse(read).map_err(|reason| io::Error::other(reason.label()))? {
            Some(length) => break length,
            None if from.read_buf(read).await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    };
    let told = told(&head, &read[..length], scheme)?;
    read.drain(..length);
    Ok(told)
}

fn told(head: &Head, bytes: &[u8], scheme: &'static str) -> io::Result<Told> {
    let broken = |reason: crate::http::respond::Reason| io::Error::other(reason.label());
    let line = head.request_line(bytes).map_err(broken)?;
    let (mut framing, mut headers, mut host) = (FramingFields::default(), HeaderMap::new(), &b""[..]);
    let mut is_websocket = false;
    for FieldRef { known, name, value, .. } in head.fields(bytes) {
        match known {
            Known::Host => host = value,
            Known::ContentLength => {
                framing.content_length(value).map_err(broken)?;
                push(name, value, &mut headers);
            }
            Known::TransferEncoding => framing.transfer_encoding(value).map_err(broken)?,
            // Any other protocol is not offered: the endpoint answers as if it had declined.
            Known::Upgrade => is_websocket = value.eq_ignore_ascii_case(b"websocket"),
            Known::Connection | Known::HopByHop | Known::Http2Settings => {}
            _ => push(name, value, &mut headers),
        }
    }
    let key = headers.get("sec-websocket-key").filter(|_| is_websocket);
    let websocket = key.map(|key| key.as_bytes().to_vec());
    let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(line.target);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(line.method).map_err(io::Error::other)?;
    *request.uri_mut() = uri.build().map_err(io::Error::other)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(Told { request, framing: framing.request(Http::Http11).map_err(broken)?, websocket })
}

/// Sends the content of the request, of which `read` is here already.
async fn send(
    from: &mut ReadHalf<DuplexStream>,
    (mut stream, content): (SendStream<Bytes>, &mut BodyReader),
    mut read: Vec<u8>,
) -> io::Result<()> {
    if content.is_done() {
        return Ok(());
    }
    loop {
        let mut data = Vec::new();
        let mut at = 0;
        while !content.is_done() && at < read.len() {
            let step = content.read(&read[at..]).map_err(|reason| io::Error::other(reason.label()))?;
            data.extend_from_slice(&read[at..][step.data]);
            at += step.consumed;
        }
        read.clear();
        let is_last = content.is_done() && content.trailers().is_empty();
        write(&mut stream, data.into(), is_last).await?;
        if content.is_done() {
            return match content.trailers() {
                [] => Ok(()),
                trailers => stream.send_trailers(lines::fields(trailers)).map_err(io::Error::other),
            };
        }
        read.reserve(PIECE);
        if from.read_buf(&mut read).await? == 0 {
            stream.send_reset(h2::Reason::CANCEL);
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

pub(super) async fn write(stream: &mut SendStream<Bytes>, mut data: Bytes, is_last: bool) -> io::Result<()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        while stream.capacity() == 0 {
            let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
            room.ok_or(io::ErrorKind::BrokenPipe)?.map_err(io::Error::other)?;
        }
        let part = data.split_to(stream.capacity().min(data.len()));
        stream.send_data(part, is_last && data.is_empty()).map_err(io::Error::other)?;
        if is_last && data.is_empty() {
            return Ok(());
        }
    }
    if is_last { stream.send_data(Bytes::new(), true).map_err(io::Error::other) } else { Ok(()) }
}

/// Renders the response as it comes.
async fn receive(
    mut response: ResponseFuture,
    is_head: bool,
    to: &mut WriteHalf<DuplexStream>,
    aside: &Aside,
) -> io::Result<()> {
    while let Some(interim) = poll_fn(|cx| response.poll_informational(cx)).await {
        let interim = interim.map_err(|error| failed(error, aside))?;
        to.write_all(&head(interim.status(), interim.headers(), "")).await?;
    }
    let response = response.await.map_err(|error| failed(error, aside))?;
    pass(response, is_head, to, aside).await
}

/// The request was not even sent.
pub(super) fn unsent(error: h2::Error, aside: &Aside) -> io::Error {
    aside.is_unprocessed.store(true, Relaxed);
    io::Error::other(error)
}

/// RFC 9113 section 8.7: a stream that is refused, or beyond the last that GOAWAY names, was not looked at.
pub(super) fn failed(error: h2::Error, aside: &Aside) -> io::Error {
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    if error.is_remote() && (is_refused || error.is_go_away()) {
        aside.is_unprocessed.store(true, Relaxed);
    }
    io::Error::other(error)
}

/// Renders a final response.
pub(super) async fn pass(
    response: Response<RecvStream>,
    is_head: bool,
    to: &mut WriteHalf<DuplexStream>,
    aside: &Aside,
) -> io::Result<()> {
    let (mut parts, mut body) = response.into_parts();
    let never_has_content = is_head || matches!(parts.status.as_u16(), 204 | 304);
    let is_whole = never_has_content || body.is_end_stream();
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if let Some(length) = length.filter(|_| !is_whole) {
        // Its content comes in chunks too, for there may be trailers behind it.
        parts.headers.remove(CONTENT_LENGTH);
        aside.length.get_or_init(|| length);
    }
    let framing = match parts.headers.contains_key(CONTENT_LENGTH) {
        true => "",
        false if never_has_content => "",
        false if is_whole => "content-length: 0\r\n",
        false => "transfer-encoding: chunked\r\n",
    };
    to.write_all(&head(parts.status, &parts.headers, framing)).await?;
    if never_has_content {
        return Ok(());
    }
    let is_chunked = framing.starts_with("transfer");
    let writer = if is_chunked { BodyWriter::Chunked } else { BodyWriter::Plain };
    receive_content(&mut body, writer, to).await
}

async fn receive_content(
    body: &mut RecvStream,
    writer: BodyWriter,
    to: &mut WriteHalf<DuplexStream>,
) -> io::Result<()> {
    let mut out = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(io::Error::other)?;
        out.clear();
        writer.data(&data, &mut out);
        to.write_all(&out).await?;
        body.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
    }
    let sent = body.trailers().await.map_err(io::Error::other)?.unwrap_or_default();
    let mut allowed = Vec::new();
    for (name, value) in sent.iter().filter(|(name, _)| trailers::may_pass(name.as_str().as_bytes())) {
        lines::line(name.as_str().as_bytes(), value.as_bytes(), &mut allowed);
    }
    out.clear();
    writer.end(&allowed, &mut out);
    to.write_all(&out).await
}

pub(super) fn head(status: StatusCode, headers: &HeaderMap, framing: &str) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {} \r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        lines::line(name.as_str().as_bytes(), value.as_bytes(), &mut out);
    }
    out.extend_from_slice(framing.as_bytes());
    out.extend_from_slice(b"\r\n");
    out
}
