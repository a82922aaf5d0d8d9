//! The table of a run, in Markdown.
//! Called by the story in `main.rs`. It knows how figures are shown, not where they come from.

use std::fmt::Write;
use std::time::Duration;

use crate::counters::Counters;

/// What one number of routes showed.
#[derive(Default)]
pub(crate) struct Figures {
    /// How many routes.
    pub(crate) routes: usize,
    /// How many changes.
    pub(crate) changes: u32,
    /// Until the API server had answered to the creation of all routes.
    pub(crate) created: Duration,
    /// Until all proxies served them, from the same start.
    pub(crate) served: Duration,
    /// Until all statuses were written, from the same start.
    pub(crate) statuses: Duration,
    /// The bytes of a push of everything, where they are known.
    pub(crate) whole: Option<usize>,
    /// The bytes of the push of a change, where they are known.
    pub(crate) delta: Option<usize>,
    /// From the answer to a patch to the first proxy that serves it.
    pub(crate) first: Vec<Duration>,
    /// From the answer to a patch to the last proxy that serves it.
    pub(crate) last: Vec<Duration>,
    /// What was counted over the changes.
    pub(crate) counted: Counters,
}

impl Figures {
    /// Puts the times of changes in order, shortest first.
    pub(crate) fn sort(&mut self) {
        self.first.sort_unstable();
        self.last.sort_unstable();
    }
}

/// A column for each number of routes.
pub(crate) fn render(all: &[Figures]) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &dyn Fn(&Figures) -> String| {
        let cells: Vec<_> = all.iter().map(value).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    };
    row("HTTPRoutes", &|figures| figures.routes.to_string());
    row("---", &|_| "---".to_owned());
    row("changes, one route each", &|figures| figures.changes.to_string());
    row("patch answered to last proxy serves it, p50", &|figures| shown(at(&figures.last, 50)));
    row("p99", &|figures| shown(at(&figures.last, 99)));
    row("max", &|figures| shown(at(&figures.last, 100)));
    row("to the first proxy, p50", &|figures| shown(at(&figures.first, 50)));
    row("translation, mean", &|figures| mean(figures.counted.translating, figures.counted.translations));
    row("push until acked, mean of all", &|figures| mean(figures.counted.pushing, figures.counted.pushes));
    row("pushes, all proxies", &|figures| format!("{:.0}", figures.counted.pushes));
    row("CPU per change", &|figures| mean(figures.counted.cpu, figures.changes.into()));
    row("bytes of a change's push", &|figures| bytes(figures.delta));
    row("bytes of a push of everything", &|figures| bytes(figures.whole));
    row("all routes made (API server)", &|figures| shown(figures.created));
    row("first made to all served by all", &|figures| shown(figures.served));
    row("first made to all statuses written", &|figures| shown(figures.statuses));
    text
}

/// A percentile of sorted times: the least that so many percent do not exceed.
fn at(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn shown(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1e3;
    if milliseconds < 1e3 { format!("{milliseconds:.1} ms") } else { format!("{:.1} s", milliseconds / 1e3) }
}

fn bytes(size: Option<usize>) -> String {
    size.map_or_else(|| "-".to_owned(), |size| size.to_string())
}

fn mean(seconds: f64, count: f64) -> String {
    if count > 0.0 { shown(Duration::from_secs_f64((seconds / count).max(0.0))) } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_least_that_so_many_do_not_exceed() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        let shown = [50, 99, 100].map(|percent| at(&times, percent).as_millis());
        assert_eq!(shown, [100, 198, 200]);
        assert_eq!(at(&times[..1], 50), times[0]);
    }
}
