//! Aggregates of the selected rows of a chunk, without groups.
//!
//! A row's lane is its number in the chunk modulo [`LANES`]: dense and sparse loops add each lane's values in row order.

use crate::{Code, Selection, dispatch::dispatch};

/// Independent accumulators of a sum.
pub const LANES: usize = 8;
const WORD_ROWS: usize = 64;
/// Selected rows of a word up to which a loop over its bits beats one over all its rows.
const SPARSE_MAX: u32 = 8;

const _: () = assert!(WORD_ROWS.is_multiple_of(LANES));

/// A sum of present values and their count. Chunks of one run of rows go into one of these, in order.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SumLanes {
    sums: [f64; LANES],
    counts: [u64; LANES],
}

impl SumLanes {
    /// Adds the present values of the selected rows.
    pub fn add(&mut self, values: &[f64], selection: &Selection) {
        add_selected(self, values, selection);
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
        self.counts.iter().sum()
    }

    #[inline(always)]
    fn one(&mut self, lane: usize, value: f64, selected: bool) {
        let counts = selected & !value.is_nan();
        self.sums[lane] += if counts { value } else { 0.0 };
        self.counts[lane] += u64::from(counts);
    }
}

dispatch! { fn add_selected(into: &mut SumLanes, values: &[f64], selection: &Selection) = add_selected_body }

#[inline(always)]
fn add_selected_body(into: &mut SumLanes, values: &[f64], selection: &Selection) {
    let mut lanes = *into;
    each_block(values, selection, |block| match block {
        Block::Dense(values) => {
            for eight in values.as_chunks::<LANES>().0 {
                for (lane, &value) in eight.iter().enumerate() {
                    lanes.one(lane, value, true);
                }
            }
        }
        Block::Masked(values, word) => {
            for (at, eight) in values.as_chunks::<LANES>().0.iter().enumerate() {
                let bits = word >> (at * LANES);
                for (lane, &value) in eight.iter().enumerate() {
                    lanes.one(lane, value, bits >> lane & 1 == 1);
                }
            }
        }
        Block::Row(row, value) => lanes.one(row % LANES, value, true),
    });
    *into = lanes;
}

/// Rows of a chunk as a loop takes them best.
enum Block<'a> {
    /// 64 values, all selected.
    Dense(&'a [f64]),
    /// 64 values, selected by bits.
    Masked(&'a [f64], u64),
    /// One selected value and its row.
    Row(usize, f64),
}

/// Takes the selected rows of a chunk in order, in blocks.
#[inline(always)]
fn each_block(values: &[f64], selection: &Selection, mut take: impl FnMut(Block<'_>)) {
    assert_eq!(values.len(), selection.rows(), "a column has the chunk's rows");
    for (at, (&word, block)) in selection.words().iter().zip(values.chunks(WORD_ROWS)).enumerate() {
        let whole = block.len() == WORD_ROWS;
        if word == u64::MAX {
            take(Block::Dense(block));
        } else if whole && word.count_ones() > SPARSE_MAX {
            take(Block::Masked(block, word));
        } else {
            let mut rest = word;
            while rest != 0 {
                let row = rest.trailing_zeros() as usize;
                take(Block::Row(at * WORD_ROWS + row, block[row]));
                rest &= rest - 1;
            }
        }
    }
}

dispatch! {
    /// The least present value of the selected rows; +∞ where there is none.
    pub fn least(values: &[f64], selection: &Selection) -> f64 = least_body
}

#[inline(always)]
fn least_body(values: &[f64], selection: &Selection) -> f64 {
    extreme(values, selection, f64::INFINITY, |best, value| if value < best { value } else { best })
}

dispatch! {
    /// The greatest present value of the selected rows; -∞ where there is none.
    pub fn greatest(values: &[f64], selection: &Selection) -> f64 = greatest_body
}

#[inline(always)]
fn greatest_body(values: &[f64], selection: &Selection) -> f64 {
    extreme(values, selection, f64::NEG_INFINITY, |best, value| if value > best { value } else { best })
}

/// The best value by `better(best, value)`, for which `none` is the worst and NaN is no better than any.
#[inline(always)]
fn extreme(values: &[f64], selection: &Selection, none: f64, better: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [none; LANES];
    each_block(values, selection, |block| match block {
        Block::Dense(values) => {
            for eight in values.as_chunks::<LANES>().0 {
                for lane in 0..LANES {
                    lanes[lane] = better(lanes[lane], eight[lane]);
                }
            }
        }
        Block::Masked(values, word) => {
            for (at, eight) in values.as_chunks::<LANES>().0.iter().enumerate() {
                let bits = word >> (at * LANES);
                for lane in 0..LANES {
                    lanes[lane] = better(lanes[lane], if bits >> lane & 1 == 1 { eight[lane] } else { none });
                }
            }
        }
        Block::Row(row, value) => lanes[row % LANES] = better(lanes[row % LANES], value),
    });
    lanes.into_iter().fold(none, better)
}

/// Counts the selected rows whose metric is present.
#[must_use]
pub fn count_present(values: &[f64], selection: &Selection) -> u64 {
    let mut present = selection.clone();
    crate::and_range(&mut present, values, f64::NEG_INFINITY, f64::INFINITY, false);
    present.count() as u64
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
        sums.add(values, selection);
        if sums.count() == 0 {
            return Self::default();
        }
        let mean = sums.sum() / sums.count() as f64;
        let mut squares = SumLanes::default();
        let mut deviations = [0.0; crate::CHUNK_ROWS];
        for (deviation, &value) in deviations.iter_mut().zip(values) {
            *deviation = (value - mean) * (value - mean);
        }
        squares.add(&deviations[..values.len()], selection);
        Self { count: sums.count(), mean, deviation: squares.sum() }
    }
}
