//! The table of a run, in Markdown: medians over the rounds, ratios to the floor of the same run.

use std::fmt::Write;

use crate::load::{Figures, Traffic};

/// The table of contenders and their rounds; the first contender is the floor.
pub(crate) fn render(names: &[&str], figures: &[Vec<Figures>]) -> String {
    let mut text = String::from(
        "| contender | HTTP/1.1 CPU | ratio | p50 | p99 | calls | HTTP/2 CPU | TLS CPU | 1,000 idle | failed |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    let http = |rounds: &[Figures]| median(rounds.iter().map(|round| Some(round.http.cpu)));
    let floor = figures.first().and_then(|rounds| http(rounds));
    for (name, rounds) in names.iter().zip(figures) {
        let of = |pick: fn(&Figures) -> Option<f64>| median(rounds.iter().map(pick));
        let ratio = http(rounds).zip(floor).map(|(cpu, floor)| cpu / floor);
        let failed: u64 = rounds.iter().map(failed).sum();
        let row = [
            cell(http(rounds), 1, " us"),
            cell(ratio, 2, ""),
            cell(of(|round| Some(round.http.p50)), 2, " ms"),
            cell(of(|round| Some(round.http.p99)), 2, " ms"),
            cell(of(|round| round.calls), 1, ""),
            cell(of(|round| round.h2c.map(|traffic| traffic.cpu)), 1, " us"),
            cell(of(|round| round.tls.map(|traffic| traffic.cpu)), 1, " us"),
            cell(of(|round| round.idle.map(|bytes| bytes as f64 / 1e6)), 1, " MB"),
        ];
        let _ = writeln!(text, "| {name} | {} | {failed} |", row.join(" | "));
    }
    text
}

fn failed(round: &Figures) -> u64 {
    let of = |traffic: Option<Traffic>| traffic.map_or(0, |traffic| traffic.failed);
    round.http.failed + of(round.h2c) + of(round.tls)
}

fn cell(value: Option<f64>, digits: usize, unit: &str) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}{unit}"))
}

fn median(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let mut values: Vec<f64> = values.flatten().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_not_moved_by_one_bad_round() {
        assert_eq!(median([Some(9.0), None, Some(1.0), Some(2.0)].into_iter()), Some(2.0));
        assert_eq!(median([None].into_iter()), None);
    }
}
