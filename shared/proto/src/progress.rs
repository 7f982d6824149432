//! The watermark service as other services see it: how far each partition is, measured from the log's side.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use types::{ApiError, Offset, PartitionId, Table, Timestamp};

/// A partition's progress for one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The partition.
    pub partition: PartitionId,
    /// The offset after its newest durable record.
    pub log_end: Offset,
    /// The offset of the record to be applied next.
    pub next_offset: Offset,
    /// The greatest event time of the table seen there; `None` where there was no event.
    pub event_time_max: Option<Timestamp>,
    /// Now minus the append time of the first durable record that is not applied, µs; 0 where there is none.
    pub freshness_us: i64,
}

/// A table's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableProgress {
    /// Per partition of the table, ascending.
    pub partitions: Vec<PartitionProgress>,
    /// The least, over the partitions with events in the last 10 s, of the greatest event time seen; where none has any,
    /// the greatest seen; `None` where there never was an event.
    pub watermark: Option<Timestamp>,
    /// The greatest freshness of its partitions, µs.
    pub freshness_us: i64,
}

/// How far the application of the log is behind what came in since this process started, over all partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Bytes of the bodies of records that wait.
    pub bytes: u64,
    /// Age of the record that waits longest; 0 where none waits. What the log held before the start counts from the start on.
    pub age: Duration,
}

/// The lag as it was a moment ago, for those who ask with every request: answers at once, without a lock.
pub trait ApplyLag: Send + Sync + 'static {
    /// The lag.
    fn lag(&self) -> Lag;
}

/// The lag of one partition on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition.
    pub partition: PartitionId,
    /// How far its application here is behind.
    pub lag: Lag,
}

/// The lags of a node's partitions as they were a moment ago. Answers at once.
pub trait PartitionLags: Send + Sync + 'static {
    /// The lag of each partition.
    fn lags(&self) -> Arc<Vec<PartitionLag>>;
}

/// Progress of tables.
#[async_trait]
pub trait Progress: Send + Sync + 'static {
    /// Progress of one table.
    ///
    /// # Errors
    /// `UNAVAILABLE` where a partition's node or the log cannot be asked.
    async fn table(&self, table: &Table) -> Result<TableProgress, ApiError>;

    /// The low watermark over the partitions of all of these tables together; `None` where there never was an event.
    ///
    /// # Errors
    /// As [`Progress::table`].
    async fn watermark(&self, tables: &[Arc<Table>]) -> Result<Option<Timestamp>, ApiError>;

    /// Freshness at `as_of` of an answer that covers the records before these offsets: `as_of` minus the append time of
    /// the first record that was durable by then and is not covered, µs; 0 where there is none.
    ///
    /// # Errors
    /// `UNAVAILABLE` where the log cannot be asked.
    async fn freshness_us(&self, covered: Vec<(PartitionId, Offset)>, as_of: Timestamp) -> Result<i64, ApiError>;
}
