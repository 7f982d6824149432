//! The hash under which items enter sketches.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The seed of [`hash_str`]. It is part of every stored sketch: changing it changes what their bytes mean.
pub const HASH_SEED: u64 = 0x5bd1_e995_9f3b_6a27;

/// The 64-bit hash of a string for [`crate::Hll`] and [`crate::CountMin`]: xxh3-64 of its bytes, seeded with [`HASH_SEED`].
/// It is the same on every machine and for ever. It is not secret: who chooses strings after it can mislead a sketch.
#[must_use]
#[inline]
pub fn hash_str(item: &str) -> u64 {
    xxh3_64_with_seed(item.as_bytes(), HASH_SEED)
}
