//! The rollups of a table as its writer holds them, and as readers see them.

use std::collections::BTreeSet;

use types::{Interval, Offset, Rollup, Timestamp};

use super::{history::History, page::PageKey, part::RollupPart};
use crate::{
    MemoryBudget,
    budget::HistoryCharge,
    sync::{Arc, weakened},
};

/// A rollup's past as of some offset.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    /// It has rows of records before this offset alone: a snapshot of an earlier offset cannot use it.
    pub(crate) from: Offset,
    /// All rows with times from here on are in the history or in segments.
    pub(crate) covered_from: Timestamp,
    pub(crate) history: Arc<History>,
    /// Rows that came when their bucket had left.
    pub(crate) revised: u64,
    /// Another one for each history and `covered_from` that a rollup ever has in this process.
    pub(crate) revision: u64,
}

/// A rollup, published.
#[derive(Debug, Clone)]
pub(crate) struct RollupView {
    pub(crate) id: u64,
    pub(crate) rollup: Arc<Rollup>,
    /// As it was before the record under way, where that changed it: readers of the offset before it need that.
    pub(crate) older: Option<Version>,
    pub(crate) newest: Version,
}

impl RollupView {
    /// Its past at an offset; `None` where that is not kept any more.
    pub(crate) fn at(&self, next_offset: Offset) -> Option<&Version> {
        let is_of = |version: &&Version| version.from <= next_offset || weakened("rollup-offset");
        std::iter::once(&self.newest).chain(&self.older).find(is_of)
    }
}

/// A rollup, the writer's side.
pub(crate) struct RollupState {
    pub(crate) view: RollupView,
    /// Pages of the newest history where parts are to be merged or divided.
    uneven: BTreeSet<PageKey>,
    charge: HistoryCharge,
}

impl RollupState {
    /// A rollup of which all rows with times from `horizon` on are resident.
    pub(crate) fn new(rollup: Rollup, horizon: Option<Timestamp>, budget: &Arc<MemoryBudget>) -> Self {
        let history = Arc::new(History::new(rollup.interval));
        let covered_from = horizon.map_or(Timestamp::MIN, |horizon| ceil(horizon, rollup.interval));
        let newest = Version { from: Offset::ZERO, covered_from, history, revised: 0, revision: 0 };
        Self::restored(rollup, newest, budget)
    }

    pub(crate) fn restored(rollup: Rollup, newest: Version, budget: &Arc<MemoryBudget>) -> Self {
        let mut charge = HistoryCharge::new(budget);
        charge.set(newest.history.bytes());
        let uneven = newest.history.uneven();
        let view = RollupView { id: budget.next_id(), rollup: Arc::new(rollup), older: None, newest };
        Self { view, uneven, charge }
    }

    pub(crate) fn interval(&self) -> Interval {
        self.view.rollup.interval
    }

    /// Whether it outlives the rows.
    pub(crate) fn keeps(&self) -> bool {
        self.view.rollup.keep_us.is_some()
    }

    /// Whether another one says the same of rows, however long it is kept.
    pub(crate) fn is_like(&self, other: &Rollup) -> bool {
        let Rollup { interval, group_by, distinct, percentiles, top, keep_us: _ } = &*self.view.rollup;
        *interval == other.interval
            && *group_by == other.group_by
            && *distinct == other.distinct
            && *percentiles == other.percentiles
            && *top == other.top
    }

    /// Takes over for how long it is kept. What it keeps and is not to keep any more goes; rows begin at `horizon`.
    pub(crate) fn redeclare(&mut self, rollup: Rollup, horizon: Option<Timestamp>) {
        self.view.rollup = Arc::new(rollup);
        if !self.keeps() {
            self.retire();
            self.set_history(History::new(self.interval()));
            self.uncover(horizon);
        }
    }

    /// Bytes of its history.
    pub(crate) fn bytes(&self) -> u64 {
        self.charge.bytes()
    }

    /// Takes what it keeps of rows that leave. `end`: behind their records. Those before the offset that is published were
    /// seen by readers in segments, so nobody needs the version before; what the record under way brings, they must not see.
    /// Where more than `merged_max` groups are to be merged for that, the rest waits for [`RollupState::compact`].
    pub(crate) fn absorb(
        &mut self,
        parts: &[Arc<RollupPart>],
        end: Offset,
        under_way: bool,
        merged_max: &mut usize,
        budget: &Arc<MemoryBudget>,
    ) {
        let first = self.interval().first_bucket_from(self.view.newest.covered_from);
        let before = under_way && self.view.newest.from < end && !weakened("rollup-before");
        let older = before.then(|| self.view.newest.clone());
        let mut history = History::clone(&self.view.newest.history);
        for part in parts {
            if !history.absorb(part, first, &mut self.uneven, budget) {
                part.retire();
            }
        }
        history.compact(&mut self.uneven, merged_max, budget);
        if under_way {
            let rows = |part: &Arc<RollupPart>| part.rows()[part.groups_in(&(first..i64::MAX))].iter().sum::<u64>();
            self.view.newest.revised += parts.iter().map(rows).sum::<u64>();
            // Where this record has changed it before, the version before the record stays.
            self.view.older = older.or(self.view.older.take());
        } else {
            self.view.older = None;
        }
        self.view.newest.from = self.view.newest.from.max(end);
        self.set_history(history);
    }

    /// Merges and divides parts of its history, until `left` groups were looked at. `true`: it is another one now, which says
    /// the same.
    pub(crate) fn compact(&mut self, left: &mut usize, budget: &Arc<MemoryBudget>) -> bool {
        if self.uneven.is_empty() || *left == 0 {
            return false;
        }
        let mut history = History::clone(&self.view.newest.history);
        let changed = history.compact(&mut self.uneven, left, budget);
        if changed {
            self.set_history(history);
        }
        changed
    }

    /// Rows before `horizon` are not resident any more, and not all of them are in the history.
    pub(crate) fn uncover(&mut self, horizon: Option<Timestamp>) {
        let due = horizon.map(|horizon| ceil(horizon, self.interval()));
        if let Some(due) = due.filter(|due| *due > self.view.newest.covered_from) {
            self.set_covered(due);
        }
    }

    /// Lets go of what nobody needs any more: the version before a record that is applied, and what is over by the append
    /// clock, but for what may still be resident: `horizon` is where rows begin. `true`: there was something.
    pub(crate) fn tidy(&mut self, next_offset: Offset, append_time: Timestamp, horizon: Option<Timestamp>) -> bool {
        debug_assert!(self.view.newest.from <= next_offset, "no record is under way");
        let had_older = self.view.older.take().is_some();
        let due = self.view.rollup.keep_us.zip(horizon);
        let due = due.map(|(keep_us, horizon)| append_time.saturating_add(keep_us.saturating_neg()).min(horizon));
        due.is_some_and(|due| self.drop_before(due)) || had_older
    }

    /// The end of its oldest page.
    pub(crate) fn oldest_page(&self) -> Option<Timestamp> {
        self.view.newest.history.first_end()
    }

    /// Lets go of the pages that end at `due` or before. `true`: there were some.
    pub(crate) fn drop_before(&mut self, due: Timestamp) -> bool {
        if self.oldest_page().is_none_or(|end| end > due) {
            return false;
        }
        let mut history = History::clone(&self.view.newest.history);
        let end = history.drop_before(due).expect("its first page ends there");
        self.set_history(history);
        self.set_covered(end.max(self.view.newest.covered_from));
        true
    }

    /// The writer has no more use for it.
    pub(crate) fn retire(&self) {
        self.view.newest.history.parts().for_each(|part| part.retire());
    }

    fn set_history(&mut self, history: History) {
        self.charge.set(history.bytes());
        self.view.newest.history = Arc::new(history);
        self.view.newest.revision += 1;
    }

    fn set_covered(&mut self, covered_from: Timestamp) {
        // Between two records, or in one that brings no rows: the newest version is good for the offset that is published.
        self.view.older = None;
        self.view.newest.covered_from = covered_from;
        self.view.newest.revision += 1;
    }
}

/// The start of the first bucket that begins at `time` or later.
pub(crate) fn ceil(time: Timestamp, interval: Interval) -> Timestamp {
    Timestamp(interval.first_bucket_from(time).saturating_mul(interval.micros()))
}
