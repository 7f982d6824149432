//! A table in a partition, as its writer holds it: open slots, the list of segments, the horizon, the counters.
//!
//! 1. Where a row goes, and when a segment is sealed, follows from the log and [`Limits`] alone. Eviction changes what is
//!    resident, never where later rows go: an evicted slot that is still open goes on as a slot that stores nothing.
//! 2. Changes of the list are collected, and published once per block before the block's offset is.
//! 3. A segment that left the list is handed to the pool after the list without it was published.

mod checkpoint;
mod close;
mod evict;
mod rollups;

use std::collections::VecDeque;

use codec::{BlockHeader, BodyView};
use types::{Offset, Table, Timestamp};

use crate::{
    IdRuns, Limits, MemoryBudget, RunFault,
    block::{Block, Source},
    columns::{ColumnIndex, Width},
    dedup::{Counts, Dedup, DedupScratch, IdentityKey},
    event_times::EventTimes,
    pool::Pool,
    rollup::{Folds, RollupState},
    segment::{Rows, Segment, SegmentLayout, SegmentWriter, Stored, StoredTimes, Zone},
    slots::{Place, Slots},
    sync::{Arc, Ordering},
    table_columns::{TableColumns, Translated},
    usual::Usual,
    view::{SegmentEntry, SegmentOrder, TableShared, TableView},
    writer::{Applied, ApplyError},
};

/// The place of rows that are left out; see [`Limits`] for how many others there may be.
const LEFT_OUT: u8 = u8::MAX;

/// What all tables of a partition work with.
pub(crate) struct Means {
    pub(crate) limits: Limits,
    pub(crate) budget: Arc<MemoryBudget>,
    pub(crate) pool: Pool,
    pub(crate) scratch: Scratch,
    pub(crate) runs: Box<dyn IdRuns>,
    pub(crate) dedup: DedupScratch,
    /// Rows that rollups may still take of what leaves, before the next record or at this housekeeping.
    pub(crate) work_left: usize,
}

impl Means {
    pub(crate) fn new(limits: Limits, budget: Arc<MemoryBudget>, pool: Pool, runs: Box<dyn IdRuns>) -> Self {
        let (scratch, dedup) = (Scratch::default(), DedupScratch::default());
        Self { limits, budget, pool, scratch, runs, dedup, work_left: limits.folded_rows_max }
    }
}

/// Memory that is used again from block to block.
#[derive(Default)]
pub(crate) struct Scratch {
    translated: Translated,
    times: Vec<i64>,
    places: Vec<u8>,
    order: Vec<u32>,
}

/// Rows of one slot, or the stragglers.
struct OpenSlot {
    /// `Timestamp::MAX` for stragglers.
    start: Timestamp,
    end: Timestamp,
    /// Rows since it was opened or last idle, stored or not: how large its next segment is.
    rows: usize,
    /// Evicted: rows that come are counted as such and not stored.
    gone: bool,
    segment: Option<OpenSegment>,
}

struct OpenSegment {
    order: SegmentOrder,
    writer: SegmentWriter,
    opened_at: Timestamp,
    /// Its rows when housekeeping saw it last, and those of them that rollups were sent for.
    rows_seen: usize,
    rows_folded: usize,
}

impl OpenSlot {
    fn stragglers() -> Self {
        Self { start: Timestamp::MAX, end: Timestamp::MAX, rows: 0, gone: false, segment: None }
    }
}

/// The writer's side of a table.
pub(crate) struct TableWriter {
    shared: Arc<TableShared>,
    hot_window_us: Option<i64>,
    columns: TableColumns,
    dedup: Dedup,
    /// The columns that new segments have.
    usual: Usual,
    slots: Slots,
    open: Vec<Option<OpenSlot>>,
    stragglers: OpenSlot,
    segments: Vec<SegmentEntry>,
    sequence: u64,
    evicted_before: Option<Timestamp>,
    /// In the order declared.
    rollups: Vec<RollupState>,
    /// Segments with rows that rollups do not have yet, but for open ones with few.
    unfolded: VecDeque<SegmentOrder>,
    times: EventTimes,
    /// Whether the list, the columns or the horizon differ from what is published.
    changed: bool,
    /// Segments that are not in the list any more, but may be in the published one.
    removed: Vec<Arc<Segment>>,
    stored: u64,
    left: u64,
    refused: u64,
    counts: Counts,
}

impl TableWriter {
    pub(crate) fn new(limits: Limits) -> Self {
        let columns = TableColumns::default();
        Self {
            shared: Arc::new(TableShared::new(Arc::clone(columns.defs()))),
            hot_window_us: None,
            columns,
            dedup: Dedup::new(),
            usual: Usual::default(),
            slots: Slots::new(limits),
            open: (0..limits.open_slots_max).map(|_| None).collect(),
            stragglers: OpenSlot::stragglers(),
            segments: Vec::new(),
            sequence: 0,
            evicted_before: None,
            rollups: Vec::new(),
            unfolded: VecDeque::new(),
            times: EventTimes::new(),
            changed: false,
            removed: Vec::new(),
            stored: 0,
            left: 0,
            refused: 0,
            counts: Counts::default(),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<TableShared> {
        &self.shared
    }

    /// Takes over the settings that concern rows.
    pub(crate) fn configure(&mut self, table: &Table, append_time: Timestamp, means: &mut Means) {
        self.hot_window_us = table.settings.hot_window_us;
        self.times.configure(&table.settings);
        let key = IdentityKey { seed: table.identity_seed, partition_by: table.partition_by.clone() };
        self.dedup.configure(key, table.settings.dedup_window_us, append_time);
        self.declare(&table.settings.rollups, &means.budget);
        self.publish(&mut means.pool);
    }

    /// Judges which rows of a block were applied before; what [`TableWriter::apply`] of the same block goes by. Changes
    /// nothing that shows, and can be done again.
    pub(crate) fn judge(
        &mut self,
        append_time: Timestamp,
        header: &BlockHeader,
        body: &BodyView<'_>,
        means: &mut Means,
    ) -> Result<(), RunFault> {
        self.dedup.judge(append_time, header, body, means)
    }

    /// Forgets ids whose window is over, and sees what became of runs of ids.
    pub(crate) fn look_after_ids(&mut self, append_time: Timestamp, means: &mut Means) {
        self.dedup.look_after(append_time, means.runs.as_mut(), &means.budget);
    }

    /// The append time at which the next ids are forgotten.
    pub(crate) fn ids_due_at(&self) -> Option<Timestamp> {
        self.dedup.due_at()
    }

    /// Runs of ids that could not be written.
    pub(crate) fn unwritten_runs(&self) -> usize {
        self.dedup.unwritten()
    }

    /// Appends the rows of a block that was just judged and publishes them, all but the offset.
    pub(crate) fn apply(
        &mut self,
        offset: Offset,
        append_time: Timestamp,
        body: &BodyView<'_>,
        means: &mut Means,
    ) -> Result<Applied, ApplyError> {
        let (mut scratch, mut judged) = (std::mem::take(&mut means.scratch), std::mem::take(&mut means.dedup));
        let (limits, budget) = (means.limits, Arc::clone(&means.budget));
        let columns_before = self.columns.defs().len();
        let translated = self.columns.translate(body, &limits, &budget, &mut scratch.translated);
        let before = (self.stored, self.refused);
        // Also where the block is passed over: columns that it brought stay.
        self.changed |= self.columns.defs().len() > columns_before;
        let outcome = translated.map(|()| {
            // Only now, as the block will be applied: what is remembered will have been counted.
            let counts = self.dedup.remember(&limits, &budget, &mut judged);
            scratch.times.clear();
            scratch.times.extend(body.times().iter());
            self.close_old_stragglers(append_time, means);
            let block = Block {
                offset,
                body,
                times: &scratch.times,
                codes: &scratch.translated.codes,
                sources: &scratch.translated.sources,
                verdicts: judged.duplicates(counts),
            };
            self.usual.note(block.sources);
            self.append(&block, append_time, &mut scratch.places, &mut scratch.order, means);
            let (accepted, period) = (self.stored + self.refused, means.limits.segment_rows_max as u64);
            if accepted / period > (before.0 + before.1) / period {
                self.usual.end_period();
            }
            self.times.note(&block, append_time);
            self.counts.add(counts);
            counts.duplicate
        });
        (means.scratch, means.dedup) = (scratch, judged);
        self.publish(&mut means.pool);
        outcome.map(|duplicate| Applied { stored: self.stored - before.0, evicted: self.refused - before.1, duplicate })
    }

    /// Sends the rows of a block to their slots.
    fn append(
        &mut self,
        block: &Block<'_>,
        append_time: Timestamp,
        places: &mut Vec<u8>,
        order: &mut Vec<u32>,
        means: &mut Means,
    ) {
        let mut from = 0;
        places.clear();
        while from < block.times.len() {
            let needs_room = self.place_rows(block, from, places);
            let to = places.len();
            self.append_placed(block, append_time, from..to, places, order, means);
            let rows = block.kept_in(from..to) as u64;
            if self.slots.note_rows(rows) {
                (0..self.open.len()).for_each(|at| self.close(at, means));
            } else if needs_room {
                let at = self.slots.close_least_used();
                self.close(at, means);
            }
            let idle: Vec<usize> = self.slots.idle(rows).collect();
            idle.into_iter().for_each(|at| self.rest(at, means));
            from = to;
        }
    }

    /// Appends the places of the rows from `from` on to `places`; stops before a row that needs a slot to be closed, and
    /// says so.
    fn place_rows(&mut self, block: &Block<'_>, from: usize, places: &mut Vec<u8>) -> bool {
        let stragglers = self.open.len() as u8;
        let times = &block.times[from..];
        let zone = Zone::of(times);
        let alike = block.verdicts.is_none() && self.slots.start_of(zone.min.0) == self.slots.start_of(zone.max.0);
        for (row, &time) in times.iter().enumerate() {
            if !block.is_kept(from + row) {
                places.push(LEFT_OUT);
                continue;
            }
            match self.place(time) {
                Some(place) if alike && row == 0 && place != stragglers => {
                    // All rows lie in one open slot: the common case, without a look at each of them.
                    places.resize(places.len() + times.len(), place);
                    return false;
                }
                Some(place) => places.push(place),
                None => return true,
            }
        }
        false
    }

    /// The place of a row as a number, that of the stragglers being the last; `None`: a slot has to be closed first.
    fn place(&mut self, time: i64) -> Option<u8> {
        match self.slots.place(time) {
            Place::Slot(at) => Some(at as u8),
            Place::Opened(at) => {
                let start = self.slots.start_of(time);
                let end = self.slots.end_of(start);
                let gone = self.evicted_before.is_some_and(|horizon| end <= horizon);
                self.open[at] = Some(OpenSlot { start, end, rows: 0, gone, segment: None });
                Some(at as u8)
            }
            Place::Straggler => Some(self.open.len() as u8),
            Place::NeedsRoom => None,
        }
    }

    /// Appends rows `range`, slot by slot, in the order of the slots' numbers.
    fn append_placed(
        &mut self,
        block: &Block<'_>,
        append_time: Timestamp,
        range: std::ops::Range<usize>,
        places: &[u8],
        order: &mut Vec<u32>,
        means: &mut Means,
    ) {
        let Some(&first) = places.get(range.start) else { return };
        if first != LEFT_OUT && places[range.clone()].iter().all(|place| *place == first) {
            self.append_to(first, block, append_time, Rows::Range(range.start, range.end), means);
            return;
        }
        let mut ends = [0_usize; u8::MAX as usize + 1];
        places[range.clone()].iter().for_each(|place| ends[*place as usize] += 1);
        let mut end = 0;
        for count in &mut ends {
            end += std::mem::replace(count, end);
        }
        order.clear();
        order.resize(range.len(), 0);
        for row in range {
            let next = &mut ends[places[row] as usize];
            order[*next] = row as u32;
            *next += 1;
        }
        // What was a start is an end now, as each slot's rows were counted off. Those left out come last.
        let mut start = 0;
        for place in 0..=self.open.len() {
            let rows = &order[start..ends[place]];
            if !rows.is_empty() {
                self.append_to(place as u8, block, append_time, Rows::of(rows), means);
            }
            start = ends[place];
        }
    }

    /// Appends rows to one slot, opening and sealing its segments as they fill.
    fn append_to(&mut self, place: u8, block: &Block<'_>, append_time: Timestamp, rows: Rows<'_>, means: &mut Means) {
        let mut slot = self.take_slot(place);
        let mut rows = rows;
        while rows.len() > 0 {
            if slot.gone {
                slot.rows += rows.len();
                self.refused += rows.len() as u64;
                self.keep_late(block, rows, means);
                break;
            }
            let fits = slot
                .segment
                .as_ref()
                .is_some_and(|open| open.writer.room() > 0 && self.has_columns(open.writer.shared(), block.sources));
            if !fits {
                self.seal_open(&mut slot, means);
                slot.segment = Some(self.open_segment(&slot, append_time, block.sources, rows.len(), means));
            }
            let open = slot.segment.as_mut().expect("opened above");
            let (now, later) = rows.split_at(rows.len().min(open.writer.room()));
            open.writer.append(block, now);
            slot.rows += now.len();
            self.stored += now.len() as u64;
            rows = later;
        }
        self.put_slot(place, slot);
    }

    fn take_slot(&mut self, place: u8) -> OpenSlot {
        match self.open.get_mut(place as usize) {
            Some(slot) => slot.take().expect("rows are placed in open slots only"),
            None => std::mem::replace(&mut self.stragglers, OpenSlot::stragglers()),
        }
    }

    fn put_slot(&mut self, place: u8, slot: OpenSlot) {
        match self.open.get_mut(place as usize) {
            Some(at) => *at = Some(slot),
            None => self.stragglers = slot,
        }
    }

    /// Whether a segment can take rows of a block: it has all columns, of the current dictionaries, wide enough.
    fn has_columns(&self, segment: &Segment, sources: &[Source]) -> bool {
        sources.iter().enumerate().all(|(at, source)| match (source, segment.stored(ColumnIndex(at as u32))) {
            (Source::Absent, _) | (Source::Values(_), Stored::Values { .. }) => true,
            (Source::Codes(_), Stored::Codes { width, dictionary, .. }) => {
                let current = self.columns.dictionary(ColumnIndex(at as u32));
                current.is_some_and(|current| {
                    current.shared().id() == dictionary.id() && *width >= Width::for_codes(current.len())
                })
            }
            _ => false,
        })
    }

    /// A new segment, entered into the list.
    fn open_segment(
        &mut self,
        slot: &OpenSlot,
        append_time: Timestamp,
        sources: &[Source],
        rows: usize,
        means: &mut Means,
    ) -> OpenSegment {
        let writer = SegmentWriter::new(self.new_segment(slot.rows, sources, rows, means));
        let order = SegmentOrder { slot_start: slot.start, sequence: self.sequence };
        self.sequence += 1;
        let at = self.segments.partition_point(|entry| entry.order < order);
        let (segment, folds) = (Arc::clone(writer.shared()), Folds::default());
        self.segments.insert(at, SegmentEntry { order, segment, sealed: None, folds });
        self.changed = true;
        OpenSegment { order, writer, opened_at: append_time, rows_seen: 0, rows_folded: 0 }
    }

    /// An empty segment with the block's columns and those that are usual, for `more` rows behind the `rows` of its slot.
    fn new_segment(&mut self, rows: usize, sources: &[Source], more: usize, means: &mut Means) -> Segment {
        let columns = (0..sources.len() as u32).map(ColumnIndex).map(|column| {
            match (self.usual.has(column.index()), self.columns.dictionary(column)) {
                (false, _) => Stored::Absent,
                (true, None) => Stored::Values { word: 0 },
                (true, Some(dictionary)) => Stored::Codes {
                    width: Width::for_codes(dictionary.len()),
                    dictionary: Arc::clone(dictionary.shared()),
                    word: 0,
                },
            }
        });
        let layout = SegmentLayout::new(means.limits.segment_rows(rows, more), StoredTimes::Whole, columns.collect());
        let slab = means.pool.slab(layout.words);
        Segment::new(means.budget.next_id(), layout, slab, &means.budget)
    }

    /// Publishes list, columns, horizon and counters; then hands over what left. Returns its bytes.
    fn publish(&mut self, pool: &mut Pool) -> u64 {
        self.shared.stored.store(self.stored, Ordering::Relaxed);
        self.shared.refused.store(self.refused, Ordering::Relaxed);
        self.shared.duplicate.store(self.counts.duplicate, Ordering::Relaxed);
        self.shared.conflict.store(self.counts.conflict, Ordering::Relaxed);
        self.shared.late.store(self.times.late(), Ordering::Relaxed);
        if let Some(newest) = self.times.newest() {
            self.shared.event_time_max.store(newest.0, Ordering::Relaxed);
        }
        if let Some(at) = self.times.last_events_at() {
            self.shared.last_events_at.store(at.0, Ordering::Relaxed);
        }
        if !self.changed {
            return 0;
        }
        self.changed = false;
        self.shared.view.store(TableView {
            columns: Arc::clone(self.columns.defs()),
            segments: self.segments.clone(),
            evicted_before: self.evicted_before,
            rollups: self.rollups.iter().map(|state| state.view.clone()).collect(),
        });
        self.shared.left.store(self.left, Ordering::Relaxed);
        self.removed.drain(..).map(|segment| pool.retire(segment)).sum()
    }

    /// Bytes of segments, dictionaries, identities and rollups.
    pub(crate) fn bytes(&self) -> u64 {
        let segments = self.segments.iter().map(|entry| entry.segment.bytes()).sum::<u64>();
        let rollups = self.segments.iter().map(|entry| entry.folds.bytes()).sum::<u64>() + self.history_bytes();
        segments + rollups + self.columns.bytes() + self.dedup.bytes()
    }
}
