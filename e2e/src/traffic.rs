//! Requests as clients of the edge send them, from a machine of the cluster's network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use cluster::namespace::Namespace;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Answer {
    /// What the backend says of the request that reached it (the echo backend's JSON), null if it says nothing.
    pub fn echo(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The pod that answered, less what makes its name unique: the name of its Deployment. Empty if none did.
    pub fn deployment(&self) -> String {
        let echo = self.echo();
        let pod = echo["pod"].as_str().unwrap_or_default();
        pod.rsplitn(3, '-').nth(2).unwrap_or_default().to_owned()
    }
}

/// A client at a place in the network.
#[derive(Debug, Clone)]
pub struct Client {
    namespace: Namespace,
}

impl Client {
    /// A client in this namespace.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace }
    }

    /// `GET http://<host><path>`, sent to `to` on a connection of its own.
    pub async fn get(&self, to: SocketAddr, host: &str, path: &str) -> Result<Answer> {
        let mut connection = self.connect(to).await?;
        exchange(&mut connection, request(host, path)?).await
    }

    /// The same with one more header field.
    pub async fn get_with(
        &self,
        to: SocketAddr,
        host: &str,
        path: &str,
        (name, value): (&str, &str),
    ) -> Result<Answer> {
        let mut connection = self.connect(to).await?;
        let mut request = request(host, path)?;
        request.headers_mut().insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        exchange(&mut connection, request).await
    }

    /// Sends requests steadily over `connections` connections that are kept open, each one as soon as `pause` after
    /// the answer to the one before, until it is stopped.
    pub fn load(&self, to: SocketAddr, host: &str, path: &str, connections: usize, pause: Duration) -> Load {
        self.load_by(Manner::Kept, (to, host, path), connections, pause)
    }

    /// The same of so many clients, with connections as this says.
    pub fn load_by(
        &self,
        manner: Manner,
        (to, host, path): (SocketAddr, &str, &str),
        connections: usize,
        pause: Duration,
    ) -> Load {
        let stop = CancellationToken::new();
        let (host, path) = (host.to_owned(), path.to_owned());
        let target = Arc::new(Target { client: self.clone(), manner, to, host, path });
        let mut workers = JoinSet::new();
        for _ in 0..connections {
            workers.spawn(steady(target.clone(), pause, stop.clone()));
        }
        let total = tokio::spawn(async move {
            let mut total = Tally::default();
            while let Some(tally) = workers.join_next().await {
                total.add(tally.unwrap_or_default());
            }
            total
        });
        Load { stop, total }
    }

    /// The same by HTTP/2 (prior knowledge).
    pub async fn get_http2(&self, to: SocketAddr, host: &str, path: &str) -> Result<Answer> {
        let stream = self.namespace.connect(to, PATIENCE).await?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.context("begin with HTTP/2")?;
        tokio::spawn(connection);
        let request = Request::builder().uri(format!("http://{host}{path}")).body(Empty::<Bytes>::new())?;
        answer(sender.send_request(request)).await
    }

    async fn connect(&self, to: SocketAddr) -> Result<SendRequest<Empty<Bytes>>> {
        let stream = self.namespace.connect(to, PATIENCE).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// How the clients of a [`Load`] use their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// HTTP/1.1, each kept open for as long as the server likes.
    Kept,
    /// HTTP/1.1, a new one for each request.
    Fresh,
    /// HTTP/2, a new one for each request.
    FreshHttp2,
    /// HTTP/1.1, each kept open for so long, which is longer than the pause between requests: that it ends before is a
    /// failure.
    Held(Duration),
}

/// What came of all requests of a [`Load`].
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Answers, by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Answers, by the Deployment whose pod gave them.
    pub deployments: BTreeMap<String, u64>,
    /// Requests without an answer, and connections that could not be made.
    pub failures: Vec<String>,
}

impl Tally {
    /// Answers with this status.
    pub fn with_status(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or_default()
    }

    /// Everything that was not a 200, in words; empty when all is well.
    pub fn faults(&self) -> Vec<String> {
        let answers = self.statuses.iter().filter(|(status, _)| **status != 200);
        let mut faults: Vec<_> = answers.map(|(status, count)| format!("{count} times {status}")).collect();
        faults.extend(self.failures.iter().cloned());
        faults
    }

    fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (deployment, count) in other.deployments {
            *self.deployments.entry(deployment).or_default() += count;
        }
        self.failures.extend(other.failures);
    }
}

/// Requests that are being sent.
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    total: JoinHandle<Tally>,
}

impl Load {
    /// Stops, and tells what came of it. The requests under way are answered first.
    pub async fn stop(self) -> Result<Tally> {
        self.stop.cancel();
        Ok(self.total.await?)
    }
}

struct Target {
    client: Client,
    manner: Manner,
    to: SocketAddr,
    host: String,
    path: String,
}

/// A connection, and since when it is open.
struct Open {
    connection: SendRequest<Empty<Bytes>>,
    since: Instant,
}

async fn steady(target: Arc<Target>, pause: Duration, stop: CancellationToken) -> Tally {
    let mut tally = Tally::default();
    let mut open = None;
    let started = Instant::now();
    while !stop.is_cancelled() {
        let Target { client, to, host, path, .. } = &*target;
        let answered = match target.manner {
            Manner::Kept => one(&target, &mut open).await,
            Manner::Held(time) => held(&target, &mut open, time).await,
            Manner::Fresh => client.get(*to, host, path).await,
            Manner::FreshHttp2 => client.get_http2(*to, host, path).await,
        };
        match answered {
            Ok(answer) => {
                *tally.statuses.entry(answer.status.as_u16()).or_default() += 1;
                *tally.deployments.entry(answer.deployment()).or_default() += 1;
            }
            Err(error) => {
                open = None;
                tally.failures.push(format!("after {:.2?}: {error:#}", started.elapsed()));
            }
        }
        sleep(pause).await;
    }
    tally
}

/// One request, on the connection that is open or else on a new one: a server may close between two requests.
async fn one(target: &Target, open: &mut Option<Open>) -> Result<Answer> {
    let usable = match open {
        Some(Open { connection, .. }) => connection.ready().await.is_ok(),
        None => false,
    };
    if !usable {
        *open = None;
    }
    next(target, open).await
}

/// One request, on the connection that is open unless its time is over.
async fn held(target: &Target, open: &mut Option<Open>, time: Duration) -> Result<Answer> {
    if open.as_ref().is_some_and(|open| open.since.elapsed() >= time) {
        *open = None;
    }
    let since = open.as_ref().map(|open| open.since);
    let answer = next(target, open).await;
    answer.with_context(|| {
        format!("on a connection that was opened {:?} ago", since.map(|since| since.elapsed()))
    })
}

/// One request, on the connection that is open or else on a new one.
async fn next(target: &Target, open: &mut Option<Open>) -> Result<Answer> {
    if open.is_none() {
        let connection = target.client.connect(target.to).await?;
        *open = Some(Open { connection, since: Instant::now() });
    }
    let Open { connection, .. } = open.as_mut().context("a connection was opened")?;
    exchange(connection, request(&target.host, &target.path)?).await
}

fn request(host: &str, path: &str) -> Result<Request<Empty<Bytes>>> {
    Ok(Request::builder().method(Method::GET).uri(path).header(http::header::HOST, host).body(Empty::new())?)
}

async fn exchange(
    connection: &mut SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Result<Answer> {
    answer(connection.send_request(request)).await
}

/// The answer in full.
async fn answer(response: impl Future<Output = hyper::Result<http::Response<Incoming>>>) -> Result<Answer> {
    let answer = async {
        let response = response.await.context("send a request")?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("read an answer")?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        anyhow::Ok(Answer { status: head.status, headers: head.headers, body })
    };
    timeout(PATIENCE, answer).await.with_context(|| format!("no answer within {PATIENCE:?}"))?
}
