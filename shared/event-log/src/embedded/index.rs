//! Where the records of one file lie, per partition, and how that is kept beside the file when it is complete.
//!
//! The stored index is a convenience: it is checksummed, never synced, and made again from the file where it is missing
//! or damaged.
//!
//! | at | bytes | field (little-endian) |
//! |---|---|---|
//! | 0 | 4 | magic `TNLI` |
//! | 4 | 4 | format version, 1 |
//! | 8 | 8 | number of the file |
//! | 16 | 8 | where the file's records end |
//! | 24 | 4 | partitions |
//! | 28 | 4 | 0 |
//! | 32 | 8 each | per partition: number of entries |
//! | | 16 each | entries: position / 8 (u32), body length (u32), append time (i64) |
//! | end | 8 | xxh3-64 of all before |

use types::{Offset, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    frame::{ALIGN, stored_bytes},
    segment::Stand,
};

const MAGIC: [u8; 4] = *b"TNLI";
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 32;
const ENTRY_BYTES: usize = 16;
const HOLE: u32 = u32::MAX;

/// The longest file that an index can speak of, bytes.
pub(crate) const FILE_BYTES_MAX: u64 = (HOLE as u64 - 1) * ALIGN;

/// Where one record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    position: u32,
    pub(crate) body_len: u32,
    pub(crate) append_time: Timestamp,
}

impl Entry {
    /// A record at a position of the file, in bytes.
    pub(crate) fn at(position: u64, body_len: u32, append_time: Timestamp) -> Self {
        debug_assert!(position.is_multiple_of(ALIGN) && position <= FILE_BYTES_MAX);
        let position = u32::try_from(position / ALIGN).expect("files are shorter than FILE_BYTES_MAX");
        Self { position, body_len, append_time }
    }

    /// A record that was there and cannot be found any more.
    pub(crate) const fn hole(append_time: Timestamp) -> Self {
        Self { position: HOLE, body_len: 0, append_time }
    }

    /// The record's position in the file, in bytes; `None` for a hole.
    pub(crate) fn position(self) -> Option<u64> {
        (self.position != HOLE).then(|| u64::from(self.position) * ALIGN)
    }

    /// The position after the record; `None` for a hole.
    pub(crate) fn end(self) -> Option<u64> {
        self.position().map(|position| position + stored_bytes(self.body_len))
    }
}

/// Where the records of one file lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileIndex {
    base: Vec<Stand>,
    entries: Vec<Vec<Entry>>,
}

impl FileIndex {
    /// Of a file without records.
    pub(crate) fn new(base: Vec<Stand>) -> Self {
        let entries = vec![Vec::new(); base.len()];
        Self { base, entries }
    }

    /// Where a partition stands before the file's records.
    pub(crate) fn base(&self, partition: usize) -> Stand {
        self.base[partition]
    }

    /// Where a partition stands after the file's records.
    pub(crate) fn end(&self, partition: usize) -> Stand {
        let base = self.base[partition];
        let entries = &self.entries[partition];
        Stand {
            next: Offset(base.next.0 + entries.len() as u64),
            last_time: entries.last().map_or(base.last_time, |entry| entry.append_time),
        }
    }

    /// Where all partitions stand after the file's records.
    pub(crate) fn ends(&self) -> Vec<Stand> {
        (0..self.base.len()).map(|partition| self.end(partition)).collect()
    }

    /// Adds a partition's next record.
    pub(crate) fn push(&mut self, partition: usize, entry: Entry) {
        self.entries[partition].push(entry);
    }

    /// Adds holes until the partition stands at `next`; returns how many.
    pub(crate) fn push_holes(&mut self, partition: usize, next: Offset) -> u64 {
        let stand = self.end(partition);
        let missing = next.0.saturating_sub(stand.next.0);
        let holes = std::iter::repeat_n(Entry::hole(stand.last_time), usize::try_from(missing).unwrap_or(0));
        self.entries[partition].extend(holes);
        missing
    }

    /// A partition's entries from `offset`, which this file must not lie behind.
    pub(crate) fn from(&self, partition: usize, offset: Offset) -> &[Entry] {
        let skip = usize::try_from(offset.0 - self.base[partition].next.0).unwrap_or(usize::MAX);
        self.entries[partition].get(skip..).unwrap_or_default()
    }

    /// The first offset of the partition with an append time of at least `time`; its end in this file where none is.
    pub(crate) fn offset_at(&self, partition: usize, time: Timestamp) -> Offset {
        let before = self.entries[partition].partition_point(|entry| entry.append_time < time);
        Offset(self.base[partition].next.0 + before as u64)
    }

    /// Bytes that it takes in memory, about.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let entries: usize = self.entries.iter().map(Vec::len).sum();
        (entries * ENTRY_BYTES + self.base.len() * 64) as u64
    }

    /// As it is stored beside file `number`, whose records end at `log_end`.
    pub(crate) fn encode(&self, number: u64, log_end: u64) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&log_end.to_le_bytes());
        let partitions = u32::try_from(self.base.len()).expect("partitions are counted in 32 bits");
        out.extend_from_slice(&partitions.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for entries in &self.entries {
            out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
        }
        for entry in self.entries.iter().flatten() {
            out.extend_from_slice(&entry.position.to_le_bytes());
            out.extend_from_slice(&entry.body_len.to_le_bytes());
            out.extend_from_slice(&entry.append_time.0.to_le_bytes());
        }
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads the stored index of file `number` with that base; returns it with the end of the file's records. `None`
    /// unless it is intact and that file's.
    pub(crate) fn decode(bytes: &[u8], number: u64, base: Vec<Stand>) -> Option<(Self, u64)> {
        let checked = bytes.len().checked_sub(8)?;
        let (content, checksum) = bytes.split_at(checked);
        let intact = xxh3_64(content).to_le_bytes() == checksum;
        let (fixed, rest) = content.split_at_checked(FIXED_BYTES)?;
        let ours = fixed[0..4] == MAGIC && fixed[4..8] == VERSION.to_le_bytes() && u64_at(fixed, 8) == number;
        let (counts, mut entries) = rest.split_at_checked(base.len() * 8)?;
        if !intact || !ours || u64_at(fixed, 24) != base.len() as u64 {
            return None;
        }
        let mut index = Self::new(base);
        for (partition, count) in counts.chunks_exact(8).enumerate() {
            let bytes = usize::try_from(u64_at(count, 0)).ok()?.checked_mul(ENTRY_BYTES)?;
            let (own, rest) = entries.split_at_checked(bytes)?;
            index.entries[partition] = own.chunks_exact(ENTRY_BYTES).map(entry_of).collect();
            entries = rest;
        }
        entries.is_empty().then_some((index, u64_at(fixed, 16)))
    }
}

fn entry_of(bytes: &[u8]) -> Entry {
    let both = u64_at(bytes, 0);
    Entry {
        position: (both & u64::from(u32::MAX)) as u32,
        body_len: (both >> 32) as u32,
        append_time: Timestamp(u64_at(bytes, 8).cast_signed()),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
