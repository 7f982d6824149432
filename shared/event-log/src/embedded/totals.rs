//! Rows that became durable, per table and partition, over all lives of the log: the `acked` of the ledger.
//!
//! 1. A row is counted once its record is durable, at the place where the record is shown to readers.
//! 2. Counts outlive records: file `n` of records has a file `n.rows` beside it with the counts as of its start, synced
//!    before its first record. Those of the last file's records are counted again at a start.
//! 3. A life of a table that ended is counted no more.
//!
//! A stored file names the end of the file before it, so that it is never taken for the counts as of another place. It
//! holds two copies, each with its own checksum:
//!
//! | at | bytes | field (little-endian) |
//! |---|---|---|
//! | 0 | 4 | magic `TNLR` |
//! | 4 | 4 | format version, 1 |
//! | 8 | 8 | number of the file of records that follows |
//! | 16 | 8 | where the records of the file before it end |
//! | 24 | 8 | number of entries |
//! | 32 | 32 each | tenant (u64), table (u64), generation (u32), partition (u32), rows (u64) |
//! | end | 8 | xxh3-64 of all before |

use std::collections::HashMap;

use codec::BlockHeader;
use types::{Generation, PartitionId, TableId, TableKey, TenantId};
use xxhash_rust::xxh3::xxh3_64;

use crate::rows::dropped_table;

const MAGIC: [u8; 4] = *b"TNLR";
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 32;
const ENTRY_BYTES: usize = 32;

/// Whose rows, and where.
type Of = (TableKey, PartitionId);

/// Rows that became durable, per table and partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RowTotals {
    rows: HashMap<Of, u64>,
}

/// The place for which counts are stored: the start of file `number`, where the file before it ends at `previous_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TotalsAt {
    pub(crate) number: u64,
    pub(crate) previous_end: u64,
}

impl RowTotals {
    /// Rows of a table in a partition.
    pub(crate) fn rows(&self, key: TableKey, partition: PartitionId) -> u64 {
        self.rows.get(&(key, partition)).copied().unwrap_or(0)
    }

    /// Counts a record that is durable.
    pub(crate) fn add(&mut self, header: &BlockHeader, body: &[u8]) {
        match dropped_table(header, body) {
            Some(key) => drop(self.rows.remove(&(key, header.partition))),
            None if header.rows > 0 => {
                *self.rows.entry((header.key, header.partition)).or_default() += u64::from(header.rows);
            }
            None => {}
        }
    }

    /// Counts the records of a whole file.
    pub(crate) fn add_file(&mut self, file: &FileRows) {
        for of in &file.dropped {
            self.rows.remove(of);
        }
        for (of, span) in &file.spans {
            *self.rows.entry(*of).or_default() += span.last - span.before;
        }
    }

    /// As it is stored for a place.
    pub(crate) fn encode(&self, at: TotalsAt) -> Vec<u8> {
        let mut copy = Vec::with_capacity(FIXED_BYTES + ENTRY_BYTES * self.rows.len() + 8);
        copy.extend_from_slice(&MAGIC);
        copy.extend_from_slice(&VERSION.to_le_bytes());
        copy.extend_from_slice(&at.number.to_le_bytes());
        copy.extend_from_slice(&at.previous_end.to_le_bytes());
        copy.extend_from_slice(&(self.rows.len() as u64).to_le_bytes());
        for ((key, partition), rows) in &self.rows {
            copy.extend_from_slice(&key.tenant.0.to_le_bytes());
            copy.extend_from_slice(&key.table.0.to_le_bytes());
            copy.extend_from_slice(&key.generation.0.to_le_bytes());
            copy.extend_from_slice(&partition.0.to_le_bytes());
            copy.extend_from_slice(&rows.to_le_bytes());
        }
        let checksum = xxh3_64(&copy);
        copy.extend_from_slice(&checksum.to_le_bytes());
        copy.repeat(2)
    }

    /// Reads what was stored for a place from whichever copy is intact; `None` where neither is, or it is for another.
    pub(crate) fn decode(bytes: &[u8], at: TotalsAt) -> Option<Self> {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        Self::decode_copy(first, at).or_else(|| Self::decode_copy(second, at))
    }

    fn decode_copy(copy: &[u8], at: TotalsAt) -> Option<Self> {
        let (content, checksum) = copy.split_at(copy.len().checked_sub(8)?);
        let (fixed, entries) = content.split_at_checked(FIXED_BYTES)?;
        let intact = xxh3_64(content).to_le_bytes() == checksum;
        let ours = fixed[0..4] == MAGIC && fixed[4..8] == VERSION.to_le_bytes();
        let found = TotalsAt { number: u64_at(fixed, 8), previous_end: u64_at(fixed, 16) };
        let whole = u64_at(fixed, 24).checked_mul(ENTRY_BYTES as u64) == Some(entries.len() as u64);
        (intact && ours && whole && found == at)
            .then(|| Self { rows: entries.chunks_exact(ENTRY_BYTES).map(entry_of).collect() })
    }
}

/// Rows of the records of one file, all of which one life of the appender wrote.
///
/// Each record says how many rows its appender had written with it, so that what lies between two records is known even
/// where the records between are damaged.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileRows {
    spans: HashMap<Of, Span>,
    /// Lives of tables that ended in the file.
    dropped: Vec<Of>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    /// Rows that the appender had written before the first record.
    before: u64,
    /// Rows that it had written with the last one.
    last: u64,
}

impl FileRows {
    /// Counts a partition's next record; `body` is empty where it is damaged.
    pub(crate) fn add(&mut self, header: &BlockHeader, body: &[u8]) {
        if let Some(key) = dropped_table(header, body) {
            self.spans.remove(&(key, header.partition));
            self.dropped.push((key, header.partition));
        } else if header.rows > 0 {
            let before = header.appender_rows.saturating_sub(u64::from(header.rows));
            let span = self.spans.entry((header.key, header.partition)).or_insert(Span { before, last: before });
            span.last = span.last.max(header.appender_rows);
        }
    }
}

fn entry_of(bytes: &[u8]) -> (Of, u64) {
    let key = TableKey {
        tenant: TenantId(u64_at(bytes, 0)),
        table: TableId(u64_at(bytes, 8)),
        generation: Generation(u32_at(bytes, 16)),
    };
    ((key, PartitionId(u32_at(bytes, 20))), u64_at(bytes, 24))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
