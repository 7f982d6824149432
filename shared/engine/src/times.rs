//! Event times of a segment as readers find them: whole, or as offsets from a base once the segment is sealed.

use std::ops::Range;

use kernels::{Code, Selection};
use types::Timestamp;

use crate::{
    columns::{Codes, by_width},
    segment::{CHUNK_ROWS, Zone},
};

/// Event times of a segment's rows, µs since the epoch.
#[derive(Debug, Clone, Copy)]
pub enum Times<'a> {
    /// As they are.
    Whole(&'a [i64]),
    /// Less a base, which is none of the later ones.
    Offsets {
        /// The base.
        base: i64,
        /// What is to be added to it.
        offsets: Codes<'a>,
    },
}

impl<'a> Times<'a> {
    /// How many rows there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a segment that is seen has rows")]
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(times) => times.len(),
            Self::Offsets { offsets, .. } => offsets.len(),
        }
    }

    /// Bytes of one of them.
    #[must_use]
    pub fn item_bytes(&self) -> usize {
        match self {
            Self::Whole(_) => size_of::<i64>(),
            Self::Offsets { offsets, .. } => offsets.item_bytes(),
        }
    }

    /// The time of a row. Scans read many at once instead.
    ///
    /// # Panics
    /// There is no such row.
    #[must_use]
    pub fn get(&self, row: usize) -> i64 {
        match self {
            Self::Whole(times) => times[row],
            Self::Offsets { base, offsets } => base.wrapping_add(i64::from(offsets.get(row))),
        }
    }

    /// The times of rows, as many as a chunk has at most; written to `scratch` where they are not there as such.
    ///
    /// # Panics
    /// There are no such rows, or too many.
    #[must_use]
    pub fn read<'s>(&self, rows: Range<usize>, scratch: &'s mut [i64; CHUNK_ROWS]) -> &'s [i64]
    where
        'a: 's,
    {
        match *self {
            Self::Whole(times) => &times[rows],
            Self::Offsets { base, offsets } => {
                let scratch = &mut scratch[..rows.len()];
                by_width!(offsets, rows, |offsets| kernels::add_base(offsets, base, scratch));
                scratch
            }
        }
    }

    /// The least and the greatest of rows.
    pub(crate) fn zone(&self, rows: Range<usize>) -> Zone {
        match *self {
            Self::Whole(times) => Zone::of(&times[rows]),
            Self::Offsets { base, offsets } => by_width!(offsets, rows, |offsets| {
                let ends = offsets.iter().min().zip(offsets.iter().max());
                let time = |offset: i64| Timestamp(base.wrapping_add(offset));
                ends.map_or(Zone::EMPTY, |(min, max)| Zone { min: time((*min).into()), max: time((*max).into()) })
            }),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Takes the rows out of `selection`, which is of the rows `rows`, whose times are not in `[start, end)`.
    ///
    /// # Panics
    /// There are no such rows, or others are selected from.
    pub fn narrow(&self, selection: &mut Selection, rows: Range<usize>, start: i64, end: i64) {
        match *self {
            Self::Whole(times) => kernels::and_times(selection, &times[rows], start, end),
            Self::Offsets { base, offsets } => by_width!(offsets, rows, |offsets| {
                match offsets_within(base, start, end) {
                    Some((least, greatest)) => kernels::and_between(selection, offsets, least, greatest, false),
                    None => selection.clear(),
                }
            }),
        }
    }

    /// Whether the time of one of the rows is in `[start, end)`.
    ///
    /// # Panics
    /// There are no such rows.
    #[must_use]
    pub fn any_within(&self, mut rows: Range<usize>, start: i64, end: i64) -> bool {
        rows.any(|row| (start..end).contains(&self.get(row)))
    }

    /// Whether the time of one of the rows is not in `[start, end)`.
    ///
    /// # Panics
    /// There are no such rows.
    #[must_use]
    pub fn any_outside(&self, mut rows: Range<usize>, start: i64, end: i64) -> bool {
        rows.any(|row| !(start..end).contains(&self.get(row)))
    }

    /// Makes the key of each of the rows the number of `starts`, ascending, that are not behind its time; at most 255 of them.
    ///
    /// # Panics
    /// There are no such rows, or fewer keys.
    pub fn count_starts(&self, rows: Range<usize>, starts: &[i64], keys: &mut [u8]) {
        match *self {
            Self::Whole(times) => kernels::keys_by_time(&times[rows], starts, keys),
            Self::Offsets { base, offsets } => {
                by_width!(offsets, rows, |offsets| count_offset_starts(offsets, base, starts, keys));
            }
        }
    }
}

/// [`Times::count_starts`] for offsets.
fn count_offset_starts<C: Code>(offsets: &[C], base: i64, starts: &[i64], keys: &mut [u8]) {
    let from_base = starts.iter().map(|start| start.saturating_sub(base));
    // What no offset can reach is behind all times, as are those that come after it.
    let reached: Vec<C> = from_base.map_while(|start| C::narrow(u32::try_from(start.max(0)).ok()?)).collect();
    kernels::keys_by_offset(offsets, &reached, keys);
}

/// The offsets from a base of the times in `[start, end)`: the least and the greatest of a width; `None` where there are none.
fn offsets_within<C: Code>(base: i64, start: i64, end: i64) -> Option<(C, C)> {
    let greatest_of_all: u64 = u64::MAX >> (u64::BITS - u8::BITS * size_of::<C>() as u32);
    let from_base = |time: i64| i128::from(time) - i128::from(base);
    let (first, last) = (from_base(start).max(0), (from_base(end) - 1).min(i128::from(greatest_of_all)));
    (first <= last).then(|| (C::truncate(first as u64), C::truncate(last as u64)))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: times as offsets of any width are the times, in whatever way they are asked for, bases and ranges at
        /// either end of time included.
        #[test]
        fn offsets_are_times(
            offsets in prop::collection::vec(prop_oneof![any::<u32>(), 0_u32..300, Just(u32::MAX)], 1..200),
            base in prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX - i64::from(u32::MAX))],
            bounds in prop::collection::vec(prop_oneof![any::<i64>(), -5_i64..300, Just(1 << 32), Just(i64::MIN)], 2..6),
        ) {
            let base = base.min(i64::MAX - i64::from(u32::MAX));
            let near = |bound: i64| if bound.unsigned_abs() <= 1 << 32 { base.saturating_add(bound) } else { bound };
            let mut starts: Vec<i64> = bounds.into_iter().map(near).collect();
            starts.sort_unstable();
            let (start, end) = (starts[0], starts[starts.len() - 1]);
            let narrow: (Vec<u8>, Vec<u16>) = offsets.iter().map(|&offset| (offset as u8, offset as u16)).unzip();
            for offsets in [Codes::U8(&narrow.0), Codes::U16(&narrow.1), Codes::U32(&offsets)] {
                let times = Times::Offsets { base, offsets };
                let plain: Vec<i64> = (0..times.len()).map(|row| base + i64::from(offsets.get(row))).collect();
                let whole = Times::Whole(&plain);
                prop_assert!(times.iter().eq(plain.iter().copied()));
                let rows = plain.len() / 3..plain.len();
                let mut scratch = [0; CHUNK_ROWS];
                prop_assert_eq!(times.read(rows.clone(), &mut scratch), &plain[rows.clone()]);
                let [mut narrowed, mut expected] = [Selection::all(rows.len()), Selection::all(rows.len())];
                times.narrow(&mut narrowed, rows.clone(), start, end);
                whole.narrow(&mut expected, rows.clone(), start, end);
                prop_assert_eq!(&narrowed, &expected);
                prop_assert_eq!(times.any_within(rows.clone(), start, end), narrowed.count() > 0);
                prop_assert_eq!(times.any_outside(rows.clone(), start, end), narrowed.count() < rows.len());
                let [mut keys, mut expected] = [vec![9; rows.len()], vec![9; rows.len()]];
                times.count_starts(rows.clone(), &starts, &mut keys);
                whole.count_starts(rows, &starts, &mut expected);
                prop_assert_eq!(keys, expected);
            }
        }
    }
}
