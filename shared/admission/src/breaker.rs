//! A circuit breaker: whoever fails again and again is not asked for a while, so that nobody waits for him.

use std::time::Duration;

use crate::Monotonic;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct BreakerConfig {
    /// So many failures in a row open it.
    pub failures_max: u32,
    /// So long nobody is asked then; after that one call is let through as a probe.
    pub open_for: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures_max: 5, open_for: Duration::from_secs(30) }
    }
}

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// It lets all through.
    Closed,
    /// It lets none through.
    Open,
    /// One is under way to find out.
    HalfOpen,
}

impl BreakerState {
    /// As metrics show it: 0 closed, 1 half open, 2 open.
    #[must_use]
    pub fn as_number(self) -> f64 {
        match self {
            Self::Closed => 0.0,
            Self::HalfOpen => 1.0,
            Self::Open => 2.0,
        }
    }
}

/// That a call was let through. Its outcome is to be noted with it; a call that was given up may go without.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    era: u64,
}

/// Opens after failures in a row, lets one probe through after a time, and closes when that succeeds.
///
/// 1. What a call came to counts only in the state that let it through: answers that were long under way neither close a
///    breaker that opened meanwhile nor open one that has closed.
/// 2. A probe that never says what came of it is replaced by another after the same time.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    phase: Phase,
    /// Rises with each change of the phase.
    era: u64,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Monotonic },
    HalfOpen { until: Monotonic },
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, phase: Phase::Closed { failures: 0 }, era: 0 }
    }

    /// Lets a call through, or says after which time the next one may be.
    ///
    /// # Errors
    /// The time that is left.
    pub fn admit(&mut self, now: Monotonic) -> Result<Permit, Duration> {
        if let Phase::Open { until } | Phase::HalfOpen { until } = self.phase {
            let left = until.since(now);
            if !left.is_zero() {
                return Err(left);
            }
            self.enter(Phase::HalfOpen { until: now.after(self.config.open_for) });
        }
        Ok(Permit { era: self.era })
    }

    /// Takes in that a call succeeded.
    #[expect(clippy::needless_pass_by_value, reason = "what a call came to is noted once")]
    pub fn succeeded(&mut self, permit: Permit) {
        if permit.era == self.era {
            self.recovered();
        }
    }

    /// Takes in that a call failed.
    #[expect(clippy::needless_pass_by_value, reason = "what a call came to is noted once")]
    pub fn failed(&mut self, permit: Permit, now: Monotonic) {
        if permit.era != self.era {
            return;
        }
        let failures = match self.phase {
            Phase::Closed { failures } => failures + 1,
            Phase::HalfOpen { .. } | Phase::Open { .. } => self.config.failures_max,
        };
        if failures >= self.config.failures_max {
            self.enter(Phase::Open { until: now.after(self.config.open_for) });
        } else {
            self.phase = Phase::Closed { failures };
        }
    }

    /// Takes in a success that needed no permit.
    pub fn recovered(&mut self) {
        match self.phase {
            Phase::Closed { .. } => self.phase = Phase::Closed { failures: 0 },
            Phase::Open { .. } | Phase::HalfOpen { .. } => self.enter(Phase::Closed { failures: 0 }),
        }
    }

    /// What it does now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.era += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_elapsed(Duration::from_secs(seconds))
    }

    fn breaker() -> Breaker {
        Breaker::new(BreakerConfig::default())
    }

    fn fail(breaker: &mut Breaker, now: u64, times: usize) {
        for _ in 0..times {
            let permit = breaker.admit(at(now)).expect("it lets calls through");
            breaker.failed(permit, at(now));
        }
    }

    /// Goal: five failures in a row open it for 30 seconds, a success between them starts the count anew.
    #[test]
    fn failures_in_a_row_open_it() {
        let mut breaker = breaker();
        fail(&mut breaker, 0, 4);
        let permit = breaker.admit(at(0)).unwrap();
        breaker.succeeded(permit);
        fail(&mut breaker, 1, 4);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&mut breaker, 2, 1);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(at(2)).unwrap_err(), Duration::from_secs(30));
        assert_eq!(breaker.admit(at(31)).unwrap_err(), Duration::from_secs(1));
    }

    /// Goal: after its time one probe alone goes through; its success closes the breaker, its failure opens it anew, and one
    /// that is lost is replaced after the same time.
    #[test]
    fn one_probe_decides() {
        let mut breaker = breaker();
        fail(&mut breaker, 0, 5);
        let probe = breaker.admit(at(30)).unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(at(31)).unwrap_err(), Duration::from_secs(29));
        breaker.failed(probe, at(32));
        assert_eq!(breaker.admit(at(61)).unwrap_err(), Duration::from_secs(1));
        let lost = breaker.admit(at(62)).unwrap();
        let second = breaker.admit(at(92)).unwrap();
        breaker.failed(lost, at(93));
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "what is lost does not count any more");
        breaker.succeeded(second);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&mut breaker, 94, 4);
        assert_eq!(breaker.state(), BreakerState::Closed, "the count begins at nothing");
    }

    /// Goal: answers of calls from before a change of state change nothing.
    #[test]
    fn late_answers_do_not_count() {
        let mut breaker = breaker();
        let (late_success, late_failure) = (breaker.admit(at(0)).unwrap(), breaker.admit(at(0)).unwrap());
        fail(&mut breaker, 0, 5);
        breaker.succeeded(late_success);
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.recovered();
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&mut breaker, 1, 4);
        breaker.failed(late_failure, at(1));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
