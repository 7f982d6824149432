//! Aggregates by group where the rows of a chunk are of few groups: for each a mask, and whole vectors of values added (or
//! compared) under it, instead of a look at memory for each row.
//!
//! 1. A row's group is a key of one byte. Its slot is `key * LANES + row % LANES`: the same numbers are added to the same
//!    slots in the same order as by [`crate::SlotSums::add`], so that either may take a chunk.
//! 2. All rows of the chunk are looked at, and those that are selected are taken. An absent value is found in the sum, which
//!    it makes NaN: then nothing was added. The least and the greatest value are never NaN, for which nothing is less.

use crate::{
    LANES, Selection, Values,
    dispatch::{dispatch, dispatch_fused},
    fold::{GREATEST, LEAST, SUM, fold_rows, folded},
    values::{BLOCK_ROWS, Column, by_form},
};

/// Groups of a chunk up to which masks are worth it: their sums have to stay in registers.
#[must_use]
pub fn few_max() -> usize {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("fma")
    {
        return avx512::KEYS_MAX;
    }
    1
}

dispatch! {
    /// The least and the greatest key; `(u8::MAX, 0)` where there is none.
    pub fn key_range(keys: &[u8]) -> (u8, u8) = key_range_body
}

#[inline(always)]
fn key_range_body(keys: &[u8]) -> (u8, u8) {
    keys.iter().fold((u8::MAX, 0), |(least, greatest), &key| (least.min(key), greatest.max(key)))
}

dispatch! {
    /// Makes each row's key the number of `starts` that are not behind its time; at most 255 of them.
    pub fn keys_by_time(times: &[i64], starts: &[i64], keys: &mut [u8]) = keys_by_time_body
}

#[inline(always)]
fn keys_by_time_body(times: &[i64], starts: &[i64], keys: &mut [u8]) {
    let keys = &mut keys[..times.len()];
    keys.fill(0);
    for &start in starts {
        for (key, &time) in keys.iter_mut().zip(times) {
            *key += u8::from(time >= start);
        }
    }
}

/// Counts rows by key, in the slot of each key's first lane. `least..=greatest` holds all keys.
pub fn count_few(keys: &[u8], least: u8, greatest: u8, selection: Option<&Selection>, counts: &mut [u32]) {
    match selection {
        None => count_all(keys, least, greatest, counts),
        Some(selection) => {
            for key in least..=greatest {
                counts[usize::from(key) * LANES] += crate::count_equal(keys, key.into(), selection) as u32;
            }
        }
    }
}

dispatch! { fn count_all(keys: &[u8], least: u8, greatest: u8, counts: &mut [u32]) = count_all_body }

#[inline(always)]
fn count_all_body(keys: &[u8], least: u8, greatest: u8, counts: &mut [u32]) {
    for group in least..=greatest {
        counts[usize::from(group) * LANES] += keys.iter().map(|&key| u32::from(key == group)).sum::<u32>();
    }
}

/// Which rows of a chunk belong to which of few slots.
#[derive(Debug, Clone, Copy)]
pub struct FewRows<'a> {
    /// By row.
    pub keys: &'a [u8],
    /// The least key that there may be.
    pub least: u8,
    /// The greatest.
    pub greatest: u8,
    /// The rows that are taken; `None`: all.
    pub selection: Option<&'a Selection>,
}

impl FewRows<'_> {
    /// The slots of these keys.
    fn slots<'s>(&self, slots: &'s mut [f64]) -> &'s mut [[f64; LANES]] {
        &mut slots.as_chunks_mut::<LANES>().0[usize::from(self.least)..=usize::from(self.greatest)]
    }

    /// Which rows of a whole block are taken.
    #[inline(always)]
    fn word(&self, block: usize) -> u64 {
        self.selection.map_or(u64::MAX, |selection| selection.words()[block])
    }

    /// Calls `take(key, lane, value)` for the rows taken behind the whole blocks.
    #[inline(always)]
    fn each_behind<const FUSED: bool, T: Column>(&self, column: T, mut take: impl FnMut(usize, usize, f64)) {
        for row in self.keys.len() / BLOCK_ROWS * BLOCK_ROWS..self.keys.len() {
            if self.selection.is_none_or(|selection| selection.contains(row)) {
                take(usize::from(self.keys[row] - self.least), row % LANES, column.value::<FUSED>(row));
            }
        }
    }
}

/// Adds values by slot. `false`: nothing was added, since a value is absent or a sum is no number, or since this machine has
/// no good way.
///
/// # Panics
/// There are fewer slots than the keys need.
#[must_use]
pub fn sum_few(rows: FewRows<'_>, values: Values<'_>, sums: &mut [f64]) -> bool {
    by_form!(values, |column| fold_few::<SUM, _>(rows, column, rows.slots(sums)))
}

/// Keeps the least present value by slot. As [`sum_few`], but that it does not matter whether values are absent.
#[must_use]
pub fn least_few(rows: FewRows<'_>, values: Values<'_>, least: &mut [f64]) -> bool {
    by_form!(values, |column| fold_few::<LEAST, _>(rows, column, rows.slots(least)))
}

/// Keeps the greatest present value by slot. As [`least_few`].
#[must_use]
pub fn greatest_few(rows: FewRows<'_>, values: Values<'_>, greatest: &mut [f64]) -> bool {
    by_form!(values, |column| fold_few::<GREATEST, _>(rows, column, rows.slots(greatest)))
}

fn fold_few<const FOLD: u8, T: Column>(rows: FewRows<'_>, column: T, slots: &mut [[f64; LANES]]) -> bool {
    assert_eq!(rows.keys.len(), column.len(), "a key for each value");
    assert!(rows.selection.is_none_or(|selection| selection.rows() == column.len()), "a bit for each value");
    if let [slots] = slots {
        let lanes = match FOLD {
            SUM => sum_one_key(*slots, column, rows.selection),
            LEAST => least_one_key(*slots, column, rows.selection),
            _ => greatest_one_key(*slots, column, rows.selection),
        };
        let numbers = lanes.iter().all(|lane| !lane.is_nan());
        if numbers {
            *slots = lanes;
        }
        return numbers;
    }
    #[cfg(target_arch = "x86_64")]
    if slots.len() <= few_max() {
        // SAFETY: `few_max` is more than 1 only where the machine has these instructions.
        return unsafe { avx512::fold::<FOLD, T>(rows, column, slots) };
    }
    false
}

dispatch_fused! {
    fn sum_one_key<T: Column>(lanes: [f64; LANES], column: T, selection: Option<&Selection>) -> [f64; LANES]
        = sum_one_key_body
}

#[inline(always)]
fn sum_one_key_body<const FUSED: bool, T: Column>(
    lanes: [f64; LANES],
    column: T,
    selection: Option<&Selection>,
) -> [f64; LANES] {
    fold_rows::<SUM, FUSED, T>(lanes, column, selection)
}

dispatch_fused! {
    fn least_one_key<T: Column>(lanes: [f64; LANES], column: T, selection: Option<&Selection>) -> [f64; LANES]
        = least_one_key_body
}

#[inline(always)]
fn least_one_key_body<const FUSED: bool, T: Column>(
    lanes: [f64; LANES],
    column: T,
    selection: Option<&Selection>,
) -> [f64; LANES] {
    fold_rows::<LEAST, FUSED, T>(lanes, column, selection)
}

dispatch_fused! {
    fn greatest_one_key<T: Column>(lanes: [f64; LANES], column: T, selection: Option<&Selection>) -> [f64; LANES]
        = greatest_one_key_body
}

#[inline(always)]
fn greatest_one_key_body<const FUSED: bool, T: Column>(
    lanes: [f64; LANES],
    column: T,
    selection: Option<&Selection>,
) -> [f64; LANES] {
    fold_rows::<GREATEST, FUSED, T>(lanes, column, selection)
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512d, _CMP_UNORD_Q, _mm512_cmp_pd_mask, _mm512_cmpeq_epi8_mask, _mm512_loadu_epi8, _mm512_loadu_pd,
        _mm512_mask_add_pd, _mm512_mask_max_pd, _mm512_mask_min_pd, _mm512_set1_epi8, _mm512_setzero_pd,
        _mm512_storeu_pd,
    };

    use super::{BLOCK_ROWS, Column, FewRows, LANES, LEAST, SUM, folded};
    use crate::prefetch::prefetch_chunk_behind;

    /// Keys whose slots stay in the 32 registers beside masks and values.
    pub(super) const KEYS_MAX: usize = 16;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,fma")]
    pub(super) fn fold<const FOLD: u8, T: Column>(rows: FewRows<'_>, column: T, slots: &mut [[f64; LANES]]) -> bool {
        match slots.len() {
            0 => true,
            1..=2 => masked::<2, FOLD, T>(rows, column, slots),
            3..=4 => masked::<4, FOLD, T>(rows, column, slots),
            5..=6 => masked::<6, FOLD, T>(rows, column, slots),
            7..=8 => masked::<8, FOLD, T>(rows, column, slots),
            9..=10 => masked::<10, FOLD, T>(rows, column, slots),
            11..=12 => masked::<12, FOLD, T>(rows, column, slots),
            _ => masked::<KEYS_MAX, FOLD, T>(rows, column, slots),
        }
    }

    /// Takes values of the keys from the least on, of which there are at most `KEYS`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,fma")]
    fn masked<const KEYS: usize, const FOLD: u8, T: Column>(
        rows: FewRows<'_>,
        column: T,
        slots: &mut [[f64; LANES]],
    ) -> bool {
        let mut lanes: [__m512d; KEYS] = [_mm512_setzero_pd(); KEYS];
        for (lanes, slots) in lanes.iter_mut().zip(&*slots) {
            // SAFETY: there are eight of them.
            *lanes = unsafe { _mm512_loadu_pd(slots.as_ptr()) };
        }
        let mut scratch = [0.0; BLOCK_ROWS];
        for (at, keys) in rows.keys.as_chunks::<BLOCK_ROWS>().0.iter().enumerate() {
            column.prefetch_behind(at);
            prefetch_chunk_behind(keys);
            let word = rows.word(at);
            if word == 0 {
                continue;
            }
            // SAFETY: a block has 64 keys.
            let keys = unsafe { _mm512_loadu_epi8(keys.as_ptr().cast()) };
            let mut masks = [0_u64; KEYS];
            for (group, mask) in masks.iter_mut().enumerate() {
                let key = rows.least.wrapping_add(group as u8).cast_signed();
                *mask = _mm512_cmpeq_epi8_mask(keys, _mm512_set1_epi8(key)) & word;
            }
            for (n, eight) in column.block::<true>(at, &mut scratch).as_chunks::<LANES>().0.iter().enumerate() {
                // SAFETY: there are eight of them.
                let values = unsafe { _mm512_loadu_pd(eight.as_ptr()) };
                for (lanes, mask) in lanes.iter_mut().zip(masks) {
                    let mask = (mask >> (n * LANES)) as u8;
                    // Of two that are not in order, as NaN is with none, the second operand stays.
                    *lanes = match FOLD {
                        SUM => _mm512_mask_add_pd(*lanes, mask, *lanes, values),
                        LEAST => _mm512_mask_min_pd(*lanes, mask, values, *lanes),
                        _ => _mm512_mask_max_pd(*lanes, mask, values, *lanes),
                    };
                }
            }
        }
        let no_number = lanes.iter().fold(0, |any, &lanes| any | _mm512_cmp_pd_mask::<_CMP_UNORD_Q>(lanes, lanes));
        let mut absent = false;
        if FOLD == SUM {
            rows.each_behind::<true, T>(column, |_, _, value| absent |= value.is_nan());
        }
        if no_number != 0 || absent {
            return false;
        }
        for (lanes, slots) in lanes.iter().zip(&mut *slots) {
            // SAFETY: there is room for eight.
            unsafe { _mm512_storeu_pd(slots.as_mut_ptr(), *lanes) };
        }
        // A block's rows are whole rounds of the lanes.
        rows.each_behind::<true, T>(column, |key, lane, value| {
            slots[key][lane] = folded::<FOLD>(slots[key][lane], value);
        });
        true
    }
}
