//! Time inside a bucket: sixteenths of a nanosecond, so that the price of one event is exact enough at every rate, while
//! one word lasts longer than any process (36 years).

use std::time::Duration;

/// Ticks of a nanosecond.
const PER_NANO: u64 = 16;
/// Ticks of a second.
pub(crate) const PER_SECOND: u64 = PER_NANO * 1_000_000_000;
/// The last time that is told apart; later ones count as this one. Half of the word's range: the other half is room for
/// what a bucket may owe.
pub(crate) const NOW_MAX: u64 = (1 << 63) - 1;

/// A monotonic time: nanoseconds since a moment that the caller chose once (its start, say). Never wall-clock time: a
/// step of that clock must not fill buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Monotonic {
    nanos: u64,
}

impl Monotonic {
    /// A time in nanoseconds since the chosen moment.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { nanos }
    }

    /// The time of `elapsed` since the chosen moment, as `Instant::elapsed` gives it.
    #[must_use]
    pub fn from_elapsed(elapsed: Duration) -> Self {
        Self { nanos: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// How long ago `earlier` was; nothing where it is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }

    /// The time that comes so much later.
    pub(crate) fn after(self, wait: Duration) -> Self {
        Self { nanos: self.nanos.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)) }
    }

    pub(crate) fn ticks(self) -> u64 {
        self.nanos.saturating_mul(PER_NANO).min(NOW_MAX)
    }
}

/// Ticks as a duration, rounded up: who waits for it does not come too early.
pub(crate) fn duration_of(ticks: u64) -> Duration {
    Duration::from_nanos(ticks.div_ceil(PER_NANO))
}
