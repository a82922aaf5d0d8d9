//! A visitor who asks every proxy until each answers as it should: by one kept-alive HTTP/1.1 connection to each,
//! or, for a certificate, by the first half of a TLS handshake.
//! Called by the story in `main.rs`. It knows hosts, fields of answers and certificates, nothing else.

mod greeting;

use std::io::{Error, ErrorKind, Read, Result as IoResult, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster::namespace::Namespace;

use greeting::Greeting;

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

/// What a proxy is to show.
#[derive(Clone, Debug)]
pub(crate) enum Sign {
    /// A field of the answer to a request.
    Field {
        /// The host that is asked for.
        host: String,
        /// The name of the field.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The certificate that is shown to who asks for a server by its name.
    Certificate {
        /// The port.
        port: u16,
        /// The name.
        host: String,
        /// The certificate in DER.
        der: Vec<u8>,
    },
}

/// When proxies first answered as they should.
#[derive(Clone, Copy)]
pub(crate) struct Served {
    /// The first of them.
    pub(crate) first: Instant,
    /// The last of them.
    pub(crate) last: Instant,
}

/// One proxy, and what is open to it.
struct Line {
    proxy: SocketAddr,
    /// Where the visitor is, if not here.
    place: Option<Namespace>,
    stream: Option<TcpStream>,
    greeting: Option<Greeting>,
}

impl Visitor {
    /// Nothing is connected yet.
    pub(crate) fn new(proxies: Vec<SocketAddr>, place: Option<&Namespace>) -> Self {
        let line = |proxy| Line { proxy, place: place.cloned(), stream: None, greeting: None };
        Self { lines: proxies.into_iter().map(line).collect() }
    }

    /// Asks every proxy until each has shown the sign.
    pub(crate) fn wait_for(&mut self, sign: &Sign, deadline: Instant) -> Result<Served> {
        let mut waiting: Vec<&mut Line> = self.lines.iter_mut().collect();
        let mut served: Option<Served> = None;
        loop {
            // All are asked before the first answer is read, so that none waits for another.
            waiting.iter_mut().for_each(|line| line.ask(sign));
            waiting.retain_mut(|line| {
                let shown = line.shows(sign);
                if shown {
                    let last = Instant::now();
                    served = Some(Served { first: served.map_or(last, |known| known.first), last });
                }
                !shown
            });
            if let (true, Some(served)) = (waiting.is_empty(), served) {
                return Ok(served);
            }
            if Instant::now() > deadline {
                let proxies: Vec<_> = waiting.iter().map(|line| line.proxy.to_string()).collect();
                bail!("{sign} is not shown by {}", proxies.join(", "));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Asks one proxy once, the next for the next number.
    pub(crate) fn check(&mut self, number: usize, sign: &Sign) -> Result<()> {
        let count = self.lines.len();
        let line = self.lines.get_mut(number % count).context("there are proxies")?;
        line.ask(sign);
        ensure!(line.shows(sign), "{} does not show {sign}", line.proxy);
        Ok(())
    }
}

impl std::fmt::Display for Sign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Field { host, name, value } => write!(f, "{host} with {name}: {value}"),
            Self::Certificate { port, host, .. } => write!(f, "the certificate of {host} on port {port}"),
        }
    }
}

impl Line {
    /// Sends what is to be answered. A proxy that does not listen yet, or has closed, has not answered.
    fn ask(&mut self, sign: &Sign) {
        match sign {
            Sign::Field { host, .. } => {
                let sent = self.connected().and_then(|stream| {
                    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
                });
                if sent.is_err() {
                    self.stream = None;
                }
            }
            Sign::Certificate { port, host, .. } => {
                let stream = self.connect(SocketAddr::new(self.proxy.ip(), *port));
                self.greeting = stream.and_then(|stream| Greeting::send(stream, host)).ok();
            }
        }
    }

    /// Reads the answer, and whether it is as it should be.
    fn shows(&mut self, sign: &Sign) -> bool {
        match sign {
            Sign::Field { name, value, .. } => self.answer(name).as_ref() == Some(value),
            Sign::Certificate { der, .. } => {
                let shown = self.greeting.take().and_then(|greeting| greeting.certificate().ok());
                shown.as_ref() == Some(der)
            }
        }
    }

    fn connected(&mut self) -> IoResult<&mut TcpStream> {
        if self.stream.is_none() {
            self.stream = Some(self.connect(self.proxy)?);
        }
        self.stream.as_mut().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    fn connect(&self, proxy: SocketAddr) -> IoResult<TcpStream> {
        let stream = match &self.place {
            None => TcpStream::connect_timeout(&proxy, PATIENCE)?,
            Some(place) => {
                let connect = || Ok(TcpStream::connect_timeout(&proxy, PATIENCE)?);
                place.enter(connect).map_err(Error::other)?
            }
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Reads the answer and returns the value of a field.
    fn answer(&mut self, name: &str) -> Option<String> {
        let read = read(self.stream.as_mut()?, name);
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

fn read(stream: &mut TcpStream, name: &str) -> IoResult<Answer> {
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
            return Ok(Answer { value: field(head, name).map(str::to_owned), closes });
        }
    }
}

/// The value of a header field.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}
