//! An origin that speaks HTTP/1.1, records what it gets, and does what the path says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::server::listen;

/// What the test sees and steers.
pub struct Seen {
    requests: Mutex<Vec<String>>,
    /// Bytes of `/endless` that were taken from it.
    pub sent: AtomicUsize,
    /// Connections that ended.
    pub ended: AtomicUsize,
    /// Connections that it accepted.
    pub accepted: AtomicUsize,
    /// `/gate` answers once per permit.
    pub gate: Semaphore,
    /// `/fail` answers 503 so many times.
    pub failures: AtomicUsize,
}

/// An origin.
pub struct Origin {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    _server: AbortOnDropHandle<()>,
}

impl Origin {
    pub async fn start() -> Self {
        Self::at(([127, 0, 0, 31], 0).into()).await
    }

    pub async fn at(address: SocketAddr) -> Self {
        let seen = Arc::new(Seen {
            requests: Mutex::default(),
            sent: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            failures: AtomicUsize::new(0),
        });
        let shared = seen.clone();
        let (address, server) = listen(address, move |stream| {
            let seen = shared.clone();
            seen.accepted.fetch_add(1, Relaxed);
            async move {
                stream.set_nodelay(true).unwrap();
                serve(stream, &seen).await;
                seen.ended.fetch_add(1, Relaxed);
            }
        })
        .await;
        Self { address, seen, _server: server }
    }

    /// The requests so far, each as it came, its content behind its head as it was framed.
    pub fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, seen: &Seen) {
    while let Some(request) = read_request(&mut stream, seen).await {
        if answer(&mut stream, &request, seen).await.is_none() {
            return;
        }
    }
}

struct Message {
    method: String,
    path: String,
    head: String,
    content: Vec<u8>,
}

impl Message {
    fn field(&self, name: &str) -> Option<&str> {
        let of_name = |line: &&str| line.split_once(':').is_some_and(|(n, _)| n.eq_ignore_ascii_case(name));
        self.head.lines().find(of_name).map(|line| line.split_once(':').unwrap().1.trim())
    }
}

async fn read_request(stream: &mut TcpStream, seen: &Seen) -> Option<Message> {
    let mut raw = Vec::new();
    while !raw.ends_with(b"\r\n\r\n") {
        raw.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&raw).into_owned();
    let mut line = head.split(' ');
    let (method, path) = (line.next()?.to_owned(), line.next()?.to_owned());
    let mut message = Message { method, path, head, content: Vec::new() };
    if message.field("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    if let Some(length) = message.field("content-length") {
        message.content = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut message.content).await.ok()?;
        raw.extend_from_slice(&message.content);
    } else if message.field("transfer-encoding").is_some() {
        read_chunks(stream, &mut raw, &mut message.content).await?;
    }
    if !message.path.starts_with("/quiet") {
        seen.requests.lock().unwrap().push(String::from_utf8_lossy(&raw).into_owned());
    }
    Some(message)
}

async fn read_line(stream: &mut TcpStream, raw: &mut Vec<u8>) -> Option<String> {
    let start = raw.len();
    while !raw[start..].ends_with(b"\r\n") {
        raw.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&raw[start..raw.len() - 2]).into_owned())
}

async fn read_chunks(stream: &mut TcpStream, raw: &mut Vec<u8>, content: &mut Vec<u8>) -> Option<()> {
    loop {
        let size = usize::from_str_radix(&read_line(stream, raw).await?, 16).unwrap();
        if size == 0 {
            while !read_line(stream, raw).await?.is_empty() {}
            return Some(());
        }
        let start = content.len();
        content.resize(start + size, 0);
        stream.read_exact(&mut content[start..]).await.ok()?;
        raw.extend_from_slice(&content[start..]);
        read_line(stream, raw).await?;
    }
}

async fn answer(stream: &mut TcpStream, request: &Message, seen: &Seen) -> Option<()> {
    let path = request.path.split('?').next().unwrap();
    let text: Vec<u8> = match path {
        "/echo" | "/quiet-echo" => whole(
            &request.content,
            &request
                .field("x-generation")
                .map_or_else(String::new, |generation| format!("X-Seen: {generation}\r\n")),
        ),
        "/seen" | "/quiet" => {
            whole(b"ok", &format!("X-Seen: {}\r\n", request.field("x-generation").unwrap_or("-")))
        }
        "/trailers" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n\
            2\r\nok\r\n0\r\ngrpc-status: 0\r\nHost: evil\r\n\r\n"
            .to_vec(),
        "/hints" => b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            .to_vec(),
        "/none" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/same" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"x\"\r\n\r\n".to_vec(),
        "/cut" => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec(),
        "/until-close" => b"HTTP/1.1 200 OK\r\n\r\nhello".to_vec(),
        "/nonsense" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        "/hop" => b"HTTP/1.1 200 OK\r\nConnection: close, x-named\r\nX-Named: 1\r\nKeep-Alive: 5\r\n\
            X-Kept: 1\r\nContent-Length: 2\r\n\r\nok"
            .to_vec(),
        "/gate" => {
            seen.gate.acquire().await.unwrap().forget();
            whole(b"ok", "")
        }
        "/fail" if seen.failures.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() => {
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec()
        }
        "/endless" => return endless(stream, seen).await,
        "/ws" => return websocket(stream, request).await,
        _ => whole(b"ok", ""),
    };
    let head_only = request.method == "HEAD";
    let length = if head_only { text.windows(4).position(|w| w == b"\r\n\r\n")? + 4 } else { text.len() };
    stream.write_all(&text[..length]).await.ok()?;
    (!matches!(path, "/cut" | "/until-close" | "/hop" | "/nonsense")).then_some(())
}

fn whole(content: &[u8], fields: &str) -> Vec<u8> {
    let mut text =
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", content.len()).into_bytes();
    text.extend_from_slice(content);
    text
}

async fn endless(stream: &mut TcpStream, seen: &Seen) -> Option<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.ok()?;
    let mut chunk = b"4000\r\n".to_vec();
    chunk.resize(6 + 0x4000, b'x');
    chunk.extend_from_slice(b"\r\n");
    loop {
        stream.write_all(&chunk).await.ok()?;
        seen.sent.fetch_add(0x4000, Relaxed);
    }
}

/// Switches, then sends back what comes.
async fn websocket(stream: &mut TcpStream, request: &Message) -> Option<()> {
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert_eq!(request.field("sec-websocket-key").map(str::len), Some(24));
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    stream.write_all(switch).await.ok()?;
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes).await.ok()? {
            0 => return None,
            count => stream.write_all(&bytes[..count]).await.ok()?,
        }
    }
}
