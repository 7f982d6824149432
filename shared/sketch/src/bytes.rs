//! Sketches as bytes: `kind` and `version`, one byte each, then the body. Numbers are little-endian or LEB128 varints.

/// The most rows that a decoded sketch may have taken, so that sums over 65,536 of them stay whole.
pub const ROWS_MAX: u64 = 1 << 48;

const VERSION: u8 = 1;
const VARINT_BYTES_MAX: usize = 10;

/// Why bytes are not the sketch that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside the sketch.
    #[error("the bytes end inside the sketch")]
    Truncated,
    /// Bytes are left behind the sketch.
    #[error("{0} bytes follow the sketch")]
    Trailing(usize),
    /// It is another kind of sketch.
    #[error("sketch of kind {found} instead of {expected}")]
    Kind {
        /// The kind asked for.
        expected: u8,
        /// The kind that is there.
        found: u8,
    },
    /// It was written by a later release.
    #[error("version {0} of a sketch is not known")]
    Version(u8),
    /// No encoder writes this.
    #[error("{0}")]
    Invalid(&'static str),
}

/// What the bytes are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Hll = 1,
    Quantile = 2,
    CountMin = 4,
    HeavyHitters = 5,
    // 3 was a t-digest of another layout.
    TDigest = 6,
}

#[derive(Debug)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(kind: Kind, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity + 2);
        bytes.extend([kind as u8, VERSION]);
        Self(bytes)
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn slice(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what a [`Writer`] wrote, and nothing else.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(kind: Kind, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Self(bytes);
        let (found, version) = (reader.u8()?, reader.u8()?);
        if found != kind as u8 {
            return Err(DecodeError::Kind { expected: kind as u8, found });
        }
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        Ok(reader)
    }

    /// Bytes not yet read.
    pub(crate) fn remaining(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn slice(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn f64(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// The one encoding of a number: no padding, no overflow.
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for at in 0..VARINT_BYTES_MAX {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if at == VARINT_BYTES_MAX - 1 && bits > 1 {
                return Err(DecodeError::Invalid("a number is larger than 64 bits"));
            }
            value |= bits << (7 * at);
            if byte < 0x80 {
                if at > 0 && byte == 0 {
                    return Err(DecodeError::Invalid("a number is padded"));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid("a number is longer than 10 bytes"))
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.0.len())) }
    }
}

/// Adds to a number of rows that came in as bytes.
pub(crate) fn checked_rows(rows: u64, more: u64) -> Result<u64, DecodeError> {
    let rows = rows.checked_add(more).filter(|&rows| rows <= ROWS_MAX);
    rows.ok_or(DecodeError::Invalid("more rows than a sketch may have taken"))
}
