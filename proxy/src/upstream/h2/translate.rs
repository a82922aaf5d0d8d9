//! Owns one exchange with an endpoint of HTTP/2, told and answered in HTTP/1.
//!
//! Reads the request that a codec has rendered, sends it as a stream, and renders what comes back. What
//! breaks off on one side breaks off on the other: the codec sees a connection that ends too early.
//! Knows nothing of routes and retries.

use std::future::poll_fn;
use std::io;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};
use tracing::debug;

use crate::http::body::{BodyReader, BodyWriter, is_allowed_trailer};
use crate::http::head::Head;
use crate::http::lines::{self, push};
use crate::http::validate::Version as Http;
use crate::http::validate::field::{FieldRef, Known};
use crate::http::validate::framing::{Framing, FramingFields};

/// How much is read from the codec at once.
const PIECE: usize = 16 << 10;

/// Carries one exchange.
pub(super) async fn exchange(codec: DuplexStream, mut endpoint: SendRequest<Bytes>) {
    let (mut from, mut to) = split(codec);
    let carried = async {
        let mut read = Vec::new();
        let (request, framing) = read_head(&mut from, &mut read).await?;
        let is_head = request.method() == Method::HEAD;
        let mut content = BodyReader::new(framing);
        let (response, stream) =
            endpoint.send_request(request, content.is_done()).map_err(io::Error::other)?;
        let sending = send(&mut from, (stream, &mut content), read);
        let receiving = receive(response, is_head, &mut to);
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
) -> io::Result<(Request<()>, Framing)> {
    let mut head = Head::default();
    let length = loop {
        match head.parse(read).map_err(|reason| io::Error::other(reason.label()))? {
            Some(length) => break length,
            None if from.read_buf(read).await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    };
    let parsed = request(&head, &read[..length])?;
    read.drain(..length);
    Ok(parsed)
}

fn request(head: &Head, bytes: &[u8]) -> io::Result<(Request<()>, Framing)> {
    let broken = |reason: crate::http::respond::Reason| io::Error::other(reason.label());
    let line = head.request_line(bytes).map_err(broken)?;
    let (mut framing, mut headers, mut host) = (FramingFields::default(), HeaderMap::new(), &b""[..]);
    for FieldRef { known, name, value, .. } in head.fields(bytes) {
        match known {
            Known::Host => host = value,
            Known::ContentLength => {
                framing.content_length(value).map_err(broken)?;
                push(name, value, &mut headers);
            }
            Known::TransferEncoding => framing.transfer_encoding(value).map_err(broken)?,
            Known::Connection | Known::Upgrade | Known::HopByHop | Known::Http2Settings => {}
            _ => push(name, value, &mut headers),
        }
    }
    let uri = Uri::builder().scheme("http").authority(host).path_and_query(line.target);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(line.method).map_err(io::Error::other)?;
    *request.uri_mut() = uri.build().map_err(io::Error::other)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok((request, framing.request(Http::Http11).map_err(broken)?))
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

async fn write(stream: &mut SendStream<Bytes>, mut data: Bytes, is_last: bool) -> io::Result<()> {
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
) -> io::Result<()> {
    while let Some(interim) = poll_fn(|cx| response.poll_informational(cx)).await {
        let interim = interim.map_err(io::Error::other)?;
        to.write_all(&head(interim.status(), interim.headers(), "")).await?;
    }
    let (parts, mut body) = response.await.map_err(io::Error::other)?.into_parts();
    let never_has_content = is_head || matches!(parts.status.as_u16(), 204 | 304);
    let says_length = parts.headers.contains_key(http::header::CONTENT_LENGTH);
    let framing = match () {
        () if never_has_content || says_length => "",
        () if body.is_end_stream() => "content-length: 0\r\n",
        () => "transfer-encoding: chunked\r\n",
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
    let trailers = body.trailers().await.map_err(io::Error::other)?.unwrap_or_default();
    let mut allowed = Vec::new();
    for (name, value) in trailers.iter().filter(|(name, _)| is_allowed_trailer(name.as_str().as_bytes())) {
        lines::line(name.as_str().as_bytes(), value.as_bytes(), &mut allowed);
    }
    out.clear();
    writer.end(&allowed, &mut out);
    to.write_all(&out).await
}

fn head(status: StatusCode, headers: &HeaderMap, framing: &str) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {} \r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        lines::line(name.as_str().as_bytes(), value.as_bytes(), &mut out);
    }
    out.extend_from_slice(framing.as_bytes());
    out.extend_from_slice(b"\r\n");
    out
}
