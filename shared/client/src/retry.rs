//! When to try again: a function of what was tried, so that tests need no clock.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

/// How long to try, and how to space attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Pause after the first failure; doubled after each further one.
    pub pause: Duration,
    /// The longest pause, unless the server asks for a longer one.
    pub pause_max: Duration,
    /// Pauses of one batch, summed; beyond that it is given up.
    pub waited_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(50),
            pause_max: Duration::from_secs(5),
            waited_max: Duration::from_secs(120),
        }
    }
}

/// The attempts of one batch so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attempts {
    /// How many failed.
    pub failed: u32,
    /// Pauses so far.
    pub waited: Duration,
}

impl RetryPolicy {
    /// The pause after another failure, not shorter than the server asks for; `None`: give up.
    ///
    /// A half of the pause is drawn from `salt` and the number of the attempt, so that senders which failed together do
    /// not come back together.
    pub(crate) fn pause(&self, attempts: &mut Attempts, asked_for: Duration, salt: u64) -> Option<Duration> {
        let doubled = self.pause.saturating_mul(1_u32.checked_shl(attempts.failed).unwrap_or(u32::MAX));
        let longest = doubled.min(self.pause_max);
        attempts.failed += 1;
        let mut key = [0; 12];
        key[..8].copy_from_slice(&salt.to_le_bytes());
        key[8..].copy_from_slice(&attempts.failed.to_le_bytes());
        let share = (xxh3_64(&key) >> 11) as f64 / (1_u64 << 53) as f64;
        let pause = asked_for + longest.mul_f64(0.5 + share / 2.0);
        if attempts.waited + pause > self.waited_max {
            return None;
        }
        attempts.waited += pause;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: pauses double up to their longest, spread by salt, heed the server, and end.
    #[test]
    fn pauses_grow_and_end() {
        let policy = RetryPolicy {
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(1),
            waited_max: Duration::from_secs(10),
        };
        let mut attempts = Attempts::default();
        let mut pauses = Vec::new();
        while let Some(pause) = policy.pause(&mut attempts, Duration::ZERO, 7) {
            pauses.push(pause);
            assert!(pauses.len() < 100);
        }
        for (n, pause) in pauses.iter().enumerate() {
            let longest = Duration::from_millis(100 << n.min(5)).min(policy.pause_max);
            assert!((longest / 2..=longest).contains(pause), "{n}: {pause:?}");
        }
        assert!(attempts.waited <= policy.waited_max && pauses.len() > 10);
        let first = |salt| policy.pause(&mut Attempts::default(), Duration::ZERO, salt);
        assert_ne!(first(1), first(2));
        let asked = policy.pause(&mut Attempts::default(), Duration::from_secs(3), 1).unwrap();
        assert!(asked >= Duration::from_secs(3));
        let many = Attempts { failed: 40, waited: Duration::ZERO };
        assert!(policy.pause(&mut { many }, Duration::ZERO, 1).unwrap() <= policy.pause_max);
    }
}
