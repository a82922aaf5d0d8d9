//! The store as an actor, under paused time: what it remembers, waits for and survives.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::UNIX_EPOCH;

use proxy_config::route::PathMatch;
use proxy_config::unit::EncodedUnit;
use proxy_config::wire::{Version, WIRE_VERSION};
use supervisor::{Intensity, Running, Strategy, branch, worker};

use super::in_force::ENDPOINTS_VALID_FOR;
use super::*;
use crate::last_good::{Change, LastGood};
use crate::table::compile::tests::world::{backend, endpoints, listener, route, rule};

const NODE: [u8; 4] = [127, 0, 0, 2];
const PATIENCE: Duration = Duration::from_secs(5);

/// A listener on a port, with a route to one endpoint.
fn units(port: u16) -> UnitSet {
    let rules = vec![rule(PathMatch::Prefix("/".into()), Some("cart"))];
    let web = listener("web", port, None);
    let all = [web, route("cart", 0, &["web"], &[], rules), backend("cart"), endpoints("cart", "1", &[1])];
    all.iter().map(|(id, unit)| EncodedUnit::new(id.clone(), unit)).collect()
}

/// A tree with nothing but the store.
struct Rig {
    args: Args,
    report: watch::Sender<BindReport>,
    wanted: Arc<Mutex<Binds>>,
    panics: Arc<AtomicBool>,
    running: Running,
}

impl Rig {
    async fn start(state_dir: Option<PathBuf>) -> Self {
        let report = watch::Sender::default();
        let (wanted, panics) = (Arc::<Mutex<Binds>>::default(), Arc::<AtomicBool>::default());
        let want: Want = Arc::new({
            let (wanted, panics) = (wanted.clone(), panics.clone());
            move |binds| {
                assert!(!panics.swap(false, SeqCst), "asked to");
                *wanted.lock().unwrap() = binds.clone();
            }
        });
        let args = Args {
            identity: "edge-1".into(),
            node_address: NODE.into(),
            state_dir,
            table: Arc::default(),
            registry: Arc::default(),
            metrics: Metrics::new(1),
            in_force: watch::Sender::default(),
            want,
            lost: watch::Sender::default(),
            report: report.subscribe(),
            names: Names::default(),
            turns: crate::handover::turn::Turns::new(crate::handover::turn::Turn::Ours),
            myself: Address::new(),
        };
        let again = args.clone();
        let store = worker("config-store", &args.myself, move || (ConfigStore, again.clone()));
        let limit = Intensity::new(3, Duration::from_secs(60));
        let running =
            supervisor::run(branch("proxy", Strategy::OneForOne, limit, vec![store])).await.unwrap();
        Self { args, report, wanted, panics, running }
    }

    fn push(&self, units: &UnitSet, generation: u64) -> Push {
        let in_force = self.args.in_force.borrow().clone();
        let (put, delete) = units.diff(&in_force.units);
        Push {
            wire: WIRE_VERSION,
            proxy: "edge-1".into(),
            version: Version { term: 1, generation },
            base: in_force.units.root(),
            root: units.root(),
            replace: Vec::new(),
            put,
            delete,
            keep: Vec::new(),
            traceparent: None,
        }
    }

    async fn ask(&self, push: Push) -> Result<Reply, supervisor::AskError> {
        self.args.myself.ask(PATIENCE, |reply| Msg::Apply(Box::new(push), reply)).await
    }

    /// How many endpoints the route's backend has.
    fn endpoints(&self) -> usize {
        let table = self.args.table.load();
        let port = table.port((NODE, 80).into()).expect("the port is served");
        let routed = port.route(&AnyRequest, None).expect("the route is served");
        let slot = *routed.rule().backends[0].target.as_ref().unwrap();
        table.backend(slot).expect("the backend is there").ready.len()
    }

    async fn stop(self) {
        self.running.stop().await.unwrap();
    }
}

struct AnyRequest;

impl crate::table::request::RequestView for AnyRequest {
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn host(&self) -> &[u8] {
        b"shop.example.com"
    }
    fn path(&self) -> &[u8] {
        b"/"
    }
    fn query(&self) -> &[u8] {
        b""
    }
    fn header(&self, _: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
        None
    }
}

/// A folder that remembers `units(80)` as they were confirmed so long ago.
fn remembered(age: Duration) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (mut last_good, _) = LastGood::open(folder.path()).unwrap();
    let at = SystemTime::now() - age;
    let version = Version { term: 1, generation: 5 };
    last_good.save(&units(80), &Change { version, at, put: &[], delete: &[] }).unwrap();
    folder
}

#[tokio::test(start_paused = true)]
async fn endpoints_from_disk_are_used_until_they_are_an_hour_old() {
    let folder = remembered(ENDPOINTS_VALID_FOR - Duration::from_secs(60));
    let rig = Rig::start(Some(folder.path().into())).await;
    assert_eq!(rig.endpoints(), 1);
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(rig.endpoints(), 1);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(rig.endpoints(), 0, "the route stays, without endpoints: 503");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_were_too_old_at_the_start_come_back_with_a_controllers_word() {
    let folder = remembered(ENDPOINTS_VALID_FOR + Duration::from_secs(1));
    let rig = Rig::start(Some(folder.path().into())).await;
    assert_eq!(rig.endpoints(), 0);
    let shown = rig.args.metrics.pushes.last_good.load(SeqCst);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((3600..3700).contains(&(now - shown)), "its age is shown: {}", now - shown);
    let reply = rig.ask(rig.push(&units(80), 6)).await.unwrap();
    assert!(matches!(reply, Reply::Ack(_)), "{reply:?}");
    assert_eq!(rig.endpoints(), 1);
    tokio::time::sleep(2 * ENDPOINTS_VALID_FOR).await;
    assert_eq!(rig.endpoints(), 1, "what a controller gave does not expire");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_were_too_old_on_disk_come_back_with_what_is_inherited() {
    for generation in [5, 6] {
        let folder = remembered(ENDPOINTS_VALID_FOR + Duration::from_secs(1));
        let rig = Rig::start(Some(folder.path().into())).await;
        assert_eq!(rig.endpoints(), 0);
        let version = Version { term: 1, generation };
        let before = Remembered { units: units(80), version, confirmed: SystemTime::now() };
        let inherit = |reply| Msg::Inherit(Box::new(before), Known::default(), reply);
        let reply = rig.args.myself.ask(PATIENCE, inherit).await.unwrap();
        assert!(matches!(reply, Reply::Ack(_)), "{reply:?}");
        assert_eq!(rig.endpoints(), 1, "generation {generation}");
        rig.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_configuration_stops_the_clock_of_its_endpoints() {
    let folder = remembered(ENDPOINTS_VALID_FOR - Duration::from_secs(60));
    let rig = Rig::start(Some(folder.path().into())).await;
    rig.ask(rig.push(&units(80), 6)).await.unwrap();
    tokio::time::sleep(ENDPOINTS_VALID_FOR).await;
    assert_eq!(rig.endpoints(), 1);
    drop(rig.running.stop().await);
    let known = LastGood::open(folder.path()).unwrap().1.unwrap();
    assert_eq!(known.version.generation, 6, "the confirmation is on disk");
    assert!(known.confirmed.elapsed().unwrap() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_the_outcome_of_its_binds() {
    let rig = Rig::start(None).await;
    let begun = tokio::time::Instant::now();
    let asked = rig.ask(rig.push(&units(80), 1));
    let told = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(*rig.wanted.lock().unwrap(), [Bind::tcp((NODE, 80).into())].into());
        let refused = BindState::Refused("permission denied".into());
        rig.report.send_modify(|report| drop(report.insert(Bind::tcp((NODE, 80).into()), refused)));
    };
    let (reply, ()) = tokio::join!(asked, told);
    let Ok(Reply::Ack(ack)) = reply else { panic!("{reply:?}") };
    assert_eq!(begun.elapsed(), Duration::from_millis(100));
    assert_eq!(ack.broken.len(), 1);
    assert!(ack.broken[0].reason.contains("permission denied"));
    // Bound in the end: the next answer says so.
    rig.report.send_modify(|report| drop(report.insert(Bind::tcp((NODE, 80).into()), BindState::Bound)));
    let mut in_force = rig.args.in_force.subscribe();
    in_force.wait_for(|in_force| in_force.broken.is_empty()).await.unwrap();
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_does_not_wait_for_ever() {
    let rig = Rig::start(None).await;
    let begun = tokio::time::Instant::now();
    let reply = rig.ask(rig.push(&units(80), 1)).await.unwrap();
    assert!(matches!(reply, Reply::Ack(_)));
    assert_eq!(begun.elapsed(), PUSH_ANSWERED_WITHIN);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_dies_comes_back_with_what_was_in_force() {
    let rig = Rig::start(None).await;
    rig.ask(rig.push(&units(80), 7)).await.unwrap();
    rig.panics.store(true, SeqCst);
    assert!(rig.ask(rig.push(&units(81), 8)).await.is_err(), "it died over this one");
    let is_back = || {
        let tree = rig.running.live.snapshot();
        let store = tree.at(&["config-store"]).unwrap();
        store.restarts == 1 && store.state == supervisor::ChildState::Running
    };
    while !is_back() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(rig.endpoints(), 1, "what was acknowledged is in force");
    let older = rig.ask(rig.push(&units(81), 6)).await.unwrap();
    assert!(matches!(older, Reply::Nack(nack) if nack.reason == NackReason::Stale));
    let newer = rig.ask(rig.push(&units(81), 8)).await.unwrap();
    assert!(matches!(newer, Reply::Ack(_)));
    assert_eq!(*rig.wanted.lock().unwrap(), [Bind::tcp((NODE, 81).into())].into());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn tables_and_endpoints_that_nobody_uses_go_within_a_second() {
    let rig = Rig::start(None).await;
    rig.ask(rig.push(&units(80), 1)).await.unwrap();
    let first = Arc::downgrade(&rig.args.table.load_full());
    assert_eq!(rig.args.registry.endpoints(), 1);
    rig.ask(rig.push(&UnitSet::default(), 2)).await.unwrap();
    tokio::time::sleep(TIDY_EVERY + Duration::from_millis(10)).await;
    assert!(first.upgrade().is_none());
    tokio::time::sleep(TIDY_EVERY).await;
    assert_eq!(rig.args.registry.endpoints(), 0);
    rig.stop().await;
}
