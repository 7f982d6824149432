//! A quantile sketch whose relative error is guaranteed: counts of values in bins as fine as the error allows.
//!
//! The idea is DDSketch's (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
//! guarantees", VLDB 2019). Instead of equal widths in the logarithm, each power of two is cut into 64 equal bins: the bin
//! of a double is its exponent and the first six bits of its mantissa, a shift instead of a logarithm, the same on every
//! machine.
//!
//! 1. A bin is answered by the harmonic mean of its ends: at most 1/129 off, relatively, whichever value was meant.
//! 2. Values are counted by whole numbers, so sketches of parts add up to exactly the sketch of the whole.
//! 3. Memory is bounded: bins come in pages of 64, at most 264 of them. Beyond, all bins are joined in pairs, once or more;
//!    the error roughly doubles each time, and [`QuantileSketch::bound`] says so. 264 pages hold 264 powers of two, of both
//!    signs together. How often pairs were joined depends on the values alone, not on their order (UDDSketch's collapse:
//!    Epicoco and others, 2020).
//! 4. All finite doubles have a bin, subnormal ones too; zeros are counted apart. Others are no values and are not counted.

mod bins;
mod pages;

use bins::{Bins, SHIFT_MAX};
use pages::Pages;

use crate::{
    Bound, DecodeError,
    bytes::{Kind, Reader, Writer, checked_rows},
    nearest_rank,
};

/// Values that are taken together: a few pages of memory.
const CHUNK: usize = 1_024;

/// Approximate quantiles with a guaranteed relative error; see the module's rules.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantileSketch {
    /// The bins of values above zero, and of the magnitudes of those below.
    positive: Pages,
    negative: Pages,
    bins: Bins,
    zeros: u64,
    count: u64,
    min: f64,
    max: f64,
}

/// The bin in which a rank lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// The least value that it may hold.
    pub low: f64,
    /// The greatest value that it may hold.
    pub high: f64,
    /// How many values lie below it.
    pub below: u64,
    /// How many values lie in it.
    pub count: u64,
}

impl Default for QuantileSketch {
    fn default() -> Self {
        Self {
            positive: Pages::default(),
            negative: Pages::default(),
            bins: Bins::default(),
            zeros: 0,
            count: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl QuantileSketch {
    /// The relative error that is guaranteed where no bins were joined.
    pub const RELATIVE_ERROR: f64 = 0.01;

    /// Takes a value. What is not finite is none.
    #[inline]
    pub fn add(&mut self, value: f64) {
        let Some(key) = bins::key_of_normal(value) else { return self.add_rare(value) };
        self.note(value);
        let bin = self.bins.of(key);
        let pages = if value.is_sign_positive() { &mut self.positive } else { &mut self.negative };
        if !pages.increment(bin) {
            self.count_bin(bin, 1, value.is_sign_positive());
        }
    }

    /// Takes many values: the same as taking each, faster.
    pub fn extend(&mut self, values: &[f64]) {
        for chunk in values.chunks(CHUNK) {
            match bins::ends_of_normals(chunk) {
                Some((low, high)) if low > 0.0 || high < 0.0 => self.extend_one_sign(chunk, low, high),
                _ => chunk.iter().for_each(|&value| self.add(value)),
            }
        }
    }

    /// Takes all that `other` took.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.zeros += other.zeros;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        while self.bins.shift() < other.bins.shift() {
            self.join_pairs();
        }
        self.absorb(&other.positive, other.bins, true);
        self.absorb(&other.negative, other.bins, false);
    }

    /// Starts to load what [`Self::merge`] reads of it: it lies in a place of its own, which no processor guesses.
    pub fn prefetch(&self) {
        self.positive.prefetch();
        self.negative.prefetch();
    }

    /// The value of the nearest rank, `max(0, ceil(q·n) − 1)` from 0, within [`Self::bound`]; the least and the greatest
    /// value are exact. `None` where no value came.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = nearest_rank(q, self.count)?;
        if rank == 0 {
            return Some(self.min);
        }
        if rank == self.count - 1 {
            return Some(self.max);
        }
        let bin = self.bin(rank)?;
        Some(bins::between(bin.low, bin.high))
    }

    /// The bin that holds the value of a rank, counted from 0; `None` beyond the last one.
    #[must_use]
    pub fn bin(&self, rank: u64) -> Option<Bin> {
        let mut below = 0;
        for (low, high, count) in self.bins() {
            if rank - below < count {
                return Some(Bin { low: low.max(self.min), high: high.min(self.max), below, count });
            }
            below += count;
        }
        None
    }

    /// How many values came.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How far an answer can be off: [`Self::RELATIVE_ERROR`] of the value, more where bins had to be joined.
    #[must_use]
    pub fn bound(&self) -> Bound {
        Bound::relative(self.bins.relative_error(), 1.0)
    }

    /// Memory that it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.positive.bytes() + self.negative.bytes()
    }

    /// The sketch as bytes: equal sketches have equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(Kind::Quantile, 64);
        writer.u8(self.bins.shift() as u8);
        writer.varint(self.zeros);
        writer.f64(self.min);
        writer.f64(self.max);
        self.negative.write(&mut writer);
        self.positive.write(&mut writer);
        writer.finish()
    }

    /// The sketch that [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// No sketch is written like this.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(Kind::Quantile, bytes)?;
        let bins =
            Bins::with_shift(u32::from(reader.u8()?)).ok_or(DecodeError::Invalid("bins are joined too often"))?;
        let zeros = checked_rows(0, reader.varint()?)?;
        let (min, max) = (reader.f64()?, reader.f64()?);
        let negative = Pages::read(&mut reader, bins)?;
        let positive = Pages::read(&mut reader, bins)?;
        reader.finish()?;
        if negative.len() + positive.len() > bins::PAGES_MAX {
            return Err(DecodeError::Invalid("more pages than a sketch holds"));
        }
        let count = checked_rows(checked_rows(zeros, negative.count())?, positive.count())?;
        let sketch = Self { positive, negative, bins, zeros, count, min, max };
        if sketch.ends_fit() { Ok(sketch) } else { Err(DecodeError::Invalid("the ends are not of the bins")) }
    }

    /// Takes normal values of one sign, of which `low` is the least and `high` the greatest.
    fn extend_one_sign(&mut self, mut values: &[f64], low: f64, high: f64) {
        self.count += values.len() as u64;
        self.min = self.min.min(low);
        self.max = self.max.max(high);
        let positive = low > 0.0;
        loop {
            let pages = if positive { &mut self.positive } else { &mut self.negative };
            let Some(absent) = pages.increment_all(values, self.bins) else { return };
            let key = bins::key_of(values[absent]).expect("a normal value is not zero");
            self.count_bin(self.bins.of(key), 1, positive);
            values = &values[absent + 1..];
        }
    }

    #[inline]
    fn note(&mut self, value: f64) {
        self.count += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Takes a value that is subnormal, zero or none.
    #[cold]
    fn add_rare(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        // There is one zero: a sum with it has no sign.
        self.note(value + 0.0);
        match bins::key_of(value) {
            Some(key) => self.count_bin(self.bins.of(key), 1, value.is_sign_positive()),
            None => self.zeros += 1,
        }
    }

    /// Counts in a bin of the present width, joining bins until there is room for its page.
    #[cold]
    fn count_bin(&mut self, mut bin: u32, count: u64, positive: bool) {
        loop {
            let room = self.positive.len() + self.negative.len() < bins::PAGES_MAX;
            let pages = if positive { &mut self.positive } else { &mut self.negative };
            if room || pages.has(bin) {
                return pages.add(bin, count);
            }
            self.join_pairs();
            bin >>= 1;
        }
    }

    fn absorb(&mut self, other: &Pages, theirs: Bins, positive: bool) {
        // Where both have a page, and bins are equally wide, it is added as a whole.
        for (page, counts) in other.iter() {
            let pages = if positive { &mut self.positive } else { &mut self.negative };
            if theirs == self.bins && pages.add_page(page, counts) {
                continue;
            }
            for (bin, count) in pages::filled(page, counts) {
                // The width may grow while bins are counted.
                self.count_bin(bin >> (self.bins.shift() - theirs.shift()), count, positive);
            }
        }
    }

    fn join_pairs(&mut self) {
        self.bins = self.bins.joined();
        self.positive.join_pairs();
        self.negative.join_pairs();
    }

    /// The bins that hold values, least first: the least and the greatest value that each may hold, and how many it holds.
    pub fn bins(&self) -> impl Iterator<Item = (f64, f64, u64)> {
        let ends = |bin| (self.bins.low(bin), self.bins.high(bin));
        let negative = self.negative.descending().map(move |(bin, count)| {
            let (low, high) = ends(bin);
            (-high, -low, count)
        });
        let zero = (self.zeros > 0).then_some((0.0, 0.0, self.zeros));
        let positive = self.positive.ascending().map(move |(bin, count)| {
            let (low, high) = ends(bin);
            (low, high, count)
        });
        negative.chain(zero).chain(positive)
    }

    /// Whether the least and the greatest value lie in the outermost bins.
    fn ends_fit(&self) -> bool {
        let Some((low, high, _)) = self.bins().next() else {
            return self.min == f64::INFINITY && self.max == f64::NEG_INFINITY;
        };
        let (last_low, last_high, _) = self.bins().last().expect("there is a first one");
        (low..=high).contains(&self.min) && (last_low..=last_high).contains(&self.max) && self.min <= self.max
    }
}

const _: () = assert!(SHIFT_MAX < 6);
