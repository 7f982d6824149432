//! Checksums of rows: of what they say, whatever segments, codes and dictionaries a replica gave them. Replicas that applied the
//! same records have the same sum over a range of event times of which both have all rows.

use std::ops::Range;

use engine::{CHUNK_ROWS, ColumnIndex, SegmentView, TableSnapshot};
use kernels::Selection;
use types::{ApiError, ColumnKind, TimeRange};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::cancel::Cancel;

/// The rows of a range, as one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowsChecksum {
    /// How many there are.
    pub rows: u64,
    /// The sum, modulo 2^128, of each row's hash; so the order of rows does not count, and each row does.
    pub sum: u128,
}

/// The checksum of the rows of a table in one partition with event times in a range, made in small steps: all rows are read, and others
/// may have their turn in between.
pub struct Checksum {
    snapshot: TableSnapshot,
    range: TimeRange,
    summing: Summing,
    /// The segment and the chunk of it that come next.
    next: (usize, usize),
}

impl Checksum {
    /// Of these rows, of which none is added yet.
    #[must_use]
    pub fn new(snapshot: TableSnapshot, range: TimeRange) -> Self {
        let summing = Summing { columns: columns(&snapshot), found: RowsChecksum::default(), row: Vec::new() };
        Self { snapshot, range, summing, next: (0, 0) }
    }

    /// Adds the next rows, at most those of a chunk ([`CHUNK_ROWS`]); `false`: there are no more.
    ///
    /// # Errors
    /// `CANCELLED`, `DEADLINE_EXCEEDED`.
    pub fn step(&mut self, cancel: &Cancel<'_>) -> Result<bool, ApiError> {
        cancel.check()?;
        let (at, chunk) = self.next;
        let Some(segment) = self.snapshot.segments().get(at) else { return Ok(false) };
        self.next = if chunk + 1 < segment.chunks() { (at, chunk + 1) } else { (at + 1, 0) };
        let zone = segment.chunk_zone(chunk);
        if self.range.meets_closed(zone.min, zone.max) {
            let rows = chunk * CHUNK_ROWS..((chunk + 1) * CHUNK_ROWS).min(segment.rows());
            self.summing.add(segment, rows, self.range);
        }
        Ok(true)
    }

    /// The checksum of the rows that were added.
    #[must_use]
    pub fn found(&self) -> RowsChecksum {
        self.summing.found
    }
}

/// A column, and the hash of its name and kind.
struct Column {
    index: ColumnIndex,
    kind: ColumnKind,
    hash: u64,
}

/// The columns in an order that does not depend on which of them came first.
fn columns(snapshot: &TableSnapshot) -> Vec<Column> {
    let column = |(index, def): (ColumnIndex, &types::ColumnDef)| {
        let kind = match def.kind {
            ColumnKind::Dimension => b'd',
            ColumnKind::Metric => b'm',
        };
        let named: Vec<u8> = [kind].into_iter().chain(def.name.bytes()).collect();
        Column { index, kind: def.kind, hash: xxh3_64(&named) }
    };
    let mut columns: Vec<Column> = snapshot.numbered_columns().map(column).collect();
    columns.sort_unstable_by_key(|column| column.hash);
    columns
}

struct Summing {
    columns: Vec<Column>,
    found: RowsChecksum,
    /// Scratch: a row as bytes.
    row: Vec<u8>,
}

impl Summing {
    fn add(&mut self, segment: &SegmentView, rows: Range<usize>, range: TimeRange) {
        let mut selection = Selection::all(rows.len());
        segment.times().narrow(&mut selection, rows.clone(), range.start().0, range.end().0);
        let mut list = [0; CHUNK_ROWS];
        for &row in selection.list(&mut list) {
            self.write(segment, rows.start + usize::from(row));
            self.found.rows += 1;
            self.found.sum = self.found.sum.wrapping_add(xxh3_128(&self.row));
        }
    }

    /// Writes a row: where it came from, its time, and the columns that are present; each part's bytes tell where it ends.
    fn write(&mut self, segment: &SegmentView, row: usize) {
        let (offset, block_row) = segment.origin(row);
        self.row.clear();
        self.row.extend_from_slice(&offset.0.to_le_bytes());
        self.row.extend_from_slice(&block_row.to_le_bytes());
        self.row.extend_from_slice(&segment.times().get(row).to_le_bytes());
        for column in &self.columns {
            match column.kind {
                ColumnKind::Dimension => {
                    let code = segment.codes(column.index).map(|codes| codes.get(row));
                    let value = code.and_then(|code| segment.dictionary(column.index)?.get(code));
                    if let Some(value) = value {
                        self.row.extend_from_slice(&column.hash.to_le_bytes());
                        self.row.extend_from_slice(&(value.len() as u64).to_le_bytes());
                        self.row.extend_from_slice(value.as_bytes());
                    }
                }
                ColumnKind::Metric => {
                    let value = segment.metric(column.index).map(|values| values.get(row));
                    if let Some(value) = value.filter(|value| !value.is_nan()) {
                        self.row.extend_from_slice(&column.hash.to_le_bytes());
                        self.row.extend_from_slice(&value.to_le_bytes());
                    }
                }
            }
        }
    }
}
