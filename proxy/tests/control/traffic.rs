//! Clients that ask all the time, some on connections that they keep, and count what they notice.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::drill::FINISH_WITHIN;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two requests of one client: the machine is shared.
const PAUSE: Duration = Duration::from_millis(2);
/// Of each kind of client.
const CLIENTS: u64 = 4;

#[derive(Debug, Default)]
struct Seen {
    answered: AtomicU64,
    resent: AtomicU64,
    failures: std::sync::Mutex<Vec<String>>,
    late: AtomicU64,
}

impl Seen {
    fn failed(&self, why: String) {
        self.failures.lock().unwrap().push(why);
    }

    /// What a dying worker cuts when its time is over, a busy machine has held up for that long.
    fn cut(&self, begun: Instant, why: String) {
        if begun.elapsed() < FINISH_WITHIN {
            self.failed(why);
        } else {
            self.late.fetch_add(1, Relaxed);
        }
    }
}

/// Clients at work, until it is dropped.
pub(crate) struct Traffic {
    seen: Arc<Seen>,
    _clients: JoinSet<()>,
}

impl Traffic {
    /// Connections that are kept: so many requests can meet one that ends just then.
    pub(crate) const KEPT: u64 = CLIENTS;

    pub(crate) fn start(address: SocketAddr) -> Self {
        let seen = Arc::<Seen>::default();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(keep(address, seen.clone()));
            clients.spawn(connect_anew(address, seen.clone()));
        }
        Self { seen, _clients: clients }
    }

    /// Requests that found the connection that they were sent on ended, and were sent again on another
    /// (RFC 9112 section 9.3.1).
    pub(crate) fn resent(&self) -> u64 {
        self.seen.resent.load(Relaxed)
    }

    /// Waits until each client should have asked some times more.
    pub(crate) async fn flows(&self) {
        let (begun, before) = (Instant::now(), self.seen.answered.load(Relaxed));
        while self.seen.answered.load(Relaxed) < before + 100 {
            self.check();
            assert!(begun.elapsed() < PATIENCE, "no requests are answered");
            tokio::time::sleep(PAUSE).await;
        }
        self.check();
    }

    pub(crate) fn end(self) {
        self.check();
    }

    #[track_caller]
    fn check(&self) {
        let failures = self.seen.failures.lock().unwrap();
        assert!(failures.is_empty(), "{failures:?}");
        let late = self.seen.late.load(Relaxed);
        assert!(late <= CLIENTS, "{late} requests were held up for {FINISH_WITHIN:?} and lost");
    }
}

async fn keep(address: SocketAddr, seen: Arc<Seen>) {
    let mut kept: Option<TcpStream> = None;
    loop {
        let (reused, begun) = (kept.is_some(), Instant::now());
        match tokio::time::timeout(PATIENCE, ask(kept.take(), address, "keep-alive")).await {
            Ok(Ok((stream, closes))) => {
                seen.answered.fetch_add(1, Relaxed);
                kept = (!closes).then_some(stream);
            }
            Ok(Err(Failure::Unanswered(_))) if reused => drop(seen.resent.fetch_add(1, Relaxed)),
            Ok(Err(Failure::Unanswered(why) | Failure::Other(why))) => seen.cut(begun, why),
            Err(_) => seen.failed("no answer in time".to_owned()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connect_anew(address: SocketAddr, seen: Arc<Seen>) {
    loop {
        let begun = Instant::now();
        match tokio::time::timeout(PATIENCE, ask(None, address, "close")).await {
            Ok(Ok(_)) => drop(seen.answered.fetch_add(1, Relaxed)),
            Ok(Err(Failure::Unanswered(why) | Failure::Other(why))) => seen.cut(begun, why),
            Err(_) => seen.failed("no answer in time".to_owned()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

enum Failure {
    /// The connection ended before the first byte of an answer.
    Unanswered(String),
    Other(String),
}

/// Asks, on a connection that is kept or a new one; answers with it, and whether it ends now.
async fn ask(
    kept: Option<TcpStream>,
    address: SocketAddr,
    connection: &str,
) -> Result<(TcpStream, bool), Failure> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(address).await.map_err(|error| Failure::Other(error.to_string()))?,
    };
    let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: {connection}\r\n\r\n");
    let failed = |error: io::Error| Failure::Unanswered(error.to_string());
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut first = [0];
    if stream.peek(&mut first).await.map_err(failed)? == 0 {
        return Err(Failure::Unanswered("it ended".to_owned()));
    }
    match answer(&mut stream).await {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") && body == "blue" => {
            let closes = head.to_ascii_lowercase().contains("connection: close");
            Ok((stream, closes))
        }
        other => Err(Failure::Other(format!("{other:?}"))),
    }
}

/// Head and body of an answer with a length; none where it ends before.
pub(crate) async fn answer(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length?.trim().parse().ok()?;
            if body.len() >= length {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
