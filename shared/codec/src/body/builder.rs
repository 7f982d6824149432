//! Rows to the columns of one block.
//!
//! An event's columns mostly come in the order of the event before it, so each position first tries the column that it
//! had there; only a miss looks the name up. Columns appear when an event brings them; rows that lack one are filled in
//! as absent when the column is next written to, or at the end. An event that does not enter leaves no column behind:
//! every column holds a value.

use bytes::Bytes;
use hashbrown::HashMap;
use types::{
    AppenderId, ColumnKind, PartitionId, SchemaVersion, TableKey, Timestamp,
    limits::{NAME_BYTES_MAX, TABLE_COLUMNS_MAX},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    ABSENT, BLOCK_BYTES_MAX, BLOCK_ROWS_MAX,
    dictionary::Dictionary,
    write::{BodyColumns, DimensionColumn, IdColumn, MetricColumn, write_body},
};
use crate::{BatchIdentity, BlockHeader, BlockKind, EventRef};

/// Why an event did not enter a block. Nothing of it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The block has all that a block may hold: finish it and push again.
    #[error("the block is full")]
    Full,
    /// A name is a dimension in one event and a metric in another.
    #[error("{name} is a {is} of this table")]
    Kind {
        /// The column.
        name: String,
        /// What it was first.
        is: ColumnKind,
    },
    /// More columns than a table may have.
    #[error("a table has at most {TABLE_COLUMNS_MAX} columns")]
    TooManyColumns,
}

/// A finished body and what a header says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The bytes.
    pub bytes: Bytes,
    /// Events in it.
    pub rows: u32,
    /// The least event time.
    pub time_min: Timestamp,
    /// The greatest event time.
    pub time_max: Timestamp,
    /// Whether some events came without a time and were given one.
    pub times_given: bool,
}

impl Body {
    /// The header of this body, the appender's two fields 0 for the log to fill.
    #[must_use]
    pub fn header(
        &self,
        key: TableKey,
        schema_version: SchemaVersion,
        partition: PartitionId,
        batch: Option<BatchIdentity>,
    ) -> BlockHeader {
        BlockHeader {
            kind: BlockKind::Events,
            key,
            schema_version,
            partition,
            rows: self.rows,
            body_len: u32::try_from(self.bytes.len()).expect("bodies end at BLOCK_BYTES_MAX"),
            body_checksum: xxh3_64(&self.bytes),
            appender: AppenderId(0),
            appender_rows: 0,
            time_min: self.time_min,
            time_max: self.time_max,
            batch,
            times_given: self.times_given,
        }
    }
}

/// Builds the body of one block, event by event. Reusable: [`BodyBuilder::clear`] keeps the memory.
#[derive(Debug)]
pub struct BodyBuilder {
    times: Vec<i64>,
    times_given: bool,
    id_offsets: Vec<u32>,
    id_bytes: Vec<u8>,
    batch_indexes: Vec<u32>,
    dimensions: Vec<DimensionBuffer>,
    metrics: Vec<MetricBuffer>,
    by_name: HashMap<String, (ColumnKind, u32)>,
    // Which column stood at each position of the last event.
    dimension_at: Vec<u32>,
    metric_at: Vec<u32>,
    spare_dimensions: Vec<DimensionBuffer>,
    spare_metrics: Vec<MetricBuffer>,
    bytes: usize,
}

#[derive(Debug)]
struct DimensionBuffer {
    name: String,
    codes: Vec<u32>,
    dictionary: Dictionary,
}

#[derive(Debug)]
struct MetricBuffer {
    name: String,
    values: Vec<f64>,
    has_absent: bool,
}

impl Default for BodyBuilder {
    fn default() -> Self {
        Self {
            times: Vec::new(),
            times_given: false,
            id_offsets: vec![0],
            id_bytes: Vec::new(),
            batch_indexes: Vec::new(),
            dimensions: Vec::new(),
            metrics: Vec::new(),
            by_name: HashMap::new(),
            dimension_at: Vec::new(),
            metric_at: Vec::new(),
            spare_dimensions: Vec::new(),
            spare_metrics: Vec::new(),
            bytes: 0,
        }
    }
}

impl BodyBuilder {
    /// Events pushed since the last [`BodyBuilder::clear`].
    #[must_use]
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// About the bytes of the body so far; never less.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let row = ROW_BYTES + self.dimensions.len() * size_of::<u32>() + self.metrics.len() * size_of::<f64>();
        BODY_BYTES + self.bytes + self.times.len() * row
    }

    /// How many columns the events brought. While it stays the same, so does [`BodyBuilder::columns`].
    #[must_use]
    pub fn column_count(&self) -> usize {
        self.dimensions.len() + self.metrics.len()
    }

    /// The columns that the events brought: dimensions, then metrics, each in order of appearance.
    pub fn columns(&self) -> impl Iterator<Item = (&str, ColumnKind)> {
        let dimensions = self.dimensions.iter().map(|column| (column.name.as_str(), ColumnKind::Dimension));
        dimensions.chain(self.metrics.iter().map(|column| (column.name.as_str(), ColumnKind::Metric)))
    }

    /// Adds an event that was checked. `received` is its time if it has none of its own,
    /// `batch_index` its index in its request.
    ///
    /// # Errors
    /// It did not enter; see [`PushError`].
    pub fn push(&mut self, event: &EventRef<'_>, received: Timestamp, batch_index: u32) -> Result<(), PushError> {
        if self.times.len() >= BLOCK_ROWS_MAX || self.bytes() + self.growth_max(event) > BLOCK_BYTES_MAX {
            return Err(PushError::Full);
        }
        self.resolve(event)?;
        let row = self.times.len();
        self.times.push(event.event_time.unwrap_or(received.0));
        self.times_given |= event.event_time.is_none();
        self.batch_indexes.push(batch_index);
        self.id_bytes.extend_from_slice(event.event_id.unwrap_or_default());
        self.id_offsets.push(self.id_bytes.len() as u32);
        self.bytes += event.event_id.map_or(0, <[u8]>::len);
        for (&(_, value), &column) in event.dimensions.iter().zip(&self.dimension_at) {
            self.bytes += self.dimensions[column as usize].set(row, value);
        }
        for (&(_, value), &column) in event.metrics.iter().zip(&self.metric_at) {
            self.metrics[column as usize].set(row, value);
        }
        Ok(())
    }

    /// The body of what was pushed; `None` if nothing was. The batch's indexes are written if `with_batch_indexes` (the
    /// batch has an identity) and they are not 0, 1, 2 … anyway. Leaves the builder empty.
    #[must_use]
    pub fn finish(&mut self, with_batch_indexes: bool) -> Option<Body> {
        let rows = self.times.len();
        let (&time_min, &time_max) = (self.times.iter().min()?, self.times.iter().max()?);
        self.dimensions.iter_mut().for_each(|column| column.codes.resize(rows, 0));
        self.metrics.iter_mut().for_each(|column| column.fill(rows));
        let counted = self.batch_indexes.iter().zip(0..).all(|(&index, row)| index == row);
        let bytes = write_body(&BodyColumns {
            times: &self.times,
            ids: IdColumn { offsets: &self.id_offsets, bytes: &self.id_bytes },
            batch_indexes: (with_batch_indexes && !counted).then_some(&self.batch_indexes),
            dimensions: self.dimensions.iter().map(DimensionBuffer::column).collect(),
            metrics: self.metrics.iter().map(MetricBuffer::column).collect(),
        });
        let times_given = self.times_given;
        self.clear();
        Some(Body {
            bytes: bytes.into(),
            rows: rows as u32,
            time_min: Timestamp(time_min),
            time_max: Timestamp(time_max),
            times_given,
        })
    }

    /// Bytes of memory that it holds, used or not; [`BodyBuilder::clear`] does not change them.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let dimensions = self.dimensions.iter().chain(&self.spare_dimensions).map(DimensionBuffer::memory_bytes);
        let metrics = self.metrics.iter().chain(&self.spare_metrics).map(MetricBuffer::memory_bytes);
        let small = self.id_offsets.capacity() + self.batch_indexes.capacity();
        self.times.capacity() * size_of::<i64>()
            + small * size_of::<u32>()
            + self.id_bytes.capacity()
            + dimensions.sum::<usize>()
            + metrics.sum::<usize>()
    }

    /// Forgets all events and columns and keeps the memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.times_given = false;
        self.id_offsets.truncate(1);
        self.id_bytes.clear();
        self.batch_indexes.clear();
        self.by_name.clear();
        self.dimension_at.clear();
        self.metric_at.clear();
        self.bytes = 0;
        self.spare_dimensions.append(&mut self.dimensions);
        self.spare_metrics.append(&mut self.metrics);
    }

    /// At least what an event adds to the body, as if all its columns were new ones.
    fn growth_max(&self, event: &EventRef<'_>) -> usize {
        let columns = event.dimensions.len() + event.metrics.len();
        let column_bytes = COLUMN_BYTES + NAME_BYTES_MAX + (self.times.len() + 1) * size_of::<f64>();
        let values: usize = event.dimensions.iter().map(|(_, value)| value.len() + ENTRY_OFFSET_BYTES).sum();
        ROW_BYTES + event.event_id.map_or(0, <[u8]>::len) + values + columns * column_bytes
    }

    /// Finds or makes the column of every name of the event; makes none if there is one that cannot be.
    fn resolve(&mut self, event: &EventRef<'_>) -> Result<(), PushError> {
        let before = (self.dimensions.len(), self.metrics.len(), self.bytes);
        let resolved = self.resolve_names(event);
        if resolved.is_err() {
            self.forget_columns_since(before);
        }
        resolved
    }

    #[cold]
    fn forget_columns_since(&mut self, (dimensions, metrics, bytes): (usize, usize, usize)) {
        for column in self.dimensions.drain(dimensions..) {
            self.by_name.remove(&column.name);
            self.spare_dimensions.push(column);
        }
        for column in self.metrics.drain(metrics..) {
            self.by_name.remove(&column.name);
            self.spare_metrics.push(column);
        }
        self.bytes = bytes;
        // They may name columns that are gone.
        self.dimension_at.clear();
        self.metric_at.clear();
    }

    fn resolve_names(&mut self, event: &EventRef<'_>) -> Result<(), PushError> {
        for (position, &(name, _)) in event.dimensions.iter().enumerate() {
            match self.dimension_at.get(position) {
                Some(&column) if self.dimensions[column as usize].name == name => {}
                _ => {
                    let column = self.column(name, ColumnKind::Dimension)?;
                    put_at(&mut self.dimension_at, position, column);
                }
            }
        }
        for (position, &(name, _)) in event.metrics.iter().enumerate() {
            match self.metric_at.get(position) {
                Some(&column) if self.metrics[column as usize].name == name => {}
                _ => {
                    let column = self.column(name, ColumnKind::Metric)?;
                    put_at(&mut self.metric_at, position, column);
                }
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn column(&mut self, name: &str, kind: ColumnKind) -> Result<u32, PushError> {
        match self.by_name.get(name) {
            Some(&(is, column)) if is == kind => return Ok(column),
            Some(&(is, _)) => return Err(PushError::Kind { name: name.to_owned(), is }),
            None if self.column_count() >= TABLE_COLUMNS_MAX => return Err(PushError::TooManyColumns),
            None => {}
        }
        let column = match kind {
            ColumnKind::Dimension => {
                self.dimensions.push(DimensionBuffer::reuse(self.spare_dimensions.pop(), name));
                self.dimensions.len() - 1
            }
            ColumnKind::Metric => {
                self.metrics.push(MetricBuffer::reuse(self.spare_metrics.pop(), name));
                self.metrics.len() - 1
            }
        };
        self.bytes += COLUMN_BYTES + name.len();
        self.by_name.insert(name.to_owned(), (kind, column as u32));
        Ok(column as u32)
    }
}

/// Header, the directory entries of columns without a name, their padding.
const BODY_BYTES: usize = 128;
/// Time, batch index and the id's offset.
const ROW_BYTES: usize = 16;
/// A directory entry and the most padding of a column's three buffers.
const COLUMN_BYTES: usize = 48;
/// A new value's offset.
const ENTRY_OFFSET_BYTES: usize = 4;

fn put_at(at: &mut Vec<u32>, position: usize, column: u32) {
    match at.get_mut(position) {
        Some(slot) => *slot = column,
        None => at.push(column),
    }
}

impl DimensionBuffer {
    fn reuse(spare: Option<Self>, name: &str) -> Self {
        let mut column =
            spare.unwrap_or_else(|| Self { name: String::new(), codes: Vec::new(), dictionary: Dictionary::new() });
        column.name.clear();
        column.name.push_str(name);
        column.codes.clear();
        column.dictionary.clear();
        column
    }

    fn memory_bytes(&self) -> usize {
        self.codes.capacity() * size_of::<u32>() + self.dictionary.memory_bytes()
    }

    /// Sets a row's value; returns how many bytes the dictionary grew by. Of two values for a row the last stays.
    #[inline]
    fn set(&mut self, row: usize, value: &str) -> usize {
        let before = self.dictionary.offsets().len();
        let code = self.dictionary.code_of(value.as_bytes());
        if self.codes.len() == row {
            self.codes.push(code);
        } else {
            self.codes.resize(row + 1, 0);
            self.codes[row] = code;
        }
        if self.dictionary.offsets().len() > before { value.len() + ENTRY_OFFSET_BYTES } else { 0 }
    }

    fn column(&self) -> DimensionColumn<'_> {
        let (offsets, bytes) = (self.dictionary.offsets(), self.dictionary.bytes());
        DimensionColumn { name: &self.name, codes: &self.codes, offsets, bytes }
    }
}

impl MetricBuffer {
    fn reuse(spare: Option<Self>, name: &str) -> Self {
        let mut column = spare.unwrap_or_else(|| Self { name: String::new(), values: Vec::new(), has_absent: false });
        column.name.clear();
        column.name.push_str(name);
        column.values.clear();
        column.has_absent = false;
        column
    }

    fn memory_bytes(&self) -> usize {
        self.values.capacity() * size_of::<f64>()
    }

    /// Sets a row's value; -0 becomes 0. Of two values for a row the last stays.
    #[inline]
    fn set(&mut self, row: usize, value: f64) {
        let value = value + 0.0;
        if self.values.len() == row {
            self.values.push(value);
        } else {
            self.fill(row);
            self.values.truncate(row);
            self.values.push(value);
        }
    }

    /// Fills up to `rows` with absence.
    fn fill(&mut self, rows: usize) {
        self.has_absent |= self.values.len() < rows;
        if self.values.len() < rows {
            self.values.resize(rows, ABSENT);
        }
    }

    fn column(&self) -> MetricColumn<'_> {
        MetricColumn { name: &self.name, values: &self.values, has_absent: self.has_absent }
    }
}
