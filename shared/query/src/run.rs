//! Running one task: chunk by chunk, filter, then aggregate.

use std::{ops::Range, sync::Arc};

use engine::{CHUNK_ROWS, SegmentView};
use kernels::{Rows, Selection};
use types::ApiError;

use crate::{
    accumulator::{CellColumn, Single, Slotted},
    cancel::Cancel,
    cells::Cell,
    fold,
    grouper::{Grouper, KeyColumns},
    groups::Groups,
    keyed::Sizes,
    laid_out::LaidOut,
    narrow::Narrow,
    partial::{Found, ScanStats, TaskGroups, TaskPartial},
    plan::{GroupColumn, Plan},
    segment_columns::SegmentColumns,
    segment_filter::{SegmentFilter, segment_filters},
    state::Level,
    task::Task,
};

/// Rows of which one is taken where masks, which look at all of them, are as fast as a slot for each that is taken.
const FEW_SHARE: usize = 8;

/// Chunks between two looks at the clock: some 100 µs of work.
const CLOCK_CHUNKS: u64 = 16;

const _: () = assert!(CHUNK_ROWS == kernels::CHUNK_ROWS); // a chunk of a segment is a chunk of the kernels

/// Runs a task. Pure: threads, clock and the client's leaving are the caller's.
///
/// # Errors
/// `CANCELLED`, `DEADLINE_EXCEEDED`; `RESOURCE_EXHAUSTED` where there are more groups than the plan allows.
pub fn run(plan: &Plan, task: &Task, cancel: &Cancel<'_>) -> Result<TaskPartial, ApiError> {
    cancel.check()?;
    if let Some(taken) = &task.taken {
        return fold::run(plan, task, taken, cancel);
    }
    let mut scan = Scan::new(plan, task, cancel);
    let groups = if let Some(round) = &plan.round {
        let mut sink = Narrow::new(plan, round, task);
        scan.segments(task, &mut sink)?;
        TaskGroups::Listed(sink.finish())
    } else if plan.grouped() {
        let mut sink = Slots::new(plan, task);
        scan.segments(task, &mut sink)?;
        sink.finish()?
    } else {
        let mut sink = Total::new(plan, task);
        scan.segments(task, &mut sink)?;
        TaskGroups::Listed(sink.finish(plan))
    };
    Ok(TaskPartial {
        source: task.source.clone(),
        sequence: task.sequence,
        dictionaries: task.dictionaries.clone(),
        cell_dictionaries: task.cell_dictionaries.clone(),
        partition_rows: task.partition_rows,
        found: Found::Codes(Arc::new(groups)),
        stats: scan.stats,
    })
}

/// A chunk of a segment, and what is left of it after the filters.
pub(crate) struct Chunk<'a> {
    pub(crate) segment: &'a SegmentColumns<'a>,
    /// By cell. Only the rows that are in have their values.
    pub(crate) cells: &'a [CellColumn<'a>],
    /// Its rows in the segment.
    pub(crate) rows: Range<usize>,
    /// Their event times, or wider.
    pub(crate) zone: engine::Zone,
    /// Which of them are in; `None`: all.
    pub(crate) selection: Option<&'a Selection>,
    /// Scratch for row numbers.
    pub(crate) list: &'a mut [u16; CHUNK_ROWS],
}

/// Where chunks go.
pub(crate) trait Sink {
    fn add(&mut self, chunk: Chunk<'_>) -> Result<(), ApiError>;

    /// Memory that it takes so far.
    fn bytes(&self) -> usize;
}

/// A scan under way.
struct Scan<'a> {
    plan: &'a Plan,
    cancel: &'a Cancel<'a>,
    stats: ScanStats,
    chunks: u64,
    list: Box<[u16; CHUNK_ROWS]>,
    /// Scratch for the values that filters look at.
    filtered: Box<[f64; CHUNK_ROWS]>,
    /// Scratch for the values of each metric.
    values: Vec<Box<[f64; CHUNK_ROWS]>>,
}

impl<'a> Scan<'a> {
    fn new(plan: &'a Plan, task: &Task, cancel: &'a Cancel<'a>) -> Self {
        Self {
            plan,
            cancel,
            stats: task.stats,
            chunks: 0,
            list: Box::new([0; CHUNK_ROWS]),
            filtered: Box::new([0.0; CHUNK_ROWS]),
            values: Vec::new(),
        }
    }

    fn segments(&mut self, task: &Task, sink: &mut impl Sink) -> Result<(), ApiError> {
        for &at in &task.segments {
            let segment = &task.source.segments()[at];
            let counts = u64::from(!task.again.contains(&at));
            match segment_filters(self.plan, &task.source, segment) {
                None => self.stats.segments_skipped += counts,
                Some(filters) => {
                    self.stats.segments_scanned += counts;
                    self.segment(task, segment, &filters, sink)?;
                }
            }
        }
        Ok(())
    }

    fn segment(
        &mut self,
        task: &Task,
        segment: &SegmentView,
        filters: &[SegmentFilter<'_>],
        sink: &mut impl Sink,
    ) -> Result<(), ApiError> {
        let columns = SegmentColumns::new(self.plan, &task.source, segment);
        while self.values.len() < columns.metrics() {
            self.values.push(Box::new([0.0; CHUNK_ROWS]));
        }
        let range = task.range;
        for chunk in 0..segment.chunks() {
            self.pause(sink)?;
            let zone = segment.chunk_zone(chunk);
            if !range.meets_closed(zone.min, zone.max) || filters.iter().any(|filter| filter.spares(chunk)) {
                continue;
            }
            let covered = range.covers_closed(zone.min, zone.max);
            let rows = segment.rows_of(chunk);
            self.stats.rows_scanned += rows.len() as u64;
            if covered && filters.is_empty() {
                self.hand_over(&columns, rows, zone, None, sink)?;
                continue;
            }
            let mut selection = Selection::all(rows.len());
            if !covered {
                columns.times.narrow(&mut selection, rows.clone(), range.start().0, range.end().0);
            }
            for filter in filters {
                filter.narrow(&mut selection, rows.clone(), &mut self.filtered);
            }
            match selection.count() {
                0 => {}
                all if all == rows.len() => self.hand_over(&columns, rows, zone, None, sink)?,
                _ => self.hand_over(&columns, rows, zone, Some(&selection), sink)?,
            }
        }
        Ok(())
    }

    /// Gives rows to the sink, with the values of those that are in.
    fn hand_over(
        &mut self,
        segment: &SegmentColumns<'_>,
        rows: Range<usize>,
        zone: engine::Zone,
        selection: Option<&Selection>,
        sink: &mut impl Sink,
    ) -> Result<(), ApiError> {
        let cells = &segment.cells(&rows, selection, &mut self.values);
        sink.add(Chunk { segment, cells, rows, zone, selection, list: &mut self.list })
    }

    fn pause(&mut self, sink: &impl Sink) -> Result<(), ApiError> {
        self.chunks += 1;
        if !self.chunks.is_multiple_of(CLOCK_CHUNKS) {
            return self.cancel.check_left();
        }
        self.plan.allow_bytes(sink.bytes())?;
        self.cancel.check()
    }
}

/// What the cells of a task need to know of it.
fn sizes(task: &Task, cell: usize, groups: Option<usize>) -> Sizes {
    let dictionary = task.cell_dictionaries[cell].and_then(|segment| task.source.cell_dictionary(cell, segment));
    // Whichever observation of the dictionary this is, it covers all codes of the snapshot's rows.
    let codes = dictionary.map_or(1, |view| view.len() as usize + 1);
    Sizes { groups, rows: task.rows, partition_rows: task.partition_rows, codes }
}

/// All rows as one group.
struct Total {
    rows: u64,
    cells: Vec<Single>,
    all: Selection,
}

impl Total {
    fn new(plan: &Plan, task: &Task) -> Self {
        let cells = plan.cells.iter().enumerate().map(|(at, cell)| Single::new(cell, sizes(task, at, Some(1))));
        Self { rows: 0, cells: cells.collect(), all: Selection::all(CHUNK_ROWS) }
    }

    fn finish(self, plan: &Plan) -> Groups {
        let states = self.cells.into_iter().map(Single::into_state).collect();
        Groups { buckets: vec![0], rows: vec![self.rows], states, ..Groups::new(plan, Level::Codes) }
    }
}

impl Sink for Total {
    fn add(&mut self, chunk: Chunk<'_>) -> Result<(), ApiError> {
        let whole = chunk.selection.is_none();
        self.rows += chunk.selection.map_or(chunk.rows.len(), Selection::count) as u64;
        if self.cells.is_empty() {
            return Ok(());
        }
        if whole && self.all.rows() != chunk.rows.len() {
            self.all = Selection::all(chunk.rows.len());
        }
        let selection = chunk.selection.unwrap_or(&self.all);
        for (cell, &column) in self.cells.iter_mut().zip(chunk.cells) {
            cell.add(column, chunk.rows.clone(), selection, chunk.list);
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.cells.iter().map(Single::bytes).sum()
    }
}

/// Rows by group.
struct Slots<'a> {
    plan: &'a Plan,
    grouper: Grouper,
    /// By slot. A task has fewer than 2^32 rows.
    rows: Vec<u32>,
    /// The cell whose sums say which slots have rows, where nobody asks how many: then they are not counted.
    marked_by: Option<usize>,
    /// Whether it matters how many rows a group has, beside whether there are any.
    counts: bool,
    cells: Vec<Slotted>,
    /// Scratch for keys of one byte.
    keys: Vec<u8>,
}

impl<'a> Slots<'a> {
    fn new(plan: &'a Plan, task: &Task) -> Self {
        let grouper = Grouper::new(plan, task);
        let groups = grouper.groups();
        // With lanes there are few slots, which are counted at next to no cost.
        let marked_by = plan.rows_marked_by().filter(|_| grouper.lanes() == 1);
        let cells = plan.cells.iter().enumerate().map(|(at, cell)| match marked_by {
            Some(_) => Slotted::marking(cell, sizes(task, at, groups)),
            None => Slotted::new(cell, sizes(task, at, groups)),
        });
        let counts = plan.counts_rows();
        Self { plan, rows: Vec::new(), marked_by, counts, cells: cells.collect(), grouper, keys: vec![0; CHUNK_ROWS] }
    }

    /// Makes room for the slots found so far.
    fn grow(&mut self) {
        let slots = self.grouper.slots();
        if self.rows.len() < slots {
            self.rows.resize(slots, 0);
            self.cells.iter_mut().for_each(|cell| cell.grow(slots));
        }
    }

    fn finish(mut self) -> Result<TaskGroups, ApiError> {
        if let Some(cell) = self.marked_by {
            let marks = &self.cells[cell];
            self.rows.iter_mut().enumerate().for_each(|(slot, rows)| *rows = marks.has_rows(slot).into());
        }
        let layout = self.grouper.layout();
        match layout.filter(|_| self.plan.cells.iter().all(Cell::is_plain)) {
            Some(layout) => self.lay_out(layout),
            None => Ok(TaskGroups::Listed(self.list()?)),
        }
    }

    /// The groups by their slots, as long as there are not too few of them.
    fn lay_out(self, columns: Vec<(usize, u32)>) -> Result<TaskGroups, ApiError> {
        let rows: Vec<u64> = self.rows.into_iter().map(u64::from).collect();
        let states = self.cells.into_iter().map(|cell| cell.into_state(&rows)).collect();
        let groups = LaidOut::new(columns, rows, states);
        if groups.len() > self.plan.groups_max {
            return Err(crate::groups::too_many_groups(self.plan.groups_max));
        }
        Ok(match groups.is_dense() {
            true => TaskGroups::LaidOut(groups),
            false => TaskGroups::Listed(groups.groups(self.plan)),
        })
    }

    fn list(self) -> Result<Groups, ApiError> {
        let mut groups = Groups::new(self.plan, Level::Codes);
        // The pseudo-column has one string, and a column without any dictionary none.
        let number = |group: &GroupColumn| u32::from(*group == GroupColumn::Table);
        let mut key: Vec<u32> = self.plan.groups.iter().map(number).collect();
        let lanes = self.grouper.lanes();
        let mut kept = Vec::new();
        // Which group here a group of the grouper is; most have no row.
        let mut found = vec![u32::MAX; self.rows.len() / lanes];
        for (group, lanes) in self.rows.chunks_exact(lanes).enumerate() {
            let rows = lanes.iter().map(|&rows| u64::from(rows)).sum();
            if rows > 0 {
                let bucket = self.grouper.key(group as u32, &mut key);
                found[group] = groups.push_key(bucket, &key);
                groups.rows.push(rows);
                kept.push(group as u32);
            }
        }
        if groups.len() > self.plan.groups_max {
            return Err(crate::groups::too_many_groups(self.plan.groups_max));
        }
        let gather = |cell: Slotted| match cell {
            Slotted::Keyed(keyed) => keyed.gather(&found),
            slotted => slotted.gather(&kept, &groups.rows, lanes),
        };
        groups.states = self.cells.into_iter().map(gather).collect();
        Ok(groups)
    }
}

impl Slots<'_> {
    /// Finds the slots of a chunk's rows.
    fn find<'l>(
        &mut self,
        segment: &SegmentColumns<'_>,
        columns: &KeyColumns<'_>,
        selection: Option<&Selection>,
        list: &'l mut [u16; CHUNK_ROWS],
    ) -> Result<Rows<'l>, ApiError> {
        let rows = match selection {
            None => Rows::All(columns.rows.len()),
            Some(selection) => {
                let listed = selection.list(list);
                segment.prefetch_listed(&columns.rows, listed);
                Rows::Listed(listed)
            }
        };
        self.grouper.find(columns, rows)?;
        self.grow();
        Ok(rows)
    }
}

impl Sink for Slots<'_> {
    fn add(&mut self, chunk: Chunk<'_>) -> Result<(), ApiError> {
        let Chunk { segment, cells, rows: range, zone, selection, list } = chunk;
        let columns = KeyColumns { times: segment.times, codes: &segment.codes, rows: range.clone() };
        let mut keys = std::mem::take(&mut self.keys);
        let few = match selection.is_none_or(|rows| rows.count() * FEW_SHARE >= range.len()) {
            true => self.grouper.few(&columns, zone, selection, &mut keys),
            false => None,
        };
        let (mut list, mut found) = (Some(list), None);
        if let Some(few) = few {
            self.grow();
            if self.counts || !few.have_rows(&self.rows) {
                few.count(&mut self.rows);
            }
        } else {
            let rows = self.find(segment, &columns, selection, list.take().expect("it is scratch for one list"))?;
            if self.marked_by.is_none() {
                kernels::count_rows(self.grouper.found(rows).slots, &mut self.rows);
            }
            found = Some(rows);
        }
        for (at, &column) in cells.iter().enumerate() {
            if few.is_some_and(|few| self.cells[at].add_few(column, range.clone(), few)) {
                continue;
            }
            if let Some(list) = list.take() {
                found = Some(self.find(segment, &columns, selection, list)?);
            }
            let rows = found.expect("found above, or for the cell before");
            self.cells[at].add(column, range.clone(), rows, self.grouper.found(rows));
        }
        self.keys = keys;
        Ok(())
    }

    fn bytes(&self) -> usize {
        let cells: usize = self.cells.iter().map(Slotted::bytes).sum();
        cells + size_of_val(&*self.rows) + self.grouper.bytes()
    }
}
