//! Datagrams as clients of the edge send them, and servers that say who sent.
//!
//! Owns both ends of a conversation by UDP; refuses to know what is in between.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use cluster::Machine;
use cluster::namespace::Namespace;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How long a client waits for an answer before it takes its datagram, or the answer, for lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest that is sent here.
const LONGEST: usize = 1024;

/// A server at this port of a machine that answers each datagram with its own name, whom it came from, and what it says;
/// until it is dropped.
pub fn serve(machine: &Machine, port: u16) -> Result<AbortOnDropHandle<()>> {
    let socket = bind(&machine.namespace, (Ipv4Addr::UNSPECIFIED, port).into())?;
    let name = machine.name.clone();
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        let mut datagram = [0; LONGEST];
        loop {
            if let Ok((length, peer)) = socket.recv_from(&mut datagram).await {
                let text = String::from_utf8_lossy(&datagram[..length]);
                let _ = socket.send_to(format!("{name}/{peer} {text}").as_bytes(), peer).await;
            }
        }
    })))
}

/// Clients that are sending.
#[derive(Debug)]
pub struct Clients {
    stop: CancellationToken,
    clients: Vec<AbortOnDropHandle<Result<Heard>>>,
}

/// What one client has heard.
#[derive(Debug, Default)]
pub struct Heard {
    /// How many answers.
    pub answers: usize,
    /// What was not answered, and when that was.
    pub lost: Vec<String>,
    /// Which servers answered, and by which address they knew the client: one, if it had one session all the time.
    pub sessions: BTreeSet<String>,
}

impl Clients {
    /// So many of them in this namespace, each with a port of its own, that send to `to`, each time `pause` after the
    /// last answer.
    pub fn start(namespace: &Namespace, to: SocketAddr, clients: usize, pause: Duration) -> Result<Self> {
        let stop = CancellationToken::new();
        let mut all = Vec::new();
        for _ in 0..clients {
            let socket = bind(namespace, (Ipv4Addr::UNSPECIFIED, 0).into())?;
            all.push(AbortOnDropHandle::new(tokio::spawn(converse(socket, to, pause, stop.clone()))));
        }
        Ok(Self { stop, clients: all })
    }

    /// Stops them, and tells what each has heard.
    pub async fn stop(self) -> Result<Vec<Heard>> {
        self.stop.cancel();
        let mut all = Vec::new();
        for client in self.clients {
            all.push(client.await??);
        }
        Ok(all)
    }
}

async fn converse(
    socket: UdpSocket,
    to: SocketAddr,
    pause: Duration,
    stop: CancellationToken,
) -> Result<Heard> {
    socket.connect(to).await?;
    let (started, mut heard) = (Instant::now(), Heard::default());
    for number in 0_u64.. {
        if stop.is_cancelled() {
            break;
        }
        socket.send(number.to_string().as_bytes()).await?;
        match timeout(PATIENCE, answer_to(&socket, number)).await {
            Ok(session) => {
                heard.answers += 1;
                heard.sessions.insert(session?);
            }
            Err(_) => heard.lost.push(format!("{number}, after {:.2?}", started.elapsed())),
        }
        sleep(pause).await;
    }
    Ok(heard)
}

/// Who answers to this number; answers to others, which come late, are passed over.
async fn answer_to(socket: &UdpSocket, number: u64) -> Result<String> {
    let mut answer = [0; LONGEST];
    loop {
        let length = socket.recv(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer[..length]);
        if let Some((session, said)) = text.split_once(' ')
            && said == number.to_string()
        {
            return Ok(session.to_owned());
        }
    }
}

fn bind(namespace: &Namespace, on: SocketAddr) -> Result<UdpSocket> {
    let socket = namespace.enter(|| Ok(std::net::UdpSocket::bind(on)?))?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket)?)
}
