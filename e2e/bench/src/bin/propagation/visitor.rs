//! A visitor with one kept-alive HTTP/1.1 connection to each proxy.
//! Called by the story in `main.rs`. It knows hosts and the header that a route sets, nothing else.

use std::io::{Error, ErrorKind, Read, Result as IoResult, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster::namespace::Namespace;

use crate::objects::HEADER;

/// Between two looks at the proxies that do not answer as they should yet.
const PAUSE: Duration = Duration::from_micros(500);
/// What a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer that is read.
const LARGEST: usize = 64 << 10;

/// Asks all proxies.
pub(crate) struct Visitor {
    lines: Vec<Line>,
}

/// When proxies first answered as they should.
pub(crate) struct Served {
    /// The first of them.
    pub(crate) first: Instant,
    /// The last of them.
    pub(crate) last: Instant,
}

/// One proxy, and the connection to it where one stands.
struct Line {
    proxy: SocketAddr,
    /// Where the visitor is, if not here.
    place: Option<Namespace>,
    stream: Option<TcpStream>,
}

impl Visitor {
    /// Nothing is connected yet.
    pub(crate) fn new(proxies: Vec<SocketAddr>, place: Option<&Namespace>) -> Self {
        let line = |proxy| Line { proxy, place: place.cloned(), stream: None };
        Self { lines: proxies.into_iter().map(line).collect() }
    }

    /// Asks every proxy until each has answered a host with this value of the header.
    pub(crate) fn wait_for(&mut self, host: &str, value: &str, deadline: Instant) -> Result<Served> {
        let mut waiting: Vec<&mut Line> = self.lines.iter_mut().collect();
        let mut served: Option<Served> = None;
        loop {
            // All are asked before the first answer is read, so that none waits for another.
            waiting.iter_mut().for_each(|line| line.ask(host));
            waiting.retain_mut(|line| {
                let done = line.answer().as_deref() == Some(value);
                if done {
                    let last = Instant::now();
                    served = Some(Served { first: served.as_ref().map_or(last, |known| known.first), last });
                }
                !done
            });
            if let (true, Some(served)) = (waiting.is_empty(), served.take_if(|_| waiting.is_empty())) {
                return Ok(served);
            }
            if Instant::now() > deadline {
                let proxies: Vec<_> = waiting.iter().map(|line| line.proxy.to_string()).collect();
                bail!("{host} is not served with {HEADER}: {value} by {}", proxies.join(", "));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Asks one proxy once, the next for the next number.
    pub(crate) fn check(&mut self, number: usize, host: &str, value: &str) -> Result<()> {
        let count = self.lines.len();
        let line = self.lines.get_mut(number % count).context("there are proxies")?;
        line.ask(host);
        let answer = line.answer();
        ensure!(answer.as_deref() == Some(value), "{} answers {host} with {answer:?}", line.proxy);
        Ok(())
    }
}

impl Line {
    /// Sends a request. A proxy that does not listen yet, or has closed, has not answered.
    fn ask(&mut self, host: &str) {
        let sent = self.connected().and_then(|stream| {
            stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        });
        if sent.is_err() {
            self.stream = None;
        }
    }

    fn connected(&mut self) -> IoResult<&mut TcpStream> {
        if self.stream.is_none() {
            let stream = match &self.place {
                None => TcpStream::connect_timeout(&self.proxy, PATIENCE)?,
                Some(place) => {
                    let connect = || Ok(TcpStream::connect_timeout(&self.proxy, PATIENCE)?);
                    place.enter(connect).map_err(Error::other)?
                }
            };
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            self.stream = Some(stream);
        }
        self.stream.as_mut().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// Reads the answer and returns its header's value.
    fn answer(&mut self) -> Option<String> {
        let read = read(self.stream.as_mut()?);
        if !matches!(&read, Ok(answer) if !answer.closes) {
            self.stream = None;
        }
        read.ok()?.value
    }
}

struct Answer {
    value: Option<String>,
    closes: bool,
}

fn read(stream: &mut TcpStream) -> IoResult<Answer> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 || bytes.len() > LARGEST {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..read]);
        let text = std::str::from_utf8(&bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = field(head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            let closes = field(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            return Ok(Answer { value: field(head, HEADER).map(str::to_owned), closes });
        }
    }
}

/// The value of a header field.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
