//! Rows to the blocks of one batch. Reads no clock and sends nothing.

use bytes::Bytes;
use codec::{BatchIdentity, BodyBuilder, EventChecker, EventRef, PartitionKey, TimeLimits};
use types::{Table, Timestamp};
use xxhash_rust::xxh3::xxh3_128;

/// A row of a table.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// µs since the Unix epoch, UTC.
    pub event_time: i64,
    /// Its identity, 1 to 256 bytes; `None`: its batch and its place in it identify it.
    pub event_id: Option<&'a [u8]>,
    /// Name and value of each dimension that it has.
    pub dimensions: &'a [(&'a str, &'a str)],
    /// Name and value of each metric that it has.
    pub metrics: &'a [(&'a str, f64)],
}

/// A batch: the blocks of one request.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// Its place in the producer's sequence.
    pub sequence: u64,
    /// Bodies of blocks, each of one partition.
    pub blocks: Vec<Bytes>,
    /// By index in the request, which of the writer's rows it is.
    pub rows: Vec<u64>,
}

/// Makes batches of rows.
pub(crate) struct Batcher {
    table: Table,
    producer: u128,
    sequence: u64,
    rows_max: usize,
    bytes_max: usize,
    checker: EventChecker,
    builders: Vec<BodyBuilder>,
    /// Per builder, which of the writer's rows it holds.
    rows: Vec<Vec<u64>>,
    batch_rows: usize,
    /// Whether a row of the batch is identified by its place alone.
    by_place: bool,
    taken: u64,
}

/// Rows between two looks at how many bytes the batch has.
const SIZE_CHECK_ROWS: usize = 64;

impl Batcher {
    /// Batches for a table as the server described it.
    pub(crate) fn new(table: Table, producer_id: &str, sequence: u64, rows_max: usize, bytes_max: usize) -> Self {
        let partitions = table.partitions.len();
        Self {
            table,
            producer: xxh3_128(producer_id.as_bytes()),
            sequence,
            rows_max: rows_max.max(1),
            bytes_max,
            checker: EventChecker::default(),
            builders: (0..partitions).map(|_| BodyBuilder::default()).collect(),
            rows: vec![Vec::new(); partitions],
            batch_rows: 0,
            by_place: false,
            taken: 0,
        }
    }

    /// Rows that no batch holds yet.
    pub(crate) fn pending(&self) -> usize {
        self.batch_rows
    }

    /// Adds a row; whether the batch is full then.
    ///
    /// # Errors
    /// What is wrong with the row, which was not added. It counts as taken all the same.
    pub(crate) fn push(&mut self, row: &Row<'_>) -> Result<bool, String> {
        let number = self.taken;
        self.taken += 1;
        let event = EventRef {
            namespace: &self.table.name.namespace,
            table: &self.table.name.table,
            event_time: Some(row.event_time),
            event_id: row.event_id,
            dimensions: row.dimensions,
            metrics: row.metrics,
        };
        // The server knows the time and holds it against the table's limits.
        let any_time = TimeLimits { now: Timestamp(row.event_time), max_age_us: None, max_future_us: i64::MAX };
        self.checker.check(&event, 0, &any_time).map_err(|reject| reject.message)?;
        let identity = BatchIdentity { producer: self.producer, sequence: self.sequence };
        let partition = codec::partition_of(&self.table, PartitionKey::of(&self.table, &event, Some(&identity), 0));
        let at =
            self.table.partitions.binary_search(&partition).expect("the hash chooses among the table's partitions");
        // Rows of a block keep their place in the batch; with several blocks that is not their place in the request.
        let place = u32::try_from(self.batch_rows).map_err(|_| "the batch has too many rows".to_owned())?;
        self.builders[at].push(&event, Timestamp(row.event_time), place).map_err(|error| error.to_string())?;
        self.rows[at].push(number);
        self.batch_rows += 1;
        self.by_place |= row.event_id.is_none();
        Ok(self.is_full())
    }

    /// The batch of what was pushed; `None` where nothing was.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        if self.batch_rows == 0 {
            return None;
        }
        let with_places = self.by_place;
        let blocks = self.builders.iter_mut().filter_map(|builder| builder.finish(with_places));
        let batch = Batch {
            sequence: self.sequence,
            blocks: blocks.map(|body| body.bytes).collect(),
            rows: self.rows.iter_mut().flat_map(|rows| rows.drain(..)).collect(),
        };
        self.sequence += 1;
        self.batch_rows = 0;
        self.by_place = false;
        Some(batch)
    }

    fn is_full(&self) -> bool {
        self.batch_rows >= self.rows_max
            || self.batch_rows.is_multiple_of(SIZE_CHECK_ROWS)
                && self.builders.iter().map(BodyBuilder::bytes).sum::<usize>() >= self.bytes_max
    }
}
