//! Sums whose order does not matter: as two doubles, the second of which collects what the first rounds off.
//!
//! Each addition is Knuth's TwoSum (The Art of Computer Programming 2, 4.2.2), the squares are Dekker's exact products ("A
//! floating-point technique for extending the available precision", 1971). The error of n additions is below n · 2⁻¹⁰⁵ of
//! the sum of absolute values. So the double that comes out in the end is the same however rows were split and in which
//! order parts were merged, but for contrived sums: ties, which about one sum in 2⁴⁰ comes close to, and sums that cancel to
//! less than 2⁻⁵² of that error's scale, as 10⁴⁰ + 10⁻¹⁰ − 10⁴⁰ does.
//!
//! Whether a sum is beyond doubles must not hang on order either, so that is told by the values alone: 2⁶⁴ of them cannot
//! pass what doubles hold where none is greater than 2⁹⁵⁹, or for squares than 2⁴⁷⁹; where one is, there is no sum.

/// The greatest value, by magnitude, of those that have a sum: 2⁹⁵⁹, about 4.9 · 10²⁸⁸.
const SUMMED_MAX: f64 = f64::from_bits((1_023 + 959) << 52);
/// The greatest value, by magnitude, of those that have a sum of squares: 2⁴⁷⁹, about 1.6 · 10¹⁴⁴.
const SQUARED_MAX: f64 = f64::from_bits((1_023 + 479) << 52);

/// Splits a double into halves whose products are exact.
const SPLIT: f64 = 134_217_729.0; // 2^27 + 1

/// A sum of doubles.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sum {
    pub(crate) high: f64,
    pub(crate) low: f64,
}

impl Sum {
    /// Adds a value.
    #[inline(always)]
    pub(crate) fn add(&mut self, value: f64) {
        let (sum, error) = two_sum(self.high, value);
        self.high = sum;
        self.low += error;
    }

    /// Adds the square of a value.
    #[inline(always)]
    pub(crate) fn add_square(&mut self, value: f64) {
        let (square, error) = two_product(value, value);
        self.add(square);
        self.low += error;
    }

    /// Adds another sum.
    pub(crate) fn merge(&mut self, other: Self) {
        self.add(other.high);
        self.low += other.low;
    }

    /// The nearest double, where no value was beyond [`SUMMED_MAX`].
    pub(crate) fn value(self) -> f64 {
        self.high + self.low
    }
}

/// `a + b` and what rounding left of it.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

/// `a · b` and what rounding left of it; that is 0 where the product or what it takes is beyond doubles.
#[inline(always)]
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let halves = |value: f64| {
        let large = SPLIT * value;
        let high = large - (large - value);
        (high, value - high)
    };
    let ((a_high, a_low), (b_high, b_low)) = (halves(a), halves(b));
    let error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low);
    (product, if error.is_finite() { error } else { 0.0 })
}

/// Count, sum, squares and extremes of the values that a metric has in a group of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricCell {
    pub(crate) count: u64,
    pub(crate) sum: Sum,
    pub(crate) squares: Sum,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Default for MetricCell {
    fn default() -> Self {
        Self { count: 0, sum: Sum::default(), squares: Sum::default(), min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl MetricCell {
    /// Takes a value, which is finite.
    #[inline(always)]
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum.add(value);
        self.squares.add_square(value);
        self.min = if value < self.min { value } else { self.min };
        self.max = if value > self.max { value } else { self.max };
    }

    /// Takes all that `other` took.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum.merge(other.sum);
        self.squares.merge(other.squares);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many values came.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, correctly rounded in all but contrived cases; NaN where a value is beyond 2⁹⁵⁹, so that it might be beyond
    /// doubles by some order.
    #[must_use]
    pub fn sum(&self) -> f64 {
        if self.is_within(SUMMED_MAX) { self.sum.value() } else { f64::NAN }
    }

    /// Whether no value is greater by magnitude.
    fn is_within(&self, greatest: f64) -> bool {
        // Of no values too: the least is infinity then, and the greatest minus infinity.
        self.count == 0 || self.min >= -greatest && self.max <= greatest
    }

    /// The least; infinity where none came.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.min
    }

    /// The greatest; minus infinity where none came.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.max
    }

    /// The sum of squared deviations from their mean, 2⁻¹⁰⁰ of the sum of squares off; not finite where a value is beyond
    /// 2⁴⁷⁹, so that the sum of squares might be beyond doubles.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        if !self.is_within(SQUARED_MAX) {
            return f64::NAN;
        }
        // Values that are all alike, or none.
        if self.min >= self.max {
            return 0.0;
        }
        // Σx² − (Σx)² / n, in pairs of doubles throughout.
        let count = self.count as f64;
        let (high, low) = two_sum(self.sum.high, self.sum.low);
        let (square, square_low) = two_product(high, high);
        let square_low = square_low + 2.0 * high * low;
        let share = square / count;
        let (back, back_low) = two_product(share, count);
        let share_low = (((square - back) - back_low) + square_low) / count;
        let (difference, error) = two_sum(self.squares.high, -share);
        let deviation = difference + (error + (self.squares.low - share_low));
        // NaN, which comes of sums beyond doubles, is to stay.
        if deviation < 0.0 { 0.0 } else { deviation }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cell_of(values: &[f64]) -> MetricCell {
        let mut cell = MetricCell::default();
        values.iter().for_each(|&value| cell.add(value));
        cell
    }

    proptest! {
        /// Goal: however values are split, ordered and merged, the sums that come out are the same to the bit, even where
        /// they nearly cancel.
        #[test]
        fn order_changes_no_bit(
            values in prop::collection::vec((-1_000_000_000..1_000_000_000_i64, 0..3_usize), 1..400),
            cuts in prop::collection::vec(0..400_usize, 0..6),
            seed: u64,
        ) {
            let scales = [1e-3, 1.0, 1e6];
            let values: Vec<f64> = values.into_iter().map(|(value, scale)| value as f64 * scales[scale]).collect();
            let whole = cell_of(&values);
            let mut shuffled = values.clone();
            let mut state = seed;
            for at in (1..shuffled.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                shuffled.swap(at, (state >> 33) as usize % (at + 1));
            }
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % shuffled.len()).chain([0, shuffled.len()]).collect();
            ends.sort_unstable();
            let mut merged = MetricCell::default();
            for part in ends.windows(2).rev() {
                merged.merge(&cell_of(&shuffled[part[0]..part[1]]));
            }
            prop_assert_eq!(whole.sum().to_bits(), merged.sum().to_bits());
            prop_assert_eq!((whole.count, whole.min, whole.max), (merged.count, merged.min, merged.max));
            let squares = whole.squares.value();
            prop_assert!((whole.deviation() - merged.deviation()).abs() <= 1e-15 * squares);
        }
    }

    proptest! {
        /// Goal: whether values have a sum, and squares, is the same however they are split and merged, also where values are
        /// so large that adding them in some order is beyond doubles; and what has a sum by any order has a finite one.
        #[test]
        fn order_decides_no_overflow(
            values in prop::collection::vec(
                prop::sample::select(vec![1.7e308, -1.7e308, 1e300, -1e289, 4e288, -4e288, 2e144, 1e144, -1e144, 1.0, 0.0]),
                1..12,
            ),
            cut: prop::sample::Index,
        ) {
            let (first, second) = values.split_at(cut.index(values.len()));
            let mut merged = cell_of(second);
            merged.merge(&cell_of(first));
            for cell in [cell_of(&values), merged] {
                let within = |greatest: f64| values.iter().all(|value| value.abs() <= greatest);
                prop_assert_eq!(cell.sum().is_finite(), within(4.5e288));
                prop_assert_eq!(cell.deviation().is_finite(), within(1.5e144));
            }
        }
    }

    /// Goal: values that are all alike have no deviation, whatever their squares round to, and small deviations around a
    /// large mean are not lost.
    #[test]
    fn deviations_do_not_cancel() {
        assert_eq!(cell_of(&[12.34; 1_001]).deviation(), 0.0);
        assert_eq!(cell_of(&[1e9 + 0.1; 777]).deviation(), 0.0);
        let cell = cell_of(&[1e9 - 1.0, 1e9, 1e9 + 1.0]);
        assert_eq!(cell.deviation(), 2.0);
    }

    /// Goal: sums beyond doubles are not finite, never a wrong number.
    #[test]
    fn sums_beyond_doubles_say_so() {
        let cell = cell_of(&[1e308, 1e308]);
        assert!(!cell.sum().is_finite() && !cell.deviation().is_finite());
        assert_eq!(cell_of(&[1e200, -1e200]).sum(), 0.0);
        assert!(!cell_of(&[1e200, -1e200]).deviation().is_finite());
    }
}
