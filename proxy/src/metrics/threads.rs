//! The watch over the threads as metrics.

use std::fmt::Write;

use super::text::{Label, family};
use crate::watchdog::Watchdog;

/// Renders which threads are stalled in Prometheus' text format.
pub fn render(watchdog: &Watchdog) -> String {
    const NAME: &str = "portreeve_thread_stalled";
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ =
        family(&mut out, NAME, "gauge", "1 for a thread whose event loop has not come round for too long.");
    for (name, is_stalled) in watchdog.threads() {
        let _ = writeln!(out, "{NAME}{{thread=\"{}\"}} {}", Label(name), u8::from(is_stalled));
    }
    out
}
