//! A t-digest: quantiles whose error is least at both ends, without a guarantee. The digest is that of Apache DataSketches,
//! a merging digest with the scale function k2 (Dunning and Ertl, "Computing extremely accurate quantiles using
//! t-digests", 2019), with up to 410 centroids.
//!
//! What it holds depends on the order of the calls. The same calls in the same order give the same digest.

use datasketches::tdigest::TDigestMut;

use crate::{
    Bound, DecodeError,
    bytes::{Kind, ROWS_MAX, Reader, Writer},
    nearest_rank,
};

/// The compression: about how many centroids describe the values. The error at the ends falls with its square.
const COMPRESSION: u16 = 200;
/// Where an encoded digest names its compression.
const COMPRESSION_AT: std::ops::Range<usize> = 3..5;
/// What stands before the centroids.
const HEADER_BYTES: usize = 32;
/// A mean and a weight.
const CENTROID_BYTES: usize = 16;
/// How many centroids a compressed digest has at most.
const CENTROIDS_MAX: usize = 2 * COMPRESSION as usize + 10;

/// Approximate quantiles without a bound; see the module's rules.
#[derive(Debug, Clone)]
pub struct TDigest(TDigestMut);

impl Default for TDigest {
    fn default() -> Self {
        Self(TDigestMut::new(COMPRESSION).expect("the compression is one that is allowed"))
    }
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
        self.0.update(value);
    }

    /// Takes all that `other` took.
    pub fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    /// About the value of the nearest rank, `max(0, ceil(q·n) − 1)` from 0, between the least and the greatest value: that
    /// very value while each has a centroid of its own. `None` where no value came.
    #[must_use]
    pub fn quantile(&mut self, q: f64) -> Option<f64> {
        let count = self.count();
        // The values lie at the middles of their ranks.
        let rank = (nearest_rank(q, count)? as f64 + 0.5) / count as f64;
        self.0.quantile(rank).expect("the rank is a share")
    }

    /// How many values came.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.total_weight()
    }

    /// Memory that it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.0.estimated_size()
    }

    /// Gives back the memory in which new values wait: for a digest that is done.
    pub fn shrink(&mut self) {
        let digest = std::mem::take(&mut self.0);
        self.0 = digest.freeze().unfreeze();
    }

    /// The digest as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = self.0.clone().serialize();
        let mut writer = Writer::new(Kind::TDigest, body.len());
        writer.slice(&body);
        writer.finish()
    }

    /// The digest that [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// No digest is written like this.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let body = Reader::new(Kind::TDigest, bytes)?.rest();
        if body.len() > HEADER_BYTES + CENTROIDS_MAX * CENTROID_BYTES {
            return Err(DecodeError::Invalid("more centroids than a digest has"));
        }
        // Other compressions would take other memory later on.
        if body.get(COMPRESSION_AT) != Some(&COMPRESSION.to_le_bytes()) {
            return Err(DecodeError::Invalid("a digest of another compression"));
        }
        // It checks its lengths against the bytes that there are before it allocates.
        let digest = TDigestMut::deserialize(body).map_err(|_| DecodeError::Invalid("not a t-digest"))?;
        if digest.total_weight() > ROWS_MAX {
            return Err(DecodeError::Invalid("more rows than a sketch may have taken"));
        }
        let own = Self(digest);
        // What it would not write itself was padded, or left uncompressed.
        if own.to_bytes() == bytes { Ok(own) } else { Err(DecodeError::Invalid("not as a t-digest is written")) }
    }
}

#[cfg(test)]
mod tests {
    use datasketches::tdigest::TDigestMut;

    /// Goal: images of other implementations answer right, so that an upgrade of the crate cannot change what is read.
    #[test]
    fn images_of_other_implementations_are_read() {
        let images: [(u64, f64, &[u8]); 3] = [
            (1_000_000, 1.0, include_bytes!("../tests/data/tdigest_double_n1000000_cpp.sk")),
            (1_000_000, 1.0, include_bytes!("../tests/data/tdigest_double_n1000000_java.sk")),
            (10_000, 0.0, include_bytes!("../tests/data/tdigest_ref_k100_n10000_double.sk")),
        ];
        for (count, least, image) in images {
            let mut digest = TDigestMut::deserialize(image).expect("an image of a t-digest");
            assert_eq!((digest.total_weight(), digest.min_value()), (count, Some(least)));
            for share in [0.001, 0.01, 0.5, 0.99, 0.999] {
                let got = digest.quantile(share).expect("a share").expect("there are values");
                let off = got / count as f64 - share;
                // The error is least at both ends: it goes with q (1 - q).
                assert!(off.abs() <= 0.02 * share * (1.0 - share) + 1.0 / count as f64, "{count}: {got} at {share}");
            }
        }
    }
}
