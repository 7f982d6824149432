//! A metric's values in the form in which they lie. Loops read them block by block: what has to be decoded is so on its way
//! into the loop, and never leaves the nearest cache.

use crate::{
    Code, Scale,
    decimal::{Steps, one},
    dispatch::dispatch_fused,
    prefetch::{prefetch_chunk_behind, prefetch_part_behind},
};

/// Rows of a block: those of a word of a [`crate::Selection`].
pub(crate) const BLOCK_ROWS: usize = 64;

/// Values of a metric, one per row; see [`Scale`] for what digits stand for.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// As they are; NaN where absent.
    Doubles(&'a [f64]),
    /// Digits of one byte; 0 where absent.
    U8(&'a [u8], Scale),
    /// Digits of two bytes.
    U16(&'a [u16], Scale),
    /// Digits of four bytes.
    U32(&'a [u32], Scale),
}

impl<'a> From<&'a [f64]> for Values<'a> {
    fn from(values: &'a [f64]) -> Self {
        Self::Doubles(values)
    }
}

impl Values<'_> {
    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Doubles(values) => values.len(),
            Self::U8(digits, _) => digits.len(),
            Self::U16(digits, _) => digits.len(),
            Self::U32(digits, _) => digits.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Values of one form.
pub(crate) trait Column: Copy {
    fn len(self) -> usize;

    /// The value of a row; NaN where it is absent.
    fn value<const FUSED: bool>(self, row: usize) -> f64;

    /// The values of a whole block, perhaps in `scratch`.
    fn block<'s, const FUSED: bool>(self, block: usize, scratch: &'s mut [f64; BLOCK_ROWS]) -> &'s [f64; BLOCK_ROWS]
    where
        Self: 's;

    /// Starts to load what lies a chunk behind a whole block.
    fn prefetch_behind(self, block: usize);

    /// As [`prefetch_part_behind`], of all its rows.
    fn prefetch_part_behind(self, rows: usize, n: usize);

    /// Whether no value of the first so many rows is absent.
    fn present(self, rows: usize) -> bool;
}

impl Column for &[f64] {
    #[inline(always)]
    fn len(self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn value<const FUSED: bool>(self, row: usize) -> f64 {
        self[row]
    }

    #[inline(always)]
    fn block<'s, const FUSED: bool>(self, block: usize, _: &'s mut [f64; BLOCK_ROWS]) -> &'s [f64; BLOCK_ROWS]
    where
        Self: 's,
    {
        &self.as_chunks().0[block]
    }

    #[inline(always)]
    fn prefetch_behind(self, block: usize) {
        prefetch_chunk_behind::<f64>(&self.as_chunks::<BLOCK_ROWS>().0[block]);
    }

    #[inline(always)]
    fn prefetch_part_behind(self, rows: usize, n: usize) {
        prefetch_part_behind(self, rows, n);
    }

    #[inline(always)]
    fn present(self, rows: usize) -> bool {
        // No early end: a chunk is short, and a loop that always runs to its end is made of wide instructions.
        self[..rows].iter().fold(true, |all, value| all & !value.is_nan())
    }
}

/// Digits, and what they stand for.
#[derive(Clone, Copy)]
pub(crate) struct Decimals<'a, C> {
    digits: &'a [C],
    steps: Steps,
}

impl<'a, C> Decimals<'a, C> {
    pub(crate) fn new(digits: &'a [C], scale: Scale) -> Self {
        Self { digits, steps: scale.steps() }
    }
}

impl<C: Code> Column for Decimals<'_, C> {
    #[inline(always)]
    fn len(self) -> usize {
        self.digits.len()
    }

    #[inline(always)]
    fn value<const FUSED: bool>(self, row: usize) -> f64 {
        one::<FUSED>(self.steps, self.digits[row].into())
    }

    #[inline(always)]
    fn block<'s, const FUSED: bool>(self, block: usize, scratch: &'s mut [f64; BLOCK_ROWS]) -> &'s [f64; BLOCK_ROWS]
    where
        Self: 's,
    {
        let digits: &[C; BLOCK_ROWS] = &self.digits.as_chunks().0[block];
        for (value, &digits) in scratch.iter_mut().zip(digits) {
            *value = one::<FUSED>(self.steps, digits.into());
        }
        scratch
    }

    #[inline(always)]
    fn prefetch_behind(self, block: usize) {
        prefetch_chunk_behind::<C>(&self.digits.as_chunks::<BLOCK_ROWS>().0[block]);
    }

    #[inline(always)]
    fn prefetch_part_behind(self, rows: usize, n: usize) {
        prefetch_part_behind(self.digits, rows, n);
    }

    #[inline(always)]
    fn present(self, rows: usize) -> bool {
        self.digits[..rows].iter().fold(true, |all, digits| all & (digits.index() != 0))
    }
}

/// Runs `$body` with `$column` as the [`Column`] that values are.
macro_rules! by_form {
    ($values:expr, |$column:ident| $body:expr) => {
        match $values {
            $crate::Values::Doubles($column) => $body,
            $crate::Values::U8(digits, scale) => {
                let $column = $crate::values::Decimals::new(digits, scale);
                $body
            }
            $crate::Values::U16(digits, scale) => {
                let $column = $crate::values::Decimals::new(digits, scale);
                $body
            }
            $crate::Values::U32(digits, scale) => {
                let $column = $crate::values::Decimals::new(digits, scale);
                $body
            }
        }
    };
}
pub(crate) use by_form;

/// Whether no value of the first so many rows is absent.
pub(crate) fn all_present(values: Values<'_>, rows: usize) -> bool {
    by_form!(values, |column| present(column, rows))
}

dispatch_fused! { fn present<T: Column>(column: T, rows: usize) -> bool = present_body }

#[inline(always)]
fn present_body<const FUSED: bool, T: Column>(column: T, rows: usize) -> bool {
    column.present(rows)
}
