//! Which rows of a chunk are in: one bit each.

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
        &out[..len]
    }

    /// The rows as words of 64 bits, the first row lowest; as many as the chunk's rows need.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words[..self.rows.div_ceil(WORD_ROWS)]
    }

    /// Takes out every row of `items` for which `keep` does not hold. `items` are the chunk's rows.
    #[inline(always)]
    pub(crate) fn retain<T: Copy>(&mut self, items: &[T], keep: impl Fn(T) -> bool) {
        assert_eq!(items.len(), self.rows, "a column has the chunk's rows");
        let mut blocks = items.chunks_exact(WORD_ROWS);
        for (word, block) in self.words.iter_mut().zip(&mut blocks) {
            let mut kept = [0_u8; WORD_ROWS];
            for (kept, &item) in kept.iter_mut().zip(block) {
                *kept = u8::from(keep(item));
            }
            *word &= pack(&kept);
        }
        let rest = blocks.remainder();
        if !rest.is_empty() {
            let mut kept = [0_u8; WORD_ROWS];
            for (kept, &item) in kept.iter_mut().zip(rest) {
                *kept = u8::from(keep(item));
            }
            self.words[self.rows / WORD_ROWS] &= pack(&kept);
        }
    }
}

/// 64 bytes of 0 or 1 as 64 bits, the first lowest.
#[inline(always)]
fn pack(bytes: &[u8; WORD_ROWS]) -> u64 {
    // The multiplication moves bit 0 of byte i to bit 56 + i; no two partial products meet.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut word = 0;
    for (at, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
        word |= (u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56) << (at * 8);
    }
    word
}
