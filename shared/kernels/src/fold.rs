//! Folding the values of a chunk's rows into [`LANES`] lanes: a row's lane is its number in the chunk modulo [`LANES`], and
//! each lane takes its values in row order, however dense the selection is.

use crate::{
    LANES, Selection,
    values::{BLOCK_ROWS, Column},
};

/// Adds values. One that is absent makes its lane NaN.
pub(crate) const SUM: u8 = 0;
/// Adds values that are present.
pub(crate) const SUM_PRESENT: u8 = 1;
/// Keeps the least value that is present.
pub(crate) const LEAST: u8 = 2;
/// Keeps the greatest value that is present.
pub(crate) const GREATEST: u8 = 3;

/// Selected rows of a word up to which a loop over its bits beats one over all its rows.
const SPARSE_MAX: u32 = 8;

const _: () = assert!(BLOCK_ROWS.is_multiple_of(LANES));

/// What a lane becomes with a value.
#[inline(always)]
pub(crate) fn folded<const FOLD: u8>(lane: f64, value: f64) -> f64 {
    match FOLD {
        SUM => lane + value,
        SUM_PRESENT => lane + if value.is_nan() { 0.0 } else { value },
        LEAST if value < lane => value,
        GREATEST if value > lane => value,
        _ => lane,
    }
}

/// Folds the rows of a selection, or all, into lanes.
#[inline(always)]
pub(crate) fn fold_rows<const FOLD: u8, const FUSED: bool, T: Column>(
    mut lanes: [f64; LANES],
    column: T,
    selection: Option<&Selection>,
) -> [f64; LANES] {
    let rows = column.len();
    assert!(selection.is_none_or(|selection| selection.rows() == rows), "a column has the chunk's rows");
    let words = selection.map(Selection::words);
    let mut scratch = [0.0; BLOCK_ROWS];
    let blocks = rows / BLOCK_ROWS;
    for at in 0..blocks {
        column.prefetch_behind(at);
        let word = words.map_or(u64::MAX, |words| words[at]);
        if word == u64::MAX {
            for eight in column.block::<FUSED>(at, &mut scratch).as_chunks::<LANES>().0 {
                (0..LANES).for_each(|lane| lanes[lane] = folded::<FOLD>(lanes[lane], eight[lane]));
            }
        } else if word.count_ones() > SPARSE_MAX {
            for (n, eight) in column.block::<FUSED>(at, &mut scratch).as_chunks::<LANES>().0.iter().enumerate() {
                let bits = word >> (n * LANES);
                for lane in 0..LANES {
                    let with = folded::<FOLD>(lanes[lane], eight[lane]);
                    lanes[lane] = if bits >> lane & 1 == 1 { with } else { lanes[lane] };
                }
            }
        } else if word != 0 {
            lanes = fold_bits::<FOLD, FUSED, T>(lanes, column, at, word);
        }
    }
    if blocks * BLOCK_ROWS < rows {
        let all = (1 << (rows - blocks * BLOCK_ROWS)) - 1;
        lanes = fold_bits::<FOLD, FUSED, T>(lanes, column, blocks, words.map_or(all, |words| words[blocks]));
    }
    lanes
}

/// Folds the rows of one block that are marked. By value, since lanes that are chosen by a number cannot stay in registers.
#[inline(always)]
fn fold_bits<const FOLD: u8, const FUSED: bool, T: Column>(
    mut lanes: [f64; LANES],
    column: T,
    block: usize,
    word: u64,
) -> [f64; LANES] {
    let mut rest = word;
    while rest != 0 {
        let row = rest.trailing_zeros() as usize;
        let lane = &mut lanes[row % LANES];
        *lane = folded::<FOLD>(*lane, column.value::<FUSED>(block * BLOCK_ROWS + row));
        rest &= rest - 1;
    }
    lanes
}
