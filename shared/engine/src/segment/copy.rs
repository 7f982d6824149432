//! Rows that come from where they were held before: from a segment that is being sealed, or from a checkpoint.
//!
//! Either may hold a column as it came where this segment holds the smaller form of it; never the other way round.

use std::ops::Range;

use kernels::{Code, Scale};

use super::{CHUNK_ROWS, Run, Segment, SegmentWriter, Stored, StoredTimes};
use crate::{
    checkpoint::{Form, Number, RestoreError, RowsPart},
    columns::Width,
    slab::Item,
};

/// Runs `$body` with `$number` as the type of items of a width.
macro_rules! of_width {
    ($width:expr, |$number:ident| $body:expr) => {
        match $width {
            Width::One => {
                type $number = u8;
                $body
            }
            Width::Two => {
                type $number = u16;
                $body
            }
            Width::Four => {
                type $number = u32;
                $body
            }
        }
    };
}

impl SegmentWriter {
    /// Fills an empty segment with all rows of one that has its columns, in the form in which they came, and publishes them.
    pub(crate) fn copy(&mut self, from: &Segment, rows: usize) {
        assert_eq!(self.rows, 0, "it is empty");
        let target = 0..rows;
        // SAFETY: the caller holds `from` as its writer did, with `rows` rows.
        let times = unsafe { from.items::<i64>(0, rows) };
        match self.shared.layout.times {
            StoredTimes::Whole => self.tail(0, &target).copy_from_slice(times),
            StoredTimes::Offsets { width, base } => {
                of_width!(width, |N| kernels::subtract_base(times, base, self.tail::<N>(0, &target)));
            }
        }
        for (stored, source) in self.shared.layout.columns.iter().zip(&from.layout.columns) {
            match (stored, source) {
                (Stored::Absent, _) => {}
                (Stored::Codes { width, word, .. }, Stored::Codes { word: old, .. }) => {
                    of_width!(*width, |N| self.copy_column::<N>(*word, &target, from, *old));
                }
                (Stored::Values { word }, Stored::Values { word: old }) => {
                    self.copy_column::<f64>(*word, &target, from, *old);
                }
                (Stored::Decimals { width, scale, word }, Stored::Values { word: old }) => {
                    // SAFETY: as above.
                    let values = unsafe { from.items::<f64>(*old, rows) };
                    of_width!(*width, |N| kernels::digits(values, *scale, self.tail::<N>(*word, &target)));
                }
                _ => unreachable!("a sealed column is an open one, or a smaller form of it"),
            }
        }
        for run in from.runs() {
            self.write_run(run);
        }
        self.publish(target);
    }

    /// Appends rows of an earlier life that follow those that are here, and publishes them.
    pub(crate) fn restore(&mut self, part: &RowsPart<'_>) -> Result<(), RestoreError> {
        let target = part.rows.clone();
        if target.start != self.rows || target.end > self.shared.layout.capacity {
            return Err(RestoreError::Malformed("rows are out of order"));
        }
        self.restore_times(&target, part)?;
        for (column, stored) in self.shared.layout.columns.iter().enumerate() {
            let items = |form| part.column(column, form);
            match stored {
                Stored::Absent => {}
                Stored::Codes { width, word, dictionary } => {
                    let items = items(Form::Codes(*width)).ok_or(LACKING)?;
                    let code_max = of_width!(*width, |N| self.restore_codes::<N>(*word, &target, items));
                    if code_max > dictionary.observe() {
                        return Err(RestoreError::Malformed("a code has no string"));
                    }
                }
                Stored::Values { word } => {
                    let items = items(Form::Doubles).ok_or(LACKING)?;
                    self.restore_column::<f64>(*word, &target, items);
                }
                Stored::Decimals { width, scale, word } => match items(Form::Decimals(*width, *scale)) {
                    Some(items) => of_width!(*width, |N| self.restore_column::<N>(*word, &target, items)),
                    None => {
                        let items = items(Form::Doubles).ok_or(LACKING)?;
                        of_width!(*width, |N| put_digits(self.tail::<N>(*word, &target), *scale, items))?;
                    }
                },
            }
        }
        self.restore_runs(&part.runs);
        self.publish(target);
        Ok(())
    }

    fn restore_times(&self, target: &Range<usize>, part: &RowsPart<'_>) -> Result<(), RestoreError> {
        match (self.shared.layout.times, part.times) {
            (StoredTimes::Whole, StoredTimes::Whole) => self.restore_column::<i64>(0, target, part.time_items),
            (StoredTimes::Offsets { width, base }, StoredTimes::Whole) => {
                of_width!(width, |N| put_offsets(self.tail::<N>(0, target), base, part.time_items))?;
            }
            (StoredTimes::Offsets { width, .. }, held) if held == self.shared.layout.times => {
                of_width!(width, |N| self.restore_column::<N>(0, target, part.time_items));
            }
            _ => return Err(LACKING),
        }
        Ok(())
    }

    fn restore_runs(&mut self, runs: &[Run]) {
        let mut last = self.runs.checked_sub(1).map(|at| {
            // SAFETY: this writer has written it.
            unsafe { self.shared.runs.get(at) }
        });
        for run in runs {
            // A part may begin in the middle of a run.
            let goes_on = last.take().is_some_and(|last| {
                last.offset == run.offset && last.block_row.checked_add(run.row - last.row) == Some(run.block_row)
            });
            if !goes_on {
                self.write_run(*run);
            }
        }
    }

    fn restore_column<T: Number>(&self, word: usize, target: &Range<usize>, items: &[u8]) {
        T::take(items, self.tail(word, target));
    }

    /// The greatest of the codes.
    fn restore_codes<T: Number + Ord + Into<u32>>(&self, word: usize, target: &Range<usize>, items: &[u8]) -> u32 {
        self.restore_column::<T>(word, target, items);
        self.tail::<T>(word, target).iter().copied().max().map_or(0, Into::into)
    }

    fn copy_column<T: Item>(&self, word: usize, target: &Range<usize>, from: &Segment, old: usize) {
        // SAFETY: as in `copy`.
        self.tail::<T>(word, target).copy_from_slice(unsafe { from.items(old, target.len()) });
    }
}

const LACKING: RestoreError = RestoreError::Malformed("rows lack a column of their segment");

/// Fills a column with the digits of doubles that were written before their segment was sealed.
fn put_digits<C: Code>(into: &mut [C], scale: Scale, items: &[u8]) -> Result<(), RestoreError> {
    let (mut values, mut back) = ([0.0; CHUNK_ROWS], [0.0; CHUNK_ROWS]);
    for (into, items) in into.chunks_mut(CHUNK_ROWS).zip(items.chunks(CHUNK_ROWS * size_of::<f64>())) {
        let (values, back) = (&mut values[..into.len()], &mut back[..into.len()]);
        f64::take(items, values);
        kernels::digits(values, scale, into);
        kernels::decimals(into, scale, back);
        if !values.iter().zip(&*back).all(|(value, back)| value.to_bits() == back.to_bits()) {
            return Err(RestoreError::Malformed("a value is none of its segment's decimals"));
        }
    }
    Ok(())
}

/// Fills a column with the offsets of times that were written before their segment was sealed.
fn put_offsets<C: Code>(into: &mut [C], base: i64, items: &[u8]) -> Result<(), RestoreError> {
    let (mut times, mut back) = ([0; CHUNK_ROWS], [0; CHUNK_ROWS]);
    for (into, items) in into.chunks_mut(CHUNK_ROWS).zip(items.chunks(CHUNK_ROWS * size_of::<i64>())) {
        let (times, back) = (&mut times[..into.len()], &mut back[..into.len()]);
        i64::take(items, times);
        kernels::subtract_base(times, base, into);
        kernels::add_base(into, base, back);
        if times != back {
            return Err(RestoreError::Malformed("a time is none of its segment's offsets"));
        }
    }
    Ok(())
}
