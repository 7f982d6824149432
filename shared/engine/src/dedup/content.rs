//! 31 bits of what a row holds, to tell a repeated event from another one under the same identity.
//!
//! The sum over columns of a mix of name and value: blocks with their columns in another order, or with columns that are
//! absent in a row, give the same. Strings are hashed once per entry of a block's dictionary. The lowest bit says whether
//! the event time is in it: it is left out of blocks in which the gateway gave times, as those differ at every sending.

use codec::{BodyView, is_absent};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const TIME: u64 = 0x9e37_79b9_7f4a_7c15;
const METRIC: u64 = 0xd6e8_feb8_6659_fd93;
const FINISH: u64 = 0xa076_1d64_78bd_642f;
const HAS_TIME: u32 = 1;

/// Memory that is used again from block to block.
#[derive(Debug, Default)]
pub(super) struct ContentScratch {
    sums: Vec<u64>,
    /// By code: that of absence, then those of the dictionary's entries.
    entries: Vec<u64>,
}

/// Whether two rows of one identity had different content; where only one of them counts its time, that is not known.
pub(super) fn differ(a: u32, b: u32) -> bool {
    (a ^ b) & HAS_TIME == 0 && a != b
}

/// Replaces `into` by the content of each row.
pub(super) fn contents(body: &BodyView<'_>, times_given: bool, scratch: &mut ContentScratch, into: &mut Vec<u32>) {
    let ContentScratch { sums, entries } = scratch;
    sums.clear();
    if times_given {
        sums.resize(body.rows(), 0);
    } else {
        sums.extend(body.times().iter().map(|time| mix(time.cast_unsigned(), TIME)));
    }
    for dimension in body.dimensions() {
        let seed = xxh3_64(dimension.name().as_bytes());
        entries.clear();
        entries.push(0);
        entries.extend((0..dimension.entries()).map(|at| xxh3_64_with_seed(dimension.entry(at).as_bytes(), seed)));
        let mut sums = sums.iter_mut();
        dimension.codes().for_each(|code| {
            // A code beyond the dictionary is refused when the block is translated, before a verdict counts.
            let hash = entries.get(code as usize).copied().unwrap_or_default();
            let sum = sums.next().expect("a code per row");
            *sum = sum.wrapping_add(hash);
        });
    }
    for metric in body.metrics() {
        let seed = xxh3_64_with_seed(metric.name().as_bytes(), METRIC) | 1;
        for (sum, value) in sums.iter_mut().zip(metric.values().iter()) {
            let mixed = if is_absent(value) { 0 } else { mix(value.to_bits(), seed) };
            *sum = sum.wrapping_add(mixed);
        }
    }
    let time = if times_given { 0 } else { HAS_TIME };
    into.clear();
    into.extend(sums.iter().map(|&sum| finish(sum) & !HAS_TIME | time));
}

/// Not linear in the value, so that values which change places between columns do not cancel out.
#[inline]
fn mix(value: u64, odd: u64) -> u64 {
    let product = (value ^ value >> 32).wrapping_mul(odd);
    product ^ product >> 31
}

#[inline]
fn finish(sum: u64) -> u32 {
    ((sum ^ sum >> 29).wrapping_mul(FINISH) >> 32) as u32
}
