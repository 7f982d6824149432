//! Where things stand in a body: header, directory entries, and the order in which buffers follow.

use super::BlockError;

/// Bytes of the body's header: rows u32, columns u16, ten zero bytes.
pub(super) const BODY_HEADER_BYTES: usize = 16;
/// Bytes of one directory entry.
pub(super) const ENTRY_BYTES: usize = 16;
/// Every buffer starts at a multiple of this.
pub(super) const BUFFER_ALIGN: usize = 8;
/// Flag of a metric's entry: at least one row is absent.
pub(super) const FLAG_HAS_ABSENT: u8 = 1;
/// Width of an id column whose ids are all present and all of this length.
pub(super) const FIXED_ID_BYTES: usize = 16;

/// What a column of a body is. The number is the byte in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnType {
    EventTime = 0,
    EventId = 1,
    Dimension = 2,
    Metric = 3,
    BatchIndex = 4,
}

impl ColumnType {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::EventTime, Self::EventId, Self::Dimension, Self::Metric, Self::BatchIndex]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    /// Columns stand in the body by ascending rank; of the first three there is at most one.
    pub(super) fn rank(self) -> u8 {
        match self {
            Self::EventTime => 0,
            Self::EventId => 1,
            Self::BatchIndex => 2,
            Self::Dimension => 3,
            Self::Metric => 4,
        }
    }

    pub(super) fn is_named(self) -> bool {
        matches!(self, Self::Dimension | Self::Metric)
    }
}

/// One entry of the directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) kind: ColumnType,
    pub(super) width: u8,
    pub(super) flags: u8,
    pub(super) name_len: u8,
    /// Entries of a dictionary; else 0.
    pub(super) entries: u32,
    /// Bytes of a dictionary's text or of ids of variable length; else 0.
    pub(super) bytes: u32,
}

impl Entry {
    pub(super) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[0] = self.kind as u8;
        out[1] = self.width;
        out[2] = self.flags;
        out[3] = self.name_len;
        out[4..8].copy_from_slice(&self.entries.to_le_bytes());
        out[8..12].copy_from_slice(&self.bytes.to_le_bytes());
        out
    }

    pub(super) fn decode(column: usize, raw: &[u8; ENTRY_BYTES]) -> Result<Self, BlockError> {
        let kind = ColumnType::from_byte(raw[0]).ok_or(BlockError::Kind { column, kind: raw[0] })?;
        if raw[12..] != [0; 4] {
            return Err(BlockError::Directory { column, field: "reserved" });
        }
        Ok(Self {
            kind,
            width: raw[1],
            flags: raw[2],
            name_len: raw[3],
            entries: u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]),
            bytes: u32::from_le_bytes([raw[8], raw[9], raw[10], raw[11]]),
        })
    }
}

/// The smallest width of codes `0..=entries`, in bytes.
pub(super) const fn code_width(entries: usize) -> u8 {
    if entries <= u8::MAX as usize {
        1
    } else if entries <= u16::MAX as usize {
        2
    } else {
        4
    }
}

/// Hands out the parts of a body one after the other.
pub(super) struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0 }
    }

    /// The next `len` bytes, from here on.
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], BlockError> {
        // Both are below 2^37 (a count below 2^32 times at most 16), so the sum cannot overflow.
        let end = self.at + len;
        let part = self.body.get(self.at..end).ok_or(BlockError::Short { needed: end, len: self.body.len() })?;
        self.at = end;
        Ok(part)
    }

    /// The next `count` items of `N` bytes, after zeros up to the next multiple of [`BUFFER_ALIGN`].
    pub(super) fn buffer<const N: usize>(&mut self, count: usize) -> Result<&'a [[u8; N]], BlockError> {
        let padding = self.at.next_multiple_of(BUFFER_ALIGN) - self.at;
        if self.take(padding)?.iter().any(|&byte| byte != 0) {
            return Err(BlockError::NotZero(self.at));
        }
        let (items, rest) = self.take(count * N)?.as_chunks::<N>();
        debug_assert!(rest.is_empty(), "a multiple of N was taken");
        Ok(items)
    }

    /// Everything must have been handed out.
    pub(super) fn finish(self) -> Result<(), BlockError> {
        match self.body.len() - self.at {
            0 => Ok(()),
            rest => Err(BlockError::Trailing(rest)),
        }
    }
}
