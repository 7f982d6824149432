//! All that a run leaves to chance, drawn from its seed.

use event_log::faults::Dice;

/// A source of choices: what a seed gave once it gives again.
#[derive(Debug, Clone)]
pub(crate) struct Random(Dice);

impl Random {
    /// The choices of a seed; `purpose` keeps those of different parts of a run apart.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        let mut dice = Dice::new(seed ^ purpose.wrapping_mul(0xA24B_AED4_963E_E407));
        Self(Dice::new(dice.below(u64::MAX)))
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below(low.abs_diff(high) + 1).cast_signed()
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of some.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// An index into something of that length, which is not 0.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Another order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}
