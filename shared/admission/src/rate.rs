//! A rate with its burst, and the price of events in time.

use std::time::Duration;

use crate::{
    cost::{COST_MAX, Cost},
    share::Share,
    ticks::{NOW_MAX, PER_SECOND},
};

/// Largest rate, events per second.
pub const RATE_MAX: u64 = 1_000_000_000_000;
/// Largest burst, events.
pub const BURST_MAX: u64 = COST_MAX as u64;

// The most that a bucket ever owes, one largest burst or request at the smallest rate, on top of the latest time, fits
// a word: no sum in a bucket can wrap, and none reaches the mark of a bucket that was swept away.
const _: () = assert!((BURST_MAX as u128) * (PER_SECOND as u128) + (NOW_MAX as u128) < u64::MAX as u128);

/// Events per second, and how many may come at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u64,
    burst: u64,
}

/// Numbers that are no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateError;

impl std::fmt::Display for RateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a rate is from 1 to {RATE_MAX} events per second, a burst from 1 to {BURST_MAX} events")
    }
}

impl std::error::Error for RateError {}

impl Rate {
    /// `per_second` events with bursts of `burst`.
    ///
    /// # Errors
    /// One of them is 0 or above its maximum.
    pub fn new(per_second: u64, burst: u64) -> Result<Self, RateError> {
        let is_valid = (1..=RATE_MAX).contains(&per_second) && (1..=BURST_MAX).contains(&burst);
        is_valid.then_some(Self { per_second, burst }).ok_or(RateError)
    }

    /// `per_second` events, with bursts of what comes in `pause` at that rate, held between 1 and [`BURST_MAX`].
    ///
    /// # Errors
    /// `per_second` is 0 or above [`RATE_MAX`].
    pub fn with_pause(per_second: u64, pause: Duration) -> Result<Self, RateError> {
        let burst = u128::from(per_second) * pause.as_nanos() / 1_000_000_000;
        let burst = u64::try_from(burst).unwrap_or(BURST_MAX).clamp(1, BURST_MAX);
        Self::new(per_second, burst)
    }

    /// Events per second.
    #[must_use]
    pub const fn per_second(self) -> u64 {
        self.per_second
    }

    /// Events at once after a pause.
    #[must_use]
    pub const fn burst(self) -> u64 {
        self.burst
    }

    /// The time in which the rate brings `cost`, rounded up: rounding never admits more than the rate.
    pub(crate) fn price(self, cost: Cost) -> u64 {
        self.ticks_up(cost.events())
    }

    /// The time in which an empty bucket fills, rounded down for the same reason (so that the last event of a burst may
    /// have to wait a few ticks more), but never below one event.
    pub(crate) fn depth(self) -> u64 {
        let ticks = u128::from(self.burst) * u128::from(PER_SECOND) / u128::from(self.per_second);
        u64::try_from(ticks).expect("BURST_MAX bounds it").max(self.ticks_up(1))
    }

    /// The events that a share of the rate brings in `ticks`, rounded down.
    pub(crate) fn events_in(self, ticks: u64, share: Share) -> u64 {
        const UNITS: u128 = PER_SECOND as u128 * Share::WHOLE.millionths() as u128;
        let rate = u128::from(self.per_second) * u128::from(share.millionths());
        // 2^63 ticks, a rate below 2^40 and a share of at most 2^20 stay within the range.
        let events = u128::from(ticks) * rate / UNITS;
        u64::try_from(events).unwrap_or(u64::MAX).min(share.of(self.burst))
    }

    fn ticks_up(self, events: u64) -> u64 {
        let ticks = (u128::from(events) * u128::from(PER_SECOND)).div_ceil(u128::from(self.per_second));
        u64::try_from(ticks).expect("COST_MAX and BURST_MAX bound it")
    }
}
