//! How often to try again, and when.

use std::time::Duration;

/// Longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Waits that double.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts after the first.
    pub most: u32,
    /// Wait after the first failure.
    pub first_wait: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { most: 4, first_wait: Duration::from_millis(300) }
    }
}

impl Retries {
    /// How long to wait after that many failures in a row; `None` to give up.
    pub fn wait_after(&self, failures: u32) -> Option<Duration> {
        (1..=self.most).contains(&failures).then(|| {
            let doubled = self.first_wait.saturating_mul(1 << (failures - 1).min(16));
            doubled.min(LONGEST_WAIT)
        })
    }
}

/// Whether the server may answer otherwise a moment later.
pub fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_end() {
        let retries = Retries { most: 7, first_wait: Duration::from_millis(300) };
        let waits: Vec<_> = (0..9).map(|failures| retries.wait_after(failures).map(|wait| wait.as_millis())).collect();
        let expected = [None, Some(300), Some(600), Some(1200), Some(2400), Some(4800), Some(9600), Some(10000), None];
        assert_eq!(waits, expected);
        assert!(Retries { most: u32::MAX, ..retries }.wait_after(u32::MAX).is_some());
    }
}
