//! Owns: how long is waited before something that failed is tried again.
//! Called by whatever talks to the API server or to a proxy. Refuses to know what failed.

use std::error::Error;
use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);

/// Waits that double from 100 ms to 5 s; a fifth of each is random, so that many do not retry at once.
#[derive(Debug)]
pub struct Retry {
    next: Duration,
}

impl Retry {
    /// Nothing has failed yet.
    pub fn new() -> Self {
        Self { next: FIRST }
    }

    /// It worked: the next wait is the first again.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }

    /// How long to wait now.
    pub fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(LONGEST);
        delay.mul_f64(1.0 - 0.2 * rand::random::<f64>())
    }

    /// Waits.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.delay()).await;
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

/// An error with all its causes, for logs and statuses.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_seconds_and_begin_again_after_success() {
        let mut retry = Retry::new();
        let waits: Vec<_> = (0..12).map(|_| retry.delay()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST.mul_f64(0.8));
        assert!(waits[11] <= LONGEST && waits[11] >= LONGEST.mul_f64(0.8));
        assert!(waits.windows(2).take(5).all(|pair| pair[1] > pair[0]));
        retry.reset();
        assert!(retry.delay() <= FIRST);
    }
}
