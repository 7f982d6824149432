//! A table's rollups: declared, folded beside the rows, and kept when these leave.

use types::{Offset, Rollup, Timestamp};

use super::{Means, TableWriter};
use crate::{
    MemoryBudget,
    block::Block,
    rollup::{Folded, Folds, RollupState, fold},
    segment::{Rows, SegmentWriter},
    sync::Arc,
    view::{SegmentEntry, SegmentOrder},
};

/// Rows of an open segment that wait at least, before rollups take them while more are coming.
const WAITING_ROWS_MIN: usize = 16_384;

impl TableWriter {
    /// Takes over the rollups of a table. One that stays the same but for how long it is kept goes on; a new one has what is
    /// resident.
    pub(super) fn declare(&mut self, rollups: &[Rollup], budget: &Arc<MemoryBudget>) {
        let horizon = self.evicted_before;
        let mut known = std::mem::take(&mut self.rollups);
        for rollup in rollups {
            self.rollups.push(match known.iter().position(|state| state.is_like(rollup)) {
                Some(at) => {
                    let mut state = known.remove(at);
                    state.redeclare(rollup.clone(), horizon);
                    state
                }
                None => RollupState::new(rollup.clone(), horizon, budget),
            });
        }
        known.iter().for_each(RollupState::retire);
        let ids: Vec<u64> = self.rollups.iter().map(|state| state.view.id).collect();
        self.segments.iter_mut().for_each(|entry| entry.folds.retain(&ids));
        self.fold_all_anew();
        self.changed = true;
    }

    /// Looks at every segment again for rows that rollups do not have yet.
    pub(super) fn fold_all_anew(&mut self) {
        let ids: Vec<u64> = self.rollups.iter().map(|state| state.view.id).collect();
        let waits = |entry: &&SegmentEntry| {
            entry.sealed.as_ref().is_some_and(|sealed| ids.iter().any(|id| entry.folds.rows(*id) < sealed.rows))
        };
        self.unfolded = self.segments.iter().filter(waits).map(|entry| entry.order).collect();
        let open = self.open.iter_mut().flatten().chain([&mut self.stragglers]);
        open.filter_map(|slot| slot.segment.as_mut()).for_each(|open| open.rows_folded = 0);
    }

    /// Whether there is a rollup.
    pub(crate) fn has_rollups(&self) -> bool {
        !self.rollups.is_empty()
    }

    /// Folds rows that wait into what rollups have of their segments, merges what they keep, and publishes. Changes no answer.
    /// Returns how many of `rows_max` are left to take elsewhere; a row counts once per rollup, and a group that is merged
    /// as a row.
    pub(crate) fn fold_waiting(&mut self, rows_max: usize, means: &mut Means) -> usize {
        let mut left = rows_max;
        let open = self.open.iter_mut().flatten().chain([&mut self.stragglers]);
        let due: Vec<SegmentOrder> = open
            .filter_map(|slot| slot.segment.as_mut())
            .filter_map(|open| {
                let (rows, before) = (open.writer.rows(), open.rows_seen);
                open.rows_seen = rows;
                // What grew since the last time grows on: it is taken when there is enough of it.
                let is_due = rows - open.rows_folded >= WAITING_ROWS_MIN || rows == before && rows > open.rows_folded;
                is_due.then(|| {
                    open.rows_folded = rows;
                    open.order
                })
            })
            .collect();
        self.unfolded.extend(due);
        while let Some(&order) = self.unfolded.front()
            && left > 0
        {
            if self.fold_segment(order, &mut left, &means.budget) {
                self.unfolded.pop_front();
            }
        }
        for state in &mut self.rollups {
            self.changed |= state.compact(&mut left, &means.budget);
        }
        self.publish(&mut means.pool);
        left
    }

    /// Folds the rows of a segment, at most `left` of them. `true`: all of them, or there is no such segment any more.
    fn fold_segment(&mut self, order: SegmentOrder, left: &mut usize, budget: &Arc<MemoryBudget>) -> bool {
        let Ok(at) = self.segments.binary_search_by_key(&order, |entry| entry.order) else { return true };
        let (entry, columns) = (&mut self.segments[at], self.columns.defs());
        for state in &self.rollups {
            let taken = fold(state, columns, entry, *left, budget);
            self.changed |= taken > 0;
            *left -= taken;
        }
        let rows = entry.segment.observe();
        self.rollups.iter().all(|state| entry.folds.rows(state.view.id) == rows)
    }

    /// Lets go of what rollups need not keep any more; no record is under way. Publishes.
    pub(crate) fn tidy_rollups(&mut self, next_offset: Offset, append_time: Timestamp, means: &mut Means) {
        let horizon = self.evicted_before;
        for state in &mut self.rollups {
            self.changed |= state.tidy(next_offset, append_time, horizon);
        }
        self.publish(&mut means.pool);
    }

    /// Lets the rollups that outlive rows take those of a segment that is to leave, as far as they may now: what a record
    /// waits for has a bound. `true`: they have all of them.
    pub(super) fn fold_to_leave(&mut self, order: SegmentOrder, means: &mut Means) -> bool {
        let at = self.segments.binary_search_by_key(&order, |entry| entry.order).expect("it was just listed");
        let (entry, columns) = (&mut self.segments[at], self.columns.defs());
        for state in self.rollups.iter().filter(|state| state.keeps()) {
            let taken = fold(state, columns, entry, means.work_left, &means.budget);
            self.changed |= taken > 0;
            means.work_left -= taken;
        }
        let rows = entry.segment.observe();
        self.rollups.iter().filter(|state| state.keeps()).all(|state| entry.folds.rows(state.view.id) == rows)
    }

    /// Says what rollups keep of a segment that leaves. All of its rows came before this record.
    pub(super) fn keep_of(&mut self, entry: &mut SegmentEntry, means: &mut Means) {
        let rows = entry.segment.observe();
        let end = entry.segment.origin(rows - 1).0.next();
        self.absorb(entry, end, false, means);
    }

    /// Says what rollups keep of rows whose slot has left: they are known as the rows of any segment are, but for that this
    /// one is in no list.
    pub(super) fn keep_late(&mut self, block: &Block<'_>, rows: Rows<'_>, means: &mut Means) {
        if !self.rollups.iter().any(RollupState::keeps) {
            return;
        }
        let mut rows = rows;
        while rows.len() > 0 {
            let segment = self.new_segment(0, block.sources, rows.len(), means);
            let mut writer = SegmentWriter::new(segment);
            let (now, later) = rows.split_at(rows.len().min(writer.room()));
            writer.append(block, now);
            let order = SegmentOrder { slot_start: Timestamp::MIN, sequence: 0 };
            let segment = Arc::clone(writer.shared());
            drop(writer);
            let mut entry = SegmentEntry { order, segment, sealed: None, folds: Folds::default() };
            self.absorb(&mut entry, block.offset.next(), true, means);
            means.pool.take_back(entry.segment);
            rows = later;
        }
    }

    /// Gives the rollups that outlive rows what they have of a segment; `end` is behind the record of its last row.
    fn absorb(&mut self, entry: &mut SegmentEntry, end: Offset, under_way: bool, means: &mut Means) {
        let columns = Arc::clone(self.columns.defs());
        for state in &mut self.rollups {
            if state.keeps() {
                fold(state, &columns, entry, usize::MAX, &means.budget);
                let folded = entry.folds.of(state.view.id).expect("a segment has rows");
                state.absorb(&folded.parts, end, under_way, &mut means.work_left, &means.budget);
                self.changed = true;
            } else {
                entry.folds.of(state.view.id).into_iter().for_each(Folded::retire);
            }
        }
    }

    /// Says that the rollups which do not outlive rows lack those that have left.
    pub(super) fn uncover(&mut self) {
        let horizon = self.evicted_before;
        self.rollups.iter_mut().filter(|state| !state.keeps()).for_each(|state| state.uncover(horizon));
    }

    /// Bytes of histories.
    pub(crate) fn history_bytes(&self) -> u64 {
        self.rollups.iter().map(RollupState::bytes).sum()
    }

    /// The end of the oldest page of a history; `None` where there is none.
    pub(crate) fn oldest_history(&self) -> Option<Timestamp> {
        self.rollups.iter().filter_map(RollupState::oldest_page).min()
    }

    /// Lets go of the pages that end at `end` or before. Publishes.
    pub(crate) fn drop_history(&mut self, end: Timestamp, means: &mut Means) {
        for state in &mut self.rollups {
            self.changed |= state.drop_before(end);
        }
        self.publish(&mut means.pool);
    }

    /// The writer has no more use for what rollups have.
    pub(super) fn retire_rollups(&mut self) {
        self.segments.iter_mut().for_each(|entry| entry.folds.retain(&[]));
        self.rollups.drain(..).for_each(|state| state.retire());
    }
}
