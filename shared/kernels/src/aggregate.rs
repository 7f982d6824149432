//! Aggregates of the selected rows of a chunk, without groups.

use crate::{
    Code, Selection, Values,
    dispatch::dispatch_fused,
    fold::{GREATEST, LEAST, SUM, SUM_PRESENT, fold_rows, folded},
    values::{Column, by_form},
};

/// Independent accumulators of a sum.
pub const LANES: usize = 8;

/// A sum of present values and their count. Chunks of one run of rows go into one of these, in order.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SumLanes {
    sums: [f64; LANES],
    count: u64,
}

impl SumLanes {
    /// Adds the present values of the selected rows.
    pub fn add(&mut self, values: Values<'_>, selection: &Selection) {
        let sums = by_form!(values, |column| add_all(self.sums, column, selection));
        // Few chunks have absent values, and the sum tells: one makes its lane NaN.
        if sums.iter().all(|sum| !sum.is_nan()) {
            self.sums = sums;
            self.count += selection.count() as u64;
            return;
        }
        self.sums = by_form!(values, |column| add_present(self.sums, column, selection));
        self.count += count_present(values, selection);
    }

    /// The lanes' sum, in a fixed order.
    #[must_use]
    pub fn sum(&self) -> f64 {
        let [a, b, c, d, e, f, g, h] = self.sums;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    /// How many values went in.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

dispatch_fused! {
    fn add_all<T: Column>(lanes: [f64; LANES], column: T, selection: &Selection) -> [f64; LANES] = add_all_body
}

#[inline(always)]
fn add_all_body<const FUSED: bool, T: Column>(lanes: [f64; LANES], column: T, selection: &Selection) -> [f64; LANES] {
    fold_rows::<SUM, FUSED, T>(lanes, column, Some(selection))
}

dispatch_fused! {
    fn add_present<T: Column>(lanes: [f64; LANES], column: T, selection: &Selection) -> [f64; LANES] = add_present_body
}

#[inline(always)]
fn add_present_body<const FUSED: bool, T: Column>(
    lanes: [f64; LANES],
    column: T,
    selection: &Selection,
) -> [f64; LANES] {
    fold_rows::<SUM_PRESENT, FUSED, T>(lanes, column, Some(selection))
}

/// The least present value of the selected rows; +∞ where there is none.
#[must_use]
pub fn least(values: Values<'_>, selection: &Selection) -> f64 {
    by_form!(values, |column| least_of(column, selection))
}

dispatch_fused! { fn least_of<T: Column>(column: T, selection: &Selection) -> f64 = least_body }

#[inline(always)]
fn least_body<const FUSED: bool, T: Column>(column: T, selection: &Selection) -> f64 {
    let lanes = fold_rows::<LEAST, FUSED, T>([f64::INFINITY; LANES], column, Some(selection));
    lanes.into_iter().fold(f64::INFINITY, folded::<LEAST>)
}

/// The greatest present value of the selected rows; -∞ where there is none.
#[must_use]
pub fn greatest(values: Values<'_>, selection: &Selection) -> f64 {
    by_form!(values, |column| greatest_of(column, selection))
}

dispatch_fused! { fn greatest_of<T: Column>(column: T, selection: &Selection) -> f64 = greatest_body }

#[inline(always)]
fn greatest_body<const FUSED: bool, T: Column>(column: T, selection: &Selection) -> f64 {
    let lanes = fold_rows::<GREATEST, FUSED, T>([f64::NEG_INFINITY; LANES], column, Some(selection));
    lanes.into_iter().fold(f64::NEG_INFINITY, folded::<GREATEST>)
}

/// Counts the selected rows whose metric is present.
#[must_use]
pub fn count_present(values: Values<'_>, selection: &Selection) -> u64 {
    match values {
        Values::Doubles(values) => {
            let mut present = selection.clone();
            crate::and_range(&mut present, values, f64::NEG_INFINITY, f64::INFINITY, false);
            present.count() as u64
        }
        Values::U8(digits, _) => count_codes(digits, selection),
        Values::U16(digits, _) => count_codes(digits, selection),
        Values::U32(digits, _) => count_codes(digits, selection),
    }
}

/// Counts the selected rows whose dimension is present.
#[must_use]
pub fn count_codes<C: Code>(codes: &[C], selection: &Selection) -> u64 {
    let mut present = selection.clone();
    crate::and_none_of(&mut present, codes, &[0]);
    present.count() as u64
}

/// Counts the selected rows with one code.
#[must_use]
pub fn count_equal<C: Code>(codes: &[C], wanted: u32, selection: &Selection) -> u64 {
    let mut equal = selection.clone();
    crate::and_any_of(&mut equal, codes, &[wanted]);
    equal.count() as u64
}

/// Count, mean and sum of squared deviations of the present values of the selected rows of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MomentsLanes {
    /// Values.
    pub count: u64,
    /// Their mean; 0 where there is none.
    pub mean: f64,
    /// Their squared deviations from the mean, added up.
    pub deviation: f64,
}

impl MomentsLanes {
    /// Two passes over the chunk: its mean, then the deviations from it, so that nothing cancels.
    #[must_use]
    pub fn of(values: &[f64], selection: &Selection) -> Self {
        let mut sums = SumLanes::default();
        sums.add(values.into(), selection);
        if sums.count() == 0 {
            return Self::default();
        }
        let mean = sums.sum() / sums.count() as f64;
        let mut squares = SumLanes::default();
        let mut deviations = [0.0; crate::CHUNK_ROWS];
        for (deviation, &value) in deviations.iter_mut().zip(values) {
            *deviation = (value - mean) * (value - mean);
        }
        squares.add(deviations[..values.len()].into(), selection);
        Self { count: sums.count(), mean, deviation: squares.sum() }
    }
}
