//! How fast a checkpoint is written, by what it keeps in memory meanwhile.

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
    pub(crate) fn of(budget: &MemoryBudget) -> Self {
        Self::at(budget.retired(), budget.limit())
    }

    /// The pace where so many bytes have left the tables and are still kept.
    fn at(retired: u64, limit: u64) -> Self {
        match retired {
            _ if retired > limit / GIVE_UP_SHARE => Self::GiveUp,
            _ if retired > limit / HURRY_SHARE => Self::Hurry,
            _ => Self::Rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a checkpoint gives up its rate, and then itself, before events are refused for the memory that waits for it.
    #[test]
    fn pinned_memory_is_a_reason_to_hurry() {
        let paces = [0, 100, 101, 160, 161, 200].map(|retired| Pace::at(retired, 1_600));
        assert_eq!(paces, [Pace::Rate, Pace::Rate, Pace::Hurry, Pace::Hurry, Pace::GiveUp, Pace::GiveUp]);
    }
}
