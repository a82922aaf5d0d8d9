//! A fleet of replicas: each a tree with a lease leader and, behind its gate, a worker that acts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors_core::election::Timing;
use actors_core::election::record::Record;
use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use sandbox::{Faults, Options, Sandbox};
use supervisor::{
    Address, Backoff, Child, Gate, Intensity, Running, Shutdown, Strategy, branch, message_names, run, worker,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::lead::trust_bundle::CONFIG_MAP;
use crate::lease_leader::{Args, LeaseLeader, Standing, identity};
use crate::term::{Leadership, Term};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MS: Duration = Duration::from_millis(1);

/// How long one act takes, at most: what a writer asks its proof for.
const ACT: Duration = Duration::from_millis(700);

/// One act of a leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Act {
    pub(super) replica: usize,
    pub(super) term: u64,
    pub(super) from: Instant,
    pub(super) until: Instant,
}

type Acts = Arc<Mutex<Vec<Act>>>;

/// The clocks of a replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    pub(super) rate: f64,
    pub(super) ahead: SignedDuration,
}

impl Clocks {
    /// As those of the API server.
    pub(super) const TRUE: Self = Self { rate: 1.0, ahead: SignedDuration::ZERO };
}

struct Replica {
    name: String,
    identity: String,
    running: Option<Running>,
    leadership: watch::Sender<Option<Leadership>>,
    gate: watch::Sender<Gate>,
    highest_term: watch::Sender<u64>,
    acting: watch::Sender<usize>,
    overrun: watch::Sender<bool>,
    crash: Arc<AtomicBool>,
}

/// All replicas, and the API that they share.
pub(super) struct Fleet {
    sandbox: Sandbox,
    leases: Api<Lease>,
    replicas: Vec<Replica>,
    stop_time: Duration,
    pub(super) acts: Acts,
}

impl Fleet {
    pub(super) async fn start(replicas: usize) -> Self {
        Self::start_with(replicas, Duration::ZERO).await
    }

    /// Replicas whose acting worker takes this long to stop.
    pub(super) async fn start_with(replicas: usize, stop_time: Duration) -> Self {
        let sandbox = Sandbox::new(Options::default());
        let leases = Api::namespaced(sandbox.client(), "default");
        let mut fleet = Self { sandbox, leases, replicas: Vec::new(), stop_time, acts: Acts::default() };
        for _ in 0..replicas {
            fleet.add(Clocks::TRUE).await;
        }
        fleet
    }

    /// One more replica.
    pub(super) async fn add(&mut self, clocks: Clocks) -> usize {
        let index = self.replicas.len();
        let name = format!("replica-{index}");
        let client = self.sandbox.client_with(&name, Faults::none().clock_ahead(clocks.ahead));
        let mut replica = Replica {
            identity: identity(&name, "uid"),
            name,
            running: None,
            leadership: watch::Sender::new(None),
            gate: watch::Sender::new(Gate::Closed),
            highest_term: watch::Sender::new(0),
            acting: watch::Sender::new(0),
            overrun: watch::Sender::new(false),
            crash: Arc::default(),
        };
        let leads = self.lease_leader(&replica, client, Clock::at_rate(clocks.rate));
        let serve = self.serve(&replica, index);
        let limit = Intensity::new(5, 60 * SECOND);
        let tree = branch("replica", Strategy::RestForOne, limit, vec![leads, serve]);
        replica.running = Some(run(tree).await.unwrap());
        self.replicas.push(replica);
        index
    }

    fn lease_leader(&self, replica: &Replica, client: kube::Client, clock: Clock) -> Child {
        let (sandbox, name, crash) = (self.sandbox.clone(), replica.name.clone(), replica.crash.clone());
        let args = Args {
            client,
            namespace: "default".into(),
            lease: "portreeve".into(),
            identity: replica.identity.clone(),
            timing: Timing::default(),
            clock,
            wall: Arc::new(move || {
                assert!(!crash.swap(false, Ordering::Relaxed), "asked to crash");
                sandbox.clock_of(&name)
            }),
            leadership: replica.leadership.clone(),
            gate: replica.gate.clone(),
            standing: watch::Sender::new(Standing::default()),
            highest_term: replica.highest_term.subscribe(),
            acting: replica.acting.subscribe(),
            overrun: replica.overrun.clone(),
        };
        worker("lease-leader", &Address::new(), move || (LeaseLeader, args.clone()))
            .backoff(Backoff { jitter: 0.0, ..Backoff::default() })
    }

    fn serve(&self, replica: &Replica, index: usize) -> Child {
        let leadership = replica.leadership.subscribe();
        let acts = self.acts.clone();
        let stop_time = self.stop_time;
        let writer = worker("writer", &Address::new(), move || {
            (Writer { replica: index, acts: acts.clone(), stop_time }, leadership.clone())
        });
        let writer = writer.shutdown(Shutdown::Timeout(60 * SECOND));
        branch("serve", Strategy::OneForOne, Intensity::new(5, 60 * SECOND), vec![writer])
            .gated(replica.gate.subscribe())
            .counted(replica.acting.clone())
    }

    pub(super) fn identity(&self, replica: usize) -> &str {
        &self.replicas[replica].identity
    }

    pub(super) fn alive(&self) -> Vec<usize> {
        (0..self.replicas.len()).filter(|&i| self.replicas[i].running.is_some()).collect()
    }

    /// Which replicas act just now.
    pub(super) fn acting(&self) -> Vec<usize> {
        let acts = |replica: &Replica| {
            let proof = Term::current(&replica.leadership.subscribe());
            *replica.acting.borrow() > 0 && proof.is_some_and(|term| term.check(Duration::ZERO).is_ok())
        };
        self.alive().into_iter().filter(|&i| acts(&self.replicas[i])).collect()
    }

    pub(super) fn overran(&self, replica: usize) -> bool {
        *self.replicas[replica].overrun.borrow()
    }

    pub(super) async fn run_for(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Which replica leads, which must happen within this time.
    pub(super) async fn await_leader(&self, within: Duration) -> usize {
        let deadline = Instant::now() + within;
        while Instant::now() <= deadline {
            if let [leader] = self.acting()[..] {
                return leader;
            }
            tokio::time::sleep(10 * MS).await;
        }
        panic!("nobody leads within {within:?}");
    }

    /// What goes wrong for a replica from now on; its wall clock stays as it is.
    pub(super) fn faults(&self, replica: usize, mut faults: Faults) {
        let name = &self.replicas[replica].name;
        faults.clock_offset = self.sandbox.clock_of(name).duration_since(self.sandbox.clock_of("nobody"));
        self.sandbox.set_faults(name, faults);
    }

    /// The replica dies: from now on nothing of it reaches the API.
    pub(super) async fn kill(&mut self, replica: usize) {
        self.faults(replica, Faults::cut_off());
        self.stop(replica).await;
    }

    /// The replica is asked to stop, and does.
    pub(super) async fn stop(&mut self, replica: usize) {
        if let Some(running) = self.replicas[replica].running.take() {
            running.stop().await.unwrap();
        }
    }

    pub(super) fn name_term(&self, replica: usize, term: u64) {
        self.replicas[replica].highest_term.send_replace(term);
    }

    /// The lease leader panics at its next request.
    pub(super) fn crash_lease_leader(&self, replica: usize) {
        self.replicas[replica].crash.store(true, Ordering::Relaxed);
    }

    pub(super) async fn raw_lease(&self) -> Option<Lease> {
        self.leases.get_opt("portreeve").await.unwrap()
    }

    pub(super) async fn lease(&self) -> Option<Record> {
        self.raw_lease().await.map(|lease| Record::of(&lease))
    }

    pub(super) async fn delete_lease(&self) {
        self.leases.delete("portreeve", &DeleteParams::default()).await.unwrap();
    }

    /// The ConfigMap that the chart makes; its uid.
    pub(super) async fn make_config_map(&self) -> String {
        let maps: Api<ConfigMap> = Api::namespaced(self.sandbox.client(), "default");
        let metadata = ObjectMeta { name: Some(CONFIG_MAP.to_owned()), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, ..ConfigMap::default() };
        maps.create(&PostParams::default(), &map).await.unwrap().metadata.uid.unwrap()
    }

    /// Puts an old Lease in the place of the present one, as from a backup.
    pub(super) async fn restore_lease(&self, mut old: Lease) {
        self.delete_lease().await;
        old.metadata.resource_version = None;
        old.metadata.uid = None;
        self.leases.create(&PostParams::default(), &old).await.unwrap();
    }
}

/// Acts whenever its proof of leadership lasts for an act.
struct Writer {
    replica: usize,
    acts: Acts,
    stop_time: Duration,
}

/// Notes an act when it ends, in whatever way.
struct Ends {
    act: Act,
    acts: Acts,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.act.until = Instant::now();
        self.acts.lock().unwrap().push(self.act);
    }
}

enum Do {
    Act,
}
message_names!(Do { Act });

impl Actor for Writer {
    type Msg = Do;
    type State = Option<Term>;
    type Arguments = watch::Receiver<Option<Leadership>>;

    async fn pre_start(
        &self,
        myself: ActorRef<Do>,
        leadership: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        myself.send_message(Do::Act)?;
        Ok(Term::current(&leadership))
    }

    async fn handle(
        &self,
        myself: ActorRef<Do>,
        Do::Act: Do,
        proof: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(term) = proof.as_ref().filter(|term| term.check(ACT).is_ok()) {
            let now = Instant::now();
            let act = Act { replica: self.replica, term: term.number(), from: now, until: now };
            let _ends = Ends { act, acts: self.acts.clone() };
            // As long as it has said that it needs; a stop waits for it, a kill breaks it off.
            tokio::time::sleep(ACT).await;
        }
        let _timer = myself.send_after(100 * MS, || Do::Act);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Do>, _: &mut Self::State) -> Result<(), ActorProcessingErr> {
        tokio::time::sleep(self.stop_time).await;
        Ok(())
    }
}
