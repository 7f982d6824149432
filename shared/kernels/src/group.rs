//! Aggregates by group: a slot number per row, and one accumulator per slot.
//!
//! 1. Rows of a chunk are taken in order: all of them, or those of a list. `slots[k]` is the slot of the k-th row taken.
//! 2. Keys are numbers of mixed radix: the first part fills them, each further one multiplies by its radix and adds itself.
//! 3. Several lanes per slot ([`add_lanes`]) break the chain of additions where there are few slots.
//! 4. What nearly all rows have is counted by its absence: a metric's present values are the rows less the absent ones, which
//!    only a chunk that has any pays for.

use crate::{
    CHUNK_ROWS, Code, LANES, Values,
    dispatch::{dispatch, dispatch_fused},
    prefetch::{LISTED_AT_ONCE, prefetch_chunk_behind, prefetch_part_behind},
    values::{BLOCK_ROWS, Column, all_present, by_form},
};

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

dispatch! {
    /// Appends a dimension's codes to the keys.
    pub fn append_codes<K: Key, C: Code>(keys: &mut [K], rows: Rows<'_>, codes: &[C], radix: K) = append_codes_body
}

#[inline(always)]
fn append_codes_body<K: Key, C: Code>(keys: &mut [K], rows: Rows<'_>, codes: &[C], radix: K) {
    let keys = &mut keys[..rows.len()];
    let then = |key: &mut K, code: C| *key = key.then(radix, K::part(code.index()));
    match rows {
        Rows::All(count) => {
            for (keys, codes) in keys.chunks_mut(BLOCK_ROWS).zip(codes[..count].chunks(BLOCK_ROWS)) {
                prefetch_chunk_behind(codes);
                keys.iter_mut().zip(codes).for_each(|(key, &code)| then(key, code));
            }
        }
        Rows::Listed(rows) => {
            let all = rows.len();
            for (n, (keys, rows)) in keys.chunks_mut(LISTED_AT_ONCE).zip(rows.chunks(LISTED_AT_ONCE)).enumerate() {
                prefetch_part_behind(codes, all, n);
                keys.iter_mut().zip(rows).for_each(|(key, &row)| then(key, codes[usize::from(row)]));
            }
        }
    }
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

dispatch! {
    /// Splits each slot into [`LANES`] lanes, by the row's number in the chunk.
    pub fn add_lanes(slots: &mut [u32], rows: Rows<'_>) = add_lanes_body
}

#[inline(always)]
fn add_lanes_body(slots: &mut [u32], rows: Rows<'_>) {
    const NUMBERS: [u16; CHUNK_ROWS] = {
        let mut numbers = [0; CHUNK_ROWS];
        let mut row = 0;
        while row < CHUNK_ROWS {
            numbers[row] = row as u16;
            row += 1;
        }
        numbers
    };
    const _: () = assert!(LANES.is_power_of_two());
    let slots = &mut slots[..rows.len()];
    each(rows, &NUMBERS, |k, row| {
        slots[k] = slots[k] * LANES as u32 + (u32::from(row) & (LANES as u32 - 1));
    });
}

/// Counts rows by slot.
pub fn count_rows(slots: &[u32], counts: &mut [u32]) {
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
pub fn count_slots_present(slots: &[u32], rows: Rows<'_>, values: Values<'_>, counts: &mut [u64]) {
    match values {
        Values::Doubles(values) => {
            each(rows, values, |k, value| counts[slots[k] as usize] += u64::from(!value.is_nan()));
        }
        Values::U8(digits, _) => count_slots_codes(slots, rows, digits, counts),
        Values::U16(digits, _) => count_slots_codes(slots, rows, digits, counts),
        Values::U32(digits, _) => count_slots_codes(slots, rows, digits, counts),
    }
}

/// Calls `take(slot, value)` for each row taken, in order.
#[inline(always)]
fn each_value<const FUSED: bool, T: Column>(
    slots: &[u32],
    rows: Rows<'_>,
    column: T,
    mut take: impl FnMut(usize, f64),
) {
    match rows {
        Rows::All(count) => {
            let (slots, mut scratch) = (&slots[..count], [0.0; BLOCK_ROWS]);
            let (blocks, rest) = slots.as_chunks::<BLOCK_ROWS>();
            for (at, slots) in blocks.iter().enumerate() {
                column.prefetch_behind(at);
                let values = column.block::<FUSED>(at, &mut scratch);
                slots.iter().zip(values).for_each(|(&slot, &value)| take(slot as usize, value));
            }
            let done = blocks.len() * BLOCK_ROWS;
            rest.iter().enumerate().for_each(|(k, &slot)| take(slot as usize, column.value::<FUSED>(done + k)));
        }
        Rows::Listed(rows) => {
            let (all, slots) = (rows.len(), &slots[..rows.len()]);
            for (n, (slots, rows)) in slots.chunks(LISTED_AT_ONCE).zip(rows.chunks(LISTED_AT_ONCE)).enumerate() {
                column.prefetch_part_behind(all, n);
                let rows = slots.iter().zip(rows);
                rows.for_each(|(&slot, &row)| take(slot as usize, column.value::<FUSED>(row.into())));
            }
        }
    }
}

/// The present values of each slot, added up.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SlotSums {
    /// By slot.
    pub sums: Vec<f64>,
    /// By slot, the rows that have no value; empty as long as there was no such row.
    absent: Vec<u32>,
    /// Whether a slot's sum says that it has a value: it begins at [`UNMARKED`], which no sum of values is.
    marks: bool,
}

/// -0.0: a value is added as `value + 0.0`, which is not -0.0, and neither is a sum with it.
const UNMARKED: f64 = -0.0;

impl SlotSums {
    /// Such that say which slots have rows, so that these need not be counted.
    #[must_use]
    pub fn marking() -> Self {
        Self { marks: true, ..Self::default() }
    }

    /// Makes it one of `slots` slots.
    pub fn grow(&mut self, slots: usize) {
        self.sums.resize(slots, if self.marks { UNMARKED } else { 0.0 });
        if !self.absent.is_empty() {
            self.absent.resize(slots, 0);
        }
    }

    /// How many of the rows of a slot had no value.
    #[must_use]
    pub fn absent(&self, slot: usize) -> u32 {
        self.absent.get(slot).copied().unwrap_or(0)
    }

    /// How many of a slot's `rows` rows have a value; where they are marked, whether any has.
    #[must_use]
    pub fn present(&self, slot: usize, rows: u64) -> u64 {
        match self.marks {
            true => self.is_marked(slot).into(),
            false => rows - u64::from(self.absent(slot)),
        }
    }

    /// Whether a slot has rows, with a value or without, where they are marked.
    #[must_use]
    pub fn has_rows(&self, slot: usize) -> bool {
        self.is_marked(slot) || self.absent(slot) > 0
    }

    fn is_marked(&self, slot: usize) -> bool {
        self.sums[slot].to_bits() != UNMARKED.to_bits()
    }

    /// Adds the values of the rows taken, of slots below the number that it was grown to.
    pub fn add(&mut self, slots: &[u32], rows: Rows<'_>, values: Values<'_>) {
        if let Rows::All(count) = rows
            && all_present(values, count)
        {
            return by_form!(values, |column| add_present(&mut self.sums, slots, rows, column));
        }
        by_form!(values, |column| add_any(self, slots, rows, column));
    }

    /// Takes rows that have no value.
    pub fn add_absent(&mut self, slots: &[u32]) {
        slots.iter().for_each(|&slot| self.count_absent(slot as usize));
    }

    #[inline]
    fn count_absent(&mut self, slot: usize) {
        if self.absent.is_empty() {
            self.absent.resize(self.sums.len(), 0);
        }
        self.absent[slot] += 1;
    }

    /// Memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.sums) + size_of_val(&*self.absent)
    }
}

dispatch_fused! {
    fn add_present<T: Column>(sums: &mut [f64], slots: &[u32], rows: Rows<'_>, column: T) = add_present_body
}

#[inline(always)]
fn add_present_body<const FUSED: bool, T: Column>(sums: &mut [f64], slots: &[u32], rows: Rows<'_>, column: T) {
    // Never -0.0, as which a sum is no mark.
    each_value::<FUSED, T>(slots, rows, column, |slot, value| sums[slot] += value + 0.0);
}

dispatch_fused! { fn add_any<T: Column>(into: &mut SlotSums, slots: &[u32], rows: Rows<'_>, column: T) = add_any_body }

#[inline(always)]
fn add_any_body<const FUSED: bool, T: Column>(into: &mut SlotSums, slots: &[u32], rows: Rows<'_>, column: T) {
    each_value::<FUSED, T>(slots, rows, column, |slot, value| {
        if value.is_nan() {
            into.count_absent(slot);
        } else {
            into.sums[slot] += value + 0.0;
        }
    });
}

/// Keeps the least present value by slot.
pub fn least_slots(slots: &[u32], rows: Rows<'_>, values: Values<'_>, least: &mut [f64]) {
    by_form!(values, |column| keep_least(slots, rows, column, least));
}

dispatch_fused! { fn keep_least<T: Column>(slots: &[u32], rows: Rows<'_>, column: T, least: &mut [f64]) = keep_least_body }

#[inline(always)]
fn keep_least_body<const FUSED: bool, T: Column>(slots: &[u32], rows: Rows<'_>, column: T, least: &mut [f64]) {
    each_value::<FUSED, T>(slots, rows, column, |slot, value| {
        let into = &mut least[slot];
        *into = if value < *into { value } else { *into };
    });
}

/// Keeps the greatest present value by slot.
pub fn greatest_slots(slots: &[u32], rows: Rows<'_>, values: Values<'_>, greatest: &mut [f64]) {
    by_form!(values, |column| keep_greatest(slots, rows, column, greatest));
}

dispatch_fused! {
    fn keep_greatest<T: Column>(slots: &[u32], rows: Rows<'_>, column: T, greatest: &mut [f64]) = keep_greatest_body
}

#[inline(always)]
fn keep_greatest_body<const FUSED: bool, T: Column>(slots: &[u32], rows: Rows<'_>, column: T, greatest: &mut [f64]) {
    each_value::<FUSED, T>(slots, rows, column, |slot, value| {
        let into = &mut greatest[slot];
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
