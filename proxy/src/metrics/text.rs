//! Metrics in Prometheus' text format, version 0.0.4.

use std::fmt::{self, Display, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use super::histogram::{BOUNDS_US, Sum};
use super::{CLASSES, Metrics, RouteMetrics, names, streams};
use crate::http::respond::Reason;
use crate::listen::admission::Refused;

/// The media type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders all metrics. A route that went away is shown for the last time.
pub fn render(metrics: &Metrics) -> String {
    let mut out = String::new();
    let routes = metrics.scrape_routes();
    let used: Vec<&RouteMetrics> =
        routes.iter().map(|route| &**route).filter(|route| route.used_cells().next().is_some()).collect();
    // Writing to a String can't fail.
    let _ = requests(&mut out, &used)
        .and_then(|()| durations(&mut out, &used))
        .and_then(|()| streams::render(&mut out, &metrics.streams))
        .and_then(|()| connections(&mut out, metrics))
        .and_then(|()| refusals(&mut out, metrics))
        .and_then(|()| names::render(&mut out, &metrics.names))
        .and_then(|()| pushes(&mut out, metrics));
    out
}

fn requests(out: &mut String, routes: &[&RouteMetrics]) -> fmt::Result {
    family(out, "portreeve_requests_total", "counter", "Exchanges ended, by route and class of status.")?;
    for route in routes {
        for (class, label) in CLASSES.iter().enumerate() {
            let count = route.count(class);
            if count > 0 {
                let route = Label(&route.name);
                writeln!(out, "portreeve_requests_total{{route=\"{route}\",class=\"{label}\"}} {count}")?;
            }
        }
    }
    Ok(())
}

fn durations(out: &mut String, routes: &[&RouteMetrics]) -> fmt::Result {
    const NAME: &str = "portreeve_request_duration_seconds";
    family(out, NAME, "histogram", "From a request's first byte to its response's last, by route.")?;
    for route in routes {
        let mut sum = Sum::default();
        route.used_cells().for_each(|cell| sum.add(&cell.durations));
        let label = Label(&route.name);
        let mut total = 0;
        for (bound, count) in BOUNDS_US.iter().zip(sum.buckets) {
            total += count;
            writeln!(out, "{NAME}_bucket{{route=\"{label}\",le=\"{}\"}} {total}", Seconds(*bound))?;
        }
        total += sum.buckets[BOUNDS_US.len()];
        writeln!(out, "{NAME}_bucket{{route=\"{label}\",le=\"+Inf\"}} {total}")?;
        writeln!(out, "{NAME}_sum{{route=\"{label}\"}} {}", Seconds(sum.sum_us))?;
        writeln!(out, "{NAME}_count{{route=\"{label}\"}} {total}")?;
    }
    Ok(())
}

fn connections(out: &mut String, metrics: &Metrics) -> fmt::Result {
    let workers = || metrics.workers.iter();
    let accepted: u64 = workers().map(|worker| worker.connections.load(Relaxed)).sum();
    let open: i64 = workers().map(|worker| worker.open_connections.load(Relaxed)).sum();
    let active: i64 = workers().map(|worker| worker.active_requests.load(Relaxed)).sum();
    single(out, "portreeve_connections_total", "counter", "Connections of clients accepted.", accepted)?;
    single(out, "portreeve_connections", "gauge", "Connections of clients that are open.", open)?;
    const REFUSED: &str = "portreeve_connections_refused_total";
    family(
        out,
        REFUSED,
        "counter",
        "Connections of clients that were closed at once, and datagrams that began no session, by the limit reached.",
    )?;
    for refused in Refused::ALL {
        let count = metrics.turned_away[refused as usize].load(Relaxed);
        writeln!(out, "{REFUSED}{{reason=\"{}\"}} {count}", refused.label())?;
    }
    single(out, "portreeve_active_requests", "gauge", "Requests that are being served.", active)
}

fn refusals(out: &mut String, metrics: &Metrics) -> fmt::Result {
    const NAME: &str = "portreeve_refusals_total";
    family(out, NAME, "counter", "Answers of the proxy's own and exchanges cut short, by reason.")?;
    for reason in Reason::ALL {
        let count: u64 =
            metrics.workers.iter().map(|worker| worker.reasons[reason as usize].load(Relaxed)).sum();
        if count > 0 {
            writeln!(out, "{NAME}{{reason=\"{}\"}} {count}", reason.label())?;
        }
    }
    Ok(())
}

fn pushes(out: &mut String, metrics: &Metrics) -> fmt::Result {
    let pushes = &metrics.pushes;
    let version = pushes.version();
    single(out, "portreeve_config_term", "gauge", "The term of the configuration in force.", version.term)?;
    let help = "The generation of the configuration in force.";
    single(out, "portreeve_config_generation", "gauge", help, version.generation)?;
    family(out, "portreeve_pushes_total", "counter", "Pushes, by what they were answered.")?;
    for (outcome, count) in pushes.outcomes() {
        writeln!(out, "portreeve_pushes_total{{outcome=\"{outcome}\"}} {count}")?;
    }
    let swaps = pushes.swaps.load(Relaxed);
    single(out, "portreeve_config_swaps_total", "counter", "Tables put in force.", swaps)?;
    let broken = pushes.broken.load(Relaxed);
    single(out, "portreeve_broken_units", "gauge", "Units in force that can't be used.", broken)?;
    match pushes.last_good.load(Relaxed) {
        0 => Ok(()),
        at => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let help = "Since the last good configuration was written or confirmed.";
            single(out, "portreeve_last_good_age_seconds", "gauge", help, now.saturating_sub(at))
        }
    }
}

fn single(out: &mut String, name: &str, kind: &str, help: &str, value: impl Display) -> fmt::Result {
    family(out, name, kind, help)?;
    writeln!(out, "{name} {value}")
}

pub(super) fn family(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// A label's value, escaped.
pub(super) struct Label<'a>(pub(super) &'a str);

impl Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

/// Microseconds shown as seconds, without the error of a binary fraction.
pub(super) struct Seconds(pub(super) u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if part == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{part:06}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proxy_config::name::{ObjectName, UnitId};

    use super::*;
    use crate::metrics::{MAX_ROUTES, OVERFLOW};

    fn id(name: &str) -> UnitId {
        UnitId::route("HTTPRoute", &ObjectName::new("shop", name))
    }

    #[test]
    fn exchanges_of_all_workers_add_up_by_route_and_class() {
        let metrics = Metrics::new(2);
        let route = metrics.route(&id("cart"));
        route.record(0, 200, Duration::from_millis(3));
        route.record(1, 204, Duration::from_millis(1500));
        route.record(1, 503, Duration::ZERO);
        let text = render(&metrics);
        for line in [
            "portreeve_requests_total{route=\"HTTPRoute/shop/cart\",class=\"2xx\"} 2",
            "portreeve_requests_total{route=\"HTTPRoute/shop/cart\",class=\"5xx\"} 1",
            "portreeve_request_duration_seconds_bucket{route=\"HTTPRoute/shop/cart\",le=\"0.0005\"} 1",
            "portreeve_request_duration_seconds_bucket{route=\"HTTPRoute/shop/cart\",le=\"0.005\"} 2",
            "portreeve_request_duration_seconds_bucket{route=\"HTTPRoute/shop/cart\",le=\"+Inf\"} 3",
            "portreeve_request_duration_seconds_sum{route=\"HTTPRoute/shop/cart\"} 1.503",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_route_that_went_away_is_shown_once_more() {
        let metrics = Metrics::new(1);
        let route = metrics.route(&id("cart"));
        route.record(0, 200, Duration::ZERO);
        drop(route);
        assert!(render(&metrics).contains("shop/cart"), "its last counts");
        assert!(!render(&metrics).contains("shop/cart"), "then nothing");
    }

    #[test]
    fn a_route_that_is_compiled_again_keeps_its_counts() {
        let metrics = Metrics::new(1);
        let old = metrics.route(&id("cart"));
        old.record(0, 200, Duration::ZERO);
        let new = metrics.route(&id("cart"));
        drop(old);
        assert_eq!(new.count(2), 1);
    }

    #[test]
    fn routes_beyond_the_cap_share_a_series() {
        let metrics = Metrics::new(1);
        let held: Vec<Arc<_>> = (0..MAX_ROUTES).map(|n| metrics.route(&id(&n.to_string()))).collect();
        for name in ["one", "more"] {
            metrics.route(&id(name)).record(0, 200, Duration::ZERO);
        }
        let line = format!("portreeve_requests_total{{route=\"{OVERFLOW}\",class=\"2xx\"}} 2");
        assert!(render(&metrics).contains(&line));
        drop(held);
    }

    #[test]
    fn a_refusal_is_counted_by_its_reason() {
        let metrics = Metrics::new(2);
        metrics.worker(1).refused(Reason::RouteNotFound);
        assert!(render(&metrics).contains("portreeve_refusals_total{reason=\"route_not_found\"} 1"));
    }

    #[test]
    fn a_label_is_escaped() {
        assert_eq!(Label("a\"b\\c\n").to_string(), "a\\\"b\\\\c\\n");
    }
}
