//! The tour's log book: each step with whether it held and how long it took, told as it happens and
//! reported at the end.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

/// One step of the tour.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    /// What was to hold.
    pub(crate) name: String,
    /// Whether it held.
    pub(crate) held: bool,
    /// How long it took, in milliseconds.
    pub(crate) milliseconds: u128,
    /// What was seen.
    pub(crate) detail: String,
}

/// The whole tour.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether every step held.
    pub(crate) held: bool,
    /// The steps, in order.
    pub(crate) steps: Vec<Step>,
    #[serde(skip)]
    told: bool,
}

impl Report {
    /// An empty one; `told`: each step is also told on standard output as it happens.
    pub(crate) fn new(told: bool) -> Self {
        Self { held: true, steps: Vec::new(), told }
    }

    /// Takes a step and writes down what came of it; a step that fails does not end the tour.
    pub(crate) async fn step<T>(
        &mut self,
        name: &str,
        limit: Duration,
        work: impl Future<Output = Result<(T, String)>>,
    ) -> Option<T> {
        let start = Instant::now();
        let outcome = match tokio::time::timeout(limit, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("not within {} s", limit.as_secs())),
        };
        let milliseconds = start.elapsed().as_millis();
        let (value, held, detail) = match outcome {
            Ok((value, detail)) => (Some(value), true, detail),
            Err(error) => (None, false, format!("{error:#}")),
        };
        self.tell(&format!(
            "{} {name:<44} {milliseconds:>6} ms  {detail}",
            if held { "ok  " } else { "FAIL" }
        ));
        self.held &= held;
        self.steps.push(Step { name: name.to_owned(), held, milliseconds, detail });
        value
    }

    /// Tells something that is no step.
    pub(crate) fn tell(&self, text: &str) {
        if self.told {
            println!("{text}");
        }
    }
}
