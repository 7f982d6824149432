//! Decimals as integers: every path against a division, and what may be held so against what may not.

use kernels::{CHUNK_ROWS, EXPONENTS, Integers, Scale, decimals, digits, exponent_of, integers};
use proptest::prelude::*;

/// A decimal number of at most so many digits behind the point.
fn decimal(exponent: u8, integer: i64) -> f64 {
    integer as f64 / 10_f64.powi(exponent.into())
}

/// The scale of a column of values by this exponent, and its greatest digits.
fn scale_of(values: &[f64], exponent: u8) -> Option<(Scale, u32)> {
    let mut parts = values.chunks(CHUNK_ROWS).map(|values| integers(values, exponent));
    parts.try_fold(Integers::NONE, |all, part| Some(all.and(part?)))?.scale(exponent)
}

proptest! {
    /// Goal: what this machine's instructions make of digits is the correctly rounded quotient, whatever base and exponent.
    #[test]
    fn every_path_divides(
        base in prop_oneof![-(1_i64 << 52)..=1 << 52, -70_000_i64..70_000],
        exponent in prop::sample::select(&EXPONENTS[..]),
        codes in prop::collection::vec(prop_oneof![any::<u32>(), 0_u32..70_000], 0..300),
    ) {
        let scale = Scale::new(base, exponent).unwrap();
        let mut values = vec![1.0; codes.len()];
        decimals(&codes, scale, &mut values);
        for (&code, value) in codes.iter().zip(values) {
            let quotient = (base as f64 + f64::from(code)) / 10_f64.powi(exponent.into());
            let expected = if code == 0 { f64::NAN } else { quotient };
            prop_assert_eq!(value.to_bits(), expected.to_bits(), "{} {} {}", base, exponent, code);
            prop_assert_eq!(scale.value(code).to_bits(), expected.to_bits());
        }
    }

    /// Goal: a column of decimals comes back bit for bit, absent values included, from digits of whichever width fits.
    #[test]
    fn decimals_come_back(
        exponent in prop::sample::select(&EXPONENTS[..]),
        near in -1_000_000_000_i64..1_000_000_000,
        span in prop::sample::select(&[1_i64, 200, 60_000, 4_000_000_000][..]),
        rows in prop::collection::vec(prop::option::weighted(0.9, any::<prop::sample::Index>()), 1..300),
    ) {
        let value = |row: &Option<prop::sample::Index>| {
            row.map_or(f64::NAN, |row| decimal(exponent, near + row.index(span as usize) as i64))
        };
        let values: Vec<f64> = rows.iter().map(value).collect();
        let Some((scale, greatest)) = scale_of(&values, exponent) else {
            prop_assert!(values.iter().all(|value| value.is_nan()));
            return Ok(());
        };
        let mut wide = vec![9_u32; values.len()];
        digits(&values, scale, &mut wide);
        let mut back = vec![0.0; values.len()];
        decimals(&wide, scale, &mut back);
        prop_assert!(back.iter().map(|value| value.to_bits()).eq(values.iter().map(|value| value.to_bits())));
        prop_assert_eq!(wide.iter().max(), Some(&greatest));
        prop_assert!(wide.iter().zip(&values).all(|(&digits, value)| (digits == 0) == value.is_nan()));
        if u16::try_from(greatest).is_ok() {
            let mut narrow = vec![9_u16; values.len()];
            digits(&values, scale, &mut narrow);
            prop_assert!(narrow.iter().map(|&digits| u32::from(digits)).eq(wide));
        }
    }

    /// Goal: a range of values is the range of digits whose values lie in it, ends that are no decimals included.
    #[test]
    fn ranges_are_ranges_of_digits(
        base in -1_000_i64..1_000,
        exponent in prop::sample::select(&EXPONENTS[..4]),
        ends in prop::array::uniform2(prop_oneof![
            (-3_000_i64..3_000).prop_map(|n| decimal(2, n)),
            -40.0..40.0,
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
        ]),
        nudge in -1_i8..=1,
    ) {
        let scale = Scale::new(base, exponent).unwrap();
        let [least, greatest] = ends;
        let greatest = match nudge { -1 => greatest.next_down(), 0 => greatest, _ => greatest.next_up() };
        let found = scale.digits_within(least, greatest);
        let inside = |digits: &u32| found.is_some_and(|(first, last)| (first..=last).contains(digits));
        for code in (1..5_000).chain(u32::MAX - 3..=u32::MAX) {
            let value = scale.value(code);
            prop_assert_eq!(inside(&code), least <= value && value <= greatest, "{} of {:?}", code, found);
        }
        prop_assert!(found.is_none_or(|(first, last)| 1 <= first && first <= last));
    }
}

/// Goal: what would not come back bit for bit is no decimal: other zeros and NaNs, infinities, doubles beside a decimal, and
/// integers that lie too far out or apart.
#[test]
fn others_are_refused() {
    assert_eq!(exponent_of(19.99, 0), Some(2));
    assert_eq!(exponent_of(19.0, 1), Some(1), "not before the index asked from");
    assert_eq!(exponent_of(0.12345, 0), Some(5), "the fifth index is 10^6: there is no 10^5");
    let others =
        [-0.0, f64::INFINITY, f64::NEG_INFINITY, f64::from_bits(0x7ff8_0000_0000_0001), 19.99_f64.next_up(), 1e300];
    for other in others {
        assert_eq!(exponent_of(other, 0), None, "{other}");
        assert!(EXPONENTS.iter().all(|&exponent| integers(&[1.0, other, 2.0], exponent).is_none()), "{other}");
    }
    assert!(scale_of(&[0.0, 4_294_967_293.0], 0).is_some());
    assert_eq!(scale_of(&[0.0, 4_294_967_294.0], 0), None, "too far apart");
    assert!(scale_of(&[(1_i64 << 52) as f64], 0).is_some());
    assert_eq!(integers(&[(1_i64 << 53) as f64], 0), None, "too far out");
    assert_eq!(scale_of(&[f64::NAN], 0), None, "nothing is there");
    assert_eq!((Scale::new(0, 5), Scale::new(i64::MAX, 0)), (None, None));
}

/// Goal: rule 2 of the decimals: the inverse of each power taken is at most half of 2^-53 off, relatively.
#[test]
fn inverses_are_near_enough() {
    for exponent in EXPONENTS {
        // With y = mantissa * 2^-shift and d = 10^exponent, the error of y is (mantissa * d - 2^shift) / 2^shift.
        let power = 10_u128.pow(exponent.into());
        let bits = (1.0 / power as f64).to_bits();
        let (mantissa, shift) = ((bits & ((1 << 52) - 1)) | 1 << 52, 1_075 - (bits >> 52));
        let off = (u128::from(mantissa) * power).abs_diff(1 << shift);
        assert!(off << 53 <= (1 << shift) / 2, "10^{exponent}");
    }
}
