//! Metrics that are decimal numbers, as integers: a value is `(base + digits) / 10^exponent`, and digits 0 are "absent".
//!
//! 1. Lossless encoding of doubles as decimals is ALP's (Afroozeh, Kuffo and Boncz, "ALP: Adaptive Lossless floating-Point
//!    Compression", SIGMOD 2024), whose decoding multiplies by a power of ten and by an inverse one, and so loses values that
//!    a division gives. Here decoding is the division, correctly rounded: every double that is the nearest one to a decimal
//!    number of few enough digits comes back, bit for bit.
//! 2. Where the machine has a fused multiply-add, a quotient `n / d` is not divided for. With `y` the double nearest to `1/d`
//!    and `q = n * y`, the remainder `r = n - q * d` is exact, and `q + r * y` is the correctly rounded quotient, as long as
//!    `q` is less than one unit in the last place off (Markstein, "Computation of elementary functions on the IBM RISC
//!    System/6000 processor", IBM Journal of Research and Development 34, 1990, theorem 5; Muller et al., "Handbook of
//!    Floating-Point Arithmetic", section on Newton-Raphson division with an FMA). Rounding the product costs half a unit
//!    and the error of `y` at most `m / 2` units for a `y` that is `m` times `2^-53` off, relatively, as a quotient is less
//!    than 2 units of its leading bit. So the exponents taken are those with `m <= 1/2`: 5 is not one of them.
//! 3. An integer and a base are doubles here, below 2^53 in magnitude, so that their sum is exact.

use crate::{Code, LANES, Selection, dispatch::dispatch_fused};

/// The exponents of ten that values may have, ascending. See rule 2.
pub const EXPONENTS: [u8; 8] = [0, 1, 2, 3, 4, 6, 7, 8];
/// Bound of integers, in magnitude.
const INTEGER_MAX: f64 = (1_u64 << 52) as f64;
/// The digits of one column differ by less than this: they fit 32 bits beside the 0 of "absent".
const SPAN_MAX: f64 = (u32::MAX - 1) as f64;
const POWERS: [f64; 9] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8];
/// The bits of an absent value.
const ABSENT_BITS: u64 = 0x7ff8_0000_0000_0000;
const ABSENT: f64 = f64::from_bits(ABSENT_BITS);
const WORD_ROWS: usize = 64;
/// Selected rows of a word up to which a loop over its bits beats one over all its rows.
const SPARSE_MAX: u32 = 8;

/// How digits stand for values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    base: f64,
    exponent: u8,
}

impl Scale {
    /// `None`: the exponent is none of [`EXPONENTS`], or integers near the base are no exact doubles.
    #[must_use]
    pub fn new(base: i64, exponent: u8) -> Option<Self> {
        let exact = base.unsigned_abs() <= INTEGER_MAX as u64;
        (exact && EXPONENTS.contains(&exponent)).then_some(Self { base: base as f64, exponent })
    }

    /// What is added to digits.
    #[must_use]
    pub fn base(self) -> i64 {
        self.base as i64
    }

    /// The power of ten that integers are divided by.
    #[must_use]
    pub fn exponent(self) -> u8 {
        self.exponent
    }

    /// The value of digits, NaN for 0.
    #[must_use]
    pub fn value(self, digits: u32) -> f64 {
        one::<false>(self.steps(), f64::from(digits))
    }

    /// The digits whose values lie in a closed range: the least and the greatest of them. `None` where there are none.
    #[must_use]
    pub fn digits_within(self, least: f64, greatest: f64) -> Option<(u32, u32)> {
        // Values rise with digits.
        let first = partition_point(|digits| self.value(digits) < least);
        let end = partition_point(|digits| self.value(digits) <= greatest);
        (first < end).then(|| (first as u32, (end - 1) as u32))
    }

    pub(crate) fn steps(self) -> Steps {
        let power = POWERS[usize::from(self.exponent)];
        Steps { base: self.base, power, inverse: 1.0 / power }
    }
}

/// The first number of `1..=u32::MAX` for which `before` does not hold, 2^32 where it holds for all.
fn partition_point(before: impl Fn(u32) -> bool) -> u64 {
    let (mut low, mut high) = (1_u64, 1_u64 << 32);
    while low < high {
        let middle = u64::midpoint(low, high);
        if before(middle as u32) { low = middle + 1 } else { high = middle }
    }
    low
}

/// A scale as loops use it.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    base: f64,
    power: f64,
    inverse: f64,
}

/// The value of an integer.
#[inline(always)]
fn quotient<const FUSED: bool>(steps: Steps, integer: f64) -> f64 {
    if !FUSED {
        return integer / steps.power;
    }
    let near = integer * steps.inverse;
    let rest = (-near).mul_add(steps.power, integer);
    rest.mul_add(steps.inverse, near)
}

/// The value of digits.
#[inline(always)]
pub(crate) fn one<const FUSED: bool>(steps: Steps, digits: f64) -> f64 {
    let value = quotient::<FUSED>(steps, digits + steps.base);
    if digits == 0.0 { ABSENT } else { value }
}

dispatch_fused! {
    /// Writes the value of each of `digits`.
    pub fn decimals<C: Code>(digits: &[C], scale: Scale, values: &mut [f64]) = decimals_body
}

#[inline(always)]
fn decimals_body<const FUSED: bool, C: Code>(digits: &[C], scale: Scale, values: &mut [f64]) {
    let steps = scale.steps();
    for (value, &digits) in values.iter_mut().zip(digits) {
        *value = one::<FUSED>(steps, digits.into());
    }
}

dispatch_fused! {
    /// Writes the values of at least the selected rows of a chunk, whose digits these are; others stay as they are.
    pub fn selected_decimals<C: Code>(digits: &[C], scale: Scale, selection: &Selection, values: &mut [f64])
        = selected_decimals_body
}

#[inline(always)]
fn selected_decimals_body<const FUSED: bool, C: Code>(
    digits: &[C],
    scale: Scale,
    selection: &Selection,
    values: &mut [f64],
) {
    assert_eq!(digits.len(), selection.rows(), "a column has the chunk's rows");
    let steps = scale.steps();
    let blocks = digits.chunks(WORD_ROWS).zip(values.chunks_mut(WORD_ROWS));
    for (&word, (digits, values)) in selection.words().iter().zip(blocks) {
        if word.count_ones() > SPARSE_MAX {
            decimals_body::<FUSED, C>(digits, scale, values);
            continue;
        }
        let mut rest = word;
        while rest != 0 {
            let row = rest.trailing_zeros() as usize;
            values[row] = one::<FUSED>(steps, digits[row].into());
            rest &= rest - 1;
        }
    }
}

/// What the integers of some values come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Integers {
    least: f64,
    greatest: f64,
}

impl Integers {
    /// Of no values.
    pub const NONE: Self = Self { least: f64::INFINITY, greatest: f64::NEG_INFINITY };

    /// Of these values and others.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { least: self.least.min(other.least), greatest: self.greatest.max(other.greatest) }
    }

    /// The scale by which digits begin with 1, and the greatest digits; `None` where there is no value, or integers lie too
    /// far from each other.
    #[must_use]
    pub fn scale(self, exponent: u8) -> Option<(Scale, u32)> {
        let Self { least, greatest } = self;
        let near = least <= greatest && greatest - least < SPAN_MAX;
        let scale = near.then(|| Scale::new(least as i64 - 1, exponent)).flatten()?;
        Some((scale, (greatest - least) as u32 + 1))
    }
}

/// The least of [`EXPONENTS`], from the index `from` on, by which a value is an integer: its index. `None` where there is none.
#[must_use]
pub fn exponent_of(value: f64, from: usize) -> Option<usize> {
    (from..EXPONENTS.len()).find(|&at| integers(&[value], EXPONENTS[at]).is_some())
}

dispatch_fused! {
    /// The integers of values; `None` where one is no integer by this exponent. An absent value is passed over.
    pub fn integers(values: &[f64], exponent: u8) -> Option<Integers> = integers_body
}

#[inline(always)]
fn integers_body<const FUSED: bool>(values: &[f64], exponent: u8) -> Option<Integers> {
    let steps = Scale { base: 0.0, exponent }.steps();
    let (mut least, mut greatest) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    let mut others = [0_u64; LANES];
    let mut add = |lane: usize, value: f64| {
        // An integer is 0, never -0.0: whether a quotient keeps that sign is a matter of how it is come by.
        let integer = (value * steps.power).round_ties_even() + 0.0;
        // A value whose sign or last bits would change, an infinite one and a NaN of another kind are others.
        let back = quotient::<FUSED>(steps, integer);
        let same = (integer.abs() <= INTEGER_MAX) & (back.to_bits() == value.to_bits());
        let absent = value.to_bits() == ABSENT_BITS;
        others[lane] |= u64::from(!(same | absent));
        least[lane] = if integer < least[lane] { integer } else { least[lane] };
        greatest[lane] = if integer > greatest[lane] { integer } else { greatest[lane] };
    };
    let (eights, rest) = values.as_chunks::<LANES>();
    for eight in eights {
        (0..LANES).for_each(|lane| add(lane, eight[lane]));
    }
    rest.iter().enumerate().for_each(|(lane, &value)| add(lane, value));
    let of = |values: [f64; LANES], none: f64, better: fn(f64, f64) -> f64| values.into_iter().fold(none, better);
    let found =
        Integers { least: of(least, f64::INFINITY, f64::min), greatest: of(greatest, f64::NEG_INFINITY, f64::max) };
    others.iter().all(|&others| others == 0).then_some(found)
}

dispatch_fused! {
    /// Writes the digits of values, which [`integers`] gave this scale; what does not fit `C` is cut.
    pub fn digits<C: Code>(values: &[f64], scale: Scale, digits: &mut [C]) = digits_body
}

#[inline(always)]
fn digits_body<const FUSED: bool, C: Code>(values: &[f64], scale: Scale, digits: &mut [C]) {
    let steps = scale.steps();
    for (digits, &value) in digits.iter_mut().zip(values) {
        let integer = (value * steps.power).round_ties_even() - steps.base;
        // A NaN becomes 0.
        *digits = C::truncate(u64::from(integer as u32));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: with fused multiply-adds and without, the same columns are decimals, have the same digits, and come back.
        #[test]
        fn both_ways_agree(
            exponent in prop::sample::select(&EXPONENTS[..]),
            values in prop::collection::vec(
                prop_oneof![
                    1 => any::<u64>().prop_map(f64::from_bits),
                    20 => (-1_i64 << 40..1 << 40, 0_i32..9).prop_map(|(n, places)| n as f64 / 10_f64.powi(places)),
                    1 => prop::sample::select(vec![0.0, -0.0, ABSENT, f64::INFINITY, 4_503_599_627_370_497.5]),
                ],
                1..12,
            ),
        ) {
            for values in values.chunks(1).chain([&values[..]]) {
                let fused = integers_body::<true>(values, exponent);
                prop_assert_eq!(fused, integers_body::<false>(values, exponent));
                let Some((scale, _)) = fused.and_then(|all| all.scale(exponent)) else { continue };
                let mut digits = [vec![7_u32; values.len()], vec![7; values.len()]];
                digits_body::<true, u32>(values, scale, &mut digits[0]);
                digits_body::<false, u32>(values, scale, &mut digits[1]);
                prop_assert_eq!(&digits[0], &digits[1]);
                let mut back = [vec![0.0; values.len()], vec![0.0; values.len()]];
                decimals_body::<true, u32>(&digits[0], scale, &mut back[0]);
                decimals_body::<false, u32>(&digits[0], scale, &mut back[1]);
                for back in back {
                    prop_assert!(back.iter().zip(values).all(|(back, value)| back.to_bits() == value.to_bits()));
                }
            }
        }
    }
}
