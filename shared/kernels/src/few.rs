//! Aggregates by group where the rows of a chunk are of few groups: for each a mask, and whole vectors of values added
//! under it, instead of an addition in memory for each row.
//!
//! 1. A row's group is a key of one byte. Its slot is `key * LANES + row % LANES`: the same numbers are added to the same
//!    slots in the same order as by [`crate::SlotSums::add`], so that either may take a chunk.
//! 2. Every row of the chunk is taken. An absent value is found in the sum, which it makes NaN: then nothing was added.

use crate::{LANES, dispatch::dispatch};

/// Groups of a chunk up to which masks are worth it: their sums have to stay in registers.
#[must_use]
pub fn few_max() -> usize {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx512bw") && std::is_x86_feature_detected!("avx512vl") {
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

dispatch! {
    /// Counts rows by key, in the slot of each key's first lane. `least..=greatest` holds all keys.
    pub fn count_few(keys: &[u8], least: u8, greatest: u8, counts: &mut [u32]) = count_few_body
}

#[inline(always)]
fn count_few_body(keys: &[u8], least: u8, greatest: u8, counts: &mut [u32]) {
    for group in least..=greatest {
        counts[usize::from(group) * LANES] += keys.iter().map(|&key| u32::from(key == group)).sum::<u32>();
    }
}

/// Adds values by slot. `least..=greatest` holds all keys. `false`: nothing was added, since a value is absent or a sum is
/// no number.
///
/// # Panics
/// There are fewer slots than the keys need.
#[must_use]
pub fn sum_few(keys: &[u8], least: u8, greatest: u8, values: &[f64], sums: &mut [f64]) -> bool {
    assert_eq!(keys.len(), values.len(), "a key for each value");
    let sums = &mut sums.as_chunks_mut::<LANES>().0[usize::from(least)..=usize::from(greatest)];
    #[cfg(target_arch = "x86_64")]
    if sums.len() <= few_max() && few_max() == avx512::KEYS_MAX {
        // SAFETY: `few_max` says so only where the machine has these instructions.
        return unsafe { avx512::sum(keys, least, values, sums) };
    }
    if let [sums] = sums {
        return sum_one_key(values, sums);
    }
    let present = crate::all_present(values);
    if present {
        sum_spread(keys, least, values, sums);
    }
    present
}

dispatch! { fn sum_one_key(values: &[f64], sums: &mut [f64; LANES]) -> bool = sum_one_key_body }

#[inline(always)]
fn sum_one_key_body(values: &[f64], sums: &mut [f64; LANES]) -> bool {
    let (eights, rest) = values.as_chunks::<LANES>();
    let mut lanes = *sums;
    for eight in eights {
        for (lane, &value) in lanes.iter_mut().zip(eight) {
            *lane += value;
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += value;
    }
    let numbers = lanes.iter().all(|lane| !lane.is_nan());
    if numbers {
        *sums = lanes;
    }
    numbers
}

fn sum_spread(keys: &[u8], least: u8, values: &[f64], sums: &mut [[f64; LANES]]) {
    for (row, (&key, &value)) in keys.iter().zip(values).enumerate() {
        sums[usize::from(key - least)][row % LANES] += value;
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512d, _CMP_UNORD_Q, _mm512_cmp_pd_mask, _mm512_cmpeq_epi8_mask, _mm512_loadu_epi8, _mm512_loadu_pd,
        _mm512_mask_add_pd, _mm512_set1_epi8, _mm512_setzero_pd, _mm512_storeu_pd,
    };

    use super::{LANES, sum_one_key, sum_spread};

    /// Keys whose sums stay in the 32 registers beside masks and values.
    pub(super) const KEYS_MAX: usize = 16;
    /// Rows whose keys are compared at once.
    const BLOCK: usize = 64;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) fn sum(keys: &[u8], least: u8, values: &[f64], sums: &mut [[f64; LANES]]) -> bool {
        match sums.len() {
            0 => true,
            1 => sum_one_key(values, &mut sums[0]),
            2 => masked::<2>(keys, least, values, sums),
            3..=4 => masked::<4>(keys, least, values, sums),
            5..=6 => masked::<6>(keys, least, values, sums),
            7..=8 => masked::<8>(keys, least, values, sums),
            9..=10 => masked::<10>(keys, least, values, sums),
            11..=12 => masked::<12>(keys, least, values, sums),
            _ => masked::<KEYS_MAX>(keys, least, values, sums),
        }
    }

    /// Adds values of the keys from `least` on, of which there are at most `KEYS`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn masked<const KEYS: usize>(keys: &[u8], least: u8, values: &[f64], sums: &mut [[f64; LANES]]) -> bool {
        let mut lanes: [__m512d; KEYS] = [_mm512_setzero_pd(); KEYS];
        for (lanes, sums) in lanes.iter_mut().zip(&*sums) {
            // SAFETY: there are eight of them.
            *lanes = unsafe { _mm512_loadu_pd(sums.as_ptr()) };
        }
        let ((key_blocks, key_rest), (blocks, rest)) = (keys.as_chunks::<BLOCK>(), values.as_chunks::<BLOCK>());
        for (keys, values) in key_blocks.iter().zip(blocks) {
            // SAFETY: a block has 64 keys.
            let keys = unsafe { _mm512_loadu_epi8(keys.as_ptr().cast()) };
            let mut masks = [0_u64; KEYS];
            for (group, mask) in masks.iter_mut().enumerate() {
                *mask = _mm512_cmpeq_epi8_mask(keys, _mm512_set1_epi8(least.wrapping_add(group as u8).cast_signed()));
            }
            for (at, eight) in values.as_chunks::<LANES>().0.iter().enumerate() {
                // SAFETY: there are eight of them.
                let values = unsafe { _mm512_loadu_pd(eight.as_ptr()) };
                for (lanes, mask) in lanes.iter_mut().zip(masks) {
                    *lanes = _mm512_mask_add_pd(*lanes, (mask >> (at * LANES)) as u8, *lanes, values);
                }
            }
        }
        let no_number = lanes.iter().fold(0, |any, &lanes| any | _mm512_cmp_pd_mask::<_CMP_UNORD_Q>(lanes, lanes));
        if no_number != 0 || !crate::all_present(rest) {
            return false;
        }
        for (lanes, sums) in lanes.iter().zip(&mut *sums) {
            // SAFETY: there is room for eight.
            unsafe { _mm512_storeu_pd(sums.as_mut_ptr(), *lanes) };
        }
        // A block's rows are whole rounds of the lanes.
        sum_spread(key_rest, least, rest, sums);
        true
    }
}
