//! Owns: what a controller counts, in Prometheus form.
//! Called by every actor, each through its own method; the admin actor shows them.
//! Refuses to know: what the numbers mean. Labels are bounded: kinds, outcomes, proxies that exist.

mod actors;

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Bounds of the histograms in seconds: from 100 µs to 10 s.
const SECONDS: [f64; 16] =
    [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How many certificates are shown.
const CERTIFICATES: usize = 500;

/// The metrics of one controller. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    watch_failures: IntCounterVec,
    snapshot: IntGauge,
    translation: Histogram,
    problems: IntGauge,
    term: IntGauge,
    leading: IntGauge,
    pushes: IntCounterVec,
    push_seconds: HistogramVec,
    acked: IntGaugeVec,
    status_writes: IntCounterVec,
    events: IntCounterVec,
    certificates: GaugeVec,
    identity: Gauge,
}

impl Metrics {
    /// A registry of its own: several controllers run in one process.
    pub fn new() -> Self {
        let registry = Registry::new();
        let all = Self {
            watch_failures: counters("watch_failures_total", "Lists and watches that failed.", &["kind"]),
            snapshot: gauge("snapshot_generation", "The generation of the newest snapshot."),
            translation: histogram("translate_seconds", "How long a translation took."),
            problems: gauge("problems", "Objects with a problem."),
            term: gauge("leader_term", "The term in which this controller leads; 0 if it does not."),
            leading: gauge("leader", "Whether this controller leads."),
            pushes: counters("pushes_total", "Pushes to proxies by outcome.", &["proxy", "outcome"]),
            push_seconds: histograms("push_seconds", "How long a push took to be answered.", &["proxy"]),
            acked: gauges("proxy_acked_generation", "The generation that a proxy has acked.", &["proxy"]),
            status_writes: counters("status_writes_total", "Writes of statuses.", &["kind", "outcome"]),
            events: counters("events_total", "Events told of objects.", &["outcome"]),
            certificates: float_gauges(
                "certificate_expires_in_seconds",
                "Until the certificate of a Secret ends; of those that end first.",
                &["secret"],
            ),
            identity: float_gauge(
                "identity_expires_in_seconds",
                "Until this controller's own certificate ends.",
            ),
            registry,
        };
        all.register();
        all
    }

    fn register(&self) {
        let all: [Box<dyn Collector>; 13] = [
            Box::new(self.watch_failures.clone()),
            Box::new(self.snapshot.clone()),
            Box::new(self.translation.clone()),
            Box::new(self.problems.clone()),
            Box::new(self.term.clone()),
            Box::new(self.leading.clone()),
            Box::new(self.pushes.clone()),
            Box::new(self.push_seconds.clone()),
            Box::new(self.acked.clone()),
            Box::new(self.status_writes.clone()),
            Box::new(self.events.clone()),
            Box::new(self.certificates.clone()),
            Box::new(self.identity.clone()),
        ];
        for collector in all {
            self.registry.register(collector).expect("the names above differ and the registry is new");
        }
    }

    /// A list or watch failed.
    pub fn watch_failed(&self, kind: &str) {
        self.watch_failures.with_label_values(&[kind]).inc();
    }

    /// A snapshot was published.
    pub fn snapshot(&self, generation: u64) {
        self.snapshot.set(signed(generation));
    }

    /// A translation was made.
    pub fn translated(&self, took: Duration, problems: usize) {
        self.translation.observe(took.as_secs_f64());
        self.problems.set(signed(problems as u64));
    }

    /// Leadership was won (a term) or lost.
    pub fn leading(&self, term: Option<u64>) {
        self.term.set(term.map_or(0, signed));
        self.leading.set(i64::from(term.is_some()));
    }

    /// A push was answered, or was not.
    pub fn pushed(&self, proxy: &str, outcome: &str, took: Duration) {
        self.pushes.with_label_values(&[proxy, outcome]).inc();
        self.push_seconds.with_label_values(&[proxy]).observe(took.as_secs_f64());
    }

    /// A proxy acked a generation.
    pub fn acked(&self, proxy: &str, generation: u64) {
        self.acked.with_label_values(&[proxy]).set(signed(generation));
    }

    /// A proxy is gone, and its series with it.
    pub fn forget_proxy(&self, proxy: &str) {
        // Missing ones were never counted.
        let _ = self.acked.remove_label_values(&[proxy]);
        let _ = self.push_seconds.remove_label_values(&[proxy]);
        for outcome in crate::push::proxy_client::OUTCOMES {
            let _ = self.pushes.remove_label_values(&[proxy, outcome]);
        }
    }

    /// A status was written, or not.
    pub fn status_written(&self, kind: &str, outcome: &str) {
        self.status_writes.with_label_values(&[kind, outcome]).inc();
    }

    /// An Event was written, or not.
    pub fn event_written(&self, outcome: &str) {
        self.events.with_label_values(&[outcome]).inc();
    }

    /// In how many seconds certificates end, by Secret: the first [`CERTIFICATES`] of them are shown.
    pub fn certificates(&self, ends: impl IntoIterator<Item = (String, f64)>) {
        let mut ends: Vec<_> = ends.into_iter().collect();
        ends.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        self.certificates.reset();
        for (secret, seconds) in ends.iter().take(CERTIFICATES) {
            self.certificates.with_label_values(&[secret]).set(*seconds);
        }
    }

    /// In how many seconds the controller's own certificate ends.
    pub fn identity(&self, seconds: f64) {
        self.identity.set(seconds);
    }

    /// The text of all metrics, with the actors as the tree shows them.
    pub fn render(&self, tree: &supervisor::NodeState) -> String {
        let mut families = self.registry.gather();
        families.extend(actors::families(tree));
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("writing to memory fails only for families without a name or metric, which are left out");
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

const VALID: &str = "names and labels are constants that Prometheus allows";

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("portreeve_controller")
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(opts(name, help), labels).expect(VALID)
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::with_opts(opts(name, help)).expect(VALID)
}

fn float_gauge(name: &str, help: &str) -> Gauge {
    Gauge::with_opts(opts(name, help)).expect(VALID)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(opts(name, help), labels).expect(VALID)
}

fn float_gauges(name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    GaugeVec::new(opts(name, help), labels).expect(VALID)
}

fn histogram_opts(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::from(opts(name, help)).buckets(SECONDS.to_vec())
}

fn histogram(name: &str, help: &str) -> Histogram {
    Histogram::with_opts(histogram_opts(name, help)).expect(VALID)
}

fn histograms(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    HistogramVec::new(histogram_opts(name, help), labels).expect(VALID)
}
