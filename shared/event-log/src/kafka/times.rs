//! Append times of the newest records, as runs of records with one time: brokers count in milliseconds, so that a run is a
//! batch or more.

use std::collections::VecDeque;

use types::{Offset, Timestamp};

/// Runs that are kept: a minute of a partition that is written to every millisecond.
const RUNS_MAX: usize = 1 << 16;

/// Append times of the records from some offset on, which is the only one that ever rises by itself.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// The first record of a run and its time, oldest first.
    runs: VecDeque<(Offset, Timestamp)>,
}

impl Times {
    /// Adds the next record.
    pub(crate) fn push(&mut self, offset: Offset, time: Timestamp) {
        if self.runs.back().is_some_and(|(_, last)| *last == time) {
            return;
        }
        if self.runs.len() == RUNS_MAX {
            self.runs.pop_front();
        }
        self.runs.push_back((offset, time));
    }

    /// Forgets all: the records that come are not next to these.
    pub(crate) fn forget(&mut self) {
        self.runs.clear();
    }

    /// The time of a record that was added; `None` where it was so long ago that it was forgotten.
    pub(crate) fn of(&self, offset: Offset) -> Option<Timestamp> {
        let behind = self.runs.partition_point(|(first, _)| *first <= offset);
        behind.checked_sub(1).map(|run| self.runs[run].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every record has its time as long as its run is kept, and none has that of another after.
    #[test]
    fn times_of_the_newest_are_known() {
        let mut times = Times::default();
        assert_eq!(times.of(Offset(7)), None);
        let time = |n: u64| Timestamp((n / 3) as i64);
        let count = 3 * (RUNS_MAX as u64 + 10);
        (0..count).for_each(|n| times.push(Offset(n), time(n)));
        let known: Vec<_> = (0..count).map(|n| times.of(Offset(n))).collect();
        assert_eq!(known.iter().filter(|time| time.is_none()).count(), 30);
        for n in 30..count {
            assert_eq!(known[n as usize], Some(time(n)));
        }
        times.forget();
        assert_eq!(times.of(Offset(count)), None);
    }
}
