//! What the tree says of its actors, in Prometheus form. Called by [`Metrics::render`](super::Metrics::render).
//! Owns nothing: each call counts anew from what the tree shows, so that two who ask at once see the same.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, IntCounterVec, IntGaugeVec};
use supervisor::NodeState;

use super::{VALID, counters, float_gauges, gauges, opts, signed};

struct Actors {
    restarts: IntCounterVec,
    depth: IntGaugeVec,
    oldest: GaugeVec,
    messages: IntCounterVec,
    seconds: CounterVec,
}

/// Restarts, mailboxes and messages of all actors, each named by its path below the root, as in a proxy.
pub(super) fn families(tree: &NodeState) -> Vec<MetricFamily> {
    let actors = Actors {
        restarts: counters("actor_restarts_total", "Restarts, by itself or with its group.", &["actor"]),
        depth: gauges("mailbox_depth", "Messages that wait.", &["actor"]),
        oldest: float_gauges("mailbox_oldest_seconds", "Age of the oldest message.", &["actor"]),
        messages: counters("messages_total", "Messages handled.", &["actor", "message"]),
        seconds: CounterVec::new(opts("message_seconds_total", "Time spent on them."), &["actor", "message"])
            .expect(VALID),
    };
    tree.children.iter().for_each(|child| actors.add(&child.name, child));
    let all: [&dyn Collector; 5] =
        [&actors.restarts, &actors.depth, &actors.oldest, &actors.messages, &actors.seconds];
    all.into_iter().flat_map(Collector::collect).filter(|family| !family.get_metric().is_empty()).collect()
}

impl Actors {
    fn add(&self, path: &str, node: &NodeState) {
        self.restarts.with_label_values(&[path]).inc_by(node.restarts);
        if let Some(mailbox) = &node.mailbox {
            self.depth.with_label_values(&[path]).set(signed(mailbox.depth as u64));
            let age = mailbox.oldest_ms.map_or(0.0, |ms| Duration::from_millis(ms).as_secs_f64());
            self.oldest.with_label_values(&[path]).set(age);
            for (message, handled) in &mailbox.handled {
                let labels: [&str; 2] = [path, message];
                self.messages.with_label_values(&labels).inc_by(handled.count);
                let seconds = Duration::from_micros(handled.total_us).as_secs_f64();
                self.seconds.with_label_values(&labels).inc_by(seconds);
            }
        }
        for child in &node.children {
            self.add(&format!("{path}/{}", child.name), child);
        }
    }
}
