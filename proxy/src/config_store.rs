//! The config store: takes configurations, compiles them and puts them in force.
//!
//! Owns: the units in force, the compiler, the last good configuration on disk, the tables that were replaced.
//! Reads: pushes, the report of what could be bound, what is known of names outside the cluster.
//! Writes: the shared table (one pointer), what is in force, the wanted binds and names, the journal.
//! Rebuilt from: what it last published beside the tree; at the start of the process, the last good
//! configuration on disk.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervisor::{Address, message_names};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, info_span, warn};

use proxy_config::set::UnitSet;
use proxy_config::wire::{self, Ack, Broken, Nack, NackReason, NeedUnits, Push, Reply};

use crate::delivery::on_change;
use crate::handover::turn::Turns;
use crate::last_good::Remembered;
use crate::listen::{accept::BindReport, accept::BindState, socket::Bind};
use crate::metrics::Metrics;
use crate::resolver::names::{Known, Names};
use crate::table::compile::Compiler;
use crate::table::{SharedTable, Table};
use crate::upstream::registry::Registry;

mod answer;
mod expiry;
pub mod in_force;
mod inherit;
mod journal;
mod order;
mod tables;

use answer::PUSH_ANSWERED_WITHIN;
use in_force::{InForce, Source};
use journal::Journal;
use order::Verdict;
use tables::Tables;

/// How often replaced tables that no worker reads any more are dropped, and unused endpoints forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// What the config store is told.
#[derive(Debug)]
pub enum Msg {
    /// A controller's push.
    Apply(Box<Push>, RpcReplyPort<Reply>),
    /// Hold exactly these units, from within this process (`standalone`).
    Hold(UnitSet, RpcReplyPort<Ack>),
    /// Hold what the process before has in force, if that is newer, and what it knows of names.
    Inherit(Box<Remembered>, Known, RpcReplyPort<Reply>),
    /// Compile everything anew.
    Recompile(RpcReplyPort<Ack>),
    /// The outcome of a bind is known.
    BindsReported,
    /// More is known of names outside the cluster.
    Resolved,
    /// The answer to a push has waited long enough.
    AnswerOverdue,
    /// The endpoints from disk are too old.
    ExpireEndpoints,
    /// Drop what nobody uses.
    Tidy,
}

message_names!(Msg {
    Apply,
    Hold,
    Inherit,
    Recompile,
    BindsReported,
    Resolved,
    AnswerOverdue,
    ExpireEndpoints,
    Tidy
});

/// What the config store is started with.
#[derive(Clone)]
pub struct Args {
    /// Whom pushes must be meant for.
    pub identity: Arc<str>,
    /// Where listeners of the node's address are bound.
    pub node_address: IpAddr,
    /// Where the last good configuration is kept.
    pub state_dir: Option<PathBuf>,
    /// The table in force.
    pub table: SharedTable,
    /// The endpoints' state.
    pub registry: Arc<Registry>,
    /// Where is counted.
    pub metrics: Arc<Metrics>,
    /// Where what is in force is published.
    pub in_force: watch::Sender<Arc<InForce>>,
    /// Is told the wanted binds whenever they change.
    pub want: Want,
    /// Is told when a table takes away something that was served.
    pub lost: watch::Sender<()>,
    /// What became of them.
    pub report: watch::Receiver<BindReport>,
    /// The names outside the cluster: which are wanted, what is known of them.
    pub names: Names,
    /// Whether it is this process that writes the journal.
    pub turns: Turns,
    /// Its own address, for its timers.
    pub myself: Address<Msg>,
}

/// The addresses and ports on which connections are wanted.
pub type Binds = BTreeSet<Bind>;

/// Takes the wanted binds.
pub type Want = Arc<dyn Fn(&Binds) + Send + Sync>;

/// What it knows.
pub struct State {
    args: Args,
    compiler: Compiler,
    journal: Journal,
    in_force: Arc<InForce>,
    binds: Binds,
    tables: Tables,
    /// A push of which not all is known yet.
    waiting: Option<(RpcReplyPort<Reply>, AbortOnDropHandle<()>)>,
    tidy: Option<AbortOnDropHandle<()>>,
    expiry: Option<AbortOnDropHandle<()>>,
    _reports: AbortOnDropHandle<()>,
    _names: AbortOnDropHandle<()>,
}

/// The actor.
pub struct ConfigStore;

impl Actor for ConfigStore {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        Ok(State::start(args))
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Apply(push, reply) => state.apply(*push, reply),
            Msg::Hold(units, reply) => state.hold(units, reply),
            Msg::Inherit(remembered, known, reply) => state.inherit(*remembered, known, reply),
            Msg::Recompile(reply) => state.recompile(reply),
            Msg::BindsReported => state.binds_reported(),
            Msg::Resolved => state.resolved(),
            Msg::AnswerOverdue => state.answer_waiting(),
            Msg::ExpireEndpoints => state.expire_endpoints(),
            Msg::Tidy => state.tidy(),
        }
        Ok(())
    }
}

impl State {
    fn start(args: Args) -> Self {
        let (journal, remembered) =
            Journal::open(args.state_dir.as_deref(), args.metrics.clone(), args.turns.clone());
        let published = args.in_force.borrow().clone();
        let in_force = match remembered {
            Some(remembered) if published.source == Source::Nothing => {
                Arc::new(InForce::from_disk(remembered))
            }
            _ => published,
        };
        // Before anything of it is read: what changes from then on is told.
        let reports = on_change(args.report.clone(), args.myself.clone(), || Msg::BindsReported);
        let names = on_change(args.names.known(), args.myself.clone(), || Msg::Resolved);
        let compiler = compiler(&args);
        let tables = Tables::new(args.table.clone(), args.metrics.clone());
        let mut state = Self {
            args,
            compiler,
            journal,
            in_force,
            binds: Binds::new(),
            tables,
            waiting: None,
            tidy: None,
            expiry: None,
            _reports: reports,
            _names: names,
        };
        state.compile_all();
        state
    }

    fn apply(&mut self, push: Push, reply: RpcReplyPort<Reply>) {
        let span = info_span!(
            "push",
            term = push.version.term,
            generation = push.version.generation,
            traceparent = push.traceparent
        );
        let _entered = span.enter();
        self.answer_waiting();
        match order::judge(&self.args.identity, &self.in_force, &push) {
            Verdict::Refuse(reason) => self.answer(reply, Reply::Nack(self.nack(reason))),
            Verdict::NeedUnits => self.answer(reply, Reply::NeedUnits(self.need_units(&push))),
            Verdict::Confirm => {
                self.confirm(&push);
                self.answer(reply, Reply::Ack(self.ack()));
            }
            Verdict::Apply(units) => {
                let before = self.in_force.units.clone();
                let next =
                    InForce { units, version: push.version, ..InForce::from_controller(SystemTime::now()) };
                self.put_in_force(next, &before);
                self.answer_when_known(reply, PUSH_ANSWERED_WITHIN);
            }
        }
    }

    fn nack(&self, reason: NackReason) -> Nack {
        warn!(?reason, "push refused");
        Nack { proxy: self.args.identity.to_string(), version: self.in_force.version, reason }
    }

    fn need_units(&self, push: &Push) -> NeedUnits {
        let units = &self.in_force.units;
        let proxy = self.args.identity.to_string();
        let kept = wire::kept(units, &push.keep);
        NeedUnits { proxy, root: units.root(), buckets: units.bucket_hashes(), kept }
    }

    fn ack(&self) -> Ack {
        Ack {
            proxy: self.args.identity.to_string(),
            version: self.in_force.version,
            root: self.in_force.units.root(),
            broken: self.in_force.broken.clone(),
        }
    }

    /// The configuration is the one in force: only its place in time moves.
    fn confirm(&mut self, push: &Push) {
        self.trust_endpoints();
        let confirmed = InForce::from_controller(SystemTime::now());
        let next =
            InForce { units: self.in_force.units.clone(), broken: self.in_force.broken.clone(), ..confirmed };
        let moved = push.version > self.in_force.version;
        self.publish(InForce { version: push.version, ..next });
        if moved || self.journal.is_due() {
            self.journal.note(&self.in_force, &[], &[]);
        }
    }

    fn hold(&mut self, units: UnitSet, reply: RpcReplyPort<Ack>) {
        let mut version = self.in_force.version;
        version.generation += 1;
        let before = self.in_force.units.clone();
        let next = InForce { units, version, ..InForce::from_controller(SystemTime::now()) };
        self.put_in_force(next, &before);
        self.reply(reply);
    }

    fn recompile(&mut self, reply: RpcReplyPort<Ack>) {
        self.compiler = compiler(&self.args);
        self.compile_all();
        self.reply(reply);
    }

    fn reply(&self, port: RpcReplyPort<Ack>) {
        let _ = port.send(self.ack());
    }

    /// Compiles what differs from `before`, swaps, publishes, and notes it on disk.
    fn put_in_force(&mut self, next: InForce, before: &UnitSet) {
        self.trust_endpoints();
        let (put, delete) = next.units.diff(before);
        let table = self.compiler.apply(&put, &delete, next.version, next.units.root());
        info!(
            put = put.len(),
            delete = delete.len(),
            term = next.version.term,
            generation = next.version.generation,
            "in force"
        );
        self.swap(table);
        self.publish(next);
        self.journal.note(&self.in_force, &put, &delete);
    }

    /// Compiles all units in force, for a compiler that holds none.
    fn compile_all(&mut self) {
        self.schedule_expiry();
        let in_force = self.in_force.clone();
        let root = in_force.units.root();
        let table = self.compiler.apply(in_force.units.iter(), [], in_force.version, root);
        self.swap(table);
        self.publish(InForce::clone(&in_force));
    }

    fn swap(&mut self, table: Arc<Table>) {
        let binds: Binds = table.binds().map(|(bind, _)| bind).collect();
        self.args.names.want(self.compiler.hostnames());
        self.tables.swap(table);
        if self.compiler.take_lost() {
            self.args.lost.send_replace(());
        }
        if binds != self.binds {
            (self.args.want)(&binds);
            self.binds = binds;
        }
        if self.tidy.is_none() {
            self.tidy = Some(self.args.myself.send_after(TIDY_EVERY, Msg::Tidy));
        }
    }

    fn publish(&mut self, next: InForce) {
        self.in_force = Arc::new(InForce { broken: self.broken(), ..next });
        self.args.metrics.pushes.in_force(self.in_force.version, self.in_force.broken.len());
        self.args.in_force.send_replace(self.in_force.clone());
    }

    fn publish_broken(&mut self) {
        if self.broken() != self.in_force.broken {
            self.publish(InForce::clone(&self.in_force));
        }
    }

    /// What the compiler could not use, and the listeners whose port could not be bound.
    fn broken(&self) -> Vec<Broken> {
        let mut broken: Vec<Broken> = self.compiler.broken().collect();
        let report = self.args.report.borrow();
        for (bind, state) in report.iter() {
            if let BindState::Refused(error) = state {
                let reason = format!("{bind} can't be bound: {error}");
                let units = self.compiler.listeners_at(*bind).cloned();
                broken.extend(units.map(|unit| Broken { unit, reason: reason.clone() }));
            }
        }
        broken.sort();
        broken
    }

    fn tidy(&mut self) {
        self.tidy = None;
        let all_gone = self.tables.tidy();
        self.args.registry.sweep();
        if !all_gone {
            self.tidy = Some(self.args.myself.send_after(TIDY_EVERY, Msg::Tidy));
        }
    }
}

/// A compiler that holds no unit, but what is known of names.
fn compiler(args: &Args) -> Compiler {
    let mut compiler = Compiler::new(args.node_address, args.registry.clone(), args.metrics.clone());
    compiler.resolve(&args.names.known().borrow());
    compiler
}

#[cfg(test)]
mod tests;
