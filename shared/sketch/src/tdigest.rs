//! A t-digest: quantiles from memory that does not grow with the values, finest at both ends, without a guarantee. A merging
//! digest with the scale function k2 (Dunning and Ertl, "Computing extremely accurate quantiles using t-digests", 2019),
//! and two rules beside it, because k2 alone lets a centroid near the median stand for 3 % of the values and more:
//!
//! 1. A centroid of unlike values has at most [`WEIGHT_SHARE_MAX`] of all. An answer lies between the means of two
//!    neighbours, so that its rank is off by one and a half of that, wherever the values lie inside of them, and by more
//!    where merges left centroids that overlap: by 0.5 % of all values at worst in 1,500 hard cases of `tests/ties.rs`.
//! 2. Equal values are one centroid, a *tie*, however many they are; one that is heavier than its place allows takes no
//!    others. Every rank of a tie is answered by its very value, and nothing is interpolated across it.
//!
//! What it holds depends on the order of the calls. The same calls in the same order give the same digest.

mod centroid;

use crate::{
    Bound, DecodeError,
    bytes::{Kind, Reader, Writer, checked_rows},
    nearest_rank,
};
use centroid::{Centroid, fold_ties, merge_sorted};

/// The compression of k2. Where it alone decides, about half as many centroids describe the values.
const COMPRESSION: f64 = 400.0;
/// The greatest share of all values in a centroid of unlike ones.
const WEIGHT_SHARE_MAX: f64 = 0.0025;
/// How many values wait unsorted, at most.
const WAITING_MAX: usize = 2_048;
/// More centroids than a digest has. Two neighbours have more than their place allows for one, and the places allow
/// `COMPRESSION / 2` by k2 and `1 / WEIGHT_SHARE_MAX` by share: 1,200, and some for what rounding does.
const CENTROIDS_MAX: u64 = 1_400;

/// Approximate quantiles without a bound; see the module's rules.
#[derive(Debug, Clone, Default)]
pub struct TDigest {
    /// In order of their means. The first and the last are ties: of the least and the greatest value.
    centroids: Vec<Centroid>,
    /// How many values the centroids stand for.
    compressed: u64,
    /// Values that came since.
    waiting: Vec<f64>,
}

/// Digests are equal if their bytes are.
impl PartialEq for TDigest {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl TDigest {
    /// A t-digest guarantees nothing.
    pub const BOUND: Bound = Bound::NONE;

    /// Takes a value. What is not finite is none.
    #[inline]
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        if self.waiting.len() == WAITING_MAX {
            self.compress();
        }
        // Both zeros are one value.
        self.waiting.push(value + 0.0);
    }

    /// Takes all that `other` took.
    pub fn merge(&mut self, other: &Self) {
        other.waiting.iter().for_each(|&value| self.add(value));
        self.compress();
        self.absorb(&other.centroids);
    }

    /// About the value of the nearest rank, `max(0, ceil(q·n) − 1)` from 0, between the least and the greatest value: that
    /// very value where it is one of a tie, as each is while there are fewer than 800 values. `None` where no value came.
    #[must_use]
    pub fn quantile(&mut self, q: f64) -> Option<f64> {
        let rank = nearest_rank(q, self.count())?;
        self.compress();
        // The values lie at the middles of their ranks.
        let position = rank as f64 + 0.5;
        // The last place before the position where a value is known: behind a tie, at the middle of other centroids.
        let mut known = (0.0, self.centroids.first()?.mean);
        let mut below = 0;
        for centroid in &self.centroids {
            let upto = below + centroid.weight();
            let from = if centroid.is_tie() { below as f64 } else { (below as f64 + upto as f64) / 2.0 };
            if position < from {
                return Some(between(known, (from, centroid.mean), position));
            }
            if centroid.is_tie() && rank < upto {
                return Some(centroid.mean);
            }
            known = (if centroid.is_tie() { upto as f64 } else { from }, centroid.mean);
            below = upto;
        }
        Some(known.1)
    }

    /// How many values came.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.compressed + self.waiting.len() as u64
    }

    /// Memory that it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of::<Centroid>() * self.centroids.capacity()
            + size_of::<f64>() * self.waiting.capacity()
    }

    /// Gives back the memory in which new values wait: for a digest that is done.
    pub fn shrink(&mut self) {
        self.compress();
        self.waiting = Vec::new();
        self.centroids.shrink_to_fit();
    }

    /// The digest as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        if !self.waiting.is_empty() {
            let mut compressed = self.clone();
            compressed.compress();
            return compressed.to_bytes();
        }
        let mut writer = Writer::new(Kind::TDigest, 2 + 11 * self.centroids.len());
        writer.varint(self.centroids.len() as u64);
        for centroid in &self.centroids {
            writer.f64(centroid.mean);
            writer.varint(centroid.encoded_weight());
        }
        writer.finish()
    }

    /// The digest that [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// No digest is written like this.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(Kind::TDigest, bytes)?;
        let len = reader.varint()?;
        if len > CENTROIDS_MAX {
            return Err(DecodeError::Invalid("more centroids than a digest has"));
        }
        let mut digest = Self { centroids: Vec::with_capacity(len as usize), ..Self::default() };
        for _ in 0..len {
            let centroid = Centroid::decoded(reader.f64()?, reader.varint()?)?;
            if digest.centroids.last().is_some_and(|last| last.mean > centroid.mean) {
                return Err(DecodeError::Invalid("centroids out of order"));
            }
            digest.compressed = checked_rows(digest.compressed, centroid.weight())?;
            digest.centroids.push(centroid);
        }
        if ![digest.centroids.first(), digest.centroids.last()].into_iter().flatten().all(Centroid::is_tie) {
            return Err(DecodeError::Invalid("a digest without its least or greatest value"));
        }
        reader.finish()?;
        Ok(digest)
    }

    /// Makes centroids of the values that wait.
    fn compress(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_unstable_by(f64::total_cmp);
        self.absorb(&fold_ties(&waiting));
        waiting.clear();
        self.waiting = waiting;
    }

    /// Takes sorted centroids, and joins neighbours as far as their places allow.
    fn absorb(&mut self, sorted: &[Centroid]) {
        let all = merge_sorted(&self.centroids, sorted);
        self.compressed += sorted.iter().map(Centroid::weight).sum::<u64>();
        let count = self.compressed as f64;
        // Of k2: how much of q·(1 − q) a centroid may have. It is positive for every count.
        let share = (4.0 * (count / COMPRESSION).ln() + 24.0) / COMPRESSION;
        // The greatest weight of unlike values that lie between two shares of all. It is 0 at both ends, so that the first
        // and the last centroid stay ties.
        let allowed = |from: f64, to: f64| {
            let by_place = (from * (1.0 - from)).min(to * (1.0 - to)) * share;
            count * by_place.min(WEIGHT_SHARE_MAX)
        };
        self.centroids.clear();
        let (mut below, mut all) = (0, all.into_iter());
        let Some(mut open) = all.next() else { return };
        for next in all {
            let joined = open.weight() + next.weight();
            if joined as f64 <= allowed(below as f64 / count, (below + joined) as f64 / count) {
                open.join(next);
            } else {
                below += open.weight();
                self.centroids.push(open);
                open = next;
            }
        }
        self.centroids.push(open);
    }
}

/// What lies at `position` of the straight line from one place with a value to another.
fn between((from, low): (f64, f64), (to, high): (f64, f64), position: f64) -> f64 {
    let part = (position - from) / (to - from);
    // Not low + part · (high − low), which could overflow.
    (low * (1.0 - part) + high * part).clamp(low, high)
}
