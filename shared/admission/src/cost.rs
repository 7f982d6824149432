//! What a request takes from a bucket.

use std::num::NonZeroU32;

/// Largest cost of one request. The contract's limit of events is far below; the bound keeps all sums in range.
pub const COST_MAX: u32 = 1 << 28;

/// A request's cost in events: at least 1, at most [`COST_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost(NonZeroU32);

/// A number that is no cost. Zero would pass every limit, and a huge one would overflow into a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostError;

impl std::fmt::Display for CostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a request has from 1 to {COST_MAX} events")
    }
}

impl std::error::Error for CostError {}

impl Cost {
    /// The cost of `events`.
    ///
    /// # Errors
    /// None at all, or more than [`COST_MAX`].
    pub fn new(events: u64) -> Result<Self, CostError> {
        let events = u32::try_from(events).ok().filter(|events| *events <= COST_MAX);
        events.and_then(NonZeroU32::new).map(Self).ok_or(CostError)
    }

    /// The number of events.
    #[must_use]
    pub const fn events(self) -> u64 {
        self.0.get() as u64
    }
}
