//! A client that speaks HTTP/1.1 over any stream.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rig::PATIENCE;

/// A client's connection.
pub struct Client<S> {
    pub stream: S,
    read: Vec<u8>,
}

/// An answer with its content, if its length is said.
#[derive(Debug)]
pub struct Answer {
    pub head: String,
    pub content: Vec<u8>,
}

impl Answer {
    pub fn is_ok(&self) -> bool {
        self.head.starts_with("HTTP/1.1 200 ")
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Client<TcpStream> {
    pub async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// A GET and its answer; `None` where the connection ended instead.
    pub async fn get(&mut self, path: &str) -> Option<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
        self.ask(request.as_bytes()).await
    }

    /// Bytes and the answer to them.
    pub async fn ask(&mut self, request: &[u8]) -> Option<Answer> {
        self.stream.write_all(request).await.ok()?;
        self.answer().await
    }

    /// The next answer.
    pub async fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            match self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.fill().await?,
            }
        };
        let rest = self.read.split_off(end);
        let head = String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap();
        let mut answer = Answer { head, content: Vec::new() };
        let length = answer.field("content-length").map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            self.fill().await?;
        }
        let rest = self.read.split_off(length);
        answer.content = std::mem::replace(&mut self.read, rest);
        Some(answer)
    }

    /// Reads on; `None` at the end.
    pub async fn fill(&mut self) -> Option<()> {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.expect("bytes in time");
        read.is_ok_and(|count| count > 0).then_some(())
    }

    /// What was read and not asked for yet.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.read)
    }
}
