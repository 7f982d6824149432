//! Which rows of a chunk are in: one bit each.

use crate::prefetch::prefetch_chunk_behind;

/// Rows of a chunk, at most.
pub const CHUNK_ROWS: usize = 4_096;
const WORD_ROWS: usize = 64;
const WORDS: usize = CHUNK_ROWS / WORD_ROWS;

const _: () = assert!(CHUNK_ROWS.is_multiple_of(WORD_ROWS));
const _: () = assert!(CHUNK_ROWS <= 1 << 16); // row numbers are u16

/// A set of rows of one chunk. Bits beyond its rows are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    words: [u64; WORDS],
    rows: usize,
}

impl Selection {
    /// All of `rows` rows.
    ///
    /// # Panics
    /// There are more than [`CHUNK_ROWS`].
    #[must_use]
    pub fn all(rows: usize) -> Self {
        assert!(rows <= CHUNK_ROWS, "{rows} rows in a chunk");
        let mut words = [0; WORDS];
        words[..rows / WORD_ROWS].fill(u64::MAX);
        if !rows.is_multiple_of(WORD_ROWS) {
            words[rows / WORD_ROWS] = (1 << (rows % WORD_ROWS)) - 1;
        }
        Self { words, rows }
    }

    /// Rows of the chunk, in or out.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that are in.
    #[must_use]
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether row `row` is in.
    ///
    /// # Panics
    /// There is no such row in any chunk.
    #[must_use]
    pub fn contains(&self, row: usize) -> bool {
        self.words[row / WORD_ROWS] >> (row % WORD_ROWS) & 1 == 1
    }

    /// Takes all rows out.
    pub fn clear(&mut self) {
        self.words = [0; WORDS];
    }

    /// Writes the numbers of the rows that are in to the front of `out`, ascending; returns them.
    pub fn list<'a>(&self, out: &'a mut [u16; CHUNK_ROWS]) -> &'a [u16] {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx512vbmi2") && std::is_x86_feature_detected!("avx512bw") {
            // SAFETY: the machine has these instructions; avx512f and popcnt come with them.
            let len = unsafe { avx512::list(self.words(), out) };
            return &out[..len];
        }
        let len = self.list_bits(out);
        &out[..len]
    }

    /// As [`Selection::list`], with what any machine has; returns how many there are.
    fn list_bits(&self, out: &mut [u16; CHUNK_ROWS]) -> usize {
        const AT_ONCE: usize = 4;
        let mut len = 0;
        for (at, &word) in self.words().iter().enumerate() {
            let first = (at * WORD_ROWS) as u16;
            let end = len + word.count_ones() as usize;
            let mut rest = word;
            // Several at once, be they there or not: how many bits a word has is nothing that a processor could guess.
            while len < end
                && let Some(out) = out[len..].first_chunk_mut::<AT_ONCE>()
            {
                for out in out {
                    *out = first + rest.trailing_zeros() as u16;
                    rest &= rest.wrapping_sub(1);
                }
                len += AT_ONCE;
            }
            while len < end {
                out[len] = first + rest.trailing_zeros() as u16;
                rest &= rest.wrapping_sub(1);
                len += 1;
            }
            len = end;
        }
        len
    }

    /// The rows as words of 64 bits, the first row lowest; as many as the chunk's rows need.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words[..self.rows.div_ceil(WORD_ROWS)]
    }

    /// Takes out every row of `items` for which `keep` does not hold. `items` are the chunk's rows. `MASKED`: as
    /// `dispatch_masked!` says.
    #[inline(always)]
    pub(crate) fn retain<const MASKED: bool, T: Copy>(&mut self, items: &[T], keep: impl Fn(T) -> bool) {
        assert_eq!(items.len(), self.rows, "a column has the chunk's rows");
        let mut blocks = items.chunks_exact(WORD_ROWS);
        for (word, block) in self.words.iter_mut().zip(&mut blocks) {
            // What is compared comes faster than it is guessed: a chunk's codes are a page or two, where guesses end.
            prefetch_chunk_behind(block);
            let mut kept = [0_u8; WORD_ROWS];
            for (kept, &item) in kept.iter_mut().zip(block) {
                *kept = u8::from(keep(item));
            }
            *word &= pack::<MASKED>(&kept);
        }
        let rest = blocks.remainder();
        if !rest.is_empty() {
            let mut kept = [0_u8; WORD_ROWS];
            for (kept, &item) in kept.iter_mut().zip(rest) {
                *kept = u8::from(keep(item));
            }
            self.words[self.rows / WORD_ROWS] &= pack::<MASKED>(&kept);
        }
    }
}

/// 64 bytes of 0 or 1 as 64 bits, the first lowest.
#[inline(always)]
fn pack<const MASKED: bool>(bytes: &[u8; WORD_ROWS]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if MASKED {
        // SAFETY: who says so is compiled for machines that have these instructions, and runs on them alone.
        return unsafe { masked(bytes) };
    }
    // The multiplication moves bit 0 of byte i to bit 56 + i; no two partial products meet.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut word = 0;
    for (at, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
        word |= (u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56) << (at * 8);
    }
    word
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        _mm512_add_epi16, _mm512_loadu_epi16, _mm512_maskz_compress_epi16, _mm512_set1_epi16, _mm512_storeu_epi16,
    };

    use super::CHUNK_ROWS;

    /// Rows that one instruction takes.
    const AT_ONCE: usize = 32;
    const FIRST: [i16; AT_ONCE] = {
        let mut rows = [0; AT_ONCE];
        let mut row = 0;
        while row < AT_ONCE {
            rows[row] = row as i16;
            row += 1;
        }
        rows
    };

    /// Writes the numbers of the rows that are in; returns how many there are. `words` are those of a chunk.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    pub(super) fn list(words: &[u64], out: &mut [u16; CHUNK_ROWS]) -> usize {
        // SAFETY: there are 32 of them.
        let mut rows = unsafe { _mm512_loadu_epi16(FIRST.as_ptr()) };
        let mut len = 0;
        for &word in words {
            for bits in [word as u32, (word >> u32::BITS) as u32] {
                // All lanes are written, be they in or not: what is behind those that are is written over, or not counted.
                let end: &mut [u16; AT_ONCE] =
                    out[len..].first_chunk_mut().expect("no more rows are in than were looked at");
                let listed = _mm512_maskz_compress_epi16(bits, rows);
                // SAFETY: there is room for 32 of them.
                unsafe { _mm512_storeu_epi16(end.as_mut_ptr().cast(), listed) };
                len += bits.count_ones() as usize;
                rows = _mm512_add_epi16(rows, _mm512_set1_epi16(AT_ONCE as i16));
            }
        }
        len
    }
}

/// As [`pack`]. What a loop has compared stays in masks, and never becomes bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn masked(bytes: &[u8; WORD_ROWS]) -> u64 {
    use std::arch::x86_64::{_mm512_loadu_epi8, _mm512_test_epi8_mask};
    // SAFETY: there are 64 bytes.
    let bytes = unsafe { _mm512_loadu_epi8(bytes.as_ptr().cast()) };
    _mm512_test_epi8_mask(bytes, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: rows are listed in order, all that are in and no others, by what this machine has and by what any has; also
        /// where all rows of a whole chunk are in.
        #[test]
        fn lists_have_all_rows(
            words in prop::collection::vec(prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), (0..64_u32).prop_map(|bit| 1 << bit)], WORDS),
            rows in prop_oneof![Just(CHUNK_ROWS), 0..=CHUNK_ROWS],
            all: bool,
        ) {
            let mut selection = Selection::all(rows);
            if !all {
                selection.words.iter_mut().zip(words).for_each(|(word, bits)| *word &= bits);
            }
            let expected: Vec<u16> = (0..rows as u16).filter(|&row| selection.contains(row.into())).collect();
            let (mut out, mut of_any) = ([0; CHUNK_ROWS], [0; CHUNK_ROWS]);
            prop_assert_eq!(selection.list(&mut out), &expected[..]);
            let len = selection.list_bits(&mut of_any);
            prop_assert_eq!(&of_any[..len], &expected[..]);
        }
    }
}
