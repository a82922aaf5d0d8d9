//! Owns how many frames that carry nothing are borne: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM,
//! unknown ones, DATA without content.
//!
//! Each of them adds to a level, each frame of an exchange in either direction takes off what well-behaved
//! peers send along with it (a WINDOW_UPDATE or two, a PING to measure), and so does time. Knows nothing of
//! connections. Source: RFC 9113 section 10.5, CVE-2019-9512 to 9518; the numbers are Envoy's.

use std::time::Duration;

use tokio::time::Instant;

use super::frames::{CONTINUATION, DATA, END_STREAM, HEADERS, Header};

/// The level above which a connection ends.
const MAX_LEVEL: u32 = 1_000;
/// What a frame of an exchange takes off.
const PER_FRAME: u32 = 10;
/// How long it takes until the level is one lower.
const PER_TIME: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Flood {
    level: u32,
    /// Up to when time has been counted.
    since: Instant,
}

impl Default for Flood {
    fn default() -> Self {
        Self { level: 0, since: Instant::now() }
    }
}

impl Flood {
    /// A frame of an exchange has gone out.
    pub(super) fn exchanged(&mut self) {
        self.level = self.level.saturating_sub(PER_FRAME);
    }

    /// A frame has come; whether it is borne.
    pub(super) fn received(&mut self, header: &Header) -> bool {
        match header.kind {
            CONTINUATION => {}
            HEADERS => self.exchanged(),
            DATA if header.length > 0 || header.flags & END_STREAM != 0 => self.exchanged(),
            _ => {
                self.level += 1;
                if self.level > MAX_LEVEL {
                    // The clock is read only where it matters.
                    self.count_time();
                }
            }
        }
        self.level <= MAX_LEVEL
    }

    fn count_time(&mut self) {
        let steps = self.since.elapsed().as_millis() / PER_TIME.as_millis();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.since += PER_TIME * steps;
        self.level = self.level.saturating_sub(steps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: Header = Header { length: 8, kind: 6, flags: 0, stream: 0 };
    const EMPTY: Header = Header { length: 0, kind: DATA, flags: 0, stream: 1 };
    const CONTENT: Header = Header { length: 1, kind: DATA, flags: 0, stream: 1 };
    const LAST: Header = Header { length: 0, kind: DATA, flags: END_STREAM, stream: 1 };

    /// How many of these frames are borne, up to a hundred thousand.
    fn borne(frames: impl IntoIterator<Item = Header>) -> usize {
        let mut flood = Flood::default();
        frames.into_iter().take(100_000).take_while(|frame| flood.received(frame)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_carry_nothing_are_borne_a_thousand_times() {
        for frame in [PING, EMPTY, Header { kind: 4, ..PING }, Header { kind: 200, ..PING }] {
            assert_eq!(borne(std::iter::repeat(frame)), MAX_LEVEL as usize, "{frame:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_along_with_content_is_borne_for_ever_and_not_more_than_that() {
        let with = |count: usize, frame| std::iter::once(frame).chain([PING; 40].into_iter().take(count));
        for frame in [CONTENT, LAST] {
            assert_eq!(borne(std::iter::repeat_with(|| with(10, frame)).flatten()), 100_000);
            assert!(borne(std::iter::repeat_with(|| with(40, frame)).flatten()) < 2_000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_a_second_are_borne_for_ever() {
        let mut flood = Flood::default();
        for _ in 0..100_000 {
            tokio::time::advance(PER_TIME).await;
            assert!(flood.received(&PING));
        }
    }
}
