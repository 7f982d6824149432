//! Event times as offsets from a base, and small numbers compared with a range: what narrow columns are read by.

use crate::{
    Code, Selection,
    dispatch::{dispatch, dispatch_masked},
};

dispatch_masked! {
    /// Keeps numbers in the closed range, and 0 where `or_zero` is set.
    pub fn and_between<C: Code>(selection: &mut Selection, numbers: &[C], least: C, greatest: C, or_zero: bool)
        = and_between_body
}

#[inline(always)]
fn and_between_body<const MASKED: bool, C: Code>(
    selection: &mut Selection,
    numbers: &[C],
    least: C,
    greatest: C,
    or_zero: bool,
) {
    let zero = C::truncate(0);
    selection
        .retain::<MASKED, _>(numbers, |number| (least <= number) & (number <= greatest) | (or_zero & (number == zero)));
}

dispatch! {
    /// Writes `base + offset` for each offset; the sums are times.
    pub fn add_base<C: Code>(offsets: &[C], base: i64, times: &mut [i64]) = add_base_body
}

#[inline(always)]
fn add_base_body<C: Code>(offsets: &[C], base: i64, times: &mut [i64]) {
    for (time, &offset) in times.iter_mut().zip(offsets) {
        *time = base.wrapping_add(offset.into());
    }
}

dispatch! {
    /// Writes `time - base` for each time, none of which is before the base; what does not fit `C` is cut.
    pub fn subtract_base<C: Code>(times: &[i64], base: i64, offsets: &mut [C]) = subtract_base_body
}

#[inline(always)]
fn subtract_base_body<C: Code>(times: &[i64], base: i64, offsets: &mut [C]) {
    for (offset, &time) in offsets.iter_mut().zip(times) {
        *offset = C::truncate(time.wrapping_sub(base).cast_unsigned());
    }
}

dispatch! {
    /// As [`crate::keys_by_time`], for times and starts that are offsets from one base.
    pub fn keys_by_offset<C: Code>(offsets: &[C], starts: &[C], keys: &mut [u8]) = keys_by_offset_body
}

#[inline(always)]
fn keys_by_offset_body<C: Code>(offsets: &[C], starts: &[C], keys: &mut [u8]) {
    let keys = &mut keys[..offsets.len()];
    keys.fill(0);
    for &start in starts {
        for (key, &offset) in keys.iter_mut().zip(offsets) {
            *key += u8::from(offset >= start);
        }
    }
}
