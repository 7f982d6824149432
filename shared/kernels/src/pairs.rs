//! Numbers by group: a dictionary's codes, or the bins of a histogram. Counted or marked in a matrix with a line per group
//! where that is small enough, else listed as pairs.
//!
//! 1. A row's group is its slot without the lane: `slots[k] >> lanes_log2` for the k-th row taken.
//! 2. Number 0 is "absent". A matrix has it like any other, so that loops need not branch; lists leave it out.

use crate::{Code, Rows, group::each};

/// The slots of the rows taken, and how many of their low bits are the lane.
#[derive(Debug, Clone, Copy)]
pub struct Slots<'a> {
    /// The slot of each row taken.
    pub slots: &'a [u32],
    /// Bits of a slot that are its lane.
    pub lanes_log2: u32,
}

impl Slots<'_> {
    #[inline(always)]
    fn group(self, k: usize) -> u32 {
        self.slots[k] >> self.lanes_log2
    }
}

/// Adds 1 at each row's group and code of a matrix of `width` codes per group.
pub fn count_pairs<C: Code>(slots: Slots<'_>, rows: Rows<'_>, codes: &[C], width: usize, counts: &mut [u32]) {
    each(rows, codes, |k, code| counts[slots.group(k) as usize * width + code.index()] += 1);
}

/// Marks each row's group and code in a matrix of `words` words of 64 codes per group.
pub fn mark_pairs<C: Code>(slots: Slots<'_>, rows: Rows<'_>, codes: &[C], words: usize, marks: &mut [u64]) {
    each(rows, codes, |k, code| {
        let code = code.index();
        marks[slots.group(k) as usize * words + code / 64] |= 1 << (code % 64);
    });
}

/// Lists each row's group (the high half) and code (the low half), without absent ones.
pub fn list_pairs<C: Code>(slots: Slots<'_>, rows: Rows<'_>, codes: &[C], pairs: &mut Vec<u64>) {
    pairs.reserve(rows.len());
    each(rows, codes, |k, code| {
        if code.index() != 0 {
            pairs.push(u64::from(slots.group(k)) << 32 | code.index() as u64);
        }
    });
}

/// Lists each row's group and present value.
pub fn list_values(slots: Slots<'_>, rows: Rows<'_>, values: &[f64], into: &mut Vec<(u32, f64)>) {
    into.reserve(rows.len());
    each(rows, values, |k, value| {
        if !value.is_nan() {
            into.push((slots.group(k), value));
        }
    });
}

/// Calls `take(k, value)` for the k-th row taken, if its value is present.
#[inline(always)]
pub fn each_present(rows: Rows<'_>, values: &[f64], mut take: impl FnMut(usize, f64)) {
    each(rows, values, |k, value| {
        if !value.is_nan() {
            take(k, value);
        }
    });
}

/// The number of each row's value: 0 where it is absent, else what `number` says, which is at least 1.
///
/// Returns the least and the greatest of the numbers that are not 0; `(u32::MAX, 0)` where there is none.
#[inline(always)]
pub fn number_values(rows: Rows<'_>, values: &[f64], numbers: &mut [u32], number: impl Fn(f64) -> u32) -> (u32, u32) {
    let numbers = &mut numbers[..rows.len()];
    each(rows, values, |k, value| numbers[k] = if value.is_nan() { 0 } else { number(value) });
    // 0 wraps around to the greatest number, so that it is never the least; as the greatest it changes nothing.
    let least = numbers.iter().fold(u32::MAX, |least, &n| least.min(n.wrapping_sub(1)));
    let greatest = numbers.iter().fold(0, |greatest, &n| greatest.max(n));
    (least.saturating_add(1), greatest)
}

/// A finite number as an integer that orders as it does; -0.0 is 0.0.
#[inline(always)]
#[must_use]
pub fn ordered_bits(value: f64) -> u64 {
    // Adding zero makes -0.0 plain. Negative numbers order backwards by their bits: all are flipped, of others the sign.
    let bits = (value + 0.0).to_bits();
    let flip = (bits.cast_signed() >> 63).cast_unsigned() | 1 << 63;
    bits ^ flip
}

/// The number that [`ordered_bits`] made `bits` of.
#[must_use]
pub fn from_ordered_bits(bits: u64) -> f64 {
    let flip = if bits >> 63 == 1 { 1 << 63 } else { u64::MAX };
    f64::from_bits(bits ^ flip)
}
