//! How fast a checkpoint is written, by what it keeps in memory meanwhile.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use engine::MemoryBudget;

/// A checkpoint that is being written keeps rows that have left the tables; where what is kept so takes more than this share of
/// the memory budget, the rate does not matter any more.
const HURRY_SHARE: u64 = 16;
/// And where it takes more than this share, the checkpoint is given up: with an eighth events would be refused.
const GIVE_UP_SHARE: u64 = 10;

/// How fast to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Rate,
    Hurry,
    GiveUp,
}

impl Pace {
    /// The pace of now.
    pub(crate) fn of(budget: &MemoryBudget, held: &Held) -> Self {
        Self::at(held.of(budget.retired()), budget.limit())
    }

    /// The pace where so many bytes have left the tables and wait for the checkpoint.
    fn at(held: u64, limit: u64) -> Self {
        match held {
            _ if held > limit / GIVE_UP_SHARE => Self::GiveUp,
            _ if held > limit / HURRY_SHARE => Self::Hurry,
            _ => Self::Rate,
        }
    }
}

/// What waits for a checkpoint alone, of all that has left the tables and is still kept.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// The least that was kept since the capture. What was kept then already waits for readers: giving the checkpoint up
    /// would free none of it. Relaxed: writer and thread each bring their own look at one number, and nothing hangs on it.
    least: AtomicU64,
}

impl Held {
    /// A capture that was just taken.
    pub(crate) fn since(budget: &MemoryBudget) -> Self {
        Self { least: AtomicU64::new(budget.retired()) }
    }

    /// The bytes that wait for it, at most, now that so many are kept: what readers came to hold meanwhile is among them.
    fn of(&self, retired: u64) -> u64 {
        retired - self.least.fetch_min(retired, Relaxed).min(retired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a checkpoint gives up its rate, and then itself, before events are refused for the memory that waits for it.
    #[test]
    fn pinned_memory_is_a_reason_to_hurry() {
        let paces = [0, 100, 101, 160, 161, 200].map(|held| Pace::at(held, 1_600));
        assert_eq!(paces, [Pace::Rate, Pace::Rate, Pace::Hurry, Pace::Hurry, Pace::GiveUp, Pace::GiveUp]);
    }

    /// Goal: a checkpoint does not hurry, nor end, for memory that readers held when it began, however much that is; nor
    /// does that hide what comes to wait for it when those readers have left.
    #[test]
    fn what_readers_hold_is_no_reason_to_hurry() {
        let held = Held { least: AtomicU64::new(400) };
        let paces = [400, 500, 501, 561, 50, 150, 151, 211].map(|retired| Pace::at(held.of(retired), 1_600));
        let expected = [Pace::Rate, Pace::Rate, Pace::Hurry, Pace::GiveUp];
        assert_eq!(paces, [expected, expected].concat()[..]);
    }
}
