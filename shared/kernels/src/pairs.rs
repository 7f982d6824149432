//! Numbers by group: a dictionary's codes, or the bins of a histogram. Counted or marked in a matrix with a line per group
//! where that is small enough, else listed as pairs.
//!
//! Number 0 is "absent". A matrix has it like any other, so that loops need not branch; lists leave it out.

use crate::{
    CHUNK_ROWS, Code, Rows, dispatch::dispatch, group::each, prefetch::prefetch_chunk_behind, values::BLOCK_ROWS,
};

/// The group of each row taken, in the form in which it is at hand.
#[derive(Debug, Clone, Copy)]
pub enum Groups<'a> {
    /// Of all of them group 0.
    One,
    /// Its key, `first` being the group of key 0; for all rows of a chunk.
    Keys {
        /// By row.
        keys: &'a [u8],
        /// The group of key 0.
        first: u32,
    },
    /// Its slot without the lane.
    Slots {
        /// By row taken.
        slots: &'a [u32],
        /// Bits of a slot that are its lane.
        lanes_log2: u32,
    },
}

/// Calls `take(group, item)` for each row taken, in order.
#[inline(always)]
fn each_of_group<T: Copy>(groups: Groups<'_>, rows: Rows<'_>, items: &[T], mut take: impl FnMut(u32, T)) {
    match (groups, rows) {
        (Groups::One, Rows::All(count)) => {
            for items in items[..count].chunks(BLOCK_ROWS) {
                prefetch_chunk_behind(items);
                items.iter().for_each(|&item| take(0, item));
            }
        }
        (Groups::One, rows @ Rows::Listed(_)) => each(rows, items, |_, item| take(0, item)),
        (Groups::Keys { keys, first }, Rows::All(count)) => {
            for (keys, items) in keys[..count].chunks(BLOCK_ROWS).zip(items[..count].chunks(BLOCK_ROWS)) {
                prefetch_chunk_behind(keys);
                prefetch_chunk_behind(items);
                keys.iter().zip(items).for_each(|(&key, &item)| take(first + u32::from(key), item));
            }
        }
        (Groups::Keys { .. }, Rows::Listed(_)) => panic!("keys are those of all rows of a chunk"),
        (Groups::Slots { slots, lanes_log2 }, Rows::All(count)) => {
            for (slots, items) in slots[..count].chunks(BLOCK_ROWS).zip(items[..count].chunks(BLOCK_ROWS)) {
                prefetch_chunk_behind(items);
                slots.iter().zip(items).for_each(|(&slot, &item)| take(slot >> lanes_log2, item));
            }
        }
        (Groups::Slots { slots, lanes_log2 }, Rows::Listed(rows)) => {
            let of_rows = slots[..rows.len()].iter().zip(rows);
            of_rows.for_each(|(&slot, &row)| take(slot >> lanes_log2, items[usize::from(row)]));
        }
    }
}

dispatch! {
    /// Adds 1 at each row's group and code of a matrix of `width` codes per group.
    pub fn count_pairs<C: Code>(groups: Groups<'_>, rows: Rows<'_>, codes: &[C], width: usize, counts: &mut [u32])
        = count_pairs_body
}

#[inline(always)]
fn count_pairs_body<C: Code>(groups: Groups<'_>, rows: Rows<'_>, codes: &[C], width: usize, counts: &mut [u32]) {
    each_of_group(groups, rows, codes, |group, code| counts[group as usize * width + code.index()] += 1);
}

/// Adds 1 at each row's group and number of a matrix of `width` columns per group, of which column `c` is number `base + c`;
/// number 0 has the first. There is a number for each row taken.
pub fn count_numbers(groups: Groups<'_>, numbers: &[u32], base: u32, width: usize, counts: &mut [u32]) {
    each_of_group(groups, Rows::All(numbers.len()), numbers, |group, number| {
        counts[group as usize * width + number.saturating_sub(base) as usize] += 1;
    });
}

/// Lists the rows that may count: those whose number is marked in their line. A line has `width` columns, of which column `c`
/// is number `base + c`, and behind them one for all other numbers.
pub fn list_marked<'a>(
    lines: &[u32],
    numbers: &[u32],
    base: u32,
    width: usize,
    marks: &[u8],
    list: &'a mut [u16; CHUNK_ROWS],
) -> &'a [u16] {
    let mut len = 0;
    for (row, (&line, &number)) in lines.iter().zip(numbers).enumerate() {
        let column = (number.wrapping_sub(base) as usize).min(width);
        // Written in any case and passed over if it is not marked: few are, and in no order.
        list[len] = row as u16;
        len += usize::from(marks[line as usize * (width + 1) + column] & 1);
    }
    &list[..len]
}

dispatch! {
    /// Marks each row's group and code in a matrix of `words` words of 64 codes per group.
    pub fn mark_pairs<C: Code>(groups: Groups<'_>, rows: Rows<'_>, codes: &[C], words: usize, marks: &mut [u64])
        = mark_pairs_body
}

#[inline(always)]
fn mark_pairs_body<C: Code>(groups: Groups<'_>, rows: Rows<'_>, codes: &[C], words: usize, marks: &mut [u64]) {
    each_of_group(groups, rows, codes, |group, code| {
        let code = code.index();
        marks[group as usize * words + code / 64] |= 1 << (code % 64);
    });
}

/// Lists each row's group (the high half) and code (the low half), without absent ones.
pub fn list_pairs<C: Code>(groups: Groups<'_>, rows: Rows<'_>, codes: &[C], pairs: &mut Vec<u64>) {
    pairs.reserve(rows.len());
    each_of_group(groups, rows, codes, |group, code| {
        if code.index() != 0 {
            pairs.push(u64::from(group) << 32 | code.index() as u64);
        }
    });
}

/// Lists each row's group and present value.
pub fn list_values(groups: Groups<'_>, rows: Rows<'_>, values: &[f64], into: &mut Vec<(u32, f64)>) {
    into.reserve(rows.len());
    each_of_group(groups, rows, values, |group, value| {
        if !value.is_nan() {
            into.push((group, value));
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

dispatch! {
    /// Makes each value's number `offset` more than its bits from bit `shift` on, of which the low 32 count; returns the least
    /// and the greatest.
    pub fn number_by_high_bits(values: &[f64], shift: u32, offset: u32, numbers: &mut [u32]) -> (u32, u32) =
        number_by_high_bits_body
}

#[inline(always)]
fn number_by_high_bits_body(values: &[f64], shift: u32, offset: u32, numbers: &mut [u32]) -> (u32, u32) {
    let numbers = &mut numbers[..values.len()];
    for (number, value) in numbers.iter_mut().zip(values) {
        *number = ((value.to_bits() >> shift) as u32).wrapping_add(offset);
    }
    let least = numbers.iter().fold(u32::MAX, |least, &n| least.min(n));
    (least, numbers.iter().fold(0, |greatest, &n| greatest.max(n)))
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
