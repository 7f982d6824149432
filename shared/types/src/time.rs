//! Time: microseconds since the Unix epoch, UTC, as `i64`. Nothing here reads a clock.

use std::{fmt, time::Duration};

/// Microseconds since the Unix epoch, UTC; negative before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Before every other time.
    pub const MIN: Self = Self(i64::MIN);
    /// After every other time.
    pub const MAX: Self = Self(i64::MAX);

    /// This time plus `micros`, held at the ends of the range.
    #[must_use]
    pub const fn saturating_add(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to this time, held at the ends of the range; negative if `earlier` is later.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time of a duration since the epoch, as a system clock gives it; held at the end of the range.
    #[must_use]
    pub fn from_epoch(since_epoch: Duration) -> Self {
        Self(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}

/// A half-open range of time `[start, end)` that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeRange {
    start: Timestamp,
    end: Timestamp,
}

impl TimeRange {
    /// The range `[start, end)`; `None` unless `start < end`.
    #[must_use]
    pub fn new(start: Timestamp, end: Timestamp) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// The first time in the range.
    #[must_use]
    pub const fn start(&self) -> Timestamp {
        self.start
    }

    /// The first time after the range.
    #[must_use]
    pub const fn end(&self) -> Timestamp {
        self.end
    }

    /// Whether the range holds `time`.
    #[must_use]
    pub fn contains(&self, time: Timestamp) -> bool {
        self.start <= time && time < self.end
    }

    /// Whether every time in the closed range `[min, max]` lies in this range.
    #[must_use]
    pub fn covers_closed(&self, min: Timestamp, max: Timestamp) -> bool {
        self.start <= min && max < self.end
    }

    /// Whether any time of the closed range `[min, max]` lies in this range.
    #[must_use]
    pub fn meets_closed(&self, min: Timestamp, max: Timestamp) -> bool {
        min < self.end && self.start <= max
    }
}

/// A width of time buckets, aligned to the epoch; at least one microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(i64);

impl Interval {
    /// A width in microseconds; `None` unless positive.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        (micros > 0).then_some(Self(micros))
    }

    /// The width in microseconds.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The number of the bucket that holds `time`; negative before the epoch.
    #[must_use]
    pub const fn bucket_of(self, time: Timestamp) -> i64 {
        time.0.div_euclid(self.0)
    }

    /// The number of the first bucket that begins at `time` or later.
    #[must_use]
    pub const fn first_bucket_from(self, time: Timestamp) -> i64 {
        self.bucket_of(time) + (time.0.rem_euclid(self.0) != 0) as i64
    }

    /// The first time of the bucket that holds `time`, held at the start of the range.
    #[must_use]
    pub const fn bucket_start(self, time: Timestamp) -> Timestamp {
        Timestamp(time.0.saturating_sub(time.0.rem_euclid(self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: buckets are aligned to the epoch on both sides of it.
    #[test]
    fn buckets_align_to_the_epoch() {
        let minute = Interval::from_micros(60).unwrap();
        assert_eq!(minute.bucket_start(Timestamp(-1)), Timestamp(-60));
        assert_eq!(minute.bucket_start(Timestamp(0)), Timestamp(0));
        assert_eq!(minute.bucket_start(Timestamp(119)), Timestamp(60));
        assert_eq!(minute.bucket_of(Timestamp(-61)), -2);
        assert_eq!(
            [-61, -60, -59, 0, 1, 60].map(|time| minute.first_bucket_from(Timestamp(time))),
            [-1, -1, 0, 0, 1, 1]
        );
        assert_eq!(Interval::from_micros(0), None);
    }

    /// Goal: a range is never empty, and its closed-range relations agree with `contains`.
    #[test]
    fn ranges_are_half_open() {
        assert_eq!(TimeRange::new(Timestamp(5), Timestamp(5)), None);
        let range = TimeRange::new(Timestamp(5), Timestamp(8)).unwrap();
        for min in 0..12 {
            for max in min..12 {
                let inside = (min..=max).filter(|t| range.contains(Timestamp(*t))).count() as i64;
                assert_eq!(range.meets_closed(Timestamp(min), Timestamp(max)), inside > 0);
                assert_eq!(range.covers_closed(Timestamp(min), Timestamp(max)), inside == max - min + 1);
            }
        }
    }
}
