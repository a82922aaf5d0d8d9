//! A hand-over: another process takes this one's place, and no client notices.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::Method;
use proxy::handover::channel::{Channel, ChannelError, FromPredecessor, FromSuccessor, Place, door};
use proxy::handover::turn::Turn;
use proxy::listen::drain::{DrainSettings, Drained};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::http1::Client;
use crate::http2;
use crate::origin::Origin;
use crate::rig::{PATIENCE, Rig, Site};

const DRAIN: DrainSettings =
    DrainSettings { accept_for: Duration::from_secs(10), finish_within: Duration::from_secs(10) };

/// Clients that open a connection for each request, or keep theirs for as long as it lasts.
struct Load {
    tasks: JoinSet<Result<(), String>>,
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
}

impl Load {
    fn on(rig: &Arc<Rig>) -> Self {
        let (stop, requests) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        for number in 0..8 {
            let (rig, stop, requests) = (rig.clone(), stop.clone(), requests.clone());
            tasks.spawn(async move {
                while !stop.load(Relaxed) {
                    match number % 4 {
                        0 | 1 => fresh(&rig).await?,
                        2 => kept(&rig, &stop).await?,
                        _ => fresh2(&rig).await?,
                    }
                    requests.fetch_add(1, Relaxed);
                }
                Ok(())
            });
        }
        Self { tasks, stop, requests }
    }

    async fn stop(mut self) -> u64 {
        self.stop.store(true, Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
        self.requests.load(Relaxed)
    }
}

async fn fresh(rig: &Rig) -> Result<(), String> {
    let mut client = Client::connect(rig.http).await.map_err(|error| format!("fresh: {error}"))?;
    let answer = client.get("/quiet").await.ok_or("fresh: no answer")?;
    if answer.is_ok() { Ok(()) } else { Err(answer.head) }
}

/// Requests on one connection, until an answer says that it is the last.
async fn kept(rig: &Rig, stop: &AtomicBool) -> Result<(), String> {
    let mut client = Client::connect(rig.http).await.map_err(|error| format!("kept: {error}"))?;
    let mut is_first = true;
    while !stop.load(Relaxed) {
        let Some(answer) = client.get("/quiet").await else {
            // It may end while nothing is under way (RFC 9112 section 9.3.1), but not before anything was.
            return if is_first { Err("kept: no answer".to_owned()) } else { Ok(()) };
        };
        is_first = false;
        if answer.field("connection") == Some("close") {
            break;
        }
    }
    Ok(())
}

async fn fresh2(rig: &Rig) -> Result<(), String> {
    let stream = TcpStream::connect(rig.http).await.map_err(|error| format!("fresh2: {error}"))?;
    let client = http2::Client::over(stream).await;
    let (response, _) = client.send(http2::request(Method::GET, "/quiet"), true).await;
    let answer = http2::answer(response).await.map_err(|error| format!("fresh2: {error}"))?;
    if answer.head.status() == 200 { Ok(()) } else { Err(answer.head.status().to_string()) }
}

async fn serving() -> (Arc<Rig>, Origin) {
    let origin = Origin::start().await;
    let rig = Rig::first(DRAIN).await;
    rig.hold(&Site::new(&rig, origin.address)).await;
    (Arc::new(rig), origin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_processes_one_after_the_other_lose_no_request_and_refuse_no_connection() {
    let (mut rig, _origin) = serving().await;
    let load = Load::on(&rig);
    for _ in 0..20 {
        let next = Arc::new(rig.successor(DRAIN).await);
        // As the kubelet does: the one before is told to end once the next one is ready.
        let drained = rig.proxy.drain().await.unwrap();
        assert_eq!(drained, Drained { cut: 0 });
        rig = next;
    }
    let requests = load.stop().await;
    assert!(requests > 200, "{requests} requests are no load");
    assert_eq!(rig.proxy.drain().await.unwrap(), Drained { cut: 0 });
    TcpStream::connect(rig.http).await.expect_err("the last one has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_is_stopped_soon_leaves_its_sockets_to_the_one_before() {
    let (rig, _origin) = serving().await;
    let next = rig.successor(DRAIN).await;
    next.proxy.stop().await.unwrap();
    let mut turn = rig.proxy.turn();
    timeout(PATIENCE, turn.wait_for(|turn| *turn == Turn::Ours)).await.expect("it goes on").unwrap();
    timeout(PATIENCE, fresh(&rig)).await.expect("in time").unwrap();
    assert!(TcpStream::connect(rig.proxy.admin_address()).await.is_ok(), "controllers reach it too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fails_late_finds_all_ports_free_though_the_one_before_still_drains() {
    let (rig, _origin) = serving().await;
    let mut slow = TcpStream::connect(rig.http).await.unwrap();
    slow.write_all(b"GET /quiet HTTP/1.1\r\n").await.unwrap();
    let mut controller = TcpStream::connect(rig.proxy.admin_address()).await.unwrap();
    let next = rig.successor(DRAIN).await;
    let drained = tokio::spawn({
        let rig = rig.clone();
        async move { rig.proxy.drain().await }
    });
    let mut turn = rig.proxy.turn();
    timeout(PATIENCE, turn.wait_for(|turn| *turn == Turn::Gone)).await.unwrap().unwrap();
    let heard = timeout(Duration::from_secs(3), controller.read(&mut [0])).await;
    assert_eq!(heard.expect("it is sent to the one that serves").unwrap(), 0);
    next.proxy.stop().await.unwrap();
    for address in [rig.proxy.admin_address(), rig.proxy.status_address(), rig.http] {
        let bound = async {
            while TcpListener::bind(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, bound).await.unwrap_or_else(|_| panic!("{address} is free"));
    }
    assert!(!drained.is_finished(), "the request that is under way has its time");
}

/// How far a process comes with handing over before it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Connected,
    Offered,
    Held,
    Ready,
    Turned,
    Serving,
}

/// A process that serves nothing, but holds the socket of clients: it hands over so far.
async fn predecessor(
    door: UnixListener,
    socket: std::net::TcpListener,
    last: Step,
) -> Result<(), ChannelError> {
    let mut channel = Channel::over(door.accept().await?.0)?;
    drop(door);
    if last >= Step::Offered {
        channel.receive::<FromSuccessor>(PATIENCE).await?;
        let sockets = vec![Place::Tcp(socket.local_addr()?)];
        channel.send(&FromPredecessor::Offer(sockets)).await?;
        channel.send_files(&[socket.as_fd()]).await?;
    }
    if last >= Step::Held {
        channel.send(&FromPredecessor::Hold(None)).await?;
    }
    if last >= Step::Ready {
        let said = channel.receive::<FromSuccessor>(PATIENCE).await?;
        assert!(matches!(said, FromSuccessor::Ready(_)), "{said:?}");
    }
    if last >= Step::Turned {
        channel.send(&FromPredecessor::Turn(Vec::new())).await?;
    }
    if last >= Step::Serving {
        let said = channel.receive::<FromSuccessor>(PATIENCE).await?;
        assert!(matches!(said, FromSuccessor::Serving), "{said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_successor_serves_whenever_the_process_before_it_dies() {
    use Step::{Connected, Held, Offered, Ready, Serving, Turned};
    for last in [Connected, Offered, Held, Ready, Turned, Serving] {
        let (rig, _origin) = serving().await;
        // Its last good configuration stays.
        rig.proxy.stop().await.unwrap();
        let socket = std::net::TcpListener::bind(rig.http).unwrap();
        socket.set_nonblocking(true).unwrap();
        let path = door(rig.folder());
        std::fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        // Nobody accepts it yet, and nothing may be lost of it from when the socket is handed over.
        let queued = if last >= Offered { Some(Client::connect(rig.http).await.unwrap()) } else { None };
        let (old, next) = tokio::join!(predecessor(listener, socket, last), rig.successor(DRAIN));
        old.unwrap();
        if let Some(mut queued) = queued {
            assert!(queued.get("/quiet").await.expect("it is served").is_ok(), "{last:?}");
        }
        let served = async { while fresh(&next).await.is_err() {} };
        timeout(PATIENCE, served).await.unwrap_or_else(|_| panic!("{last:?}: it serves"));
        next.proxy.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_proxy_that_has_handed_over_says_that_it_is_not_ready_and_writes_no_journal() {
    let (rig, origin) = serving().await;
    let next = rig.successor(DRAIN).await;
    let mut turn = rig.proxy.turn();
    timeout(PATIENCE, turn.wait_for(|turn| *turn == Turn::Lent)).await.unwrap().unwrap();
    assert_eq!(probe(&rig).await, "another proxy serves this node\n");
    assert_eq!(probe(&next).await, "ready\n");
    let files =
        || std::fs::read_dir(rig.folder()).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
    let before: u64 = files().sum();
    let mut site = Site::new(&rig, origin.address);
    site.generation = Some(1);
    rig.proxy.hold(site.units()).await.unwrap();
    assert_eq!(files().sum::<u64>(), before, "the journal is the successor's");
    site.generation = Some(2);
    next.proxy.hold(site.units()).await.unwrap();
    assert_ne!(files().sum::<u64>(), before);
}

/// What a proxy says of itself on its own socket, and nowhere else.
async fn probe(rig: &Rig) -> String {
    let mut stream = UnixStream::connect(&rig.status).await.unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}
