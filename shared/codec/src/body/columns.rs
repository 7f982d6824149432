//! Columns of a body as they are read: little-endian items of fixed width, in place, aligned or not.

/// Event times, µs since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct Times<'a>(pub(super) &'a [[u8; 8]]);

impl<'a> Times<'a> {
    /// The time of a row. Panics beyond the last row.
    #[must_use]
    #[inline]
    pub fn get(&self, row: usize) -> i64 {
        i64::from_le_bytes(self.0[row])
    }

    /// All times, in row order.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = i64> + Clone + use<'a> {
        self.0.iter().map(|raw| i64::from_le_bytes(*raw))
    }

    /// The least and the greatest time.
    #[must_use]
    pub fn min_max(&self) -> (i64, i64) {
        self.iter().fold((i64::MAX, i64::MIN), |(min, max), time| (min.min(time), max.max(time)))
    }
}

/// Event ids: 16 bytes each and all present, or of any length with some absent.
#[derive(Debug, Clone, Copy)]
pub enum Ids<'a> {
    /// Every row has an id of 16 bytes.
    Fixed(&'a [[u8; 16]]),
    /// Row `i` has the bytes from offset `i` to offset `i + 1`; none: it has no id.
    Variable {
        /// `rows + 1` offsets, u32.
        offsets: &'a [[u8; 4]],
        /// The ids, back to back.
        bytes: &'a [u8],
    },
}

impl<'a> Ids<'a> {
    /// The id of a row, if it has one. Panics beyond the last row.
    #[must_use]
    #[inline]
    pub fn get(&self, row: usize) -> Option<&'a [u8]> {
        match self {
            Self::Fixed(ids) => Some(&ids[row]),
            Self::Variable { offsets, bytes } => Some(between(offsets, bytes, row)).filter(|id| !id.is_empty()),
        }
    }
}

/// The events' indexes in their original batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchIndexes<'a>(pub(super) &'a [[u8; 4]]);

impl<'a> BatchIndexes<'a> {
    /// The index of a row. Panics beyond the last row.
    #[must_use]
    #[inline]
    pub fn get(&self, row: usize) -> u32 {
        u32::from_le_bytes(self.0[row])
    }

    /// All indexes, in row order.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + Clone + use<'a> {
        self.0.iter().map(|raw| u32::from_le_bytes(*raw))
    }
}

/// Codes of a dimension, of the smallest width that fits. 0 is absent, `k` is entry `k - 1`.
#[derive(Debug, Clone, Copy)]
pub enum Codes<'a> {
    /// Up to 255 entries.
    U8(&'a [u8]),
    /// Up to 65,535 entries; little-endian.
    U16(&'a [[u8; 2]]),
    /// More; little-endian.
    U32(&'a [[u8; 4]]),
}

impl<'a> Codes<'a> {
    /// The code of a row. Panics beyond the last row.
    #[must_use]
    #[inline]
    pub fn get(&self, row: usize) -> u32 {
        match self {
            Self::U8(codes) => u32::from(codes[row]),
            Self::U16(codes) => u32::from(u16::from_le_bytes(codes[row])),
            Self::U32(codes) => u32::from_le_bytes(codes[row]),
        }
    }

    /// Calls `each` with every code in row order; the width is looked at once.
    #[inline]
    pub fn for_each(&self, mut each: impl FnMut(u32)) {
        match self {
            Self::U8(codes) => codes.iter().for_each(|&code| each(u32::from(code))),
            Self::U16(codes) => codes.iter().for_each(|&code| each(u32::from(u16::from_le_bytes(code)))),
            Self::U32(codes) => codes.iter().for_each(|&code| each(u32::from_le_bytes(code))),
        }
    }

    /// The greatest code; 0 over no rows. By value, so that the compiler takes many at a time.
    pub(super) fn max(&self) -> u32 {
        match self {
            Self::U8(codes) => codes.iter().fold(0, |max: u8, code| max.max(*code)).into(),
            Self::U16(codes) => codes.iter().fold(0, |max: u16, code| max.max(u16::from_le_bytes(*code))).into(),
            Self::U32(codes) => codes.iter().fold(0, |max: u32, code| max.max(u32::from_le_bytes(*code))),
        }
    }
}

/// A dimension: codes into its own dictionary.
#[derive(Debug, Clone, Copy)]
pub struct DimensionView<'a> {
    pub(super) name: &'a str,
    pub(super) codes: Codes<'a>,
    pub(super) offsets: &'a [[u8; 4]],
    pub(super) text: &'a str,
}

impl<'a> DimensionView<'a> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// A code per row.
    #[must_use]
    pub fn codes(&self) -> Codes<'a> {
        self.codes
    }

    /// How many entries the dictionary has; they need be neither distinct nor used.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.offsets.len() - 1
    }

    /// An entry of the dictionary, from 0: that of code `entry + 1`. Panics beyond the last.
    #[must_use]
    #[inline]
    pub fn entry(&self, entry: usize) -> &'a str {
        &self.text[offset(self.offsets, entry)..offset(self.offsets, entry + 1)]
    }

    /// The value of a row, if it has one. Panics beyond the last row.
    #[must_use]
    #[inline]
    pub fn value(&self, row: usize) -> Option<&'a str> {
        match self.codes.get(row) {
            0 => None,
            code => Some(self.entry(code as usize - 1)),
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct MetricView<'a> {
    pub(super) name: &'a str,
    pub(super) values: F64s<'a>,
    pub(super) has_absent: bool,
}

impl<'a> MetricView<'a> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// A value per row; [`crate::ABSENT`] where the row has none.
    #[must_use]
    pub fn values(&self) -> F64s<'a> {
        self.values
    }

    /// Whether any row has no value.
    #[must_use]
    pub fn has_absent(&self) -> bool {
        self.has_absent
    }
}

/// Values of a metric.
#[derive(Debug, Clone, Copy)]
pub struct F64s<'a>(pub(super) &'a [[u8; 8]]);

impl<'a> F64s<'a> {
    /// The value of a row, [`crate::ABSENT`] where it has none. Panics beyond the last row.
    #[must_use]
    #[inline]
    pub fn get(&self, row: usize) -> f64 {
        f64::from_le_bytes(self.0[row])
    }

    /// All values, in row order.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = f64> + Clone + use<'a> {
        self.0.iter().map(|raw| f64::from_le_bytes(*raw))
    }
}

#[inline]
pub(super) fn offset(offsets: &[[u8; 4]], at: usize) -> usize {
    u32::from_le_bytes(offsets[at]) as usize
}

#[inline]
fn between<'a>(offsets: &[[u8; 4]], bytes: &'a [u8], at: usize) -> &'a [u8] {
    &bytes[offset(offsets, at)..offset(offsets, at + 1)]
}
