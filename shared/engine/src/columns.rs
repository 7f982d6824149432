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

/// Codes of a dimension, one per row; 0 is "absent". Sealed segments hold other small numbers so, too.
#[derive(Debug, Clone, Copy)]
pub enum Codes<'a> {
    /// One byte each.
    U8(&'a [u8]),
    /// Two bytes each.
    U16(&'a [u16]),
    /// Four bytes each.
    U32(&'a [u32]),
}

impl<'a> Codes<'a> {
    /// How many rows there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a segment that is seen has rows")]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(codes) => codes.len(),
            Self::U16(codes) => codes.len(),
            Self::U32(codes) => codes.len(),
        }
    }

    /// Bytes of one of them.
    #[must_use]
    pub fn item_bytes(&self) -> usize {
        match self {
            Self::U8(_) => size_of::<u8>(),
            Self::U16(_) => size_of::<u16>(),
            Self::U32(_) => size_of::<u32>(),
        }
    }

    /// The codes of some rows.
    ///
    /// # Panics
    /// There are no such rows.
    #[must_use]
    pub fn slice(&self, rows: std::ops::Range<usize>) -> Codes<'a> {
        match self {
            Self::U8(codes) => Codes::U8(&codes[rows]),
            Self::U16(codes) => Codes::U16(&codes[rows]),
            Self::U32(codes) => Codes::U32(&codes[rows]),
        }
    }

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

/// Runs `$body` with the codes of some rows, of whichever width.
macro_rules! by_width {
    ($codes:expr, $rows:expr, |$items:ident| $body:expr) => {
        match $codes {
            $crate::columns::Codes::U8(codes) => {
                let $items = &codes[$rows];
                $body
            }
            $crate::columns::Codes::U16(codes) => {
                let $items = &codes[$rows];
                $body
            }
            $crate::columns::Codes::U32(codes) => {
                let $items = &codes[$rows];
                $body
            }
        }
    };
}

pub(crate) use by_width;

/// Where a name and kind stand among the columns.
pub(crate) fn position(columns: &[types::ColumnDef], name: &str, kind: ColumnKind) -> Option<ColumnIndex> {
    let at = columns.iter().position(|column| column.kind == kind && column.name == name)?;
    Some(ColumnIndex(at as u32))
}
