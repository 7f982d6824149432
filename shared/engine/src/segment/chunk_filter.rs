//! Which codes may stand in a full chunk of a column of wide codes: a Bloom filter per chunk, of a byte per row, so that a look
//! for a few values passes over nearly all chunks that have none of them.
//!
//! A code has [`BITS`] bits of one word, so that it is looked up by one miss of the cache at most ("blocked" filters: Putze,
//! Sanders, Singler, "Cache-, hash- and space-efficient Bloom filters", WEA 2007). With as many codes as rows, all different,
//! about one look in 25 finds a code that is not there; with codes that repeat, fewer do.

use super::CHUNK_ROWS;

/// Words of a filter.
pub(crate) const FILTER_WORDS: usize = CHUNK_ROWS / 8;
/// Bits of a code.
const BITS: u32 = 3;

const WORD_LOG2: u32 = u64::BITS.trailing_zeros();
const _: () = assert!(FILTER_WORDS.is_power_of_two());
const _: () = assert!(FILTER_WORDS.trailing_zeros() + BITS * WORD_LOG2 <= u64::BITS);

/// Makes `filter` that of the codes of a chunk.
pub(crate) fn fill(filter: &mut [u64], codes: &[u32]) {
    let filter: &mut [u64; FILTER_WORDS] = filter.try_into().expect("a filter has its words");
    filter.fill(0);
    for &code in codes {
        let (word, bits) = place(code);
        filter[word] |= bits;
    }
}

/// Whether a code may stand in the chunk; `false` is certain.
pub(crate) fn may_hold(filter: &[u64], code: u32) -> bool {
    let (word, bits) = place(code);
    filter[word] & bits == bits
}

/// A code's word, and its bits there, by the high bits of two products. One would do for consecutive codes (Fibonacci hashing), and
/// let codes of some constant steps meet.
#[inline]
fn place(code: u32) -> (usize, u64) {
    let product = u64::from(code).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut hash = (product ^ (product >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mut take = |bits: u32| {
        let taken = hash >> (u64::BITS - bits);
        hash <<= bits;
        taken
    };
    let word = take(FILTER_WORDS.trailing_zeros()) as usize;
    (word, (0..BITS).fold(0, |bits, _| bits | 1 << take(WORD_LOG2)))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: a code that stands in a chunk is always found, whatever lay in the filter's memory before, and of those that do
        /// not few are: of consecutive codes as of any.
        #[test]
        fn codes_are_found_and_few_others(
            seed in any::<u32>(),
            step in prop_oneof![Just(1_u32), Just(4_096), any::<u32>().prop_map(|step| step | 1)],
            before in any::<u64>(),
        ) {
            let code = |n: u32| seed.wrapping_add(n.wrapping_mul(step));
            let codes: Vec<u32> = (0..CHUNK_ROWS as u32).map(code).collect();
            let mut filter = vec![before; FILTER_WORDS];
            fill(&mut filter, &codes);
            prop_assert!(codes.iter().all(|&code| may_hold(&filter, code)));
            let others: Vec<u32> = (0..20_000).map(|n| code(n + (1 << 20) - 20_000)).filter(|code| !codes.contains(code)).collect();
            let found = others.iter().filter(|&&code| may_hold(&filter, code)).count();
            prop_assert!(found * 10 < others.len().max(1), "{found} of {}", others.len());
        }
    }
}
