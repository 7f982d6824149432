//! The contract of a log: what is appended, what is read back, what can go wrong.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use codec::BlockHeader;
use types::{LogIdentity, Offset, PartitionId, TableKey, Timestamp};

/// What an ack of a log means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// An fsync was done.
    Synced,
    /// In at least two in-sync brokers.
    Replicated,
    /// In one broker.
    Broker,
}

impl Durability {
    /// The name in replies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Replicated => "replicated",
            Self::Broker => "broker",
        }
    }
}

/// A block to append. Its header's appender fields are the log's to fill.
#[derive(Debug, Clone)]
pub struct Append {
    /// Header, with the partition that it goes to.
    pub header: BlockHeader,
    /// Body, already checked against the header.
    pub body: Bytes,
}

/// Where a block went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: Offset,
    /// The log's time of it, monotone per partition.
    pub append_time: Timestamp,
}

/// A durable record.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its offset in its partition.
    pub offset: Offset,
    /// The log's time of it, monotone per partition.
    pub append_time: Timestamp,
    /// The block's header, checked.
    pub header: BlockHeader,
    /// The block's body, checked against the header's checksum.
    pub body: Bytes,
}

/// What a partition holds that is durable: offsets `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest offset that can still be read.
    pub start: Offset,
    /// The offset after the newest durable record.
    pub end: Offset,
    /// Append time of the newest durable record; `Timestamp::MIN` where there is none.
    pub last_append_time: Timestamp,
}

/// The log's side of a table's ledger in one partition, all of it as of one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLedger {
    /// Rows of the table that became durable, ever: over all lives of the appender, released records included.
    pub acked_rows: u64,
    /// Rows of the table in the headers of the records from the offset asked for to `end`.
    pub in_flight_rows: u64,
    /// The offset after the newest durable record that both counts include.
    pub end: Offset,
}

/// How full the way into the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Bytes queued and not yet durable.
    pub queued_bytes: u64,
    /// Where `append` starts to refuse.
    pub queued_bytes_max: u64,
}

/// Why an append was refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The queue is full; nothing was appended.
    #[error("log queue is full, retry after {retry_after:?}")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// Nothing of it is durable for sure; it may be: send again with the same identity.
    #[error("log is unavailable: {0}")]
    Unavailable(Arc<std::io::Error>),
    /// The log is shutting down; nothing was appended.
    #[error("log is closed")]
    Closed,
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Records before `start` are gone.
    #[error("offset {wanted} of partition {partition} is gone, the oldest is {start}")]
    Gap {
        /// The partition.
        partition: PartitionId,
        /// The offset asked for.
        wanted: Offset,
        /// The oldest offset there is.
        start: Offset,
    },
    /// No such partition, or an offset behind the end.
    #[error("offset {wanted} of partition {partition} does not exist")]
    NoSuchOffset {
        /// The partition.
        partition: PartitionId,
        /// The offset asked for.
        wanted: Offset,
    },
    /// A stored record is damaged. Those behind it can be read by a reader that starts there.
    #[error("record {offset} of partition {partition} is damaged")]
    Corrupt {
        /// The partition.
        partition: PartitionId,
        /// The record's offset.
        offset: Offset,
        /// The block's header, where that is intact.
        header: Option<Box<BlockHeader>>,
    },
    /// The disk failed.
    #[error("read the log")]
    Io(#[from] std::io::Error),
    /// The log is shutting down.
    #[error("log is closed")]
    Closed,
}

/// The log. Appends are async and durable when they return; reads block and belong on threads of their own.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Which log this is; never changes, and no other log has it. Offsets mean something in one log alone.
    fn identity(&self) -> LogIdentity;

    /// How many partitions there are; never changes.
    fn partitions(&self) -> u32;

    /// What an ack of this log means.
    fn durability(&self) -> Durability;

    /// Appends blocks; returns when all are durable, with their places in the same order. Blocks of one call that go
    /// to one partition keep their order. Dropping the future does not undo the append.
    ///
    /// # Errors
    /// Refused before anything was written, or unknown: see [`AppendError`].
    async fn append(&self, blocks: Vec<Append>) -> Result<Vec<Appended>, AppendError>;

    /// A reader of a partition that starts at `from`, which lies in `[start, end]` of its bounds.
    ///
    /// # Errors
    /// The offset does not exist, or no more.
    fn reader(&self, partition: PartitionId, from: Offset) -> Result<Box<dyn LogReader>, ReadError>;

    /// What is durable in a partition.
    fn bounds(&self, partition: PartitionId) -> Bounds;

    /// Append time of the record at `offset`, if it is durable and still there.
    fn append_time_of(&self, partition: PartitionId, offset: Offset) -> Option<Timestamp>;

    /// The first offset whose append time is at least `time`; the end where there is none.
    fn offset_at(&self, partition: PartitionId, time: Timestamp) -> Offset;

    /// What became durable of a table in a partition, and how much of it lies at or behind `applied`. The two are counted
    /// apart: the first as records become durable, the second from the headers of what waits. Blocks, for about a
    /// microsecond per record that waits and is not in memory any more.
    ///
    /// # Errors
    /// The offset does not exist, or no more; what waits is damaged; the disk failed.
    fn ledger(&self, partition: PartitionId, key: TableKey, applied: Offset) -> Result<LogLedger, ReadError>;

    /// Bytes of the bodies of all records of a partition that became durable in this life of the log. No lock.
    fn appended_bytes(&self, partition: PartitionId) -> u64;

    /// How full the way in is.
    fn load(&self) -> Load;

    /// Permits the log to drop what lies before `offset`; whether and when it does is its own matter.
    fn release_before(&self, partition: PartitionId, offset: Offset);

    /// Refuses further appends, makes what is queued durable and wakes all readers with [`ReadError::Closed`].
    async fn close(&self);
}

/// Reads one partition in offset order.
pub trait LogReader: Send {
    /// The offset of the next record.
    fn position(&self) -> Offset;

    /// Appends the next records to `into`, about `bytes_max` of them, at least one if there is one. Waits at most
    /// `wait` for the first. Returns how many came; 0 where none came in time.
    ///
    /// # Errors
    /// A gap, damage, a failing disk, or the log is closed.
    fn poll(&mut self, bytes_max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<usize, ReadError>;
}
