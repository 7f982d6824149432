//! The one writer of a segment: fills columns beyond the published rows, then publishes.

use std::ops::Range;

use super::{
    CHUNK_ROWS, Run, Segment, Stored, Zone,
    chunk_filter::{self, FILTER_WORDS},
};
use crate::{
    block::{Block, Source},
    columns::Width,
    slab::Item,
    sync::{Arc, ROWS_PUBLISH, RUNS_PUBLISH},
};

/// Some rows of a block, ascending.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Consecutive ones: first and end.
    Range(usize, usize),
    /// These.
    List(&'a [u32]),
}

impl<'a> Rows<'a> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Range(start, end) => end - start,
            Self::List(list) => list.len(),
        }
    }

    /// The first `count` rows and the others.
    pub(crate) fn split_at(self, count: usize) -> (Self, Self) {
        match self {
            Self::Range(start, end) => (Self::Range(start, start + count), Self::Range(start + count, end)),
            Self::List(list) => {
                let (first, others) = list.split_at(count);
                (Self::List(first), Self::List(others))
            }
        }
    }

    /// Rows that were chosen, as a range if they are one.
    pub(crate) fn of(list: &'a [u32]) -> Self {
        match (list.first(), list.last()) {
            (Some(&first), Some(&last)) if (last - first) as usize + 1 == list.len() => {
                Self::Range(first as usize, last as usize + 1)
            }
            _ => Self::List(list),
        }
    }
}

/// Holds the segment's cursors as plain fields. Not `Clone`: one writer.
pub(crate) struct SegmentWriter {
    pub(super) shared: Arc<Segment>,
    pub(super) rows: usize,
    pub(super) runs: usize,
    zone: Zone,
}

impl SegmentWriter {
    pub(crate) fn new(segment: Segment) -> Self {
        Self { shared: Arc::new(segment), rows: 0, runs: 0, zone: Zone::EMPTY }
    }

    pub(crate) fn shared(&self) -> &Arc<Segment> {
        &self.shared
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn room(&self) -> usize {
        self.shared.layout.capacity - self.rows
    }

    /// Appends rows of a block and publishes them. There is room for them, and the segment has all of its columns.
    pub(crate) fn append(&mut self, block: &Block<'_>, rows: Rows<'_>) {
        let target = self.rows..self.rows + rows.len();
        fill(self.tail(0, &target), rows, block.times, |time| time);
        for (column, stored) in self.shared.layout.columns.iter().enumerate() {
            let source = block.sources.get(column).copied().unwrap_or(Source::Absent);
            match stored {
                Stored::Absent => {}
                Stored::Codes { width, word, .. } => {
                    let codes = match source {
                        Source::Codes(at) => Some(block.codes[at].as_slice()),
                        _ => None,
                    };
                    match width {
                        Width::One => fill_codes(self.tail(*word, &target), rows, codes, |code| code as u8),
                        Width::Two => fill_codes(self.tail(*word, &target), rows, codes, |code| code as u16),
                        Width::Four => fill_codes(self.tail(*word, &target), rows, codes, |code| code),
                    }
                }
                Stored::Values { word } => {
                    let tail = self.tail(*word, &target);
                    match source {
                        Source::Values(at) => fill_values(tail, rows, &block.body.metrics()[at].values()),
                        _ => tail.fill(codec::ABSENT),
                    }
                }
                Stored::Decimals { .. } => unreachable!("an open segment holds values as they come"),
            }
        }
        self.write_runs(block.offset.0, rows);
        self.publish(target);
    }

    /// Rows of the column at `word` that are not published yet.
    #[expect(clippy::mut_from_ref, reason = "the writer's part of memory that readers share")]
    pub(super) fn tail<T: Item>(&self, word: usize, rows: &Range<usize>) -> &mut [T] {
        assert!(rows.start >= self.rows && rows.end <= self.shared.layout.capacity, "within what is not published");
        // SAFETY: unpublished rows are the writer's alone (rule 1); it fills one column at a time, so that no two of these
        // slices overlap.
        unsafe { self.shared.slab.items_mut(word, rows.start, rows.end) }
    }

    fn write_runs(&mut self, offset: u64, rows: Rows<'_>) {
        let row = self.rows as u32;
        match rows {
            Rows::Range(start, _) => self.write_run(Run { offset, row, block_row: start as u32 }),
            Rows::List(list) => {
                for (at, &block_row) in list.iter().enumerate() {
                    if at == 0 || list[at - 1] + 1 != block_row {
                        self.write_run(Run { offset, row: row + at as u32, block_row });
                    }
                }
            }
        }
    }

    pub(super) fn write_run(&mut self, run: Run) {
        // SAFETY: this is the one writer, and run `self.runs` is not published.
        unsafe { self.shared.runs.write(self.runs, &[run]) };
        self.runs += 1;
    }

    /// Publishes rows that are filled, with their runs.
    pub(super) fn publish(&mut self, rows: Range<usize>) {
        self.shared.slab.witness().write(rows.clone());
        self.widen_zones(&rows);
        self.fill_filters(&rows);
        // Publishes the runs; pairs with `Segment::rows_before` and `Segment::origin`.
        self.shared.run_count.store(self.runs, RUNS_PUBLISH);
        self.rows = rows.end;
        // Publishes rows in all columns, zones and runs; pairs with `Segment::observe`.
        self.shared.rows.store(self.rows, ROWS_PUBLISH);
    }

    /// Writes the filters of the chunks that become full by `rows`, which are filled and not published.
    fn fill_filters(&self, rows: &Range<usize>) {
        let full = rows.start / CHUNK_ROWS..rows.end / CHUNK_ROWS;
        let layout = &self.shared.layout;
        for word in layout.wide_codes().filter(|_| !full.is_empty()) {
            // SAFETY: the writer's own rows: those that were published before, and those that it has filled since.
            let codes = unsafe { self.shared.items::<u32>(word, full.end * CHUNK_ROWS) };
            for chunk in full.clone() {
                // SAFETY: a row of the chunk is not published, so nobody looks at its filter (rule 6).
                let filter =
                    unsafe { self.shared.slab.items_mut::<u64>(layout.filter_word(word, chunk), 0, FILTER_WORDS) };
                chunk_filter::fill(filter, &codes[chunk * CHUNK_ROWS..(chunk + 1) * CHUNK_ROWS]);
            }
        }
    }

    fn widen_zones(&mut self, rows: &Range<usize>) {
        let mut row = rows.start;
        while row < rows.end {
            let chunk = row / CHUNK_ROWS;
            let end = rows.end.min((chunk + 1) * CHUNK_ROWS);
            // SAFETY: the writer's own rows: those that were published before, and those that it has filled since.
            let zone = unsafe { self.shared.times(end) }.zone(row..end);
            let shared = &self.shared.chunk_zones[chunk];
            // Only this writer stores zones, so what it loads is what it stored last.
            shared.store(if row.is_multiple_of(CHUNK_ROWS) { zone } else { shared.load().widened(zone) });
            self.zone = self.zone.widened(zone);
            row = end;
        }
        self.shared.zone.store(self.zone);
    }
}

fn fill<S: Copy, T>(tail: &mut [T], rows: Rows<'_>, source: &[S], convert: impl Fn(S) -> T) {
    match rows {
        Rows::Range(start, end) => {
            tail.iter_mut().zip(&source[start..end]).for_each(|(item, from)| *item = convert(*from));
        }
        Rows::List(list) => {
            tail.iter_mut().zip(list).for_each(|(item, row)| *item = convert(source[*row as usize]));
        }
    }
}

fn fill_codes<T: Default + Clone>(tail: &mut [T], rows: Rows<'_>, codes: Option<&[u32]>, narrow: impl Fn(u32) -> T) {
    match codes {
        Some(codes) => fill(tail, rows, codes, narrow),
        None => tail.fill(T::default()),
    }
}

fn fill_values(tail: &mut [f64], rows: Rows<'_>, values: &codec::F64s<'_>) {
    match rows {
        Rows::Range(start, _) => {
            let mut from = values.iter();
            if start > 0 {
                from.nth(start - 1);
            }
            tail.iter_mut().zip(from).for_each(|(item, value)| *item = value);
        }
        Rows::List(list) => tail.iter_mut().zip(list).for_each(|(item, row)| *item = values.get(*row as usize)),
    }
}
