//! What the controllers count, and how much CPU time has been used.
//! Called by the story in `main.rs`. It reads the metrics as text, as Prometheus would.

use anyhow::Result;

use crate::world::World;

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Translations.
    pub(crate) translations: f64,
    /// Seconds spent on them.
    pub(crate) translating: f64,
    /// Pushes.
    pub(crate) pushes: f64,
    /// Seconds until they were answered.
    pub(crate) pushing: f64,
    /// Seconds of CPU time of controllers and proxies.
    pub(crate) cpu: f64,
}

impl Counters {
    /// What is counted now.
    pub(crate) fn read(world: &World) -> Result<Self> {
        let text = world.metrics()?;
        Ok(Self {
            translations: sum(&text, "portreeve_controller_translate_seconds_count"),
            translating: sum(&text, "portreeve_controller_translate_seconds_sum"),
            pushes: sum(&text, "portreeve_controller_push_seconds_count"),
            pushing: sum(&text, "portreeve_controller_push_seconds_sum"),
            cpu: world.cpu(),
        })
    }

    /// What has been added since.
    pub(crate) fn since(self, before: &Self) -> Self {
        Self {
            translations: self.translations - before.translations,
            translating: self.translating - before.translating,
            pushes: self.pushes - before.pushes,
            pushing: self.pushing - before.pushing,
            cpu: self.cpu - before.cpu,
        }
    }
}

/// The sum of a metric over its labels.
pub(crate) fn sum(text: &str, name: &str) -> f64 {
    let values = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_no_other_of_a_longer_name() {
        let text = "a_sum{x=\"1\"} 2\na_sum{x=\"2\"} 0.5\na_sum_more 9\n# HELP a_sum 4\n";
        assert_eq!(sum(text, "a_sum"), 2.5);
    }
}
