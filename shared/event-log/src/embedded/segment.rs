//! A file of records: what its header says, and how files are named.
//!
//! The header is written and synced before the first record, and again one copy further, so that one damaged sector
//! does not take the file with it:
//!
//! | at | bytes | field (little-endian) |
//! |---|---|---|
//! | 0 | 4 | magic `TNLS` |
//! | 4 | 4 | format version, 1 |
//! | 8 | 8 | number of the file, rising by one |
//! | 16 | 8 | number of the file before it (0: none) |
//! | 24 | 8 | where that file's records end: what lies behind was never acked |
//! | 32 | 4 | partitions |
//! | 36 | 4 | 0 |
//! | 40 | 16 each | per partition: offset of its first record here, append time of its last record before |
//! | end | 8 | xxh3-64 of all before |
//!
//! So a start needs no more than the headers of all files but the last, and no failed group is ever taken for one that
//! succeeded: the next file says where the truth ends.

use types::{Offset, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 4] = *b"TNLS";
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 40;
const PAGE_BYTES: usize = 4_096;

/// Where a partition stands between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stand {
    /// The offset of the next record.
    pub(crate) next: Offset,
    /// Append time of the record before; `Timestamp::MIN` where there was none.
    pub(crate) last_time: Timestamp,
}

impl Stand {
    /// A partition without a record.
    pub(crate) const EMPTY: Self = Self { next: Offset::ZERO, last_time: Timestamp::MIN };
}

/// The header of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) previous: u64,
    pub(crate) previous_end: u64,
    pub(crate) base: Vec<Stand>,
}

impl SegmentHeader {
    /// Both copies, as they lie in the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(copy_bytes(self.base.len()));
        copy.extend_from_slice(&MAGIC);
        copy.extend_from_slice(&VERSION.to_le_bytes());
        copy.extend_from_slice(&self.number.to_le_bytes());
        copy.extend_from_slice(&self.previous.to_le_bytes());
        copy.extend_from_slice(&self.previous_end.to_le_bytes());
        let partitions = u32::try_from(self.base.len()).expect("partitions are counted in 32 bits");
        copy.extend_from_slice(&partitions.to_le_bytes());
        copy.extend_from_slice(&[0; 4]);
        for stand in &self.base {
            copy.extend_from_slice(&stand.next.0.to_le_bytes());
            copy.extend_from_slice(&stand.last_time.0.to_le_bytes());
        }
        let checksum = xxh3_64(&copy);
        copy.extend_from_slice(&checksum.to_le_bytes());
        copy.resize(copy_bytes(self.base.len()), 0);
        copy.repeat(2)
    }

    /// Reads whichever copy is intact; `None` where neither is, or it is one of another number of partitions.
    pub(crate) fn decode(bytes: &[u8], partitions: usize) -> Option<Self> {
        let copy_bytes = copy_bytes(partitions);
        let second = bytes.get(copy_bytes..).unwrap_or_default();
        Self::decode_copy(bytes, partitions).or_else(|| Self::decode_copy(second, partitions))
    }

    fn decode_copy(bytes: &[u8], partitions: usize) -> Option<Self> {
        let checked = FIXED_BYTES + 16 * partitions;
        let stored = bytes.get(checked..checked + 8)?;
        let intact = xxh3_64(&bytes[..checked]).to_le_bytes() == stored;
        let ours = bytes[0..4] == MAGIC && u32_at(bytes, 4) == VERSION && u32_at(bytes, 32) as usize == partitions;
        (intact && ours).then(|| Self {
            number: u64_at(bytes, 8),
            previous: u64_at(bytes, 16),
            previous_end: u64_at(bytes, 24),
            base: bytes[FIXED_BYTES..checked].chunks_exact(16).map(stand_of).collect(),
        })
    }
}

/// Where a file's records begin.
pub(crate) fn records_at(partitions: usize) -> u64 {
    2 * copy_bytes(partitions) as u64
}

/// The name of a file of records.
pub(crate) fn log_name(number: u64) -> String {
    format!("{number:020}.log")
}

/// The name of its index.
pub(crate) fn index_name(number: u64) -> String {
    format!("{number:020}.idx")
}

/// The name of the file with the row counts as of its start.
pub(crate) fn totals_name(number: u64) -> String {
    format!("{number:020}.rows")
}

/// The name of a released file that waits for its next life.
pub(crate) fn spare_name(number: u64) -> String {
    format!("{number:020}.spare")
}

/// The number in a name with that ending (`log`, `idx`, `rows`, `spare`).
pub(crate) fn number_of(name: &str, ending: &str) -> Option<u64> {
    let (digits, rest) = name.split_once('.')?;
    (rest == ending && digits.len() == 20).then(|| digits.parse().ok())?
}

fn copy_bytes(partitions: usize) -> usize {
    (FIXED_BYTES + 16 * partitions + 8).next_multiple_of(PAGE_BYTES)
}

fn stand_of(bytes: &[u8]) -> Stand {
    Stand { next: Offset(u64_at(bytes, 0)), last_time: Timestamp(u64_at(bytes, 8).cast_signed()) }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
