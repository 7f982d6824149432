//! Columns of a table within one partition: their numbers, and how codes are read.

use types::ColumnKind;

/// A column's number in its table and partition; it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ColumnIndex(pub(crate) u32);

impl ColumnIndex {
    /// As an index into [`crate::TableSnapshot::columns`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Bytes of one code in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Width {
    /// Up to 255 strings.
    One,
    /// Up to 65,535.
    Two,
    /// More.
    Four,
}

impl Width {
    /// The smallest that holds codes up to `code_max`.
    pub(crate) fn for_codes(code_max: usize) -> Self {
        match code_max {
            0..=0xff => Self::One,
            0x100..=0xffff => Self::Two,
            _ => Self::Four,
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// Codes of a dimension, one per row; 0 is "absent".
#[derive(Debug, Clone, Copy)]
pub enum Codes<'a> {
    /// One byte each.
    U8(&'a [u8]),
    /// Two bytes each.
    U16(&'a [u16]),
    /// Four bytes each.
    U32(&'a [u32]),
}

impl Codes<'_> {
    /// The code of a row. Scans match on the width once instead.
    ///
    /// # Panics
    /// There is no such row.
    #[must_use]
    pub fn get(&self, row: usize) -> u32 {
        match self {
            Self::U8(codes) => u32::from(codes[row]),
            Self::U16(codes) => u32::from(codes[row]),
            Self::U32(codes) => codes[row],
        }
    }
}

/// Where a name and kind stand among the columns.
pub(crate) fn position(columns: &[types::ColumnDef], name: &str, kind: ColumnKind) -> Option<ColumnIndex> {
    let at = columns.iter().position(|column| column.kind == kind && column.name == name)?;
    Some(ColumnIndex(at as u32))
}
