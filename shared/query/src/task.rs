//! Cutting a scan into tasks: runs of whole segments in canonical order.
//!
//! 1. A segment takes part if and only if one of its rows lies in the plan's range. Zones only save the look: they may be
//!    wider than the rows of a snapshot, by as much as the writer has gone on, and boundaries must not depend on that.
//! 2. A task ends after the segment with which it has [`TASK_ROWS_MIN`] rows, or [`LONG_TASK_ROWS_MIN`] where its codes may be
//!    many, and where a group column's codes change their meaning. So its length depends on rows and the widths of their codes
//!    alone, which the log decides, never on threads.

use std::sync::Arc;

use engine::{CHUNK_ROWS, Codes, SegmentView};
use types::{PartitionId, TimeRange};

use crate::{
    partial::ScanStats,
    plan::Plan,
    source::{PlannedSource, Source},
};

/// Rows with which a task is long enough: some 0.2 to 2 ms of work, and few enough results to merge.
pub const TASK_ROWS_MIN: usize = 1 << 19;
/// The same where a state by code is large: it is cleared, read and merged for each task.
const LONG_TASK_ROWS_MIN: usize = 1 << 21;
/// Bits of codes up to which states are small.
const SMALL_STATE_BITS: u32 = 16;

/// A part of a scan. Tasks of one scan may run in any order, on any threads.
#[derive(Debug, Clone)]
pub struct Task {
    pub(crate) source: Arc<PlannedSource>,
    /// Its place among the tasks of its source.
    pub(crate) sequence: usize,
    /// By index in the source, ascending.
    pub(crate) segments: Vec<usize>,
    /// Rows of these segments.
    pub(crate) rows: usize,
    /// Per group column: a segment with its dictionary; all segments of the task that have one have the same.
    pub(crate) dictionaries: Vec<Option<usize>>,
    /// The same per cell, where its codes have to mean the same throughout.
    pub(crate) cell_dictionaries: Vec<Option<usize>>,
    /// Rows of all tasks of the partition that may lie in the plan's range, by whole segments.
    pub(crate) partition_rows: u64,
    /// Whether all codes of all group columns are one byte.
    pub(crate) narrow: bool,
    /// Per group column, then per cell that keeps codes: bits of the widest codes.
    widths: Vec<u32>,
    /// Segments that need not be looked at, counted with this task.
    pub(crate) stats: ScanStats,
}

impl Task {
    /// Which partition it is part of: its result goes into that one's [`crate::merge`].
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.source.partition()
    }

    /// Rows of its segments, of which a filter or the range may spare it many.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    fn new(plan: &Plan, source: &Arc<PlannedSource>, sequence: usize) -> Self {
        Self {
            source: Arc::clone(source),
            sequence,
            segments: Vec::new(),
            rows: 0,
            dictionaries: vec![None; plan.groups.len()],
            cell_dictionaries: vec![None; plan.cells.len()],
            partition_rows: 0,
            narrow: true,
            widths: vec![0; plan.groups.len() + plan.cells.len()],
            stats: ScanStats::default(),
        }
    }

    /// Whether a segment's codes mean what those of this task's do.
    fn agrees_with(&self, plan: &Plan, segment: &SegmentView) -> bool {
        let cells = plan.cells.iter().enumerate().filter(|(_, cell)| cell.keeps_codes()).all(|(at, _)| {
            let known = self.cell_dictionaries[at].and_then(|known| self.source.cell_dictionary(at, known));
            let other = self.source.cell(at).and_then(|index| segment.dictionary(index));
            known.zip(other).is_none_or(|(known, other)| known.epoch() == other.epoch())
        });
        cells
            && (0..self.dictionaries.len()).all(|column| {
                let known = self.dictionaries[column].and_then(|known| self.source.group_dictionary(column, known));
                let other = self.source.group(column).and_then(|index| segment.dictionary(index));
                known.zip(other).is_none_or(|(known, other)| known.epoch() == other.epoch())
            })
    }

    fn push(&mut self, plan: &Plan, at: usize, segment: &SegmentView) {
        for (cell, dictionary) in self.cell_dictionaries.iter_mut().enumerate() {
            let codes = self.source.cell(cell).and_then(|index| segment.codes(index));
            if plan.cells[cell].keeps_codes() && codes.is_some() {
                *dictionary = Some(at);
                widen(&mut self.widths[plan.groups.len() + cell], codes);
            }
        }
        self.segments.push(at);
        self.rows += segment.rows();
        for (column, dictionary) in self.dictionaries.iter_mut().enumerate() {
            let Some(codes) = self.source.group(column).and_then(|index| segment.codes(index)) else { continue };
            self.narrow &= matches!(codes, Codes::U8(_));
            *dictionary = Some(at);
            widen(&mut self.widths[column], Some(codes));
        }
    }

    /// Whether it has enough rows.
    fn is_full(&self) -> bool {
        let (groups, cells) = self.widths.split_at(self.dictionaries.len());
        let bits = groups.iter().sum::<u32>() + cells.iter().max().copied().unwrap_or(0);
        self.rows >= if bits > SMALL_STATE_BITS { LONG_TASK_ROWS_MIN } else { TASK_ROWS_MIN }
    }
}

fn widen(bits: &mut u32, codes: Option<Codes<'_>>) {
    *bits = (*bits).max(match codes {
        None => 0,
        Some(Codes::U8(_)) => 8,
        Some(Codes::U16(_)) => 16,
        Some(Codes::U32(_)) => 32,
    });
}

/// Cuts a scan into tasks, at least one per source, in canonical order.
///
/// # Panics
/// A source's table is none of the plan's.
#[must_use]
pub fn tasks(plan: &Plan, mut sources: Vec<Source>) -> Vec<Task> {
    sources.sort_by_key(|source| (source.partition, source.table));
    let mut tasks = Vec::new();
    for source in sources {
        cut(plan, &Arc::new(PlannedSource::new(plan, source)), &mut tasks);
    }
    for of_partition in tasks.chunk_by_mut(|a, b| a.partition() == b.partition()) {
        let rows = of_partition.iter().map(|task| task.rows as u64).sum();
        of_partition.iter_mut().for_each(|task| task.partition_rows = rows);
    }
    tasks
}

fn cut(plan: &Plan, source: &Arc<PlannedSource>, tasks: &mut Vec<Task>) {
    let mut task = Task::new(plan, source, 0);
    for (at, segment) in source.segments().iter().enumerate() {
        if !has_rows_in(segment, plan.range) {
            task.stats.segments_skipped += 1;
            continue;
        }
        if task.is_full() || !task.agrees_with(plan, segment) {
            let next = Task::new(plan, source, task.sequence + 1);
            tasks.push(std::mem::replace(&mut task, next));
        }
        task.push(plan, at, segment);
    }
    tasks.push(task);
}

/// Whether a row lies in the range. Only a segment that straddles an end of the range is looked into, and mostly its first
/// rows in the range tell.
pub(crate) fn has_rows_in(segment: &SegmentView, range: TimeRange) -> bool {
    let zone = segment.zone();
    if !range.meets_closed(zone.min, zone.max) || range.covers_closed(zone.min, zone.max) {
        return range.covers_closed(zone.min, zone.max);
    }
    segment.times().chunks(CHUNK_ROWS).enumerate().any(|(chunk, times)| {
        let zone = segment.chunk_zone(chunk);
        range.meets_closed(zone.min, zone.max)
            && times.iter().any(|&time| range.start().0 <= time && time < range.end().0)
    })
}
