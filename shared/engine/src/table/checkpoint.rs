//! A table's state for a checkpoint, and a table of such a state.

use std::collections::VecDeque;

use types::TableKey;

use super::{OpenSegment, OpenSlot, TableWriter};
use crate::{
    IdRuns,
    checkpoint::{CapturedRollup, CapturedSegment, CapturedTable, DictionaryAt, OpenState, RestoredTable},
    pool::Pool,
    sync::Arc,
    view::TableShared,
};

impl OpenSlot {
    fn capture(&self) -> OpenState {
        let segment = self.segment.as_ref().map(|open| (open.order.sequence, open.opened_at));
        OpenState { start: self.start, end: self.end, rows: self.rows, gone: self.gone, segment }
    }
}

impl TableWriter {
    /// What the table is now. Rows and strings are shared, not copied.
    pub(crate) fn capture(&self, key: TableKey, runs: &dyn IdRuns) -> CapturedTable {
        let segments = self.segments.iter().map(|entry| CapturedSegment {
            entry: entry.clone(),
            // The writer's own count: nothing is appended meanwhile.
            rows: entry.segment.observe(),
        });
        let rollups = self
            .rollups
            .iter()
            .map(|state| CapturedRollup { rollup: Arc::clone(&state.view.rollup), version: state.view.newest.clone() });
        CapturedTable {
            key,
            hot_window_us: self.hot_window_us,
            times: self.times.clone(),
            columns: Arc::clone(self.columns.defs()),
            dictionaries: self.columns.dictionaries().map(|writer| writer.map(DictionaryAt::of_writer)).collect(),
            usual: self.usual.clone(),
            slots: self.slots.clone(),
            open: self.open.iter().map(|slot| slot.as_ref().map(OpenSlot::capture)).collect(),
            stragglers: self.stragglers.capture(),
            segments: segments.collect(),
            sequence: self.sequence,
            evicted_before: self.evicted_before,
            rollups: rollups.collect(),
            stored: self.stored,
            left: self.left,
            refused: self.refused,
            counts: self.counts,
            dedup: self.dedup.capture(runs),
        }
    }

    /// A table as it was captured, less the segments that the memory budget has no room for any more. Published.
    pub(crate) fn restore(table: RestoredTable, pool: &mut Pool) -> Self {
        let RestoredTable { state, columns, segments, open: mut writers, dedup, rollups, .. } = table;
        let mut open_slot = |state: OpenState| {
            let segment = state.order().zip(state.segment).map(|(order, (_, opened_at))| {
                let writer = writers.remove(&order).expect("each open segment of the state was restored");
                OpenSegment { order, writer, opened_at, rows_seen: 0, rows_folded: 0 }
            });
            OpenSlot { start: state.start, end: state.end, rows: state.rows, gone: state.gone, segment }
        };
        let open = state.open.into_iter().map(|slot| slot.map(&mut open_slot)).collect();
        let stragglers = open_slot(state.stragglers);
        let mut table = Self {
            shared: Arc::new(TableShared::new(Arc::clone(columns.defs()))),
            hot_window_us: state.hot_window_us,
            columns,
            dedup,
            usual: state.usual,
            slots: state.slots,
            open,
            stragglers,
            segments,
            sequence: state.sequence,
            evicted_before: state.evicted_before,
            rollups,
            unfolded: VecDeque::new(),
            times: state.times,
            changed: true,
            removed: Vec::new(),
            stored: state.stored,
            left: state.left,
            refused: state.refused,
            counts: state.counts,
        };
        table.fold_all_anew();
        table.publish(pool);
        table
    }
}
