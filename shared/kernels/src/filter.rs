//! Filters: each takes the rows out of a selection whose value does not pass.

use crate::{Code, Selection, dispatch::dispatch_masked};

dispatch_masked! {
    /// Keeps event times in `[start, end)`, where `start <= end`.
    pub fn and_times(selection: &mut Selection, times: &[i64], start: i64, end: i64) = times_body
}

#[inline(always)]
fn times_body<const MASKED: bool>(selection: &mut Selection, times: &[i64], start: i64, end: i64) {
    selection.retain::<MASKED, _>(times, |time| (start <= time) & (time < end));
}

/// Keeps the codes in `wanted`, each of which is compared with: for few of them.
pub fn and_any_of<C: Code>(selection: &mut Selection, codes: &[C], wanted: &[u32]) {
    // A code that does not fit the width is in no row.
    let wanted: Vec<C> = wanted.iter().filter_map(|&code| C::narrow(code)).collect();
    match wanted[..] {
        [] => selection.clear(),
        [a] => and_one(selection, codes, a),
        [a, b] => and_two(selection, codes, a, b),
        _ => and_some(selection, codes, &wanted),
    }
}

dispatch_masked! { fn and_one<C: Code>(selection: &mut Selection, codes: &[C], a: C) = one_body }

#[inline(always)]
fn one_body<const MASKED: bool, C: Code>(selection: &mut Selection, codes: &[C], a: C) {
    selection.retain::<MASKED, _>(codes, |code| code == a);
}

dispatch_masked! { fn and_two<C: Code>(selection: &mut Selection, codes: &[C], a: C, b: C) = two_body }

#[inline(always)]
fn two_body<const MASKED: bool, C: Code>(selection: &mut Selection, codes: &[C], a: C, b: C) {
    selection.retain::<MASKED, _>(codes, |code| (code == a) | (code == b));
}

dispatch_masked! { fn and_some<C: Code>(selection: &mut Selection, codes: &[C], wanted: &[C]) = some_body }

#[inline(always)]
fn some_body<const MASKED: bool, C: Code>(selection: &mut Selection, codes: &[C], wanted: &[C]) {
    selection.retain::<MASKED, _>(codes, |code| wanted.iter().fold(false, |found, &wanted| found | (code == wanted)));
}

/// Takes the codes in `unwanted` out, each of which is compared with: for few of them.
pub fn and_none_of<C: Code>(selection: &mut Selection, codes: &[C], unwanted: &[u32]) {
    for code in unwanted.iter().filter_map(|&code| C::narrow(code)) {
        and_not(selection, codes, code);
    }
}

dispatch_masked! { fn and_not<C: Code>(selection: &mut Selection, codes: &[C], a: C) = not_body }

#[inline(always)]
fn not_body<const MASKED: bool, C: Code>(selection: &mut Selection, codes: &[C], a: C) {
    selection.retain::<MASKED, _>(codes, |code| code != a);
}

/// Keeps the codes for which `listed[code]` is 1; it holds 0 or 1 for each code that a row may have.
///
/// # Panics
/// A row has a code beyond the list.
pub fn and_listed<C: Code>(selection: &mut Selection, codes: &[C], listed: &[u8]) {
    selection.retain::<false, _>(codes, |code| listed[code.index()] != 0);
}

dispatch_masked! {
    /// Keeps metrics in the closed range; absent ones where `absent` is set.
    pub fn and_range(selection: &mut Selection, values: &[f64], least: f64, greatest: f64, absent: bool) = range_body
}

#[inline(always)]
fn range_body<const MASKED: bool>(selection: &mut Selection, values: &[f64], least: f64, greatest: f64, absent: bool) {
    selection.retain::<MASKED, _>(values, |value| ((least <= value) & (value <= greatest)) | (absent & value.is_nan()));
}

/// Keeps metrics that pass any test; an absent one is NaN.
pub fn and_metric(selection: &mut Selection, values: &[f64], keep: impl Fn(f64) -> bool) {
    selection.retain::<false, _>(values, keep);
}
