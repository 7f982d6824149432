//! The part of a budget that one process may use, where several share it.

use crate::ticks::PER_SECOND;

/// Millionths of the whole.
const WHOLE: u32 = 1_000_000;
/// When to come back where there is no share: by then there is one, or the budget is used up elsewhere.
const WAIT_WITHOUT: u64 = PER_SECOND / 4;

/// A part of a budget, in millionths: of its rate and of its burst alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// Nothing of it.
    pub const NONE: Self = Self(0);
    /// All of it.
    pub const WHOLE: Self = Self(WHOLE);

    /// A share of so many millionths; more than the whole is the whole.
    #[must_use]
    pub fn of_millionths(millionths: u64) -> Self {
        Self(u32::try_from(millionths).unwrap_or(WHOLE).min(WHOLE))
    }

    /// Its millionths.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// What costs `price` ticks of the whole rate, at this part of it; `Err`: when to ask again, as there is no share. No price
    /// is above the largest of the whole rate, which bounds the sums of a bucket; that is years.
    pub(crate) fn price(self, price: u64) -> Result<u64, u64> {
        match self.0 {
            0 => Err(WAIT_WITHOUT),
            WHOLE => Ok(price),
            part => Ok(scaled_up(price, WHOLE, part)),
        }
    }

    /// The part of so many events, rounded down.
    pub(crate) fn of(self, events: u64) -> u64 {
        let part = u128::from(events) * u128::from(self.0) / u128::from(WHOLE);
        u64::try_from(part).expect("a part is no more than the whole")
    }
}

/// The longest time that a price or a debt may be, in ticks.
const LONGEST: u64 = (1 << 62) - 1;

/// `ticks * numerator / denominator`, rounded up and held at [`LONGEST`].
pub(crate) fn scaled_up(ticks: u64, numerator: u32, denominator: u32) -> u64 {
    let scaled = (u128::from(ticks) * u128::from(numerator)).div_ceil(u128::from(denominator));
    u64::try_from(scaled).unwrap_or(LONGEST).min(LONGEST)
}

/// `ticks * numerator / denominator`, rounded down; `numerator` is no more than `denominator`.
pub(crate) fn scaled_down(ticks: u64, numerator: u32, denominator: u32) -> u64 {
    let scaled = u128::from(ticks) * u128::from(numerator) / u128::from(denominator);
    u64::try_from(scaled).expect("no more than before")
}
