//! Cutting a scan into tasks: runs of whole segments in canonical order.
//!
//! 1. A segment takes part if and only if one of its rows lies in the plan's range. Zones only save the look: they may be
//!    wider than the rows of a snapshot, by as much as the writer has gone on, and boundaries must not depend on that.
//! 2. A task ends where its rows and segments say ([`Length`]; longer where its codes may be many), and where a group column's
//!    codes change their meaning: all of that is the log's to decide, never the threads'.
//! 3. Segments that an end of the range cuts rows off are in tasks of their own: a range that moves on changes these alone.
//! 4. Where rollups answer, only the edges of the range are cut so; what a rollup takes of a source is one task.

use std::sync::Arc;

use engine::{Codes, SegmentView};
use kernels::Selection;
use types::{PartitionId, TimeRange, Timestamp};

use crate::{
    cells::Cell,
    cover::{Cover, Taken},
    cuts::Length,
    partial::ScanStats,
    plan::Plan,
    source::{PlannedSource, Source},
};

/// A part of a scan. Tasks of one scan may run in any order, on any threads.
#[derive(Debug, Clone)]
pub struct Task {
    pub(crate) source: Arc<PlannedSource>,
    /// Its place among the tasks of its source.
    pub(crate) sequence: usize,
    /// The times of the rows that it takes.
    pub(crate) range: TimeRange,
    /// The buckets of a rollup that it takes; then no segment is its own.
    pub(crate) taken: Option<Taken>,
    /// By index in the source, ascending.
    pub(crate) segments: Vec<usize>,
    /// Those among them that a task at the other edge of the range has, too, and counts.
    pub(crate) again: Vec<usize>,
    /// Rows of these segments.
    pub(crate) rows: usize,
    /// Per group column: a segment with its dictionary; all segments of the task that have one have the same.
    pub(crate) dictionaries: Vec<Option<usize>>,
    /// The same per cell, where its codes have to mean the same throughout.
    pub(crate) cell_dictionaries: Vec<Option<usize>>,
    /// Rows of the whole partition, as [`planned`] has them.
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

    /// The table's index in the plan.
    #[must_use]
    pub fn table(&self) -> usize {
        self.source.table()
    }

    /// The time before which rows that its table's part of the partition has to answer with may have left memory; `None`:
    /// rows and rollups together have all of them.
    #[must_use]
    pub fn lacks_before(&self, plan: &Plan) -> Option<Timestamp> {
        self.source.cover().lacks_before(plan, self.source.snapshot().evicted_before())
    }

    fn new(plan: &Plan, source: &Arc<PlannedSource>, sequence: usize, range: TimeRange) -> Self {
        Self {
            source: Arc::clone(source),
            sequence,
            range,
            taken: None,
            segments: Vec::new(),
            again: Vec::new(),
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

    /// Whether it ends behind the segment that it took last.
    fn ends_behind(&self, segment: &SegmentView) -> bool {
        let (groups, cells) = self.widths.split_at(self.dictionaries.len());
        let bits = groups.iter().sum::<u32>() + cells.iter().max().copied().unwrap_or(0);
        Length::of(bits).ends_behind(self.rows, segment.rows(), segment.origin(0))
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
    for (source, partition_rows) in planned(plan, sources) {
        cut(plan, &Arc::new(source), partition_rows, &mut tasks);
    }
    tasks
}

/// The sources, which are in order, with what covers each, and with the rows of all of its partition's that lie in the plan's
/// range where percentiles are asked; more than any number where a rollup holds some of them.
pub(crate) fn planned(plan: &Plan, sources: Vec<Source>) -> Vec<(PlannedSource, u64)> {
    let mut planned: Vec<(PlannedSource, u64)> = Vec::with_capacity(sources.len());
    let mut sources = sources.into_iter().peekable();
    while let Some(first) = sources.next() {
        let partition = first.partition;
        let mut of_partition = vec![first];
        of_partition.extend(std::iter::from_fn(|| sources.next_if(|source| source.partition == partition)));
        // Nothing but percentiles goes by it.
        let counts = plan.cells.iter().any(|cell| matches!(cell, Cell::Quantiles { .. }));
        let rows = if counts { rows_in_range(plan, &of_partition) } else { 0 };
        let covers: Vec<_> = of_partition.iter().map(|source| Cover::new(plan, &source.snapshot, rows)).collect();
        let rows = if covers.iter().all(|cover| cover.rollups.is_empty()) { rows } else { u64::MAX };
        let of_partition = of_partition.into_iter().zip(covers);
        planned.extend(of_partition.map(|(source, cover)| (PlannedSource::new(plan, source, cover), rows)));
    }
    planned
}

/// Rows of a partition in the plan's range: what the range and the rows say, whatever segments they lie in, so that
/// partitions with the same rows decide alike. Counting ends beyond the most that a percentile asks about.
fn rows_in_range(plan: &Plan, of_partition: &[Source]) -> u64 {
    let most = plan.values.auto_rows_max.max(plan.values.values_max);
    let mut rows = 0;
    for segment in of_partition.iter().flat_map(|source| source.snapshot.segments()) {
        rows += rows_in(segment, plan.range);
        if rows > most {
            break;
        }
    }
    rows
}

fn cut(plan: &Plan, source: &Arc<PlannedSource>, partition_rows: u64, tasks: &mut Vec<Task>) {
    let begin = tasks.len();
    let cover = source.cover();
    for &range in &cover.rows {
        cut_rows(plan, source, range, tasks.len() - begin, tasks);
    }
    for taken in &cover.rollups {
        let task = Task::new(plan, source, tasks.len() - begin, taken.times);
        tasks.push(Task { taken: Some(taken.clone()), ..task });
    }
    let of_source = &mut tasks[begin..];
    of_source.iter_mut().for_each(|task| task.partition_rows = partition_rows);
    let mut skipped = vec![true; source.segments().len()];
    for task in of_source.iter_mut() {
        task.again = task.segments.iter().copied().filter(|&at| !skipped[at]).collect();
        task.segments.iter().for_each(|&at| skipped[at] = false);
    }
    of_source[0].stats.segments_skipped = skipped.into_iter().filter(|skipped| *skipped).count() as u64;
}

/// Cuts the rows of a source in a range into tasks, at least one.
fn cut_rows(plan: &Plan, source: &Arc<PlannedSource>, range: TimeRange, sequence: usize, tasks: &mut Vec<Task>) {
    let mut task = Task::new(plan, source, sequence, range);
    let (mut ends, mut of_cut) = (false, false);
    for (at, segment) in source.segments().iter().enumerate().filter(|(_, segment)| has_rows_in(segment, range)) {
        let cut = is_cut(segment, range);
        let begins = task.segments.is_empty();
        if !begins && (ends || cut != of_cut || !task.agrees_with(plan, segment)) {
            let next = Task::new(plan, source, task.sequence + 1, range);
            tasks.push(std::mem::replace(&mut task, next));
        }
        task.push(plan, at, segment);
        (ends, of_cut) = (task.ends_behind(segment), cut);
    }
    tasks.push(task);
}

/// Whether a row lies outside of the range. What a zone says is no answer where it is wider than the rows.
fn is_cut(segment: &SegmentView, range: TimeRange) -> bool {
    let zone = segment.zone();
    !range.covers_closed(zone.min, zone.max)
        && (0..segment.chunks()).any(|chunk| {
            let zone = segment.chunk_zone(chunk);
            !range.covers_closed(zone.min, zone.max)
                && segment.times().any_outside(segment.rows_of(chunk), range.start().0, range.end().0)
        })
}

/// How many rows lie in the range. Only chunks that straddle an end of it are looked into.
fn rows_in(segment: &SegmentView, range: TimeRange) -> u64 {
    let zone = segment.zone();
    if range.covers_closed(zone.min, zone.max) {
        return segment.rows() as u64;
    }
    let chunks = (0..segment.chunks()).map(|chunk| {
        let (zone, rows) = (segment.chunk_zone(chunk), segment.rows_of(chunk));
        match (range.meets_closed(zone.min, zone.max), range.covers_closed(zone.min, zone.max)) {
            (false, _) => 0,
            (true, true) => rows.len(),
            (true, false) => {
                let mut selection = Selection::all(rows.len());
                segment.times().narrow(&mut selection, rows, range.start().0, range.end().0);
                selection.count()
            }
        }
    });
    chunks.sum::<usize>() as u64
}

/// Whether a row lies in the range. Only a segment that straddles an end of the range is looked into, and mostly its first
/// rows in the range tell.
pub(crate) fn has_rows_in(segment: &SegmentView, range: TimeRange) -> bool {
    let zone = segment.zone();
    if !range.meets_closed(zone.min, zone.max) || range.covers_closed(zone.min, zone.max) {
        return range.covers_closed(zone.min, zone.max);
    }
    (0..segment.chunks()).any(|chunk| {
        let zone = segment.chunk_zone(chunk);
        range.meets_closed(zone.min, zone.max)
            && segment.times().any_within(segment.rows_of(chunk), range.start().0, range.end().0)
    })
}
