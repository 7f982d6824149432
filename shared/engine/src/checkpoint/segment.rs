//! Rows of a segment as bytes: columns side by side, as they lie in memory, with the runs that say where rows came from.
//!
//! | bytes | of a part |
//! |---|---|
//! | 4, 4 | the first row and the end |
//! | 4 + 16 each | runs: offset, row, row in the block; the first begins with the part |
//! | | how event times are held ([`super::forms`]) |
//! | 4 + 5 and more each | columns: number, and how it is held |
//! | | event times |
//! | | the items of each column |
//!
//! Rows that were written before their segment was sealed stay good: a column may be there as it came where the segment holds
//! a smaller form of it.

use std::ops::Range;

use super::{Form, Put, RestoreError, Take};
use crate::{
    columns::Width,
    segment::{Run, Segment, Stored, StoredTimes},
    slab::Item,
};

/// Numbers that become bytes at a time.
const NUMBERS_AT_ONCE: usize = 512;

/// A number as bytes.
pub(crate) trait Number: Item {
    /// Appends numbers.
    fn put(numbers: &[Self], out: &mut Vec<u8>);
    /// Fills `into` from bytes, of which there are as many as it takes.
    fn take(bytes: &[u8], into: &mut [Self]);
}

macro_rules! number {
    ($($number:ty)*) => {$(
        impl Number for $number {
            fn put(numbers: &[Self], out: &mut Vec<u8>) {
                out.reserve(size_of_val(numbers));
                // Some at a time, so that what was made zero is still in the nearest cache when it is written.
                for some in numbers.chunks(NUMBERS_AT_ONCE) {
                    let from = out.len();
                    out.resize(from + size_of_val(some), 0);
                    let target = out[from..].as_chunks_mut().0;
                    target.iter_mut().zip(some).for_each(|(bytes, number)| *bytes = number.to_le_bytes());
                }
            }

            fn take(bytes: &[u8], into: &mut [Self]) {
                let source = bytes.as_chunks().0;
                into.iter_mut().zip(source).for_each(|(number, bytes)| *number = Self::from_le_bytes(*bytes));
            }
        }
    )*};
}
number!(u8 u16 u32 i64 f64);

/// Appends rows of a segment, of which there are some, all of them published.
pub(crate) fn encode_rows(segment: &Segment, rows: Range<usize>, out: &mut Vec<u8>) {
    out.u32(rows.start as u32);
    out.u32(rows.end as u32);
    out.list(runs_of(segment, &rows).iter(), |out, run| {
        out.u64(run.offset);
        out.u32(run.row);
        out.u32(run.block_row);
    });
    let layout = segment.layout();
    layout.times.encode(out);
    let columns = layout.columns.iter().enumerate();
    let columns: Vec<_> = columns.filter_map(|(at, stored)| Some((at, stored, Form::of(stored)?))).collect();
    out.list(columns.iter(), |out, (at, _, form)| {
        out.u32(*at as u32);
        form.encode(out);
    });
    match layout.times {
        StoredTimes::Whole => put_items::<i64>(segment, 0, &rows, out),
        StoredTimes::Offsets { width, .. } => put_numbers(segment, width, 0, &rows, out),
    }
    for (_, stored, _) in columns {
        match stored {
            Stored::Absent => {}
            Stored::Codes { width, word, .. } | Stored::Decimals { width, word, .. } => {
                put_numbers(segment, *width, *word, &rows, out);
            }
            Stored::Values { word } => put_items::<f64>(segment, *word, &rows, out),
        }
    }
}

fn put_numbers(segment: &Segment, width: Width, word: usize, rows: &Range<usize>, out: &mut Vec<u8>) {
    match width {
        Width::One => put_items::<u8>(segment, word, rows, out),
        Width::Two => put_items::<u16>(segment, word, rows, out),
        Width::Four => put_items::<u32>(segment, word, rows, out),
    }
}

/// The runs of some rows; the first begins with them.
fn runs_of(segment: &Segment, rows: &Range<usize>) -> Vec<Run> {
    let runs = segment.runs();
    let before = runs.partition_point(|run| run.row as usize <= rows.start);
    let end = runs.partition_point(|run| (run.row as usize) < rows.end);
    let mut runs = runs[before.saturating_sub(1)..end].to_vec();
    if let Some(first) = runs.first_mut() {
        let skipped = rows.start as u32 - first.row;
        *first = Run { row: first.row + skipped, block_row: first.block_row + skipped, ..*first };
    }
    runs
}

fn put_items<T: Number>(segment: &Segment, word: usize, rows: &Range<usize>, out: &mut Vec<u8>) {
    // SAFETY: the caller's rows are published.
    let items = unsafe { segment.items::<T>(word, rows.end) };
    T::put(&items[rows.clone()], out);
}

/// Rows that were read back, and hold together: as many items as rows, and runs that begin each row's record.
pub(crate) struct RowsPart<'a> {
    pub(crate) rows: Range<usize>,
    pub(crate) runs: Vec<Run>,
    pub(crate) times: StoredTimes,
    pub(crate) time_items: &'a [u8],
    /// By number of the column, ascending: what its items stand for, and all of them.
    columns: Vec<(usize, Form, &'a [u8])>,
}

impl<'a> RowsPart<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, RestoreError> {
        let mut take = Take::new(bytes);
        let rows = take.u32()? as usize..take.u32()? as usize;
        if rows.is_empty() {
            return Err(RestoreError::Malformed("a part has no rows"));
        }
        let runs = take.list(|take| Ok(Run { offset: take.u64()?, row: take.u32()?, block_row: take.u32()? }))?;
        let ascend = |pair: &[Run]| pair[0].row < pair[1].row && pair[0].offset <= pair[1].offset;
        let whole = runs.first().is_some_and(|run| run.row as usize == rows.start)
            && runs.last().is_some_and(|run| (run.row as usize) < rows.end)
            && runs.windows(2).all(ascend);
        if !whole {
            return Err(RestoreError::Malformed("runs of rows do not fit together"));
        }
        let times = StoredTimes::decode(&mut take)?;
        let heads = take.list(|take| {
            let (at, byte) = (take.u32()? as usize, take.u8()?);
            Ok((at, Form::decode(byte, take)?))
        })?;
        if !heads.is_sorted_by(|(before, _), (after, _)| before < after) {
            return Err(RestoreError::Malformed("columns of rows are out of order"));
        }
        let time_items = take.raw(rows.len() * times.item_bytes())?;
        let columns = heads.into_iter().map(|(at, form)| Ok((at, form, take.raw(rows.len() * form.item_bytes())?)));
        let columns = columns.collect::<Result<_, RestoreError>>()?;
        take.end()?;
        Ok(Self { rows, runs, times, time_items, columns })
    }

    /// The items of a column, if they are of this form.
    pub(crate) fn column(&self, column: usize, form: Form) -> Option<&'a [u8]> {
        let at = self.columns.binary_search_by_key(&column, |(at, ..)| *at).ok()?;
        let (_, held, items) = self.columns[at];
        (held == form).then_some(items)
    }
}
