//! Greatest counts of a long line, without a list of all: most blocks of a line have none of them.

use crate::dispatch::dispatch;

/// Counts of a block.
pub const BLOCK_COUNTS: usize = 64;

/// A count, of either width.
pub trait Count: Copy + Ord + Default + sealed::Sealed {}

impl Count for u32 {}
impl Count for u64 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

dispatch! {
    /// The greatest count of each block of [`BLOCK_COUNTS`]; the last may be shorter.
    ///
    /// # Panics
    /// There are not as many maxima as blocks.
    pub fn block_maxima<C: Count>(counts: &[C], maxima: &mut [C]) = block_maxima_body
}

#[inline(always)]
fn block_maxima_body<C: Count>(counts: &[C], maxima: &mut [C]) {
    let (blocks, rest) = counts.as_chunks::<BLOCK_COUNTS>();
    let (of_blocks, of_rest) = maxima.split_at_mut(blocks.len());
    for (block, maximum) in blocks.iter().zip(of_blocks) {
        *maximum = block.iter().fold(C::default(), |most, &count| most.max(count));
    }
    if !rest.is_empty() {
        of_rest[0] = rest.iter().fold(C::default(), |most, &count| most.max(count));
    }
}

dispatch! {
    /// How many counts are not 0.
    pub fn count_nonzero(counts: &[u32]) -> usize = count_nonzero_body
}

#[inline(always)]
fn count_nonzero_body(counts: &[u32]) -> usize {
    // 32 bits per lane: a line that overflows them does not fit into memory.
    let blocks = counts.chunks(1 << 16);
    blocks.map(|block| block.iter().map(|&count| u32::from(count != 0)).sum::<u32>() as usize).sum()
}
