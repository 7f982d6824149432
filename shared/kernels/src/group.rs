//! Aggregates by group: a slot number per row, and one accumulator per slot.
//!
//! 1. Rows of a chunk are taken in order: all of them, or those of a list. `slots[k]` is the slot of the k-th row taken.
//! 2. Keys are numbers of mixed radix: the first part fills them, each further one multiplies by its radix and adds itself.
//! 3. Several lanes per slot ([`add_lanes`]) break the chain of additions where there are few slots.

use crate::{CHUNK_ROWS, Code};

/// Which rows of a chunk are taken, ascending.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// The first so many.
    All(usize),
    /// These.
    Listed(&'a [u16]),
}

impl Rows<'_> {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::All(rows) => *rows,
            Self::Listed(rows) => rows.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A key or slot number under construction.
pub trait Key: Copy {
    /// This key with a further part of `radix` values.
    fn then(self, radix: Self, part: Self) -> Self;
    /// A code or lane as a part.
    fn part(number: usize) -> Self;
    /// A bucket's distance from the first as a part.
    fn bucket(distance: u64) -> Self;
}

impl Key for u32 {
    #[inline(always)]
    fn then(self, radix: Self, part: Self) -> Self {
        self.wrapping_mul(radix).wrapping_add(part)
    }

    #[inline(always)]
    fn part(number: usize) -> Self {
        number as Self
    }

    #[inline(always)]
    fn bucket(distance: u64) -> Self {
        distance as Self
    }
}

impl Key for u64 {
    #[inline(always)]
    fn then(self, radix: Self, part: Self) -> Self {
        self.wrapping_mul(radix).wrapping_add(part)
    }

    #[inline(always)]
    fn part(number: usize) -> Self {
        number as Self
    }

    #[inline(always)]
    fn bucket(distance: u64) -> Self {
        distance
    }
}

/// Calls `take(k, item)` for the k-th row taken, with its item of a column.
#[inline(always)]
pub(crate) fn each<T: Copy>(rows: Rows<'_>, items: &[T], mut take: impl FnMut(usize, T)) {
    match rows {
        Rows::All(count) => items[..count].iter().enumerate().for_each(|(k, &item)| take(k, item)),
        Rows::Listed(rows) => rows.iter().enumerate().for_each(|(k, &row)| take(k, items[usize::from(row)])),
    }
}

/// Appends a dimension's codes to the keys.
pub fn append_codes<K: Key, C: Code>(keys: &mut [K], rows: Rows<'_>, codes: &[C], radix: K) {
    let keys = &mut keys[..rows.len()];
    each(rows, codes, |k, code| keys[k] = keys[k].then(radix, K::part(code.index())));
}

/// Appends an absent dimension to the keys.
pub fn append_absent<K: Key>(keys: &mut [K], radix: K) {
    for key in keys {
        *key = key.then(radix, K::part(0));
    }
}

/// Fills the keys with each row's time bucket, as its distance from bucket `first`, which is none of a later time.
///
/// `interval` is the buckets' width, at least 1.
pub fn append_bucket<K: Key>(keys: &mut [K], rows: Rows<'_>, times: &[i64], interval: i64, first: i64) {
    let keys = &mut keys[..rows.len()];
    // Times come nearly in order: a division per bucket, not one per row. The empty range makes the first row divide.
    let (mut start, mut last, mut distance) = (i64::MAX, i64::MIN, 0_u64);
    each(rows, times, |k, time| {
        if time < start || time > last {
            let bucket = time.div_euclid(interval);
            distance = bucket.wrapping_sub(first).cast_unsigned();
            let into = time.rem_euclid(interval);
            start = time.saturating_sub(into);
            last = time.saturating_add(interval - 1 - into);
        }
        keys[k] = K::bucket(distance);
    });
}

/// Splits each slot into `1 << log2` lanes, by the row's number in the chunk.
pub fn add_lanes(slots: &mut [u32], rows: Rows<'_>, log2: u32) {
    const NUMBERS: [u16; CHUNK_ROWS] = {
        let mut numbers = [0; CHUNK_ROWS];
        let mut row = 0;
        while row < CHUNK_ROWS {
            numbers[row] = row as u16;
            row += 1;
        }
        numbers
    };
    let mask = (1 << log2) - 1;
    let slots = &mut slots[..rows.len()];
    each(rows, &NUMBERS, |k, row| slots[k] = slots[k] << log2 | (u32::from(row) & mask));
}

/// Counts rows by slot.
pub fn count_rows(slots: &[u32], counts: &mut [u64]) {
    for &slot in slots {
        counts[slot as usize] += 1;
    }
}

/// Counts rows where a dimension is present, by slot.
pub fn count_slots_codes<C: Code>(slots: &[u32], rows: Rows<'_>, codes: &[C], counts: &mut [u64]) {
    each(rows, codes, |k, code| counts[slots[k] as usize] += u64::from(code.index() != 0));
}

/// Counts rows with one code, by slot.
pub fn count_slots_equal<C: Code>(slots: &[u32], rows: Rows<'_>, codes: &[C], wanted: u32, counts: &mut [u64]) {
    let Some(wanted) = C::narrow(wanted) else { return };
    each(rows, codes, |k, code| counts[slots[k] as usize] += u64::from(code == wanted));
}

/// Counts rows where a metric is present, by slot.
pub fn count_slots_present(slots: &[u32], rows: Rows<'_>, values: &[f64], counts: &mut [u64]) {
    each(rows, values, |k, value| counts[slots[k] as usize] += u64::from(!value.is_nan()));
}

/// Sum and count of a slot's present values, side by side in memory.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GroupSum {
    /// The sum.
    pub sum: f64,
    /// The values in it.
    pub count: u64,
}

/// Adds present values by slot.
pub fn sum_slots(slots: &[u32], rows: Rows<'_>, values: &[f64], sums: &mut [GroupSum]) {
    each(rows, values, |k, value| {
        let into = &mut sums[slots[k] as usize];
        into.sum += if value.is_nan() { 0.0 } else { value };
        into.count += u64::from(!value.is_nan());
    });
}

/// Keeps the least present value by slot.
pub fn least_slots(slots: &[u32], rows: Rows<'_>, values: &[f64], least: &mut [f64]) {
    each(rows, values, |k, value| {
        let into = &mut least[slots[k] as usize];
        *into = if value < *into { value } else { *into };
    });
}

/// Keeps the greatest present value by slot.
pub fn greatest_slots(slots: &[u32], rows: Rows<'_>, values: &[f64], greatest: &mut [f64]) {
    each(rows, values, |k, value| {
        let into = &mut greatest[slots[k] as usize];
        *into = if value > *into { value } else { *into };
    });
}

/// What a slot needs for count, mean and variance: sums of the deviations from its first value, and of their squares. With
/// a value of its own to deviate from, a slot loses nothing to cancellation however far its values lie from zero.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GroupMoments {
    /// Values.
    pub count: u64,
    /// The first of them.
    pub first: f64,
    /// Deviations from it, added up.
    pub sum: f64,
    /// Their squares, added up.
    pub squares: f64,
}

/// Adds present values to the moments by slot.
pub fn moments_slots(slots: &[u32], rows: Rows<'_>, values: &[f64], moments: &mut [GroupMoments]) {
    each(rows, values, |k, value| {
        if value.is_nan() {
            return;
        }
        let into = &mut moments[slots[k] as usize];
        if into.count == 0 {
            into.first = value;
        }
        let deviation = value - into.first;
        into.count += 1;
        into.sum += deviation;
        into.squares += deviation * deviation;
    });
}
