//! The serving side of a hand-over, beside successors that fail at each step.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use proxy_config::set::RootHash;
use supervisor::{Intensity, Running, Strategy};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::limits::Limits;
use crate::listen::socket::Bind;
use crate::metrics::Metrics;
use crate::watchdog::{STALLED_AFTER, Watchdog};

const SOON: Duration = Duration::from_secs(5);

/// How far a successor comes before it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Connected,
    Claimed,
    Offered,
    Ready,
    Turned,
    Serving,
    Released,
}

/// A process that serves one address: each connection gets a `!`.
struct Rig {
    args: Args,
    address: SocketAddr,
    running: Running,
    worker: JoinHandle<()>,
    folder: TempDir,
    _in_force: watch::Sender<Arc<InForce>>,
}

impl Rig {
    async fn start() -> Self {
        let heart = Watchdog::start(["listen".to_owned()], STALLED_AFTER).unwrap().heart("listen");
        let turns = Turns::new(Turn::Ours);
        let served = (Arc::default(), Metrics::new(1));
        let listen = Arc::new(Listen::new(1, &Limits::new(100), served, heart, turns.clone()).unwrap());
        let (folder, in_force) =
            (tempfile::tempdir().unwrap(), watch::Sender::new(Arc::<InForce>::default()));
        let port = || Arc::new(AdminSocket::new(TcpListener::bind("127.0.0.11:0").unwrap()).unwrap());
        let args = Args {
            folder: folder.path().to_owned(),
            instance: "first".into(),
            listen: listen.clone(),
            admin: port(),
            status: port(),
            in_force: in_force.subscribe(),
            names: Names::default(),
            turns,
            myself: Address::new(),
        };
        let giver = supervisor::worker("giver", &args.myself.clone(), {
            let args = args.clone();
            move || (Giver, args.clone())
        });
        let limit = Intensity::new(5, SOON);
        let tree = supervisor::branch("proxy", Strategy::OneForOne, limit, vec![listen.listeners(), giver]);
        let running = supervisor::run(tree).await.unwrap();
        let address = port().address();
        listen.want(&BTreeSet::from([Bind::tcp(address)]));
        listen.report().wait_for(|report| report.len() == 1).await.unwrap();
        let worker = greet(&listen);
        Self { args, address, running, worker, folder, _in_force: in_force }
    }

    async fn turn_is(&self, turn: Turn) {
        let mut now = self.args.turns.follow();
        timeout(SOON, now.wait_for(|now| *now == turn)).await.expect("in time").unwrap();
    }

    /// A successor that comes so far.
    async fn successor(&self, last: Step) -> (Channel, Option<TcpListener>) {
        let stream = UnixStream::connect(door(self.folder.path())).await.unwrap();
        let mut channel = Channel::over(stream).unwrap();
        let mut socket = None;
        for step in [Step::Claimed, Step::Offered, Step::Ready, Step::Turned, Step::Serving, Step::Released] {
            if step > last {
                break;
            }
            match step {
                Step::Connected => {}
                Step::Claimed => channel.send(&claim(VERSION, "second")).await.unwrap(),
                Step::Offered => socket = take_offer(&mut channel, self.address).await,
                Step::Ready => channel.send(&FromSuccessor::Ready(self.root())).await.unwrap(),
                Step::Turned => {
                    let said = channel.receive(SOON).await.unwrap();
                    assert!(matches!(said, FromPredecessor::Turn(ref sessions) if sessions.is_empty()));
                }
                Step::Serving => channel.send(&FromSuccessor::Serving).await.unwrap(),
                Step::Released => {
                    assert!(matches!(channel.receive(SOON).await.unwrap(), FromPredecessor::Released));
                }
            }
        }
        (channel, socket)
    }

    fn root(&self) -> RootHash {
        self.args.in_force.borrow().units.root()
    }

    async fn stop(self) {
        self.running.stop().await.unwrap();
        self.worker.abort();
    }
}

fn claim(version: u32, instance: &str) -> FromSuccessor {
    FromSuccessor::Claim { versions: vec![version], instance: instance.to_owned() }
}

async fn take_offer(channel: &mut Channel, address: SocketAddr) -> Option<TcpListener> {
    let FromPredecessor::Offer(sockets) = channel.receive(SOON).await.unwrap() else {
        panic!("it offers");
    };
    assert_eq!(sockets, [Place::Admin, Place::Status, Place::Tcp(address)]);
    let file = channel.receive_files(3, SOON).await.unwrap().pop().unwrap();
    assert!(matches!(channel.receive(SOON).await.unwrap(), FromPredecessor::Hold(None)));
    Some(file.into())
}

/// What a worker is here: it says something to whoever comes.
fn greet(listen: &Listen) -> JoinHandle<()> {
    let seat = listen.seats().iter().next().unwrap().clone();
    let mut inbox = seat.take(tokio::runtime::Handle::current().metrics());
    tokio::spawn(async move {
        while let Some(handed) = inbox.recv().await {
            let mut stream = TcpStream::from_std(handed.stream).unwrap();
            stream.write_all(b"!").await.unwrap();
        }
    })
}

/// Whether a client is served.
async fn is_served(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut said = Vec::new();
    matches!(timeout(SOON, stream.read_to_end(&mut said)).await, Ok(Ok(1)))
}

#[tokio::test]
async fn a_successor_that_dies_at_any_step_changes_nothing_for_clients() {
    let rig = Rig::start().await;
    let (stop, address) = (Arc::new(AtomicBool::new(false)), rig.address);
    let clients = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut served = 0;
            while !stop.load(Relaxed) {
                assert!(is_served(address).await, "after {served} that were served");
                served += 1;
            }
            served
        }
    });
    use Step::{Claimed, Connected, Offered, Ready, Released, Serving, Turned};
    for last in [Connected, Claimed, Offered, Ready, Turned, Serving, Released] {
        let (channel, socket) = rig.successor(last).await;
        if last >= Turned {
            rig.turn_is(Turn::Lent).await;
        }
        drop((channel, socket));
        rig.turn_is(Turn::Ours).await;
        assert!(is_served(address).await, "{last:?}");
        // The next one is let in once the conversation with this one has ended.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Relaxed);
    assert!(clients.await.unwrap() > 7);
    rig.stop().await;
}

#[tokio::test]
async fn a_successor_that_has_the_turn_gets_what_is_queued_and_what_comes() {
    let rig = Rig::start().await;
    let (mut channel, socket) = rig.successor(Step::Turned).await;
    let queued = TcpStream::connect(rig.address).await.expect("the socket is open");
    channel.send(&FromSuccessor::Serving).await.unwrap();
    assert!(matches!(channel.receive(SOON).await.unwrap(), FromPredecessor::Released));
    let drain = rig.args.listen.drain().clone();
    // What a SIGTERM begins with.
    drain.begin();
    rig.turn_is(Turn::Gone).await;
    rig.args.listen.shut();
    let socket = socket.unwrap();
    socket.set_nonblocking(false).unwrap();
    let accepted = tokio::task::spawn_blocking(move || socket.accept().map(|(_, peer)| (socket, peer)));
    let (_socket, peer) = timeout(SOON, accepted).await.unwrap().unwrap().unwrap();
    assert_eq!(peer, queued.local_addr().unwrap());
    TcpStream::connect(rig.address).await.expect("the successor's socket is open");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_hangs_is_given_up() {
    let rig = Rig::start().await;
    let (_channel, _socket) = rig.successor(Step::Turned).await;
    rig.turn_is(Turn::Lent).await;
    let mut now = rig.args.turns.follow();
    let back = timeout(2 * ANSWER_WITHIN, now.wait_for(|now| *now == Turn::Ours)).await;
    back.expect("the turn comes back").unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn one_successor_at_a_time_and_none_of_another_version() {
    let rig = Rig::start().await;
    let (first, _socket) = rig.successor(Step::Offered).await;
    let (mut second, _) = rig.successor(Step::Claimed).await;
    second.receive::<FromPredecessor>(SOON).await.expect_err("it is busy");
    drop(first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (mut other, _) = rig.successor(Step::Connected).await;
    other.send(&claim(VERSION + 1, "second")).await.unwrap();
    let said = other.receive(SOON).await.unwrap();
    assert!(matches!(said, FromPredecessor::OtherVersion(VERSION)), "{said:?}");
    rig.stop().await;
}

#[tokio::test]
async fn who_comes_to_its_own_door_is_told_so_and_the_next_one_is_let_in() {
    let rig = Rig::start().await;
    let (mut own, _) = rig.successor(Step::Connected).await;
    own.send(&claim(VERSION, "first")).await.unwrap();
    let said = own.receive(SOON).await.unwrap();
    assert!(matches!(said, FromPredecessor::Itself), "{said:?}");
    own.receive::<FromPredecessor>(SOON).await.expect_err("that was all");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (_channel, socket) = rig.successor(Step::Offered).await;
    assert!(socket.is_some());
    rig.turn_is(Turn::Ours).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_successor_that_holds_something_else_is_told_again() {
    let rig = Rig::start().await;
    let (mut channel, _socket) = rig.successor(Step::Offered).await;
    let other = RootHash(proxy_config::unit::ContentHash([7; 32]));
    channel.send(&FromSuccessor::Ready(other)).await.unwrap();
    let said = channel.receive(SOON).await.unwrap();
    assert!(matches!(said, FromPredecessor::Hold(None)), "{said:?}");
    channel.send(&FromSuccessor::Ready(rig.root())).await.unwrap();
    let said = channel.receive(SOON).await.unwrap();
    assert!(matches!(said, FromPredecessor::Turn(_)), "{said:?}");
    drop(channel);
    rig.stop().await;
}

#[tokio::test]
async fn the_door_is_for_this_user_alone() {
    let rig = Rig::start().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(rig.folder.path()), mode(&door(rig.folder.path()))), (0o700, 0o600));
    let names: Vec<_> =
        fs::read_dir(rig.folder.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(names, ["handover.sock"]);
    rig.stop().await;
}

#[test]
fn endpoints_that_a_controller_gave_long_ago_are_used_by_the_one_that_comes_too() {
    let day = Duration::from_secs(24 * 60 * 60);
    let (before, now) = (UNIX_EPOCH + day, UNIX_EPOCH + day * 2);
    let confirmed = |source, confirmed| {
        let in_force = InForce { source, confirmed, ..InForce::default() };
        held(&in_force, &Known::default(), now).map(|held| held.confirmed)
    };
    assert_eq!(confirmed(Source::Controller, Some(before)), Some(day.as_secs() * 2));
    assert_eq!(confirmed(Source::Disk, Some(before)), Some(day.as_secs()), "no younger than it is");
    assert_eq!(confirmed(Source::Nothing, None), None);
}
