//! Bins of finite numbers: those of [`sketch::QuantileSketch`], 64 to a power of two, as numbers that order as the values do.
//!
//! A scan counts them in matrices of its own: with few groups that is several times faster than a sketch per group, and it
//! merges by addition. What a bin answers is at most 1/129 off, relatively, whichever of its values was meant.

use sketch::{Bound, QuantileSketch};

const MANTISSA_BITS: u32 = f64::MANTISSA_DIGITS - 1;
/// Bits of a key within a power of two.
const FINE_BITS: u32 = 6;
const KEY_SHIFT: u32 = MANTISSA_BITS - FINE_BITS;
/// Powers of two of subnormal and of normal numbers.
const OCTAVES: u32 = MANTISSA_BITS + 2_046;
/// The number of the bin of zero; bins of negative numbers are below, those of positive ones above.
const ZERO: u32 = (OCTAVES << FINE_BITS) + 1;
/// The number of the last bin, that of the greatest finite values.
pub(crate) const LAST: u32 = ZERO + (OCTAVES << FINE_BITS);
const SIGN: u64 = 1 << 63;

/// The guarantee of [`value_of`].
pub(crate) fn bound() -> Bound {
    QuantileSketch::default().bound()
}

/// The number of a finite value's bin; at least 1.
#[inline(always)]
pub(crate) fn number_of(value: f64) -> u32 {
    let magnitude = value.to_bits() & !SIGN;
    if magnitude == 0 {
        return ZERO;
    }
    let key = if magnitude >> MANTISSA_BITS != 0 {
        // Exponents of normal numbers begin at 1, behind the powers of two of subnormal ones.
        (magnitude >> KEY_SHIFT) as u32 + ((MANTISSA_BITS - 1) << FINE_BITS)
    } else {
        // A subnormal number is an integer times the least one, and has the bits of that integer.
        ((magnitude as f64).to_bits() >> KEY_SHIFT) as u32 - (1_023 << FINE_BITS)
    };
    if value < 0.0 { ZERO - 1 - key } else { ZERO + 1 + key }
}

/// The numbers of values of which none is absent, and the least and the greatest of them; `None`, and any numbers, where one
/// is not positive and normal. As [`number_of`], without a look at what a value is.
pub(crate) fn numbers_of_normal(values: &[f64], numbers: &mut [u32]) -> Option<(u32, u32)> {
    const OFFSET: u32 = ZERO + 1 + ((MANTISSA_BITS - 1) << FINE_BITS);
    // The high bits of any other value, the sign among them, are less or greater.
    const LEAST: u32 = OFFSET + (1 << FINE_BITS);
    const GREATEST: u32 = OFFSET + (2_047 << FINE_BITS) - 1;
    let (least, greatest) = kernels::number_by_high_bits(values, KEY_SHIFT, OFFSET, numbers);
    (LEAST <= least && greatest <= GREATEST).then_some((least, greatest))
}

/// The value that answers for all of a bin: the harmonic mean of its ends, which is as far from either, relatively.
pub(crate) fn value_of(number: u32) -> f64 {
    // The nearer end to zero leads, so that the ratio is one of magnitudes.
    let (low, high) = ends_of(number);
    if number < ZERO { middle(high, low) } else { middle(low, high) }
}

/// The number of the bin of the middle of two values of one sign, or of two zeros; of a bin's ends, its own.
pub(crate) fn number_between(low: f64, high: f64) -> u32 {
    number_of(if low < 0.0 { middle(high, low) } else { middle(low, high) })
}

/// The harmonic mean of two values, the one with the lesser magnitude first.
fn middle(near: f64, far: f64) -> f64 {
    if near == far { near } else { near * (2.0 / (1.0 + near / far)) }
}

/// The least and the greatest value of a bin.
pub(crate) fn ends_of(number: u32) -> (f64, f64) {
    if number == ZERO {
        return (0.0, 0.0);
    }
    let key = number.abs_diff(ZERO) - 1;
    let (low, high) = (least_of(key), least_of(key + 1).next_down());
    if number < ZERO { (-high, -low) } else { (low, high) }
}

/// The least magnitude whose key is `key`; infinity for the one behind the last.
fn least_of(key: u32) -> f64 {
    let octave = key >> FINE_BITS;
    if octave >= MANTISSA_BITS {
        return f64::from_bits(u64::from(key - ((MANTISSA_BITS - 1) << FINE_BITS)) << KEY_SHIFT);
    }
    let leading = u64::from(1 << FINE_BITS | key & ((1 << FINE_BITS) - 1));
    f64::from_bits((leading << octave).div_ceil(1 << FINE_BITS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finite() -> impl Strategy<Value = f64> {
        let ends = vec![0.0, -0.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, -5e-324, 1.0, -1.0];
        let any = any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |value| value.is_finite());
        let subnormal = (1..1_u64 << 52).prop_map(f64::from_bits);
        prop_oneof![4 => any, 1 => subnormal, 1 => prop::sample::select(ends)]
    }

    proptest! {
        /// Goal: bins found by wide instructions are those of each value, and are given only where all values have such.
        #[test]
        fn normal_values_have_the_same_bins(values in prop::collection::vec(prop_oneof![20 => 1e-300..1e300, 1 => finite()], 1..40)) {
            let mut numbers = vec![0; values.len()];
            let found = numbers_of_normal(&values, &mut numbers);
            prop_assert_eq!(found.is_some(), values.iter().all(|value| value.is_normal() && *value > 0.0));
            if let Some(ends) = found {
                let expected: Vec<u32> = values.iter().map(|&value| number_of(value)).collect();
                prop_assert_eq!(ends, (*expected.iter().min().unwrap(), *expected.iter().max().unwrap()));
                prop_assert_eq!(numbers, expected);
            }
            let mut with_absent = values;
            with_absent.push(f64::NAN);
            prop_assert_eq!(numbers_of_normal(&with_absent, &mut vec![0; with_absent.len()]), None);
        }

        /// Goal: bins order as values do, and each answers for its values within the guarantee, the sketch's as well.
        #[test]
        fn bins_keep_order_and_bound(a in finite(), b in finite()) {
            prop_assert!(a >= b || number_of(a) <= number_of(b));
            let (low, high) = ends_of(number_of(a));
            prop_assert!(low <= a && a <= high && number_of(low) == number_of(high));
            let answer = value_of(number_of(a));
            prop_assert!(number_of(a) <= LAST && number_of(f64::MAX) == LAST);
            prop_assert!(number_of(a) >= 1 && (answer - a).abs() <= bound().value * a.abs(), "{answer:e} for {a:e}");
            let mut sketch = QuantileSketch::default();
            sketch.add(a);
            let of_sketch = sketch.quantile(0.5).unwrap();
            prop_assert!((answer - of_sketch).abs() <= bound().value * a.abs());
            let (low, high, count) = sketch.bins().next().unwrap();
            prop_assert_eq!((number_between(low, high), count), (number_of(a), 1));
        }
    }
}
