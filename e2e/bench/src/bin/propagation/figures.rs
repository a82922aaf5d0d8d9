//! The table of a run, in Markdown.
//! Called by the story in `main.rs`. It knows how figures are shown, not where they come from.

use std::fmt::Write;
use std::time::Duration;

use crate::counters::Counters;
use crate::objects::{Sizes, What};
use crate::world::Resident;

/// What one contender showed with one number of routes.
pub(crate) struct Figures {
    /// Who was measured.
    pub(crate) contender: String,
    /// With how much.
    pub(crate) sizes: Sizes,
    /// Until the API server had answered to the creation of all routes.
    pub(crate) created: Duration,
    /// Until all proxies served them, from the same start.
    pub(crate) served: Duration,
    /// Until all statuses were written, from the same start, where it is known.
    pub(crate) statuses: Option<Duration>,
    /// The bytes of a push of everything, where they are known.
    pub(crate) whole: Option<usize>,
    /// The memory of the processes after all changes, where they are several.
    pub(crate) resident: Option<Resident>,
    /// The changes, by what was changed.
    pub(crate) changes: Vec<Changes>,
}

/// What changes of one kind showed.
pub(crate) struct Changes {
    /// What was changed.
    pub(crate) what: What,
    /// The bytes of the push of one, where they are known.
    pub(crate) delta: Option<usize>,
    /// From the answer to a patch until a watch tells of it, shortest first.
    pub(crate) heard: Vec<Duration>,
    /// From the answer to a patch to the first proxy that serves it, shortest first.
    pub(crate) first: Vec<Duration>,
    /// From the answer to a patch to the last proxy that serves it, shortest first.
    pub(crate) last: Vec<Duration>,
    /// From when a watch told of it, to the last proxy that serves it, shortest first.
    pub(crate) since: Vec<Duration>,
    /// What was counted over the changes.
    pub(crate) counted: Counters,
}

/// A column for each contender and number of routes.
pub(crate) fn render(all: &[Figures]) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &dyn Fn(&Figures) -> String| {
        let cells: Vec<_> = all.iter().map(value).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    };
    row("", &|figures| figures.contender.clone());
    row("---", &|_| "---".to_owned());
    row("HTTPRoutes", &|figures| figures.sizes.routes.to_string());
    row("Gateways", &|figures| figures.sizes.gateways().to_string());
    row("Services", &|figures| figures.sizes.services.to_string());
    row("all routes made (API server)", &|figures| shown(figures.created));
    row("first made to all served by all", &|figures| shown(figures.served));
    row("first made to all statuses written", &|figures| figures.statuses.map_or_else(unknown, shown));
    row("bytes of a push of everything", &|figures| {
        figures.whole.map_or_else(unknown, |bytes| bytes.to_string())
    });
    row("memory of a controller", &|figures| {
        figures.resident.and_then(|resident| resident.controller).map_or_else(unknown, megabytes)
    });
    row("memory of a proxy", &|figures| {
        figures.resident.map_or_else(unknown, |resident| megabytes(resident.proxy))
    });
    for what in [What::Route, What::Endpoints, What::Certificate] {
        if all.iter().any(|figures| figures.of(what).is_some()) {
            changes(what, &mut row);
        }
    }
    text
}

/// The rows of one kind of change.
fn changes(what: What, row: &mut impl FnMut(&str, &dyn Fn(&Figures) -> String)) {
    let mut line = |name: &str, value: &dyn Fn(&Changes) -> String| {
        row(name, &|figures| figures.of(what).map_or_else(unknown, value));
    };
    let title = match what {
        What::Route => "**one HTTPRoute**: changes",
        What::Endpoints => "**one EndpointSlice**: changes",
        What::Certificate => "**one Secret**: changes",
    };
    line(title, &|changes| changes.last.len().to_string());
    line("patch answered to last proxy serves it, p50", &|changes| shown(at(&changes.last, 50)));
    line("p99", &|changes| shown(at(&changes.last, 99)));
    line("max", &|changes| shown(at(&changes.last, 100)));
    line("a watch tells of it, p50", &|changes| shown(at(&changes.heard, 50)));
    line("p99", &|changes| shown(at(&changes.heard, 99)));
    line("from there to the last proxy, p50", &|changes| shown(at(&changes.since, 50)));
    line("p99", &|changes| shown(at(&changes.since, 99)));
    line("to the first proxy, p50", &|changes| shown(at(&changes.first, 50)));
    line("translation, mean", &|changes| mean(changes.counted.translating, changes.counted.translations));
    line("push until acked, mean of all", &|changes| mean(changes.counted.pushing, changes.counted.pushes));
    line("bytes of a change's push", &|changes| {
        changes.delta.map_or_else(unknown, |bytes| bytes.to_string())
    });
    line("CPU per change", &|changes| mean(changes.counted.cpu, changes.last.len() as f64));
}

impl Figures {
    fn of(&self, what: What) -> Option<&Changes> {
        self.changes.iter().find(|changes| changes.what == what)
    }
}

fn unknown() -> String {
    "-".to_owned()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
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
