//! How append time is cut into slices.
//!
//! With windows of `w` µs, slice `k` is the append times `[k·s, (k + 1)·s)`, `s = ceil(w / 3)`. An id of slice `j` is
//! remembered while the current slice is at most `j + 3`: for more than `3·s ≥ w`, and in at most four slices.
//!
//! A table's window can change. What was promised to ids that are there stays: each slice keeps the times it was made
//! with. The current slice ends with the change, so that ids from then on have the new window.

use types::{Interval, Timestamp};

/// Slices that follow one before it is forgotten, and parts of a window.
const SLICES_PER_WINDOW: i64 = 3;

/// When a slice takes no more ids, and when it is forgotten; both append times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SliceTimes {
    pub(super) until: Timestamp,
    pub(super) forget_at: Timestamp,
}

/// The width of slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    slice: Interval,
}

impl Window {
    /// A window of `micros`, at least one.
    pub(super) fn of_micros(micros: i64) -> Self {
        let slice = micros.max(1).unsigned_abs().div_ceil(SLICES_PER_WINDOW.unsigned_abs()).cast_signed();
        Self { slice: Interval::from_micros(slice).expect("a third of something positive, rounded up") }
    }

    /// A window of slices of this width.
    pub(super) fn of_slices(slice: Interval) -> Self {
        Self { slice }
    }

    /// The width of slices, µs.
    pub(super) fn slice_us(self) -> i64 {
        self.slice.micros()
    }

    /// The slice that a record of this append time opens.
    pub(super) fn slice_at(self, append_time: Timestamp) -> SliceTimes {
        let start = self.slice.bucket_start(append_time);
        let after = |slices: i64| start.saturating_add(self.slice.micros().saturating_mul(slices));
        SliceTimes { until: after(1), forget_at: after(1 + SLICES_PER_WINDOW) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: an id is remembered for at least the window after any record of its slice, and for less than the four
        /// slices that bound memory.
        #[test]
        fn ids_are_remembered_for_the_window(window in 1_i64..100_000, at in -1_000_000_i64..1_000_000) {
            let slice = Window::of_micros(window).slice_at(Timestamp(at));
            prop_assert!(Timestamp(at) < slice.until);
            prop_assert!(slice.forget_at >= Timestamp(at + window), "remembered through the window");
            prop_assert!(slice.forget_at.0 - at <= 4 * (window + 2).div_euclid(3), "at most four slices");
            let same = Window::of_micros(window).slice_at(Timestamp(slice.until.0 - 1));
            prop_assert_eq!(slice, same, "all records of a slice agree on it");
        }
    }

    /// Goal: no window is too long to be reckoned with.
    #[test]
    fn ends_of_time_hold() {
        let slice = Window::of_micros(i64::MAX).slice_at(Timestamp(i64::MAX));
        assert_eq!(slice.forget_at, Timestamp::MAX);
        assert!(Window::of_micros(0).slice_at(Timestamp(5)).until > Timestamp(5));
    }
}
