//! Values of a metric as readers find them: doubles, or decimals as integers once the segment is sealed.

use std::ops::Range;

use kernels::{Scale, Selection, Values};

use crate::{
    columns::{Codes, by_width},
    segment::CHUNK_ROWS,
};

/// Values of a metric, NaN where absent.
#[derive(Debug, Clone, Copy)]
pub enum Metric<'a> {
    /// As they are.
    Doubles(&'a [f64]),
    /// As integers that stand for the very same doubles; 0 where absent.
    Decimals {
        /// How they stand for them.
        scale: Scale,
        /// The integers.
        digits: Codes<'a>,
    },
}

impl<'a> Metric<'a> {
    /// Bytes of one of them.
    #[must_use]
    pub fn item_bytes(&self) -> usize {
        match self {
            Self::Doubles(_) => size_of::<f64>(),
            Self::Decimals { digits, .. } => digits.item_bytes(),
        }
    }

    /// The value of a row, NaN where it is absent. Scans read many at once instead.
    ///
    /// # Panics
    /// There is no such row.
    #[must_use]
    pub fn get(&self, row: usize) -> f64 {
        match self {
            Self::Doubles(values) => values[row],
            Self::Decimals { scale, digits } => scale.value(digits.get(row)),
        }
    }

    /// Rows in the form in which they lie.
    ///
    /// # Panics
    /// There are no such rows.
    #[must_use]
    pub fn values(&self, rows: Range<usize>) -> Values<'a> {
        match *self {
            Self::Doubles(values) => Values::Doubles(&values[rows]),
            Self::Decimals { scale, digits } => match digits {
                Codes::U8(digits) => Values::U8(&digits[rows], scale),
                Codes::U16(digits) => Values::U16(&digits[rows], scale),
                Codes::U32(digits) => Values::U32(&digits[rows], scale),
            },
        }
    }

    /// The values of rows, as many as a chunk has at most; written to `scratch` where they are not there as such. Where only
    /// some rows are selected from them, the others have any value.
    ///
    /// # Panics
    /// There are no such rows, or too many, or others are selected from.
    #[must_use]
    pub fn read<'s>(
        &self,
        rows: Range<usize>,
        selection: Option<&Selection>,
        scratch: &'s mut [f64; CHUNK_ROWS],
    ) -> &'s [f64]
    where
        'a: 's,
    {
        match *self {
            Self::Doubles(values) => &values[rows],
            Self::Decimals { scale, digits } => {
                let scratch = &mut scratch[..rows.len()];
                by_width!(digits, rows, |digits| match selection {
                    None => kernels::decimals(digits, scale, scratch),
                    Some(selection) => kernels::selected_decimals(digits, scale, selection, scratch),
                });
                scratch
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: decimals of any width are the same doubles, row by row and many at once, whichever are selected.
        #[test]
        fn decimals_are_doubles(
            digits in prop::collection::vec(prop_oneof![any::<u32>(), 0_u32..300], 1..300),
            base in -(1_i64 << 40)..1 << 40,
            exponent in prop::sample::select(&kernels::EXPONENTS[..]),
            odds in 1_u32..40,
        ) {
            let scale = Scale::new(base, exponent).unwrap();
            let narrow: (Vec<u8>, Vec<u16>) = digits.iter().map(|&digits| (digits as u8, digits as u16)).unzip();
            for digits in [Codes::U8(&narrow.0), Codes::U16(&narrow.1), Codes::U32(&digits)] {
                let metric = Metric::Decimals { scale, digits };
                let bits = |value: f64| value.to_bits();
                let plain: Vec<u64> = (0..digits.len()).map(|row| bits(metric.get(row))).collect();
                let rows = plain.len() / 3..plain.len();
                let mut scratch = [1.0; CHUNK_ROWS];
                let all = metric.read(rows.clone(), None, &mut scratch);
                prop_assert!(all.iter().copied().map(bits).eq(plain[rows.clone()].iter().copied()));
                let mut selection = Selection::all(rows.len());
                let wanted: Vec<u8> = rows.clone().map(|row| u8::from((row as u32).is_multiple_of(odds))).collect();
                kernels::and_any_of(&mut selection, &wanted, &[1]);
                let mut scratch = [1.0; CHUNK_ROWS];
                let some = metric.read(rows.clone(), Some(&selection), &mut scratch);
                for (at, row) in rows.enumerate().filter(|&(at, _)| selection.contains(at)) {
                    prop_assert_eq!(bits(some[at]), plain[row]);
                }
            }
        }
    }
}
